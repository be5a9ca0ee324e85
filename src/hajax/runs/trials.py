"""The trials of a run: its seeds, the points of a grid, and the selection of a population."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hajax.algorithms import make_algorithm
from hajax.population import perturb, select
from hajax.runs.errors import Refusal, refusing
from hajax.runs.grid import Values, points
from hajax.runs.health import Health
from hajax.runs.settings import TrainSettings
from hajax.runs.team import Team, algorithm_options, typed_settings
from hajax.runs.totals import Totals
from hajax.training import TrainState
from hajax.validation import about, nearest


class Trials(NamedTuple):
    """The trials of a run, the leading axis of its arrays: every seed, at every point of a grid.

    All seeds of a point follow each other.
    """

    keys: jax.Array  # [trials]
    hyperparameters: Any  # [trials] in every array
    labels: tuple[dict[str, Any], ...]  # of each trial: its seed, and its point with the hyperparameters there


class RunState(NamedTuple):
    """What a run carries from one iteration to the next, and what a checkpoint holds."""

    train: TrainState
    totals: Totals
    health: Health


def seed_keys(seed: int, num_seeds: int) -> jax.Array:
    """`[num_seeds]` keys; seed k of a run has `jax.random.key(seed + k)`, independent of the other seeds."""
    return jnp.stack([jax.random.key(seed + k) for k in range(num_seeds)])


def make_trials(team: Team, seeds: Sequence[int], grid: Sequence[Values] = ()) -> Trials:
    """The trials of a run: its seeds, with every point of a grid.

    Hyperparameters are arrays, which are passed to programs instead of being compiled into them.
    """
    keys, usual = seed_keys(seeds[0], len(seeds)), team.algorithm.hyperparameters
    each = [usual.replace(**values) for values in grid] or [usual]
    hyperparameters = jax.tree.map(lambda *xs: jnp.repeat(jnp.array(xs, float), len(seeds), axis=0), *each)
    numbered = [{"point": k, **values} for k, values in enumerate(grid)] or [{}]
    labels = tuple({"seed": seed, **point} for point in numbered for seed in seeds)
    return Trials(jnp.tile(keys, len(each)), hyperparameters, labels)


def check_points(settings: TrainSettings, team: Team) -> tuple[Values, ...]:
    """The points of the run's grid; `Refusal` if the algorithm does not accept them as hyperparameters."""
    found = points(settings.vmap, settings.draws, settings.seed)
    known = [field.name for field in dataclasses.fields(team.algorithm.hyperparameters)] if found else []
    for name in settings.vmap or ():
        if name not in known:
            close = f"; did you mean {' or '.join(near)}?" if (near := nearest(name, known)) else ""
            other = f"; -m algo.{name}=… compares such values, in a program each" if name in settings.algo else ""
            raise Refusal(
                f"vmap.{name} is no hyperparameter of {team.algorithm.name}{other}{close}; allowed: {', '.join(known)}"
            )
    if settings.lr_decay and "decay_updates" in known and "decay_updates" in (settings.vmap or {}):
        raise Refusal("vmap.decay_updates with lr_decay=true, which sets it; allowed: lr_decay=false")
    ranges = {name: given for name, given in (settings.vmap or {}).items() if isinstance(given, dict)}
    ends = [({name: given[end]}, f".{end}") for name, given in ranges.items() for end in ("low", "high")]
    for values, end in [*ends, *((values, "") for values in found)]:
        typed = {name: (f"vmap.{name}{end}", value) for name, value in values.items()}
        with refusing(typed=typed_settings(settings) | typed):
            make_algorithm(settings.algo["name"], team.env, **algorithm_options(settings) | values)
    if found and team.env.host is not None:
        raise Refusal(f"vmap with env={team.env.spec.name}, whose simulators are outside of JAX; allowed: vmap=null")
    return found


class Population(NamedTuple):
    """How a population is selected."""

    points: int
    fraction: float
    factor: float
    bounds: dict[str, tuple[float, float]]  # of the hyperparameters that are perturbed


def population_of(settings: TrainSettings, team: Team) -> Population | None:
    """The population of a run; `None` without `pbt.interval`. A range of `vmap` is not left."""
    if not settings.population or settings.vmap is None:
        return None
    bounds = {}
    for name, given in settings.vmap.items():
        said = about(type(team.algorithm.hyperparameters), name)
        its = (-math.inf if said.low is None else said.low, math.inf if said.high is None else said.high)
        bounds[name] = (given["low"], given["high"]) if isinstance(given, dict) else its
    return Population(settings.num_points, settings.pbt.fraction, settings.pbt.factor, bounds)


def selection(population: Population) -> Callable:
    """`(keys, run state, scores) -> (run state, parents)` of all trials: each seed has a population of its own.

    A trial that is replaced goes on as a copy of its parent, with other random numbers from then on.
    """

    def of_seed(key: jax.Array, state: RunState, scores: jax.Array) -> tuple[RunState, jax.Array]:
        choosing, perturbing = jax.random.split(key)
        parents = select(choosing, scores, population.fraction)
        copied = jax.tree.map(lambda x: x[parents], state)
        algorithm = copied.train.algorithm
        changed = parents != jnp.arange(population.points)
        hyperparameters = perturb(perturbing, algorithm.hyperparameters, changed, population.bounds, population.factor)
        algorithm = algorithm._replace(hyperparameters=hyperparameters)
        other = jax.vmap(jax.random.fold_in)(state.train.key, jnp.arange(population.points))
        keys = jnp.where(changed, other, state.train.key)
        return copied._replace(train=copied.train._replace(algorithm=algorithm, key=keys)), parents

    def select_all(keys: jax.Array, state: RunState, scores: jax.Array) -> tuple[RunState, jax.Array]:
        shape = (population.points, len(scores) // population.points)
        keys, state, scores = jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), (keys, state, scores))
        state, parents = jax.vmap(of_seed, in_axes=(0, 1, 1), out_axes=1)(keys[0], state, scores)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), (state, parents))

    return select_all
