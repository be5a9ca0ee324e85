"""Training metrics between two evaluations: sums in the compiled loop, means on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hajax.core.on_policy.compound_ratio import BY_POSITION
from hajax.sharding import fetched

# Diagnostics per agent, or per group of agents that share parameters, that are also reported one by one.
ONE_BY_ONE = {"entropy", "kl", "approx_kl", "actor_grad_norm", "temperature"}
ONE_BY_ONE |= {"kl_to_old", "radius", "coordination", "coordination_std", "non_stationarity", "modeling_loss"}
ONE_BY_ONE |= {"discounted_return"}
# Diagnostics `[N, N]` of one agent and another, reported one by one for at most so many agents.
OF_PAIRS, MOST_AGENTS = ("attention",), 8


class Totals(NamedTuple):
    """Sums of training metrics since the last evaluation."""

    metrics: dict[str, jax.Array]
    iterations: jax.Array
    episodes: jax.Array


def no_totals(names: tuple[str, ...], shape: tuple[int, ...] = ()) -> Totals:
    """Sums of zero. Each zero is allocated separately, because buffers are donated."""
    return Totals({name: jnp.zeros(shape) for name in names}, jnp.zeros(shape), jnp.zeros(shape))


def scalars(metrics: dict[str, jax.Array], axes: Sequence[Sequence[str]] = ()) -> dict[str, jax.Array]:
    """The metrics as scalars: those by position in the order of updates as `name_1` … `name_G`, means of other arrays.

    Those of `ONE_BY_ONE` are also reported for each agent or group, as `name_of_AGENT`: `axes` has the names of the
    agents and of the groups. Those of `OF_PAIRS` are reported as `name_of_AGENT_to_OTHER`, of at most `MOST_AGENTS`
    agents. Whole numbers `[G]`, such as the order itself, name groups and have no mean.
    """
    found: dict[str, jax.Array] = {}
    for name, value in metrics.items():
        if name in BY_POSITION:
            found |= {f"{name}_{k + 1}": value[k] for k in range(value.shape[0])}
        elif name in OF_PAIRS:
            names = axes[0] if axes and len(axes[0]) <= MOST_AGENTS else ()
            pairs = [(i, j) for i in range(len(names)) for j in range(len(names)) if i != j]
            found |= {f"{name}_of_{names[i]}_to_{names[j]}": value[i, j] for i, j in pairs}
        elif value.ndim == 0 or jnp.issubdtype(value.dtype, jnp.inexact):
            found[name] = value.mean()
        if name in ONE_BY_ONE and value.ndim == 1 and value.shape != (1,):
            owners = next((names for names in axes if len(names) == len(value)), ())
            found |= {f"{name}_of_{owner}": value[k] for k, owner in enumerate(owners)}
    return found


def add(totals: Totals, metrics: dict[str, jax.Array], episode_metrics: tuple[str, ...]) -> Totals:
    """Adds one iteration, with metrics as by `scalars`. Means over episodes are weighted by the number of episodes."""
    episodes = metrics["episodes"]

    def weighted(name: str, value: jax.Array) -> jax.Array:
        return jnp.where(episodes > 0, value * episodes, 0) if name in episode_metrics else value

    sums = {name: total + weighted(name, metrics[name]) for name, total in totals.metrics.items()}
    return Totals(sums, totals.iterations + 1, totals.episodes + episodes)


def means(totals: Totals, episode_metrics: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Means `[num_seeds]` over the iterations, or over the episodes that ended in them (NaN if none did).

    `episodes` stays a sum.
    """
    metrics, iterations, episodes = fetched(totals)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = {name: x / (episodes if name in episode_metrics else iterations) for name, x in metrics.items()}
    return mean | {"episodes": episodes}
