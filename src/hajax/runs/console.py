"""Where the command line prints: consoles that show text as it is given."""

from __future__ import annotations

from rich.console import Console


def console(*, stderr: bool = False) -> Console:
    """A console for results (standard output) or for everything else; `[word]` and `:word:` are no markup there."""
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)
