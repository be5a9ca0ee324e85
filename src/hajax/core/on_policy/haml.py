"""Heterogeneous-agent mirror learning: an algorithm from a drift and a neighborhood.

Kuba et al., *Heterogeneous-Agent Mirror Learning* (2022b), Algorithm Template 1: https://arxiv.org/abs/2208.01682.
HAPPO, HATRPO, HAA2C and A2PO are instances. `docs/mirror-learning.md` shows how to write new ones.
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
from hajax.core.on_policy.compound_ratio import AtPosition, GroupPolicy, MirrorObjective, improve_in_sequence
from hajax.core.on_policy.samples import OnPolicySamples, group_samples, group_trace_terms
from hajax.core.on_policy.settings import Hyperparameters, Settings
from hajax.core.on_policy.template import OnPolicyState
from hajax.core.optimization import Learner, actor_rate
from hajax.core.settings import combined
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
    at_position: AtPosition | None = None,
    corrected_traces: bool = False,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """The mirror-learning algorithm with a drift and a neighborhood, for the team that `spec` describes.

    Agents are updated one after another in random order. Agent i_m takes

        π_new = argmax over π̂ in its neighborhood of E[r · M − D(π̂)],   r = π̂(aᵐ|oᵐ) / π_old(aᵐ|oᵐ),

    where M is the standardized advantage times the (guarded) compound ratio of the agents updated before, and D is
    the drift. If D is a drift functional (`hajax.check_drift`), the maximum and the advantage are exact, and
    `guard="none"`, no update lowers the team's return, and the limit points of the policies are Nash equilibria (Kuba
    et al., 2022b, Theorem 1).

    Args:
      name: the algorithm's name in results and error messages.
      spec: the environment's specification. A centralized critic needs the team reward.
      settings: the static settings, with the fields that the neighborhood reads; the defaults if `None`.
      hyperparameters: the default hyperparameters, which `init` may replace, with the fields that the neighborhood and
        the drift read (`hajax.settings.DriftHyperparameters` has a drift's coefficient). If `None`, the defaults of
        those that the neighborhood reads. An entropy bonus is added if there is an `entropy_coef`.
      drift: D, one of `hajax.drifts` or your own.
      neighborhood: one of `hajax.neighborhoods` or your own.
      adaptive: adapt the drift's coefficient to the KL divergence, per group (Schulman et al., 2017, Section 4). It is
        halved after an update with a mean KL divergence of less than `kl_target / 1.5`, doubled after one with more
        than `kl_target · 1.5`, and kept within a factor of 1,024 of `drift_coef`.
      diagnostics: further diagnostics, elementwise like a drift: `(change, hyperparameters) -> {name: [K, B]}`.
      at_position: `(hyperparameters, position) -> hyperparameters`: those of a group by its position in the order.
      corrected_traces: cut the traces of every group's advantage by the ratio of the agents updated before, as in A2PO.
      actor, critic: flax modules used as torsos instead of the MLP, from `x` `[…, O]` (for a centralized critic the
        state `[…, S]`), padded with zeros, to features `[…, H]`. If `__call__` has a parameter `mask`, it also receives
        the entries that the agent has, bool `[O]`, or `None` if nothing is padded. With a memory, which follows the
        torso, inputs may also be sequences `[…, L, O]`. `critic` may also be a `hajax.nn.TeamCritic`, which reads the
        state and the observations of all agents `[…, N, O]`.

    Raises:
      ValueError: a hyperparameter is out of range or missing, `adaptive` is set but the drift does not read
        `drift_coef` or it is 0, agents cannot share parameters, or the reward is of the wrong kind.
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
        samples = group_samples(actors, batch, estimates)
        prepare_key = jax.random.fold_in(actor_key, 2)  # `split` derives keys 0 and 1
        learners = neighborhood.prepared(prepare_key, state.hyperparameters, state.actors, samples)
        learning_rate = actor_rate(state)

        def improve(key: jax.Array, policy: GroupPolicy, learner: Learner, samples: OnPolicySamples, current: Any):
            objective = MirrorObjective(policy, drift, diagnostics, settings, current, learning_rate)
            return neighborhood.improve(key, objective, learner, samples)

        new_actors, actor_info = improve_in_sequence(
            actor_key,
            actors,
            settings,
            state.hyperparameters,
            learners,
            samples,
            improve,
            at_position,
            group_trace_terms(actors, batch, estimates) if corrected_traces else None,
        )
        state, critic_info = template.update_critics(critic_key, critics, settings, state, batch, estimates)
        return state._replace(actors=new_actors, updates=state.updates + 1), actor_info | critic_info

    return template.make_algorithm(name, settings, hyperparameters, actors, critics, update, neighborhood.init)


def check_adaptive(drift: Drift, hyperparameters: Any) -> None:
    """Raises ValueError unless the drift reads `drift_coef` and it is positive."""
    if "drift_coef" not in drift.reads:
        raise ValueError("adaptive=True with a drift that does not read drift_coef; allowed: one that does")
    if not isinstance(hyperparameters.drift_coef, jax.core.Tracer):
        check_number("drift_coef", hyperparameters.drift_coef, 0, open_low=True)
