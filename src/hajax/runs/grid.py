"""Hyperparameters that differ between the trials of one run: the points of a grid, or random draws."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hajax.validation import check_choice, check_number, check_settings, is_list

EXAMPLE = "{actor_lr: [1e-4,5e-4]}"
RANGE = "a list of different numbers, or a range {low: 1e-5, high: 1e-2, scale: log or linear}"
LONGEST_NAME = 120  # of a directory, in characters
DIGITS = 4  # of a drawn value, so that it can be read, named and typed again

Values = dict[str, float]  # hyperparameters by name
Grid = dict[str, list[float] | dict[str, Any]]


def checked_grid(grid: Any) -> Grid:
    """A list of numbers or a range for each hyperparameter; ValueError for anything else."""
    if not isinstance(grid, Mapping) or not grid:
        raise ValueError(f"vmap={grid}; allowed: null, or hyperparameters with {RANGE}, such as {EXAMPLE}")
    return {str(name): _checked(f"vmap.{name}", given) for name, given in grid.items()}


def _checked(name: str, given: Any) -> list[float] | dict[str, Any]:
    if isinstance(given, Mapping):
        check_settings(name, given, ("low", "high", "scale"))
        found = {"scale": "log"} | {str(key): value for key, value in given.items()}
        for key in ("low", "high"):
            if key not in found:
                raise ValueError(f"{name} has no {key}; allowed: {RANGE}")
        check_choice(f"{name}.scale", found["scale"], ("log", "linear"))
        check_number(f"{name}.low", found["low"], 0 if found["scale"] == "log" else -math.inf, open_low=True)
        check_number(f"{name}.high", found["high"], found["low"], open_low=True)
        return found | {"low": float(found["low"]), "high": float(found["high"])}
    if not is_list(given) or not len(given):
        raise ValueError(f"{name}={given}; allowed: {RANGE}")
    for value in given:
        check_number(name, value, -math.inf, finite=False)
    values = [float(value) for value in given]
    if len(set(values)) < len(values):
        raise ValueError(f"{name}={given}; allowed: {RANGE}")
    return values


def check_draws(grid: Grid | None, draws: int | None) -> None:
    """ValueError unless a number of draws is given if and only if something is to be drawn."""
    if draws is not None and grid is None:
        raise ValueError(f"draws={draws} with vmap=null; allowed: null, or vmap=HYPERPARAMETERS, such as {EXAMPLE}")
    ranges = [name for name, given in (grid or {}).items() if isinstance(given, dict)]
    if draws is None and ranges:
        raise ValueError(f"vmap.{ranges[0]} is a range with draws=null; allowed: draws=N, or a list of numbers")


def points(grid: Grid | None, draws: int | None, seed: int) -> tuple[Values, ...]:
    """The hyperparameters of each point: every combination of the lists, or so many random draws.

    A range is drawn from uniformly, or its logarithm, and a list from its values. Draws depend on `seed` alone.
    """
    if grid is None:
        return ()
    if draws is None:
        lists = [given for given in grid.values() if isinstance(given, list)]
        return tuple(dict(zip(grid, values, strict=True)) for values in itertools.product(*lists))
    random = np.random.default_rng(seed)
    return tuple({name: _draw(random, given) for name, given in grid.items()} for _ in range(draws))


def _draw(random: np.random.Generator, given: list[float] | dict[str, Any]) -> float:
    if isinstance(given, list):
        return given[random.integers(len(given))]
    low, high = given["low"], given["high"]
    if given["scale"] == "log":
        drawn = math.exp(random.uniform(math.log(low), math.log(high)))
    else:
        drawn = random.uniform(low, high)
    return min(max(float(f"{drawn:.{DIGITS}g}"), low), high)


def number_of_points(grid: Grid | None, draws: int | None) -> int:
    """The number of points; 1 without a grid."""
    return draws or math.prod(len(given) for given in (grid or {}).values())


def point_names(found: Sequence[Values], population: bool = False) -> list[str]:
    """The directories of the points: `actor_lr=0.0001,clip=0.2`, with a number where draws are equal.

    In a population, which changes its hyperparameters, they are `point_0` and so on; also where names would be too long
    for a file system.
    """
    names = [",".join(f"{name}={value:g}" for name, value in point.items()) for point in found]
    if population or any(len(name) > LONGEST_NAME for name in names):
        return [f"point_{k}" for k in range(len(found))]
    counts: dict[str, int] = {}
    for index, name in enumerate(names):
        counts[name] = counts.get(name, 0) + 1
        names[index] = name if counts[name] == 1 else f"{name}_{counts[name]}"
    return names
