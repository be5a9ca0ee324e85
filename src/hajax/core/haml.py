"""Heterogeneous-agent mirror learning: give a drift and a neighborhood, get an algorithm.

Kuba et al., *Heterogeneous-Agent Mirror Learning* (2022), Algorithm Template 1: https://arxiv.org/abs/2208.01682.
HAPPO, HATRPO and HAA2C are instances, and so is whatever `docs/mirror-learning.md` shows how to write in ten lines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.core import on_policy
from hajax.core.algorithm import Algorithm
from hajax.core.batches import GroupBatch, OnPolicyBatch, group_batches
from hajax.core.compound_ratio import GroupPolicy, improve_in_sequence
from hajax.core.drifts import Drift, PolicyChange, no_drift, numbers_read
from hajax.core.neighborhoods import MirrorObjective, Neighborhood, unrestricted
from hajax.core.on_policy import OnPolicyState
from hajax.core.optimization import Learner, decayed
from hajax.core.settings import Hyperparameters, Settings
from hajax.spec import EnvSpec
from hajax.validation import check_number


def haml(
    name: str,
    spec: EnvSpec,
    settings: Settings | None = None,
    hyperparameters: Hyperparameters | None = None,
    *,
    drift: Drift = no_drift,
    neighborhood: Neighborhood = unrestricted,
    adaptive: bool = False,
    diagnostics: Callable[[PolicyChange, Any], dict[str, jax.Array]] = lambda change, numbers: {},
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """The mirror-learning algorithm with that drift and neighborhood, for the team that `spec` describes.

    Agents update one after another in random order. Agent i_m takes

        π_new = argmax over π̂ in its neighborhood of E[r · M − D(π̂)],   r = π̂(aᵐ|oᵐ) / π_old(aᵐ|oᵐ),

    in which M is the standardized advantage times the compound ratio of the agents before it, and D the drift. If D is
    a drift functional (`check_drift`), and were the maximum and the advantage exact, no update could lower the team's
    return, and the policies would approach a Nash equilibrium (haml, Theorem 1).

    Args:
      name: what the algorithm calls itself, in results and errors.
      spec: the environment's specification; with a centralized critic its reward must be the team's.
      settings: static settings, with all that the neighborhood reads; its own if `None`.
      hyperparameters: default numbers, which `init` may replace, with all that neighborhood and drift read
        (`DriftHyperparameters` has a drift's coefficient); the neighborhood's if `None`.
      drift: D, an elementwise function `(change, numbers) -> [K, B]` (with a memory `[K, B, L]`); see `core/drifts.py`.
      neighborhood: one of `core/neighborhoods.py`.
      adaptive: the drift's coefficient follows the KL divergence (Schulman et al., 2017, Section 4): after an update of
        less than `kl_target / 1.5` an agent halves its own, after one of more than `kl_target · 1.5` it doubles it,
        within a factor of 1,024 of `drift_coef`.
      diagnostics: further things to report, elementwise likewise, `(change, numbers) -> {name: [K, B]}`.
      actor, critic: flax modules used as torsos instead of the MLP, from `x` `[…, O]` (for a centralized critic the
        state `[…, S]`), padded with zeros, to features `[…, H]`. A module whose `__call__` has a parameter `mask` also
        gets the entries that the agent has, bool `[O]`, or `None` if nothing is padded. With `memory="gru"` the unit
        follows it, and it sees sequences too, `[…, L, O]`.

    Raises:
      ValueError: a number is out of range or missing, a coefficient is to adapt that the drift does not read or that
        is 0, agents cannot share parameters, or the reward is of the wrong kind.
    """
    settings = neighborhood.settings if settings is None else settings
    hyperparameters = neighborhood.numbers if hyperparameters is None else hyperparameters
    neighborhood.check(settings, hyperparameters)
    hyperparameters.validate()
    read = numbers_read(drift, hyperparameters, spec)
    if adaptive:
        check_adaptive(read, hyperparameters)
    actors, critics = on_policy.make_networks(name, spec, settings, actor, critic)

    def init_actor(params: Any, numbers: Any) -> Learner:
        learner = neighborhood.init(params)
        return learner._replace(drift_coef=numbers.drift_coef) if adaptive else learner

    def update(key: jax.Array, state: OnPolicyState, batch: OnPolicyBatch) -> tuple[OnPolicyState, dict]:
        actor_key, critic_key = jax.random.split(key)
        estimates = on_policy.estimate(critics, state, batch)
        samples = group_batches(actors, batch, estimates)
        new_actors, actor_info = improve_in_sequence(
            actor_key, actors, settings.order, state.actors, state.actor_moments, samples, improve_group(state)
        )
        state, critic_info = on_policy.update_critics(critic_key, critics, settings, state, batch, estimates)
        state = on_policy.update_actor_moments(state, samples)
        return state._replace(actors=new_actors, updates=state.updates + 1), actor_info | critic_info

    def improve_group(state: OnPolicyState) -> Callable:
        numbers = state.hyperparameters
        rate = getattr(numbers, "actor_lr", None)  # a trust region has none
        learning_rate = None if rate is None else decayed(rate, state.updates, numbers.decay_updates)

        def improve(key: jax.Array, policy: GroupPolicy, learner: Learner, samples: GroupBatch):
            own = numbers.replace(drift_coef=learner.drift_coef) if adaptive else numbers
            objective = MirrorObjective(policy, drift, diagnostics, settings, own, learning_rate)
            new, info = neighborhood.improve(key, objective, learner, samples)
            return adapt(policy, learner, new, samples, numbers, own, info) if adaptive else (new, info)

        return improve

    return on_policy.make_algorithm(name, settings, hyperparameters, actors, critics, update, init_actor)


# An adaptive coefficient stays within this factor of where it began. Without a bound, one that is halved after every
# update, as while learning rates fall, would come to 0 and never be anything else.
COEFFICIENT_RANGE = 2.0**10


def check_adaptive(read: set[str], numbers: Any) -> None:
    """Raises ValueError unless there is a coefficient that can adapt, and the drift, which reads `read`, reads it."""
    if "drift_coef" not in read:
        raise ValueError("adaptive=True with a drift that does not read drift_coef; allowed: one that does")
    if not hasattr(numbers, "kl_target"):
        raise ValueError(f"{type(numbers).__name__} has no kl_target; allowed with adaptive=True: a class that has it")
    if not isinstance(numbers.drift_coef, jax.core.Tracer):
        check_number("drift_coef", numbers.drift_coef, 0, open_low=True)


def adapt(
    policy: GroupPolicy,
    old: Learner,
    new: Learner,
    samples: GroupBatch,
    numbers: Any,
    own: Any,
    info: dict[str, jax.Array],
) -> tuple[Learner, dict[str, jax.Array]]:
    """`new` with the coefficient that the update's mean KL(π_old ‖ π_new) calls for.

    `numbers` have the coefficient with which the training began, `own` that of the update.
    """
    kl = policy.mean_kl(old.params, new.params, samples)
    factor = jnp.where(kl > 1.5 * numbers.kl_target, 2.0, jnp.where(kl < numbers.kl_target / 1.5, 0.5, 1.0))
    least, most = numbers.drift_coef / COEFFICIENT_RANGE, numbers.drift_coef * COEFFICIENT_RANGE
    info = info | {"kl": kl, "drift_coef": own.drift_coef}
    return new._replace(drift_coef=jnp.clip(own.drift_coef * factor, least, most)), info
