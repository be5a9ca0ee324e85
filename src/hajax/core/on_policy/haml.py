"""Heterogeneous-agent mirror learning: give a drift and a neighborhood, get an algorithm.

Kuba et al., *Heterogeneous-Agent Mirror Learning* (2022), Algorithm Template 1: https://arxiv.org/abs/2208.01682.
HAPPO, HATRPO and HAA2C are instances, and so is whatever `docs/mirror-learning.md` shows how to write in ten lines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from hajax.core.algorithm import Algorithm
from hajax.core.batches import OnPolicyBatch
from hajax.core.drifts import Drift, PolicyChange, check_reads, no_drift
from hajax.core.neighborhoods import Neighborhood, unrestricted
from hajax.core.neighborhoods import adaptive as adaptive_coefficient
from hajax.core.on_policy import template
from hajax.core.on_policy.compound_ratio import GroupPolicy, MirrorObjective, improve_in_sequence
from hajax.core.on_policy.samples import GroupBatch, group_batches
from hajax.core.on_policy.template import OnPolicyState
from hajax.core.optimization import Learner, actor_rate
from hajax.core.settings import Hyperparameters, Settings, combined
from hajax.spec import EnvSpec
from hajax.validation import check_has, check_number


def haml(
    name: str,
    spec: EnvSpec,
    settings: Settings | None = None,
    hyperparameters: Hyperparameters | None = None,
    *,
    drift: Drift = no_drift,
    neighborhood: Neighborhood = unrestricted,
    adaptive: bool = False,
    diagnostics: Callable[[PolicyChange, Any], dict[str, jax.Array]] = lambda change, hyperparameters: {},
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """The mirror-learning algorithm with that drift and neighborhood, for the team that `spec` describes.

    Agents update one after another in random order. Agent i_m takes

        π_new = argmax over π̂ in its neighborhood of E[r · M − D(π̂)],   r = π̂(aᵐ|oᵐ) / π_old(aᵐ|oᵐ),

    in which M is the standardized advantage times the compound ratio of the agents before it, and D the drift. If D is
    a drift functional (`check_drift`), and were the maximum and the advantage exact, no update could lower the team's
    return, and the policies would approach a Nash equilibrium (Kuba et al., 2022b, Theorem 1).

    Args:
      name: what the algorithm calls itself, in results and errors.
      spec: the environment's specification; with a centralized critic its reward must be the team's.
      settings: static settings, with all that the neighborhood reads; the defaults if `None`.
      hyperparameters: the default hyperparameters, which `init` may replace, with all that neighborhood and drift read
        (`DriftHyperparameters` has a drift's coefficient); what the neighborhood reads if `None`. An entropy bonus is
        added if they have an `entropy_coef`.
      drift: D, of `core/drifts.py` or one's own.
      neighborhood: one of `core/neighborhoods.py`.
      adaptive: the drift's coefficient follows the KL divergence (Schulman et al., 2017, Section 4): after an update of
        less than `kl_target / 1.5` an agent halves its own, after one of more than `kl_target · 1.5` it doubles it,
        within a factor of 1,024 of `drift_coef`.
      diagnostics: further things to report, elementwise as a drift, `(change, hyperparameters) -> {name: [K, B]}`.
      actor, critic: flax modules used as torsos instead of the MLP, from `x` `[…, O]` (for a centralized critic the
        state `[…, S]`), padded with zeros, to features `[…, H]`. A module whose `__call__` has a parameter `mask` also
        gets the entries that the agent has, bool `[O]`, or `None` if nothing is padded. With `memory="gru"` the unit
        follows it, and it sees sequences too, `[…, L, O]`. Or as `critic` a
        `TeamCritic` that reads the state and the agents' observations one by one.

    Raises:
      ValueError: a number is out of range or missing, a coefficient is to adapt that the drift does not read or that
        is 0, agents cannot share parameters, or the reward is of the wrong kind.
    """
    if adaptive:
        neighborhood = adaptive_coefficient(neighborhood)
    read = combined(Settings, neighborhood.settings), combined(Hyperparameters, neighborhood.hyperparameters)
    settings = read[0]() if settings is None else settings
    hyperparameters = read[1]() if hyperparameters is None else hyperparameters
    check_has(settings, read[0])
    check_has(hyperparameters, read[1])
    hyperparameters.validate()
    check_reads(drift, hyperparameters)
    if adaptive:
        check_adaptive(drift, hyperparameters)
    actors, critics = template.make_networks(name, spec, settings, actor, critic)

    def update(key: jax.Array, state: OnPolicyState, batch: OnPolicyBatch) -> tuple[OnPolicyState, dict]:
        actor_key, critic_key = jax.random.split(key)
        estimates = template.estimate(critics, state, batch)
        samples = group_batches(actors, batch, estimates)
        prepare_key = jax.random.fold_in(actor_key, 2)  # 0 and 1 are what it is split into
        learners = neighborhood.prepared(prepare_key, state.hyperparameters, state.actors, samples)
        learning_rate = actor_rate(state)

        def improve(key: jax.Array, policy: GroupPolicy, learner: Learner, samples: GroupBatch):
            objective = MirrorObjective(policy, drift, diagnostics, settings, state.hyperparameters, learning_rate)
            return neighborhood.improve(key, objective, learner, samples)

        new_actors, actor_info = improve_in_sequence(actor_key, actors, settings.order, learners, samples, improve)
        state, critic_info = template.update_critics(critic_key, critics, settings, state, batch, estimates)
        return state._replace(actors=new_actors, updates=state.updates + 1), actor_info | critic_info

    return template.make_algorithm(name, settings, hyperparameters, actors, critics, update, neighborhood.init)


def check_adaptive(drift: Drift, hyperparameters: Any) -> None:
    """Raises ValueError unless there is a coefficient that can adapt, and the drift reads it."""
    if "drift_coef" not in drift.reads:
        raise ValueError("adaptive=True with a drift that does not read drift_coef; allowed: one that does")
    if not isinstance(hyperparameters.drift_coef, jax.core.Tracer):
        check_number("drift_coef", hyperparameters.drift_coef, 0, open_low=True)
