"""Refusals: what the command line says, in one line, about a request that it can't carry out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from hajax.validation import nearest


class Refusal(ValueError):
    """A request refused before anything was written. Its text is one line: field, value and what is allowed."""

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))


@contextmanager
def refusing(kinds: tuple[type[Exception], ...] = (ValueError,)) -> Iterator[None]:
    """Turns the library's own errors about what it was asked for, which are of these kinds, into refusals."""
    try:
        yield
    except Refusal:
        raise
    except kinds as error:
        raise Refusal(str(error)) from error


def one_of(field: str, value: Any, allowed: Iterable[str]) -> str:
    """`field=value is unknown; did you mean …? allowed: …` for a name that isn't in a list."""
    names = list(allowed)
    close = nearest(str(value), names)
    hint = f" did you mean {' or '.join(close)}?" if close else ""
    return f"{field}={value} is unknown;{hint} allowed: {', '.join(names)}"


def unknown_key(key: str, value: Any, keys: Iterable[str]) -> str:
    """`key=value: no such setting`, with the nearest ones, or those beside it if none is near."""
    names = list(keys)
    close = nearest(key, names)
    if close:
        return f"{key}={value}: there is no setting {key}; did you mean {' or '.join(close)}?"
    section = key.rpartition(".")[0]
    beside = [name for name in names if name.rpartition(".")[0] == section] or [n for n in names if "." not in n]
    return f"{key}={value}: there is no setting {key}; allowed: {', '.join(beside)}"
