"""Maximum-entropy heterogeneous-agent mirror learning: soft policies improved in sequence, with any drift.

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
from hajax.core.off_policy.joint_sequence import GroupActor, GroupSamples, Info, group_samples
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
    choices: Choices | None  # of every group, `[G, M, …]`, for the exact expectation
    stochastic = True

    def check(self, hyperparameters: EntropyHyperparameters) -> None:
        super().check(hyperparameters)
        if self.settings.auto_temperature and not isinstance(hyperparameters.temperature, jax.core.Tracer):
            check_number("temperature", hyperparameters.temperature, 0, open_low=True)  # an α of 0 could not grow

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
        """A whole team's actions by its current policies, and their features `[B, N, F]`."""
        parameters = self.team(state.actors.params, observation, action_mask)
        drawn = draw(key, parameters, self.policies.layout, state.hyperparameters.gumbel_temperature)
        return drawn, self.team_actions.join(self.policies.layout, drawn.choice, drawn.unit)

    def target_values(self, state: OffPolicyState, key: jax.Array, minibatch: OffPolicyBatch) -> jax.Array:
        """The soft value `[1, B]` of the final states."""
        drawn, features = self.drawn(key, state, minibatch.final_observation, minibatch.final_action_mask)
        joint = blank(features, minibatch.final_active)
        value = self.critics.values(state.target_critics, final_critic_input(minibatch), joint).min(1)
        log_prob = jnp.where(minibatch.final_active, self.temperatures(state) * drawn.log_prob, 0)
        return value - jnp.sum(log_prob, -1)

    def samples(self, state: OffPolicyState, minibatch: OffPolicyBatch) -> GroupSamples:
        return group_samples(self.policies, minibatch)._replace(extra=self.choices)

    def objective(self, state: OffPolicyState, minibatch: OffPolicyBatch) -> ObjectiveOfGroup:
        params = jax.tree.map(lambda x: x[0], state.critics.params)
        alpha, common = self.temperatures(state), self.common(state)

        def of_group(tables: GroupTables, joint: jax.Array, samples: GroupSamples) -> SoftObjective:
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
        self, key: jax.Array, objective: SoftObjective, params: Any, samples: GroupSamples
    ) -> tuple[jax.Array, Info]:
        drawn, features = objective.drawn(key, objective.distribution(params, samples), samples)
        return features, {"log_prob": drawn.log_prob}

    def finish(self, state: OffPolicyState, minibatch: OffPolicyBatch, info: Info) -> tuple[OffPolicyState, Info]:
        """The temperatures' step, by the entropies of the new policies."""
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
        """H `[N, B]`, in nats, of native actions."""
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
    """Maximum-entropy mirror learning with that drift, for the team that `spec` describes.

    Agents update one after another, in the settings' order. Agent i_m ascends, for `epochs` steps,

        E[min_j Q_j(s, a_new^{i_1:m-1}, a^{i_m}, a^{i_m+1:n}) − α log π̂(a^{i_m}|o^{i_m}) − D(π̂)],   a^{i_m} ~ π̂,

    in which the agents before it act by samples of their new policies, and those after it by samples of their current
    ones (`others="policy"`) or as the replay says (`others="replay"`). Two critics regress on

        y = Σ_{j<k} γʲ rʲ + γᵏ (1 − terminated) (min_j Q′_j(s′, a′) − Σᵢ αᵢ log πⁱ(a′ⁱ|o′ⁱ)),   a′ ~ π,

    with targets φ′ ← τ φ + (1 − τ) φ′; the entropies of the steps between are left out, as in HARL. Inactive agents
    have no part in entropies. With `auto_temperature` every agent's α descends E[−α (log π(a|o) + H)]: H is
    `target_entropy` for each real component (in units in which its bounds are ±1) and `target_entropy_share` · log n
    for each choice among n that are available.

    Args:
      name: what the algorithm calls itself, in results and errors.
      spec: the environment's specification; agents may mix discrete and Box actions.
      settings, hyperparameters: the static settings, and the default hyperparameters, which `init` may replace, with
        all that neighborhood and drift read (`SoftDriftHyperparameters` has a drift's coefficient); what the
        neighborhood reads if `None`.
      drift: D, as of `core/drifts.py`. Its samples are drawn from the policy before the update; their advantage M is
        Q − α log π, against another sample of that policy.
      neighborhood: `unrestricted` (`epochs` of Adam), `gradient_step` or `kl_ball` of `core/neighborhoods.py`. The
        line search of the last evaluates sampled actions, of which discrete ones jump: with `expectation="exact"` it
        evaluates what it climbs. `gradient_step`, which no drift changes, is as long as `max_grad_norm` says, which is
        infinite unless it is set.
      actor, critic: flax modules used instead of the MLP; see `core.off_policy.deterministic`.

    Raises:
      ValueError: a hyperparameter is out of range or missing, agents cannot share parameters, the reward is of the
        wrong kind, every agent has a state of its own, or an exact expectation is not available.
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
