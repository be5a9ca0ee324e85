"""Checks of settings, before anything compiles: every message names the setting, its value and what is allowed."""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np


def nearest(name: str, names: Iterable[str], limit: int = 3) -> list[str]:
    """The names that `name` was most likely meant to be: it is a word of theirs, or looks like them or their end."""
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
    if value not in allowed:
        raise ValueError(f"{name}={value!r}; allowed: {', '.join(allowed)}")


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
    """Raises ValueError unless every entry of `value` is a number in the range, and finite if it must be."""
    kind = "a whole number" if whole else "a number"
    allowed = f"{kind} {'>' if open_low else '>='} {low}" + (f" and <= {high}" if math.isfinite(high) else "")
    numbers = np.asarray(value)
    if isinstance(value, bool) or not np.issubdtype(numbers.dtype, np.integer if whole else np.number):
        raise ValueError(f"{name}={value!r}; allowed: {allowed}")
    above = numbers > low if open_low else numbers >= low
    if not np.all(above & (numbers <= high)) or (finite and not np.all(np.isfinite(numbers))):
        raise ValueError(f"{name}={value}; allowed: {allowed}")


def check_has(given: Any, needed: Any) -> None:
    """Raises ValueError, naming what is missing, unless `given` has all fields of the dataclass instance `needed`."""
    missing = [field.name for field in dataclasses.fields(needed) if not hasattr(given, field.name)]
    if missing:
        raise ValueError(
            f"{type(given).__name__} has no {', '.join(missing)}; allowed: a {type(needed).__name__}, or any class "
            "that also has these"
        )
