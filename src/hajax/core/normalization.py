"""Running statistics of value targets (value normalization) and of observations."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hajax.core.losses import weighted_mean


class ValueStatistics(NamedTuple):
    """Exponential moving averages of value targets, and the weight that debiases them. All are scalars."""

    mean: jax.Array
    mean_square: jax.Array
    weight: jax.Array


def init_value_statistics() -> ValueStatistics:
    return ValueStatistics(jnp.zeros(()), jnp.zeros(()), jnp.zeros(()))


def update_value_statistics(
    statistics: ValueStatistics, target: jax.Array, weight: jax.Array, decay: float | jax.Array
) -> ValueStatistics:
    """One step of x ← β x + (1 − β) x̄ for the targets and their squares, with x̄ the mean weighted by `weight`.

    A batch of total weight 0 leaves the statistics unchanged.
    """
    rate = jnp.where(weight.sum() > 0, 1 - decay, 0)

    def average(old, new):
        return old + rate * (new - old)

    return ValueStatistics(
        average(statistics.mean, weighted_mean(target, weight)),
        average(statistics.mean_square, weighted_mean(jnp.square(target), weight)),
        average(statistics.weight, 1.0),
    )


def _location_and_scale(statistics: ValueStatistics) -> tuple[jax.Array, jax.Array]:
    """Debiased mean and standard deviation (variance at least 1e-2, as in HARL); (0, 1) before the first update."""
    seen = statistics.weight > 0
    weight = jnp.where(seen, statistics.weight, 1)
    mean = statistics.mean / weight
    variance = jnp.maximum(statistics.mean_square / weight - jnp.square(mean), 1e-2)
    return mean, jnp.where(seen, jnp.sqrt(variance), 1)


def normalize_value(statistics: ValueStatistics, value: jax.Array) -> jax.Array:
    """(value − mean) / std: from reward units to the critic's normalized units."""
    mean, scale = _location_and_scale(statistics)
    return (value - mean) / scale


def denormalize_value(statistics: ValueStatistics, value: jax.Array) -> jax.Array:
    """value · std + mean: from the critic's normalized units to reward units."""
    mean, scale = _location_and_scale(statistics)
    return value * scale + mean


class RunningMoments(NamedTuple):
    """The total weight (a count), the mean `[S]`, and the sum of squared deviations `[S]` of all vectors so far."""

    weight: jax.Array
    mean: jax.Array
    deviation: jax.Array


def init_moments(size: int) -> RunningMoments:
    return RunningMoments(jnp.zeros(()), jnp.zeros(size), jnp.zeros(size))


def update_moments(moments: RunningMoments, x: jax.Array, weight: jax.Array) -> RunningMoments:
    """Adds a batch `x` `[…, S]` weighted by `weight` `[…]` (Chan et al.'s parallel formula)."""
    axes = tuple(range(weight.ndim))
    weight = weight.astype(x.dtype)
    count = weight.sum()
    weight = jnp.broadcast_to(weight[..., None], x.shape)
    divisor = jnp.where(count > 0, count, 1)
    mean = jnp.sum(x * weight, axes) / divisor
    deviation = jnp.sum(jnp.square(x - mean) * weight, axes)
    total = moments.weight + count
    fraction = count / jnp.where(total > 0, total, 1)
    shift = mean - moments.mean
    return RunningMoments(
        total,
        moments.mean + shift * fraction,
        moments.deviation + deviation + jnp.square(shift) * moments.weight * fraction,
    )


def normalize_moments(moments: RunningMoments, x: jax.Array, epsilon: float = 1e-8, limit: float = 10.0) -> jax.Array:
    """(x − mean) / std, clipped to ±`limit`; `x` unchanged before the first update.

    An entry that has been constant so far becomes 0, up to rounding of its mean.
    """
    variance = moments.deviation / jnp.where(moments.weight > 0, moments.weight, 1)
    normalized = (x - moments.mean) * jax.lax.rsqrt(variance + epsilon)
    return jnp.where(moments.weight > 0, jnp.clip(normalized, -limit, limit), x)
