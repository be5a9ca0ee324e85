"""Checks of settings before anything compiles. Every message names the setting, its value and the allowed values."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

# The largest count in a compiled program: JAX counts in int32 unless `jax_enable_x64` is set. Messages mention it only
# for values beyond it.
MOST = 2**31 - 1


def nearest(name: str, names: Iterable[str], limit: int = 3) -> list[str]:
    """The names closest to `name`: those of which it is a word, or which, or whose end, it resembles."""
    known = list(names)
    word = re.split(r"[./]", name)[-1]
    holding = [key for key in known if word in re.split(r"[./_]", key)]
    whole = difflib.get_close_matches(name, known, limit, 0.6)
    last = {key.rsplit("/", 1)[-1].rsplit(".", 1)[-1]: key for key in reversed(known)}
    parts = [last[part] for part in difflib.get_close_matches(name.rsplit("/", 1)[-1], last, limit, 0.6)]
    return list(dict.fromkeys(holding + whole + parts))[:limit]


def _did_you_mean(name: Any, known: Iterable[str]) -> str:
    close = nearest(str(name), known)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def check_known(what: str, name: Any, known: Iterable[str]) -> None:
    """Raises ValueError, with the nearest names, unless `name` is one of `known`."""
    known = list(known)
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}{_did_you_mean(name, known)}; allowed: {', '.join(known)}")


def check_settings(owner: str, settings: Mapping[str, Any], allowed: Iterable[str]) -> None:
    """Raises ValueError, with the nearest names, unless every key of `settings` is allowed."""
    allowed = list(allowed)
    for key, value in settings.items():
        if key not in allowed:
            hint = _did_you_mean(key, allowed)
            raise ValueError(f"unknown setting {key}={value!r} of {owner}{hint}; allowed: {', '.join(allowed)}")


def check_choice(name: str, value: Any, allowed: Iterable[str]) -> None:
    """Raises ValueError unless `value` is one of `allowed`."""
    names = list(allowed)
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"{name}={value!r}; allowed: {', '.join(names)}")


def check_flag(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r}; allowed: true, false")


def check_number(
    name: str,
    value: Any,
    low: float,
    high: float = math.inf,
    *,
    open_low: bool = False,
    whole: bool = False,
    finite: bool = True,
) -> None:
    """Raises ValueError unless `value` is one number in the range, and finite if it must be.

    An array without axes counts as a number, a list of one number does not.
    """
    number = _number(value, whole)
    kind = "a whole number" if whole else "a number"
    told = math.isfinite(high) and (high != MOST or (number is not None and number > high))
    allowed = f"{kind} {'>' if open_low else '>='} {low}" + (f" and <= {high}" if told else "")
    fits = number is not None and (number > low if open_low else number >= low) and number <= high
    if not fits or (finite and isinstance(number, float) and not math.isfinite(number)):
        raise ValueError(f"{name}={_shown(value)}; allowed: {allowed}")


def check_numbers(name: str, values: Any, low: float, *, whole: bool = False, empty: bool = False) -> None:
    """Raises ValueError unless `values` is a list of numbers >= `low`; it may be empty if `empty`."""
    kind, example = ("whole numbers", "[64,64]") if whole else ("numbers", "[0.1,0.5]")
    listed = isinstance(values, Sequence | np.ndarray) and not isinstance(values, str)
    numbers = [_number(value, whole) for value in values] if listed else []
    if not listed or not (numbers or empty) or not all(x is not None and x >= low for x in numbers):
        none = ", or []" if empty else ""
        raise ValueError(f"{name}={_shown(values)}; allowed: a list of {kind} >= {low}, such as {example}{none}")


def _number(value: Any, whole: bool) -> int | float | None:
    """`value` as an equal Python number; `None` if it is not a number, or not a whole one if `whole`."""
    if isinstance(value, bool | str | bytes | Sequence | Mapping) or value is None:
        return None
    if isinstance(value, int | float):
        return value if isinstance(value, int) or not whole else None
    try:
        array = np.asarray(value)
    except (TypeError, ValueError):
        return None
    real = np.issubdtype(array.dtype, np.integer if whole else np.number) and not np.iscomplexobj(array)
    return array.item() if real and not array.ndim else None


def _shown(value: Any) -> str:
    """The text of a number, or the `repr` of any other value."""
    return str(value) if isinstance(value, int | float | np.number) else repr(value)


def check_has(given: Any, needed: type) -> None:
    """Raises ValueError, which names the missing fields, unless `given` has all fields of the dataclass `needed`."""
    missing = [field.name for field in dataclasses.fields(needed) if not hasattr(given, field.name)]
    if missing:
        raise ValueError(f"{type(given).__name__} has no {', '.join(missing)}; allowed: any class that also has these")
