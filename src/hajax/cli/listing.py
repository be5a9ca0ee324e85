"""`hajax list`: algorithms, environments and presets."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from hajax.runs import config
from hajax.runs.console import console
from hajax.runs.errors import Refusal

TITLES = {"algo": "algorithms", "env": "environments", "preset": "presets"}


def list_everything(arguments: Sequence[str]) -> int:
    """Prints a table of algorithms, environments and presets."""
    if set(arguments) & {"-h", "--help"}:
        print("usage: hajax list\n\nShows the algorithms, environments and presets that `hajax train` takes.")
        return 0
    if arguments:
        raise Refusal(f"{arguments[0]} is not an argument of `hajax list`; allowed: none")
    table = Table(title="hajax train algo=… env=… preset=…", title_justify="left", show_lines=False)
    for column in ("", "name", "what it is"):
        table.add_column(column, overflow="fold")
    for group, title in TITLES.items():
        for index, option in enumerate(config.options(group)):
            table.add_row(title if index == 0 else "", option, config.description(group, option))
        for name, text in config.environments_elsewhere().items() if group == "env" else ():
            table.add_row("", name, text)
        table.add_section()
    console().print(table)
    return 0
