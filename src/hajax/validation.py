"""What settings mean and may be, and checks before anything compiles.

Every message names the setting, its value and what is allowed.
"""

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
_ABOUT = "about"  # the key in a field's metadata


@dataclasses.dataclass(frozen=True)
class About:
    """What a setting means and may be: the metadata of its dataclass field, made by `setting`."""

    meaning: str = ""
    kind: str = ""  # int, float, bool, str, ints; empty: as the field is annotated
    low: float | None = None
    high: float | None = None
    open_low: bool = False  # `low` itself is not allowed
    finite: bool = True
    empty: bool = False  # of a list: whether it may be
    choices: tuple[str, ...] = ()
    instances: tuple[type, ...] = ()  # beside the choices: objects of these classes, in Python
    allowed: str = ""  # in words, where the range is more than the other fields say
    unit: str = ""

    def checked(self, name: str, value: Any) -> Any:
        """The value: an integral float as a whole number, a list as a tuple; ValueError if it is not allowed."""
        if self.instances and isinstance(value, self.instances):
            return value
        if self.choices:
            check_choice(name, value, self.choices)
        elif self.kind == "bool":
            check_flag(name, value)
        elif self.kind == "int":
            whole = int(value) if isinstance(value, float) and value.is_integer() else value  # 1e6
            high = MOST if self.high is None else self.high
            check_number(name, whole, 1 if self.low is None else self.low, high, whole=True)
            return int(whole)
        elif self.kind == "float":
            low, high = -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high
            check_number(name, value, low, high, open_low=self.open_low, finite=self.finite)
        elif self.kind == "ints":
            check_numbers(name, value, 1 if self.low is None else self.low, whole=True, empty=self.empty)
        return tuple(value) if is_list(value) else value

    def range(self) -> str:
        """What is allowed, for help: `> 0 and <= 1`, `random, fixed, simultaneous`."""
        if self.allowed or self.choices:
            return self.allowed or ", ".join(self.choices)
        if self.kind == "bool":
            return "true, false"
        low = 1 if self.low is None and self.kind in ("int", "ints") else self.low
        bounds = [] if low is None else [f"{'>' if self.open_low else '>='} {low}"]
        bounds += [] if self.high in (None, MOST) else [f"<= {self.high}"]
        if self.kind == "ints":
            return f"a list of whole numbers {' and '.join(bounds)}{', or []' if self.empty else ''}"
        return " and ".join(bounds) or {"float": "a finite number" if self.finite else "a number"}.get(self.kind, "")


def setting(default: Any, meaning: str, **allowed: Any) -> Any:
    """The dataclass field of a setting: its default, its meaning in a sentence, and what it may be.

        class Hyperparameters(hajax.settings.GradientHyperparameters):
            kl_coef: float = setting(0.1, "β: the weight of the KL divergence", low=0)

    The annotation says which kind of value it is. Without a range, a `float` may be any finite number, an `int` any
    whole number from 1. A subclass that only states another default, `clip: float = 0.1`, keeps the rest.

    Args:
      default: the value if none is given.
      meaning: one sentence, with the equation's symbol where there is one.
      allowed: any of `low`, `high`, `open_low=True` (`low` itself is not allowed), `finite=False` (±∞ is), `choices`
        and `instances` (classes whose objects are allowed beside them), `empty=True` (a list may be), `unit`, `kind`
        (instead of the annotation's), and `allowed`, words for a range that is checked elsewhere.
    """
    return dataclasses.field(default=default, metadata={_ABOUT: About(meaning, **allowed)})


def about(owner: type, name: str) -> About:
    """What the field `name` of a dataclass means and may be, from the nearest class that declares it by `setting`."""
    field = owner.__dict__["__dataclass_fields__"][name]
    fields = [base.__dict__.get("__dataclass_fields__", {}).get(name) for base in owner.__mro__]
    declared = [found.metadata[_ABOUT] for found in fields if found is not None and _ABOUT in found.metadata]
    said = declared[0] if declared else About()
    return said if said.kind else dataclasses.replace(said, kind=_kind(field.type))


def _kind(annotation: Any) -> str:
    """The kind of value that an annotation means; empty if it is none that is checked."""
    text = annotation.__name__ if type(annotation) is type else str(annotation)
    kinds = {"bool": "bool", "int": "int", "float": "float", "tuple[int, ...]": "ints"}
    kinds |= {"int | None": "int?", "str | None": "str?"}
    return kinds.get(text, "float" if text.startswith("float |") else "")


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


def check_of_package(package: str, name: str, known: Iterable[str]) -> None:
    """Raises ValueError, with the nearest names, unless the package has that environment."""
    names = list(known)
    if name not in names:
        close = nearest(name, names)
        hint = f"did you mean {' or '.join(f'{package}/{found}' for found in close)}? " if close else ""
        allowed = ", ".join(f"{package}/{found}" for found in names)
        raise ValueError(f"env={package}/{name} is unknown; {hint}allowed: {allowed}")


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
    bounds = ([] if low == -math.inf else [f"{'>' if open_low else '>='} {low}"]) + ([f"<= {high}"] if told else [])
    allowed = f"{kind} {' and '.join(bounds)}" if bounds else "a finite number" if finite else kind
    fits = number is not None and (number > low if open_low else number >= low) and number <= high
    if not fits or (finite and isinstance(number, float) and not math.isfinite(number)):
        raise ValueError(f"{name}={_shown(value)}; allowed: {allowed}")


def check_numbers(name: str, values: Any, low: float, *, whole: bool = False, empty: bool = False) -> None:
    """Raises ValueError unless `values` is a list of numbers >= `low`; it may be empty if `empty`."""
    kind, example = ("whole numbers", "[64,64]") if whole else ("numbers", "[0.1,0.5]")
    listed = is_list(values)
    numbers = [_number(value, whole) for value in values] if listed else []
    if not listed or not (numbers or empty) or not all(x is not None and x >= low for x in numbers):
        none = ", or []" if empty else ""
        raise ValueError(f"{name}={_shown(values)}; allowed: a list of {kind} >= {low}, such as {example}{none}")


def is_list(value: Any) -> bool:
    """Whether it is a list, tuple or array, and not a string."""
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


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
