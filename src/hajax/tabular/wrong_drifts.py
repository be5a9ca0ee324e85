"""Three functionals that each violate one axiom of a drift, to show the purpose of the axioms.

A drift is non-negative, zero at the old policy, and has zero gradient there (Kuba et al., 2022b, Definition 1).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hajax.tabular import solvers
from hajax.tabular.drifts import Drift, is_zero
from hajax.tabular.policies import kl_divergence, log_policy
from hajax.tabular.surrogate import Surrogate


def negative_drift(coefficient: float = 0.1) -> Drift:
    """−c · KL(new ‖ old): zero with zero gradient at the old policy, but *negative* elsewhere."""

    def divergence(new, old, surrogate):
        return -coefficient * kl_divergence(new, old)

    return Drift(divergence, _best_vertex(divergence))


def offset_drift(coefficient: float = 0.1) -> Drift:
    """c · (2 − Σ(new − old)²)/2: non-negative with zero gradient, but *not zero at the old policy*."""

    def divergence(new, old, surrogate):
        return coefficient * (2 - ((jnp.exp(new) - jnp.exp(old)) ** 2).sum(-1)) / 2

    return Drift(divergence, _best_vertex(divergence))


def kinked_drift(coefficient: float = 0.1) -> Drift:
    """c · Σ|new − old|: non-negative and zero at the old policy, but *its derivatives there are not zero*.

    Lemma 2 of Kuba et al., 2022b, still holds, so returns do not decrease; but no policy changes for advantages below
    2c.
    """

    def divergence(new, old, surrogate):
        return coefficient * jnp.abs(jnp.exp(new) - jnp.exp(old)).sum(-1)

    def maximize(old, surrogate, temperature):
        _check_no_entropy(temperature)
        old, q = jnp.exp(old), surrogate.action_value
        slopes = jnp.stack([q + coefficient, q - coefficient], -2)
        return solvers.fill(jnp.stack([old, 1 - old], -2), slopes, surrogate.mask)

    return Drift(divergence, maximize)


def _best_vertex(divergence):
    """The maximizer for a concave `divergence`: the objective is convex, so a deterministic policy."""

    def maximize(old: jax.Array, surrogate: Surrogate, temperature) -> jax.Array:
        _check_no_entropy(temperature)
        num_actions = old.shape[-1]
        vertices = log_policy(jnp.eye(num_actions), surrogate.mask)
        scores = jnp.stack(
            [
                surrogate.action_value[..., action]
                - divergence(jnp.broadcast_to(vertices[action], old.shape), old, surrogate)
                for action in range(num_actions)
            ],
            -1,
        )
        return solvers.greedy(scores, surrogate.mask)

    return maximize


def _check_no_entropy(temperature) -> None:
    if not is_zero(temperature):
        raise ValueError("a wrong drift with a temperature; allowed: temperature=0")
