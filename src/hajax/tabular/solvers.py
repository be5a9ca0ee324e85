"""Exact maximizers of the mirror operator over one agent's simplex, vectorized over states.

All work on the last axis, take and return log-probabilities `[…, A]`, and need no LAPACK.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from hajax.tabular.policies import LOG_LEAST, log_policy, normalize

BISECTIONS = 54  # halvings, to the precision of float64


def bisect(
    increasing: Callable[[jax.Array], jax.Array], low: jax.Array, high: jax.Array, steps: int = BISECTIONS
) -> jax.Array:
    """The elementwise root of an increasing function between `low` and `high`, by `steps` halvings."""

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        above = increasing(middle) > 0
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    low, high = lax.fori_loop(0, steps, halve, (low, high))
    return (low + high) / 2


def greedy(action_value: jax.Array, mask: jax.Array) -> jax.Array:
    """The deterministic policy of the largest value (the first of equal ones)."""
    best = jnp.where(mask, action_value, -jnp.inf).argmax(-1)
    return log_policy(jax.nn.one_hot(best, mask.shape[-1]), mask)


def fill(capacities: jax.Array, slopes: jax.Array, mask: jax.Array) -> jax.Array:
    """Maximizes Σ_a f_a(p_a) over the simplex for concave, piecewise linear f_a by filling the steepest pieces first.

    Args:
      capacities: `[…, M, A]`, the length of the M pieces of every f_a, from p_a = 0 on.
      slopes: `[…, M, A]`, decreasing in M. Of equal slopes the earlier piece is filled first.
      mask: bool `[A]`.
    """
    shape = capacities.shape
    capacity = jnp.where(mask, capacities, 0).reshape(*shape[:-2], -1)
    slope = slopes.reshape(capacity.shape)
    order = jnp.arange(slope.shape[-1])
    equal_and_earlier = (slope[..., None, :] == slope[..., :, None]) & (order[None, :] < order[:, None])
    first = (slope[..., None, :] > slope[..., :, None]) | equal_and_earlier
    before = jnp.where(first, capacity[..., None, :], 0).sum(-1)
    return log_policy(jnp.clip(1 - before, 0, capacity).reshape(shape).sum(-2), mask)


def power_tilt(old: jax.Array, action_value: jax.Array, coefficient: float, order: float, mask: jax.Array) -> jax.Array:
    """Maximizes ⟨q, p⟩ − c Σ [(1−κ) old + κ p − p^κ old^{1−κ}] / (κ(1−κ)) for κ in [0, 1); κ → 0 is c · KL(old ‖ p).

    Stationarity makes the log-ratio w = log p/old satisfy exp(−(1−κ) w_a) = exp(−(1−κ) w_b) + (1−κ)(q_b − q_a)/c for
    any two actions. The unknown, that of the best action, is between 0 and −log old and found by bisection, however
    small the action's probability was.
    """
    best = jnp.where(mask, action_value, -jnp.inf).max(-1, keepdims=True)
    scaled_gap = jnp.where(mask, best - action_value, 0) * ((1 - order) / coefficient)
    power = 1 / (1 - order)
    power = int(power) if power == int(power) else power  # integer powers are cheaper
    weights = jnp.where(mask, jnp.exp(old), 0)

    def new(top):
        return weights / (jnp.exp(-(1 - order) * top) + scaled_gap) ** power

    is_best = mask & (action_value == best)
    most = -jnp.where(is_best, old, jnp.inf).min(-1, keepdims=True)
    top = bisect(lambda top: new(top).sum(-1, keepdims=True) - 1, jnp.zeros_like(most), most)
    return normalize(old - power * jnp.log(jnp.exp(-(1 - order) * top) + scaled_gap), mask)


def log_omega(x: jax.Array) -> jax.Array:
    """z with z + e^z = x, the logarithm of Wright's omega function, to float64's precision by Newton's method.

    The left side is convex, and the first guess is beyond the root.
    """
    z = jnp.where(x > 1, jnp.log(jnp.maximum(x, 1)), x)
    for _ in range(6):
        power = jnp.exp(z)
        z = z - (z + power - x) / (1 + power)
    return z


def separable(
    old: jax.Array,
    gradient: jax.Array,
    log_ratio: Callable[[jax.Array], jax.Array],
    mask: jax.Array,
    limit: float | None = None,
) -> jax.Array:
    """Maximizes any concave objective that is a sum over actions, with |log p/old| ≤ `limit`, by bisection.

    The multiplier μ of Σp = 1 is the one at which the log-ratios `log_ratio(gradient − μ)` make probabilities sum to 1.
    It is exact up to rounding. Log-ratios are exact up to rounding divided by the objective's curvature: with very
    little, such as that of a temperature of 1e-10 alone, to 1e-6.

    Args:
      old: log-probabilities `[…, A]`.
      gradient: `[…, A]`, the objective's derivative at the old policy.
      log_ratio: the log p/old at which the derivative has decreased by `[…, A]`: increasing, 0 at 0.
      mask: bool `[A]`.
      limit: the bound of |log-ratio|; without one it is where the probability is 1.
    """
    high = -old if limit is None else jnp.minimum(limit, -old)
    low = jnp.full_like(old, 2 * LOG_LEAST if limit is None else -limit)

    def new(multiplier):
        return old + jnp.clip(log_ratio(gradient - multiplier), low, high)

    def excess(multiplier):
        return 1 - jnp.exp(jnp.where(mask, new(multiplier), -jnp.inf)).sum(-1, keepdims=True)

    least = jnp.where(mask, gradient, jnp.inf).min(-1, keepdims=True)
    most = jnp.where(mask, gradient, -jnp.inf).max(-1, keepdims=True)
    return normalize(new(bisect(excess, least, most)), mask)


def project(point: jax.Array, mask: jax.Array) -> jax.Array:
    """The probabilities `[…, A]` nearest to `point`: max(point − θ, 0) with the θ for which they sum to 1."""
    ranked = -jnp.sort(-jnp.where(mask, point, -jnp.inf), axis=-1)
    counts = jnp.arange(1, point.shape[-1] + 1)
    # θ is the largest of the candidates from each number of actions that keep mass.
    threshold = jnp.where(jnp.isfinite(ranked), (jnp.cumsum(ranked, -1) - 1) / counts, -jnp.inf).max(-1, keepdims=True)
    return jnp.where(mask, jnp.maximum(point - threshold, 0), 0)
