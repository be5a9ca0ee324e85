"""The action spaces of agents: one choice, several choices, or a real vector; and conversion from other libraries."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hajax.validation import MOST, check_number, check_numbers


@dataclasses.dataclass(frozen=True)
class Discrete:
    """One choice among `n`: a single discrete component."""

    n: int

    def __post_init__(self):
        check_number("Discrete.n", self.n, 1, MOST, whole=True)
        object.__setattr__(self, "n", int(self.n))

    @property
    def num_components(self) -> int:
        return 1

    @property
    def choices(self) -> tuple[int, ...]:
        """The number of choices of each discrete component."""
        return (self.n,)


@dataclasses.dataclass(frozen=True)
class MultiDiscrete:
    """One choice among `nvec[d]` for every component d. An array of several axes is flattened."""

    nvec: tuple[int, ...]

    def __post_init__(self):
        flat = _flat(self.nvec)
        try:
            check_numbers("MultiDiscrete.nvec", flat, 1, whole=True)
        except ValueError as error:
            raise ValueError(
                f"MultiDiscrete.nvec={self.nvec!r}; allowed: a list of whole numbers >= 1, one per component"
            ) from error
        object.__setattr__(self, "nvec", tuple(int(n) for n in flat))

    @property
    def num_components(self) -> int:
        return len(self.nvec)

    @property
    def choices(self) -> tuple[int, ...]:
        """The number of choices of each discrete component."""
        return self.nvec


# A bound of at least this size means unbounded: other libraries use ±3.4e38, the largest float32.
NO_BOUND = 1e30


@dataclasses.dataclass(frozen=True, init=False)
class Box:
    """A real vector with bounds per dimension: `Box(low, high)`, or `Box(low, high, shape)` with equal bounds.

    Bounds are numbers or arrays, which are flattened; `Box(-1, 1)` has one dimension. A dimension may be unbounded on
    one side or both: ±inf, or any bound of 1e30 and more. Policies treat a dimension with only one bound as unbounded,
    and the environment clips their actions at that bound.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __init__(self, low: Any, high: Any, shape: Any = None):
        size = None if shape is None else math.prod(checked_shape("Box.shape", shape))
        bounds = [_flat(low), _flat(high)]
        size = max(map(len, bounds)) if size is None else size
        for name, given, flat in zip(("low", "high"), (low, high), bounds, strict=True):
            if len(flat) not in (1, size) or not size or not all(_is_real(x) for x in flat):
                raise ValueError(f"Box.{name}={given!r}; allowed: a number, or one for each of {size} dimensions")
            values = [float(x) for x in flat] * (size if len(flat) == 1 else 1)
            values = [math.copysign(math.inf, x) if abs(x) >= NO_BOUND else x for x in values]
            object.__setattr__(self, name, tuple(values))
        for d, (one, other) in enumerate(zip(self.low, self.high, strict=True)):
            if not other - one > 1 / NO_BOUND:
                raise ValueError(f"Box.low={one} and Box.high={other} in dimension {d}; allowed: low < high")

    @property
    def num_components(self) -> int:
        return len(self.low)

    @property
    def choices(self) -> tuple[int, ...]:
        """Empty: no component is discrete."""
        return ()


ActionSpace = Discrete | MultiDiscrete | Box


def as_space(space: Any) -> ActionSpace:
    """The action space equal to `space`, which may be of another library.

    Spaces of Gymnasium, gymnax, jaxmarl and Jumanji are recognized by their attributes: Discrete (`n`, `num_values`),
    MultiDiscrete (`nvec`), MultiBinary (a choice of two per entry) and Box (`low`, `high`). Arrays are flattened.

    Raises:
        ValueError: `space` is of another kind, its choices do not begin at 0, or it is a Box of whole numbers.
    """
    if isinstance(space, ActionSpace):
        return space
    kind = type(space).__name__
    start = getattr(space, "start", 0)
    if not callable(start) and np.any(np.asarray(start) != 0):
        raise ValueError(f"action_space={space!r} begins at {start}; allowed: choices that are numbered from 0")
    for name in ("nvec", "num_values", "num_categories", "n"):
        count = getattr(space, name, None)
        if count is None or callable(count):
            continue
        if kind == "MultiBinary":
            return MultiDiscrete((2,) * int(np.prod(count)))
        return MultiDiscrete(count) if name == "nvec" or np.ndim(count) else Discrete(count)
    for low, high in (("low", "high"), ("minimum", "maximum")):
        if hasattr(space, low) and hasattr(space, high):
            dtype = getattr(space, "dtype", None)
            if dtype is not None and not np.issubdtype(np.dtype(dtype), np.floating):
                raise ValueError(
                    f"action_space={space!r} holds {np.dtype(dtype)}; allowed: a Box of real numbers, or Discrete"
                )
            return Box(getattr(space, low), getattr(space, high), getattr(space, "shape", None))
    raise ValueError(f"action_space={space!r}; allowed: Discrete(n), MultiDiscrete(nvec), Box(low, high)")


def checked_shape(name: str, shape: Any) -> tuple[int, ...]:
    """`shape` as a tuple of whole numbers; a number is the length of a vector.

    Raises:
        ValueError: `shape` is of another kind, or a length is negative.
    """
    lengths = list(shape) if isinstance(shape, Sequence | np.ndarray) and np.ndim(shape) == 1 else [shape]
    try:
        for length in lengths:
            check_number(name, length, 0, MOST, whole=True)
    except ValueError as error:
        raise ValueError(f"{name}={shape!r}; allowed: whole numbers >= 0, such as 4 or (4,) or (8, 8, 3)") from error
    return tuple(int(length) for length in lengths)


def _flat(values: Any) -> list[Any]:
    """The entries of a number or an array, in order; any other value as the only entry."""
    try:
        return np.ravel(np.asarray(values)).tolist()
    except ValueError:  # lists of different lengths
        return [values]


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
