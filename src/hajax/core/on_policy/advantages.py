"""Generalized advantage estimation that distinguishes truncation from termination."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hajax.core.losses import weighted_mean


class TraceTerms(NamedTuple):
    """The error of a step, and the weight of the next step's advantage, `[T, …]`."""

    delta: jax.Array  # δ_t
    decay: jax.Array  # γ λ (1 − terminated_t)(1 − truncated_t)


def trace_terms(
    reward: jax.Array,
    value: jax.Array,
    next_value: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    discount: float | jax.Array,
    gae_lambda: float | jax.Array,
) -> TraceTerms:
    """δ_t = r_t + γ (1 − terminated_t) V(s'_t) − V(s_t) over sequences `[T, …]` that may contain several episodes.

    `next_value` is V(s'_t), where s'_t is the state that step t led to *before* any automatic reset. A truncated step
    bootstraps from the final state of its episode, a terminated step does not bootstrap, and neither uses values of the
    next episode. (HARL does not bootstrap truncated steps.) All arguments but the last two have the shape of the
    result; `gae_lambda` may have it too.
    """
    delta = reward + discount * jnp.where(terminated, 0, next_value) - value
    decay = discount * gae_lambda * jnp.where(terminated | truncated, 0, jnp.ones_like(delta))
    return TraceTerms(delta, decay)


def generalized_advantages(terms: TraceTerms, trace: float | jax.Array = 1.0) -> jax.Array:
    """GAE(λ) (Schulman et al., 2016, Eq. 16), `[T, …]`, with a factor ρ that is 1 on-policy (`trace`):

    Â_t = δ_t + γ λ (1 − terminated_t)(1 − truncated_t) ρ_{t+1} Â_{t+1}
    """

    def step(after, inputs):
        (delta, decay), trace = inputs
        advantage = delta + decay * after
        return trace * advantage, advantage

    traces = jnp.broadcast_to(trace, terms.delta.shape)
    _, advantages = lax.scan(step, jnp.zeros_like(terms.delta[0]), (terms, traces), reverse=True)
    return advantages


def standardize(x: jax.Array, weight: jax.Array, epsilon: float = 1e-5) -> jax.Array:
    """(x − mean) / (std + ε), with mean and standard deviation weighted by `weight`."""
    mean = weighted_mean(x, weight)
    std = jnp.sqrt(weighted_mean(jnp.square(x - mean), weight))
    return (x - mean) / (std + epsilon)
