"""Maximum-entropy heterogeneous-agent mirror learning: an algorithm from a drift and a neighborhood, with soft values.

Liu et al., *Maximum Entropy Heterogeneous-Agent Reinforcement Learning* (ICLR 2024), Algorithms 1 and 2:
https://arxiv.org/abs/2306.10715. HASAC is the instance without drift.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.core.actors import GroupTables, TeamActors, policy_torso
from hajax.core.algorithm import Algorithm
from hajax.core.batches import OffPolicyBatch, critic_input, final_critic_input
from hajax.core.drifts import Drift, check_reads, no_drift
from hajax.core.groups import make_groups
from hajax.core.inactive import blank
from hajax.core.losses import weighted_mean
from hajax.core.neighborhoods import Neighborhood, unrestricted
from hajax.core.off_policy import template
from hajax.core.off_policy.choices import Choices
from hajax.core.off_policy.joint_actions import JointActions
from hajax.core.off_policy.joint_critics import ActionValues, action_values
from hajax.core.off_policy.joint_sequence import GroupActor, Info, OffPolicySamples, group_samples
from hajax.core.off_policy.settings import EntropyHyperparameters, SoftSettings
from hajax.core.off_policy.soft_objective import SoftObjective, own_choices
from hajax.core.off_policy.template import ObjectiveOfGroup, OffPolicyState, Parts
from hajax.core.optimization import Learner, adam_step, decayed, init_learner
from hajax.core.settings import combined
from hajax.nn.distributions import ActionParameters
from hajax.nn.networks import available_choices
from hajax.nn.squashing import Drawn, action_of, draw, most_likely
from hajax.spec import EnvSpec, Timestep
from hajax.validation import check_has, check_number


@dataclasses.dataclass(frozen=True)
class SoftParts(Parts):
    """See `mehaml`."""

    policies: TeamActors
    critics: ActionValues
    team_actions: JointActions
    settings: SoftSettings
    drift: Drift
    neighborhood: Neighborhood
    choices: Choices | None  # of every group, `[G, M, …]`; `None` if the expectation is sampled
    stochastic = True

    def check(self, hyperparameters: EntropyHyperparameters) -> None:
        super().check(hyperparameters)
        if self.settings.auto_temperature and not isinstance(hyperparameters.temperature, jax.core.Tracer):
            check_number("temperature", hyperparameters.temperature, 0, open_low=True)  # log α must be finite

    def init_temperatures(self, hyperparameters: EntropyHyperparameters) -> Learner | None:
        if not self.settings.auto_temperature:
            return None
        log_temperature = jnp.full(self.policies.spec.num_agents, jnp.log(hyperparameters.temperature))
        return jax.vmap(init_learner)(log_temperature)

    def temperatures(self, state: OffPolicyState) -> jax.Array:
        """α of every agent, `[N]`."""
        if state.temperatures is None:
            return jnp.broadcast_to(state.hyperparameters.temperature, (self.policies.spec.num_agents,))
        return jnp.exp(state.temperatures.params)

    def team(self, params: Any, observation: jax.Array, action_mask: jax.Array) -> ActionParameters:
        mask = action_mask if self.policies.spec.masks_actions else None
        return self.policies.team_distribution(params, observation, mask)[0]

    def act(self, key: jax.Array, state: OffPolicyState, timestep: Timestep, memory: Any, deterministic: bool) -> Any:
        layout = self.policies.layout
        parameters = self.team(state.actors.params, timestep.observation, timestep.action_mask)
        if deterministic:
            return action_of(layout, *most_likely(parameters, layout)), memory
        drawn = draw(key, parameters, layout, state.hyperparameters.gumbel_temperature)
        return action_of(layout, drawn.choice, drawn.unit), memory

    def joint(self, batch: OffPolicyBatch) -> jax.Array:
        return blank(self.team_actions.features(self.policies.layout, batch.action), batch.active)

    def actions(self, key: jax.Array, state: OffPolicyState, minibatch: OffPolicyBatch) -> jax.Array:
        _, features = self.drawn(key, state, minibatch.observation, minibatch.action_mask)
        return blank(features, minibatch.active)

    def drawn(
        self, key: jax.Array, state: OffPolicyState, observation: jax.Array, action_mask: jax.Array
    ) -> tuple[Drawn, jax.Array]:
        """Sampled actions of the current policies of all agents, and their features `[B, N, F]`."""
        parameters = self.team(state.actors.params, observation, action_mask)
        drawn = draw(key, parameters, self.policies.layout, state.hyperparameters.gumbel_temperature)
        return drawn, self.team_actions.join(self.policies.layout, drawn.choice, drawn.unit)

    def target_values(self, state: OffPolicyState, key: jax.Array, minibatch: OffPolicyBatch) -> jax.Array:
        """The soft values min_j Q′_j − Σᵢ αᵢ log πⁱ of the final states, `[1, B]`."""
        drawn, features = self.drawn(key, state, minibatch.final_observation, minibatch.final_action_mask)
        joint = blank(features, minibatch.final_active)
        value = self.critics.values(state.target_critics, final_critic_input(minibatch), joint).min(1)
        log_prob = jnp.where(minibatch.final_active, self.temperatures(state) * drawn.log_prob, 0)
        return value - jnp.sum(log_prob, -1)

    def samples(self, state: OffPolicyState, minibatch: OffPolicyBatch) -> OffPolicySamples:
        return group_samples(self.policies, minibatch)._replace(objective_data=self.choices)

    def objective(
        self, key: jax.Array, state: OffPolicyState, minibatch: OffPolicyBatch, first: jax.Array
    ) -> ObjectiveOfGroup:
        params = jax.tree.map(lambda x: x[0], state.critics.params)
        alpha, common = self.temperatures(state), self.common(state)

        def of_group(tables: GroupTables, joint: jax.Array, samples: OffPolicySamples) -> SoftObjective:
            return SoftObjective(
                **common,
                actions=self.team_actions,
                critics=self.critics,
                actor=GroupActor(self.policies, tables),
                params=params,
                inputs=critic_input(minibatch),
                joint=joint,
                temperature=jnp.take(alpha, samples.slot, mode="clip")[:, None],
                drift=self.drift,
            )

        return of_group

    def new_actions(
        self, key: jax.Array, objective: SoftObjective, params: Any, samples: OffPolicySamples
    ) -> tuple[jax.Array, Info]:
        drawn, features = objective.drawn(key, objective.distribution(params, samples), samples)
        return features, {"log_prob": drawn.log_prob}

    def finish(self, state: OffPolicyState, minibatch: OffPolicyBatch, info: Info) -> tuple[OffPolicyState, Info]:
        """One step of the temperatures, from the entropies of the new policies."""
        hyperparameters, alpha = state.hyperparameters, self.temperatures(state)
        log_prob = self.policies.groups.scatter(info.pop("log_prob"), axis=0)  # [N, B]
        weight = jnp.moveaxis(minibatch.active, -1, 0).astype(log_prob.dtype)
        if state.temperatures is not None:
            surplus = jax.vmap(weighted_mean)(-log_prob - self.target_entropy(minibatch, hyperparameters), weight)
            rate = decayed(hyperparameters.temperature_lr, state.updates, hyperparameters.decay_updates)
            adapt = jax.vmap(adam_step, in_axes=(0, 0, None, None, None))
            adapted, _ = adapt(state.temperatures, alpha * surplus, rate, math.inf, hyperparameters.adam_eps)
            state = state._replace(temperatures=adapted)
        return state, info | {"entropy": -jax.vmap(weighted_mean)(log_prob, weight), "temperature": alpha}

    def target_entropy(self, minibatch: OffPolicyBatch, hyperparameters: EntropyHyperparameters) -> jax.Array:
        """The target entropy H of native actions, `[N, B]`, in nats."""
        layout = self.policies.layout
        available = available_choices(layout, minibatch.action_mask).sum(-1)  # [B, N, D]
        choice = hyperparameters.target_entropy_share * jnp.log(jnp.maximum(available, 1))
        real = hyperparameters.target_entropy + jnp.log(layout.scale)
        return jnp.where(layout.discrete, choice, jnp.where(layout.continuous, real, 0)).sum(-1).T


def mehaml(
    name: str,
    spec: EnvSpec,
    settings: SoftSettings | None = None,
    hyperparameters: EntropyHyperparameters | None = None,
    *,
    drift: Drift = no_drift,
    neighborhood: Neighborhood = unrestricted,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """Maximum-entropy mirror learning with a drift and a neighborhood, for the team that `spec` describes.

    Agents are updated one after another, in the order of the settings. Agent i_m ascends, for `epochs` steps,

        E[min_j Q_j(s, a_new^{i_1:m-1}, a^{i_m}, a^{i_m+1:n}) − α log π̂(a^{i_m}|o^{i_m}) − D(π̂)],   a^{i_m} ~ π̂,

    where the actions of the agents updated before are samples of their new policies. Those of the agents updated later
    are samples of their current policies (`others="policy"`) or the replay's (`others="replay"`). Two critics regress
    on

        y = Σ_{j<k} γʲ rʲ + γᵏ (1 − terminated) (min_j Q′_j(s′, a′) − Σᵢ αᵢ log πⁱ(a′ⁱ|o′ⁱ)),   a′ ~ π,

    with target networks φ′ ← τ φ + (1 − τ) φ′. The entropies of the intermediate steps are omitted, as in HARL, and so
    are those of inactive agents. With `auto_temperature` the α of every agent descends E[−α (log π(a|o) + H)]. The
    target entropy H is `target_entropy` for each real component (in units in which its bounds are ±1) plus
    `target_entropy_share` · log n for each discrete component with n available choices.

    Args:
      name: the algorithm's name in results and error messages.
      spec: the environment's specification; agents may have discrete and Box actions.
      settings, hyperparameters: the static settings, and the default hyperparameters, which `init` may replace, with
        the fields that the neighborhood and the drift read (`hajax.settings.SoftDriftHyperparameters` has a drift's
        coefficient). If `None`, the defaults of those that the neighborhood reads.
      drift: D, one of `hajax.drifts` or your own. Its samples are drawn from the policy before the update; their
        advantage M is Q − α log π minus the same quantity at another sample of that policy.
      neighborhood: one of `hajax.neighborhoods` or your own. The line search of `kl_ball` evaluates sampled actions.
        Sampled choices change discontinuously with the parameters, so for discrete actions use it with
        `expectation="exact"`. The length of `gradient_step`, which does not depend on the drift, is limited by
        `max_grad_norm`, which is infinite by default.
      actor, critic: flax modules used instead of the MLP, with the inputs of
        `core.off_policy.deterministic.deterministic_policy_gradient`.

    Raises:
      ValueError: a hyperparameter is out of range or missing, agents cannot share parameters, the reward is of the
        wrong kind, the environment has a state per agent, or the exact expectation is not available.
    """
    read = combined(SoftSettings, neighborhood.settings), combined(EntropyHyperparameters, neighborhood.hyperparameters)
    settings = read[0](others="policy") if settings is None else settings
    hyperparameters = read[1]() if hyperparameters is None else hyperparameters
    check_has(settings, read[0])
    check_has(hyperparameters, read[1])
    check_reads(drift, hyperparameters)
    template.check_spec(name, spec, per_agent_critics=False)
    groups, actions = make_groups(spec, settings.sharing), JointActions(spec)
    actor = policy_torso(spec, settings, actor)
    actors = TeamActors(spec, groups, actor, settings.agent_id, True, settings.output_gain, std="network")
    critics = action_values(spec, actions, settings, critic, copies=2)
    choices = own_choices(name, spec, groups) if settings.expectation == "exact" else None
    parts = SoftParts(actors, critics, actions, settings, drift, neighborhood, choices)
    return template.make_algorithm(name, parts, hyperparameters)
