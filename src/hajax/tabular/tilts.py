"""Greedy policies within a KL(old ‖ new) ball: the tilts π_t ∝ old/(1 + t·gap), gap = max g − g, t ≥ 0.

max ⟨g, p⟩ − λ KL(old ‖ p) is attained where λ old_a/p_a = μ − g_a, that is at the tilt with t = 1/(μ − max g), whose
multiplier is λ = 1/(t Σ_a old_a/(1 + t·gap_a)). The divergence increases with t, the multiplier decreases. t is found
by bisection of log t, since Algorithm 1's steps are tiny, and an action that had almost vanished needs a very large
one.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from hajax.tabular.policies import normalize
from hajax.tabular.solvers import bisect

LOG_STEPS = (-60.0, 650.0)  # from steps below rounding to those that recover an action from LOG_LEAST
LOG_MULTIPLIERS = (-60.0, 60.0)


def gaps(direction: jax.Array, mask: jax.Array) -> jax.Array:
    """The gaps max g − g, `[S, A]`, of an ascent direction g `[S, A]`."""
    best = jnp.where(mask, direction, -jnp.inf).max(-1, keepdims=True)
    return jnp.where(mask, best - direction, 0)


def tilt(old: jax.Array, gap: jax.Array, log_step: jax.Array, mask: jax.Array) -> jax.Array:
    """log π_t `[S, A]` for log t `[S, 1]`."""
    return normalize(old - jnp.log1p(jnp.exp(log_step) * gap), mask)


def divergence(old: jax.Array, gap: jax.Array, log_step: jax.Array) -> jax.Array:
    """KL(old ‖ π_t) = Σ old log(1 + t·gap) + log Σ old/(1 + t·gap), `[S, 1]`, without cancellation for small t."""
    probabilities, tilted = jnp.exp(old), jnp.exp(log_step) * gap
    lost = (probabilities * tilted / (1 + tilted)).sum(-1, keepdims=True)
    kept = (probabilities / (1 + tilted)).sum(-1, keepdims=True)
    log_kept = jnp.where(lost < 0.5, jnp.log1p(-lost), jnp.log(kept))
    return (probabilities * jnp.log1p(tilted)).sum(-1, keepdims=True) + log_kept


def log_multiplier(old: jax.Array, gap: jax.Array, log_step: jax.Array) -> jax.Array:
    """log λ `[S, 1]` of the tilts with log t `[S, 1]`."""
    return -log_step - jnp.log((jnp.exp(old) / (1 + jnp.exp(log_step) * gap)).sum(-1, keepdims=True))


def step_of_divergence(old: jax.Array, gap: jax.Array, radius: jax.Array | float) -> jax.Array:
    """log t `[S, 1]` with KL(old ‖ π_t) = δ in every state (the largest allowed where no tilt reaches δ)."""
    return _step_where(lambda step: divergence(old, gap, step) - radius, old)


def step_of_multiplier(old: jax.Array, gap: jax.Array, log_lambda: jax.Array) -> jax.Array:
    """log t `[S, 1]` of the tilts whose multiplier is λ in every state."""
    return _step_where(lambda step: log_lambda - log_multiplier(old, gap, step), old)


def _step_where(increasing: Callable[[jax.Array], jax.Array], old: jax.Array) -> jax.Array:
    low = jnp.full_like(old[..., :1], LOG_STEPS[0])
    return bisect(increasing, low, jnp.full_like(low, LOG_STEPS[1]))


def within_mean_divergence(
    old: jax.Array, direction: jax.Array, state_weight: jax.Array, radius: float, mask: jax.Array
) -> jax.Array:
    """arg max E_{s~ρ}[⟨g, p⟩] subject to E_{s~ρ}[KL(old ‖ p)] ≤ δ, ρ normalized (Kuba et al., 2022a, Eq. 7).

    Exact. All states have the same multiplier, and different tilts.
    """
    gap = gaps(direction, mask)
    weight = state_weight / state_weight.sum()

    def step(minus_log_lambda):
        return step_of_multiplier(old, gap, -minus_log_lambda)

    def excess(minus_log_lambda):
        return weight @ divergence(old, gap, step(minus_log_lambda))[..., 0] - radius

    low, high = (jnp.asarray(bound, old.dtype) for bound in LOG_MULTIPLIERS)
    return tilt(old, gap, step(bisect(excess, low, high)), mask)


def with_max_penalty(
    old: jax.Array, direction: jax.Array, state_weight: jax.Array, penalty: jax.Array, mask: jax.Array
) -> jax.Array:
    """arg max Σ_s ρ(s) ⟨g, p⟩ − C max_s KL(old ‖ p) (Kuba et al., 2022a, Algorithm 1, line 7).

    Exact. Every state is greedy within the same divergence δ, and at the best δ the multipliers satisfy Σ_s ρ(s) λ_s =
    C.
    """
    gap = gaps(direction, mask)

    def step(log_radius):
        return step_of_divergence(old, gap, jnp.exp(log_radius))

    def shortfall(log_radius):
        multipliers = jnp.exp(log_multiplier(old, gap, step(log_radius)))[..., 0]
        return penalty - (state_weight * multipliers).sum()

    # To 1e-10 of the radius: at the best one the objective is flat, so the loss is of second order.
    low, high = (jnp.asarray(bound, old.dtype) for bound in (-70.0, 6.0))
    return tilt(old, gap, step(bisect(shortfall, low, high, 40)), mask)
