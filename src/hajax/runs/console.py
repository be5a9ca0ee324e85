"""Consoles of the command line, which print text without interpreting markup."""

from __future__ import annotations

from rich.console import Console


def console(*, stderr: bool = False, plain: bool = False) -> Console:
    """A console for results (standard output) or for everything else; `[word]` and `:word:` are not markup.

    A `plain` one writes lines of text in a notebook too, whose kernel claims to be a terminal.
    """
    forced = False if plain else None
    return Console(
        stderr=stderr, highlight=False, markup=False, emoji=False, force_jupyter=forced, force_terminal=forced
    )
