"""`hajax list`: algorithms, environments and presets."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from rich.table import Table

from hajax.runs import config
from hajax.runs.console import console
from hajax.runs.errors import Refusal, one_of

TITLES = {"algo": "algorithms", "env": "environments", "preset": "presets"}
USAGE = """\
usage: hajax list [algorithms | environments | presets] [PATTERN]

Shows what `hajax train` takes as algo=NAME, env=NAME and preset=NAME, and what
each is.

  hajax list algorithms
  hajax list environments ant      names or descriptions that hold a text
  hajax list presets 'harl/mpe*'   names of a pattern with * or ?

`hajax train --help algo=NAME` shows every setting of it, and likewise for
env=NAME and preset=NAME.
"""


def list_everything(arguments: Sequence[str]) -> int:
    """Prints the algorithms, environments and presets, or those that are asked for."""
    if set(arguments) & {"-h", "--help"}:
        print(USAGE, end="")
        return 0
    titles = list(TITLES.values())
    kind = arguments[0] if arguments and arguments[0] in titles else None
    patterns = list(arguments[1:] if kind else arguments)
    if len(patterns) > 1:
        if kind is None:
            raise Refusal(one_of("group", patterns[0], titles))
        raise Refusal(f"{patterns[1]} is one pattern too many for `hajax list`; allowed: one")
    pattern = patterns[0] if patterns else ""
    screen, found = console(), False
    for group, title in TITLES.items():
        rows = [row for row in described(group) if matches(pattern, *row)] if kind in (None, title) else []
        if not rows:
            continue
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for row in rows:
            table.add_row(*row)
        screen.print(f"{'' if not found else chr(10)}{title} ({group}=NAME)")
        screen.print(table)
        found = True
    if not found:
        among = kind or "algorithms, environments and presets"
        raise Refusal(f"no name or description holds {pattern}; allowed: a text or a pattern of {among}")
    return 0


def described(group: str) -> list[tuple[str, str]]:
    """The names of a group and what they are."""
    rows = [(option, config.description(group, option)) for option in config.options(group)]
    return rows + (list(config.environments_elsewhere().items()) if group == "env" else [])


def matches(pattern: str, name: str, text: str) -> bool:
    """Whether the name fits a pattern with `*` or `?`, or the name or the text holds it."""
    pattern = pattern.lower()
    if set(pattern) & {"*", "?"}:
        return fnmatchcase(name.lower(), pattern)
    return pattern in name.lower() or pattern in text.lower()
