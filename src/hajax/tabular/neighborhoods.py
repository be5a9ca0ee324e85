"""Neighborhood operators: the policies that an agent may choose from, and how the best of them is found.

A neighborhood is a function `(drift, old, surrogate, α) -> new` of log-probabilities `[S, A]`. Where it has no exact
maximizer for a drift, the best of a fixed number of candidates is taken in every state, including the old policy. The
mirror operator then never decreases, which is sufficient for inequality (5) of Kuba et al., 2022b, and so for monotonic
improvement.

Candidates are η-soft (Kuba et al., 2022a, Assumption 1), with η = `SOFTNESS`: on the boundary of the simplex a drift
such as KL(new ‖ old) is infinite in every direction that leads away from it, and the policy would stay there.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from hajax.tabular import tilts
from hajax.tabular.drifts import Drift, Temperature, is_zero
from hajax.tabular.policies import log_policy
from hajax.tabular.solvers import project
from hajax.tabular.surrogate import Surrogate, ascent_direction, linear_part
from hajax.validation import check_number

Neighborhood = Callable[[Drift, jax.Array, Surrogate, Temperature], jax.Array]

CANDIDATES = 24  # the number of step sizes, each half of the one before
SOFTNESS = 1e-6


def mirror_operator(
    drift: Drift, new: jax.Array, old: jax.Array, surrogate: Surrogate, temperature: Temperature
) -> jax.Array:
    """[M^{(new)}_{D, π̄} A_π](s) = E_{a~new}[A^{i_1:m}(s, a)] + α H(new(·|s)) − D_π(new | s, π̄), `[S]`.

    See Kuba et al., 2022b, Definition 3, with ν = β, and Liu et al., 2024, Definition 2; up to a constant per state.
    """
    return linear_part(new, surrogate, temperature) - drift.divergence(new, old, surrogate)


def no_neighborhood() -> Neighborhood:
    """All policies: the exact maximizer of the drift."""
    return lambda drift, old, surrogate, temperature: drift.maximize(old, surrogate, temperature)


def kl_ball(radius: float = 0.05) -> Neighborhood:
    """KL(old(·|s) ‖ new(·|s)) ≤ δ in every state: greedy within it, or the best of that step and its halvings.

    The greedy step is exact without drift and entropy bonus. Otherwise the candidates are the greedy steps within
    smaller balls.

    Raises:
      ValueError: if δ is not positive.
    """
    check_number("radius", radius, 0, open_low=True)

    def improve(drift, old, surrogate, temperature):
        gap = tilts.gaps(ascent_direction(old, surrogate, temperature), surrogate.mask)
        log_step = tilts.step_of_divergence(old, gap, radius)
        if drift.trivial and is_zero(temperature):
            return tilts.tilt(old, gap, log_step, surrogate.mask)
        halvings = jnp.log(2.0) * jnp.arange(CANDIDATES)[:, None, None]
        return _best(tilts.tilt(old, gap, log_step - halvings, surrogate.mask), drift, old, surrogate, temperature)

    return improve


def gradient_step(step_size: float = 1.0) -> Neighborhood:
    """One projected gradient step on the probabilities, η in units of 1/reward, or the best of it and its halvings.

    The drift's gradient is zero at the old policy, so the direction is the surrogate's gradient, and the drift affects
    the length. Without drift and entropy bonus the full step is the best.

    Raises:
      ValueError: if η is not positive.
    """
    check_number("step_size", step_size, 0, open_low=True)

    def improve(drift, old, surrogate, temperature):
        direction = ascent_direction(old, surrogate, temperature)
        if drift.trivial and is_zero(temperature):
            return log_policy(project(jnp.exp(old) + step_size * direction, surrogate.mask), surrogate.mask)
        step_sizes = step_size * 0.5 ** jnp.arange(CANDIDATES)[:, None, None]
        points = project(jnp.exp(old) + step_sizes * direction, surrogate.mask)
        return _best(log_policy(points, surrogate.mask), drift, old, surrogate, temperature)

    return improve


def trust_region(radius: float = 0.05) -> Neighborhood:
    """E_{s~ρ}[KL(old ‖ new)] ≤ δ, HATRPO's neighborhood, and the exact greedy policy in it, without drift and entropy.

    Raises:
      ValueError: if δ is not positive, or if it is combined with a drift or a temperature.
    """
    check_number("radius", radius, 0, open_low=True)

    def improve(drift, old, surrogate, temperature):
        _check_alone("trust_region", drift, temperature)
        return tilts.within_mean_divergence(old, surrogate.action_value, surrogate.state_weight, radius, surrogate.mask)

    return improve


def max_penalty() -> Neighborhood:
    """Kuba et al., 2022a, Algorithm 1: no neighborhood, but −C max_s KL(old ‖ new) in the objective.

    The maximum couples the states, so it is not a drift (Kuba et al., 2022b); it takes the place of a neighborhood in
    the update.

    Raises:
      ValueError: if it is combined with a drift or a temperature.
    """

    def improve(drift, old, surrogate, temperature):
        _check_alone("max_penalty", drift, temperature)
        return tilts.with_max_penalty(
            old, surrogate.action_value, surrogate.state_weight, surrogate.penalty, surrogate.mask
        )

    return improve


def _check_alone(name: str, drift: Drift, temperature: Temperature) -> None:
    if not (drift.trivial and is_zero(temperature)):
        raise ValueError(f"neighborhood {name!r} with a drift or a temperature; allowed: no_drift(), temperature=0")


def _best(
    candidates: jax.Array, drift: Drift, old: jax.Array, surrogate: Surrogate, temperature: Temperature
) -> jax.Array:
    """The candidate of `[K, S, A]`, or the old policy, with the largest mirror operator in every state."""
    soft = log_policy(jnp.maximum(jnp.exp(candidates), SOFTNESS), surrogate.mask)
    candidates = jnp.concatenate([soft, old[None]])
    scores = jax.vmap(lambda new: mirror_operator(drift, new, old, surrogate, temperature))(candidates)
    return jnp.take_along_axis(candidates, scores.argmax(0)[None, :, None], axis=0)[0]
