"""Exact drift functionals: the penalty for an agent's change of policy, in every state.

A heterogeneous-agent drift functional Dⁱ_π(π̂ⁱ | s, π̄^{j_1:m}) is non-negative, zero at the old policy, and has zero
gradient there (Kuba et al., 2022b, *Heterogeneous-Agent Mirror Learning*, Definition 1). The drifts here are
expectations E_{a~old}[δ(log r, A)] of a function of the probability ratio r = new/old and the advantage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hajax.tabular import solvers
from hajax.tabular.policies import kl_divergence, normalize
from hajax.tabular.surrogate import Surrogate, ascent_direction
from hajax.validation import check_number

Temperature = jax.Array | float


def is_zero(temperature: Temperature) -> bool:
    """Whether the temperature is a concrete zero, so that the objective has no entropy bonus."""
    return isinstance(temperature, int | float) and temperature == 0


class Drift(NamedTuple):
    """A drift functional, and how to maximize the mirror operator ⟨q, π⟩ + αH(π) − D(π) over all policies."""

    divergence: Callable[[jax.Array, jax.Array, Surrogate], jax.Array]  # (new, old, surrogate) -> [S]
    maximize: Callable[[jax.Array, Surrogate, Temperature], jax.Array]  # (old, surrogate, α) -> new
    splits: bool = False  # whether it reads the surrogate's gains and losses
    trivial: bool = False  # whether it is zero


def no_drift() -> Drift:
    """D = 0. The maximizer is greedy, or for α > 0 exp(q/α)/Z: the update of HASPI (Liu et al., 2024, Eq. 8)."""

    def maximize(old, surrogate, temperature):
        if is_zero(temperature):
            return solvers.greedy(surrogate.action_value, surrogate.mask)
        return normalize(surrogate.action_value / temperature, surrogate.mask)

    return Drift(lambda new, old, surrogate: jnp.zeros(new.shape[:-1], new.dtype), maximize, trivial=True)


def clip_drift(clip: float = 0.2, softness: float = 1e-6) -> Drift:
    """PPO's clip as a drift, E[ReLU([r − clip(r, 1 ± ε)] · A^{i_1:m})] with a^{i_1:m−1} ~ π̄ and a^{i_m} ~ old.

    See Kuba et al., 2022b, Appendix D. The mirror operator is then HAPPO's objective. It is piecewise linear in the
    policy, so the maximizer is found by filling. If it is not unique, probabilities stay within the clip.

    The maximizer puts all mass on one action as soon as the clip allows it, and on the boundary of the simplex the clip
    is not a drift: an action of probability zero has no ratio, and the gradient in its direction is not zero. Policies
    are therefore kept η-soft (Kuba et al., 2022a, Assumption 1). With η = 0 every action keeps the probability
    e^`LOG_LEAST`. With a temperature the entropy bonus keeps policies soft, and η is not read.

    Args:
      clip: ε.
      softness: η, the least probability of an action after an update (unless it was smaller before).

    Raises:
      ValueError: if ε is not in (0, 1), or η not in [0, 0.01].
    """
    check_number("clip", clip, 0, 1, open_low=True)
    check_number("softness", softness, 0, 0.01)

    def divergence(new, old, surrogate):
        rise = jnp.maximum(jnp.exp(new) - (1 + clip) * jnp.exp(old), 0)
        fall = jnp.maximum((1 - clip) * jnp.exp(old) - jnp.exp(new), 0)
        return (rise * surrogate.gains + fall * surrogate.losses).sum(-1)

    def maximize(old, surrogate, temperature):
        gains, losses = surrogate.gains, surrogate.losses
        if is_zero(temperature):
            old = jnp.exp(old)
            kept = jnp.minimum(softness, old)
            bends = [kept, jnp.maximum((1 - clip) * old, kept), (1 + clip) * old, jnp.maximum(1.0, (1 + clip) * old)]
            capacities = jnp.diff(jnp.stack(bends, -2), axis=-2, prepend=0)
            slopes = jnp.stack([jnp.full_like(gains, jnp.inf), gains, gains - losses, -losses], -2)
            return solvers.fill(capacities, slopes, surrogate.mask)

        def log_ratio(slope):  # solves α w + gains [w > log(1 + ε)] − losses [w < log(1 − ε)] = slope
            w = slope / temperature
            w = jnp.maximum(jnp.minimum(w, jnp.log1p(clip)), w - gains / temperature)
            return jnp.minimum(jnp.maximum(w, jnp.log1p(-clip)), w + losses / temperature)

        return solvers.separable(old, ascent_direction(old, surrogate, temperature), log_ratio, surrogate.mask)

    return Drift(divergence, maximize, splits=True)


def kl_drift(coefficient: float = 0.1) -> Drift:
    """c · KL(new ‖ old), c > 0 in units of reward; the maximizer is old^{c/(c+α)} exp(q/(c+α))/Z, in closed form.

    Raises:
      ValueError: if c is not positive.
    """
    check_number("coefficient", coefficient, 0, open_low=True)

    def maximize(old, surrogate, temperature):
        weights = (coefficient * old + surrogate.action_value) / (coefficient + temperature)
        return normalize(weights, surrogate.mask)

    return Drift(lambda new, old, surrogate: coefficient * kl_divergence(new, old), maximize)


def reverse_kl_drift(coefficient: float = 0.1) -> Drift:
    """c · KL(old ‖ new), the direction of Kuba et al. (2022a); `tsallis_drift` in the limit κ → 0.

    Raises:
      ValueError: if c is not positive.
    """
    check_number("coefficient", coefficient, 0, open_low=True)
    divergence = _scaled(coefficient, lambda new, old: kl_divergence(old, new))
    return Drift(divergence, _power_maximizer(coefficient, 0.0))


def tsallis_drift(coefficient: float = 0.1, order: float = 0.5) -> Drift:
    """c · (1 − Σ new^κ old^{1−κ})/(κ(1−κ)), Tsallis' relative entropy up to a factor, for κ in (0, 1).

    Its second derivative at the old policy is that of both KL divergences, which are its limits κ → 1 and κ → 0.

    Raises:
      ValueError: if c is not positive, or κ not in (0, 1).
    """
    check_number("coefficient", coefficient, 0, open_low=True)
    check_number("order", order, 0, 1 - 1e-9, open_low=True)

    def divergence(new, old):
        # (1−κ) old + κ new sums to 1; term by term the differences are non-negative.
        mixture = (1 - order) * jnp.exp(old) + order * jnp.exp(new)
        return (mixture - jnp.exp(order * new + (1 - order) * old)).sum(-1) / (order * (1 - order))

    return Drift(_scaled(coefficient, divergence), _power_maximizer(coefficient, order))


def squared_log_ratio_drift(coefficient: float = 0.1, limit: float = 0.5) -> Drift:
    """c/2 · E_{a~old}[(log r)²], with |log r| ≤ `limit` ≤ 0.8.

    Beyond r = e the drift is not convex in the policy and the maximizer not unique, hence the limit. It is a
    neighborhood operator, since it contains a ball of the metric max|log r|.

    Raises:
      ValueError: if c is not positive, or the limit not in (0, 0.8].
    """
    check_number("coefficient", coefficient, 0, open_low=True)
    check_number("limit", limit, 0, 0.8, open_low=True)

    def divergence(new, old):
        return (jnp.exp(old) * (new - old) ** 2).sum(-1) / 2

    def maximize(old, surrogate, temperature):
        gradient = ascent_direction(old, surrogate, temperature)

        def log_ratio(slope):
            """Solves α w + c w e^{−w} = slope by Newton's method; within the limit the left side is concave."""
            w = jnp.clip(slope / (temperature + coefficient), -limit, limit)
            for _ in range(6):
                excess = temperature * w + coefficient * w * jnp.exp(-w) - slope
                w = jnp.clip(w - excess / (temperature + coefficient * (1 - w) * jnp.exp(-w)), -limit, limit)
            return w

        return solvers.separable(old, gradient, log_ratio, surrogate.mask, limit)

    return Drift(_scaled(coefficient, divergence), maximize)


def _scaled(coefficient: float, divergence: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable:
    return lambda new, old, surrogate: coefficient * divergence(new, old)


def _power_maximizer(coefficient: float, order: float) -> Callable:
    def maximize(old, surrogate, temperature):
        if is_zero(temperature):
            return solvers.power_tilt(old, surrogate.action_value, coefficient, order, surrogate.mask)

        def log_ratio(slope):
            """Solves α w + c (1 − e^{−(1−κ)w})/(1−κ) = slope; with z = log(c/α) − (1−κ) w it is z + e^z."""
            shift = jnp.log(coefficient / temperature)
            return (shift - solvers.log_omega(shift + (coefficient - (1 - order) * slope) / temperature)) / (1 - order)

        return solvers.separable(old, ascent_direction(old, surrogate, temperature), log_ratio, surrogate.mask)

    return maximize
