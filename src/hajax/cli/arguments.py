"""Arguments of commands that take directories and `--name value` options, with errors of one line."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hajax.runs.errors import Refusal, user_path
from hajax.runs.settings import checked
from hajax.validation import nearest


class Option(NamedTuple):
    """An option's kind (as in `settings.KINDS`, or `flag`), default and least value."""

    kind: str
    default: Any
    low: int | None = None


class Arguments(NamedTuple):
    """The arguments of a command: its directories, and a value for every option."""

    directories: list[str]
    values: dict[str, Any]


def parse_arguments(
    command: str, usage: str, arguments: Sequence[str], options: Mapping[str, Option], *, directories: int | None
) -> Arguments | None:
    """The checked arguments; `None` after printing the help.

    `directories` is how many directories the command takes, `None` for one or more. An option is `--name value` or
    `--name=value`; a flag is `--name`.

    Raises:
        Refusal: an unknown option, a value that isn't allowed, or the wrong number of directories.
    """
    if {"-h", "--help"}.intersection(arguments):
        print(usage, end="")
        return None
    values = {name: option.default for name, option in options.items()}
    found: list[str] = []
    left = list(arguments)
    while left:
        name, equals, text = left.pop(0).partition("=")
        if not name.startswith("-"):
            found.append(name + equals + text)
            continue
        if name not in options:
            close = nearest(name, options)
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            raise Refusal(f"{name} is not a flag of `hajax {command}`; {hint}allowed: {', '.join(options)}, --help")
        if options[name].kind == "flag":
            values[name] = True
        elif equals or left:
            values[name] = _value(name, text if equals else left.pop(0), options[name])
        else:
            raise Refusal(f"{name} has no value; allowed: {name} VALUE")
    if not found or (directories is not None and len(found) != directories):
        count = "one or more directories" if directories is None else f"{directories} directory"
        raise Refusal(f"{len(found)} directories given to `hajax {command}`; allowed: {count}, as `hajax train` wrote")
    return Arguments(found, values)


def writable(output: str | None, default: Path) -> Path:
    """The path of the file to write, `--output` or the default, checked before the work is done."""
    path = default if output is None else user_path(output)
    if output is not None and not path.parent.is_dir():
        raise Refusal(f"--output={path}: there is no directory {path.parent}; allowed: a file in one that exists")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        name = path if output is None else f"--output={path}"
        raise Refusal(f"{name} can't be written to; allowed: --output=FILE in a directory of yours")
    return path


def typed_options(values: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """The options that were given, by the names of the library's arguments, for `refusing`."""
    names = {"seed": "--seed", "checkpoint": "--checkpoint", "num_episodes": "--episodes", "max_steps": "--max-steps"}
    return {name: (option, values[option]) for name, option in names.items() if values.get(option) is not None}


def _value(name: str, text: str, option: Option) -> Any:
    value: Any = text
    if option.kind.startswith("int"):
        with contextlib.suppress(ValueError):
            value = int(text)
    return checked(name, value, option.kind, option.low)
