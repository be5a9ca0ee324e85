"""Training metrics between two evaluations: sums in the compiled loop, means on the host."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Totals(NamedTuple):
    """Sums of training metrics since the last evaluation."""

    metrics: dict[str, jax.Array]
    iterations: jax.Array
    episodes: jax.Array


def no_totals(names: tuple[str, ...], shape: tuple[int, ...] = ()) -> Totals:
    """Sums of zero. Each zero is allocated separately, because buffers are donated."""
    return Totals({name: jnp.zeros(shape) for name in names}, jnp.zeros(shape), jnp.zeros(shape))


def add(totals: Totals, metrics: dict[str, jax.Array], episode_metrics: tuple[str, ...]) -> Totals:
    """Adds one iteration. Means over episodes are weighted by the number of episodes; `[G]` metrics are averaged."""
    episodes = metrics["episodes"]

    def weighted(name: str, value: jax.Array) -> jax.Array:
        value = value.mean()
        return jnp.where(episodes > 0, value * episodes, 0) if name in episode_metrics else value

    sums = {name: total + weighted(name, metrics[name]) for name, total in totals.metrics.items()}
    return Totals(sums, totals.iterations + 1, totals.episodes + episodes)


def means(totals: Totals, episode_metrics: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Means `[num_seeds]` over the iterations, or over the episodes that ended in them (NaN if none did).

    `episodes` stays a sum.
    """
    metrics, iterations, episodes = jax.device_get(totals)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = {name: x / (episodes if name in episode_metrics else iterations) for name, x in metrics.items()}
    return mean | {"episodes": episodes}
