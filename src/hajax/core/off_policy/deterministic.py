"""Deterministic policy gradients for teams: HADDPG, HATD3 and their multi-agent baselines."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.core.actors import GroupTables, TeamActors, policy_torso
from hajax.core.algorithm import Algorithm
from hajax.core.batches import CriticInput, OffPolicyBatch, critic_input, final_critic_input
from hajax.core.groups import make_groups
from hajax.core.inactive import blank
from hajax.core.neighborhoods import unrestricted
from hajax.core.off_policy import template
from hajax.core.off_policy.joint_actions import JointActions
from hajax.core.off_policy.joint_critics import ActionValues, action_values
from hajax.core.off_policy.joint_sequence import GroupActor, GroupObjective, Info, OffPolicySamples, score
from hajax.core.off_policy.settings import DeterministicHyperparameters, DeterministicSettings
from hajax.core.off_policy.template import ObjectiveOfGroup, OffPolicyState, Parts
from hajax.nn.squashing import clip_to_bounds, native, squashed_mean
from hajax.spaces import Box
from hajax.spec import EnvSpec, Timestep


@dataclasses.dataclass(frozen=True)
class ActionValueObjective(GroupObjective):
    """E[Q(s, μ(o), …)] of one group's deterministic policies, by the first critic.

    Deterministic policies have no KL divergence, so the neighborhood must be one of gradient steps.
    """

    actions: JointActions
    critics: ActionValues
    actor: GroupActor
    params: Any  # the critics', [V, …]
    inputs: CriticInput  # the critics' inputs beside actions, [B, …]
    joint: jax.Array  # [B, N, F], the joint action that the group sees

    def features(self, params: Any, samples: OffPolicySamples) -> jax.Array:
        """The features of the policies' actions, `[K, B, F]`."""
        layout = self.actor.tables.layout
        return self.actions.join(layout, None, squashed_mean(layout, self.actor.distribution(params, samples)))

    def loss(self, key: jax.Array, params: Any, old_params: Any, samples: OffPolicySamples) -> tuple[jax.Array, Info]:
        features = self.features(params, samples)
        loss = -score(self.critics, self.params, self.inputs, self.joint, samples, features)
        return loss, {"policy_loss": loss}


@dataclasses.dataclass(frozen=True)
class DeterministicParts(Parts):
    """See `deterministic_policy_gradient`."""

    policies: TeamActors
    critics: ActionValues
    team_actions: JointActions
    settings: DeterministicSettings
    twin: bool
    neighborhood = unrestricted
    has_target_actors = True

    def units(self, params: Any, observation: jax.Array) -> jax.Array:
        """The policies' actions `[…, N, D]`, in units in which bounds are ±1."""
        parameters, _ = self.policies.team_distribution(params, observation, None)
        return squashed_mean(self.policies.layout, parameters)

    def initial_memory(self, batch_shape: tuple[int, ...]) -> Any:
        """The Ornstein-Uhlenbeck noise before the first step, `[…, N, D]`; empty for independent noise."""
        spec = self.policies.spec
        shape = (*batch_shape, spec.num_agents, spec.num_components)
        return jnp.zeros(shape) if self.settings.exploration == "ou" else ()

    def act(self, key: jax.Array, state: OffPolicyState, timestep: Timestep, memory: Any, deterministic: bool) -> Any:
        layout, hyperparameters = self.policies.layout, state.hyperparameters
        u = self.units(state.actors.params, timestep.observation)
        if not deterministic:
            noise = hyperparameters.exploration_noise * jax.random.normal(key, u.shape, u.dtype)
            if self.settings.exploration == "ou":
                before = jnp.where(timestep.first[..., None, None], 0, memory)
                memory = noise = (1 - hyperparameters.ou_rate) * before + noise
            u = clip_to_bounds(layout, u + noise)
        return native(layout, u), memory

    def joint(self, batch: OffPolicyBatch) -> jax.Array:
        return blank(self.team_actions.features(self.policies.layout, batch.action), batch.active)

    def actions(self, key: jax.Array, state: OffPolicyState, minibatch: OffPolicyBatch) -> jax.Array:
        u = self.units(state.actors.params, minibatch.observation)
        return blank(self.team_actions.join(self.policies.layout, None, u), minibatch.active)

    def target_values(self, state: OffPolicyState, key: jax.Array, minibatch: OffPolicyBatch) -> jax.Array:
        """Q′(s′, μ′(o′)), or with twin critics min_j Q′_j at noisy actions, `[V, B]`."""
        layout, hyperparameters = self.policies.layout, state.hyperparameters
        u = self.units(state.target_actors, minibatch.final_observation)
        if self.twin:
            noise = hyperparameters.target_noise * jax.random.normal(key, u.shape, u.dtype)
            noise = jnp.clip(noise, -hyperparameters.target_noise_clip, hyperparameters.target_noise_clip)
            u = clip_to_bounds(layout, u + noise)
        joint = blank(self.team_actions.join(layout, None, u), minibatch.final_active)
        return self.critics.values(state.target_critics, final_critic_input(minibatch), joint).min(1)

    def objective(
        self, key: jax.Array, state: OffPolicyState, minibatch: OffPolicyBatch, first: jax.Array
    ) -> ObjectiveOfGroup:
        first_copy = jax.tree.map(lambda x: x[:, 0], state.critics.params)
        common = self.common(state)

        def of_group(tables: GroupTables, joint: jax.Array, samples: OffPolicySamples) -> ActionValueObjective:
            return ActionValueObjective(
                **common,
                actions=self.team_actions,
                critics=self.critics,
                actor=GroupActor(self.policies, tables),
                params=first_copy,
                inputs=critic_input(minibatch),
                joint=joint,
            )

        return of_group

    def new_actions(
        self, key: jax.Array, objective: ActionValueObjective, params: Any, samples: OffPolicySamples
    ) -> tuple[jax.Array, Info]:
        return objective.features(params, samples), {}


def deterministic_policy_gradient(
    name: str,
    spec: EnvSpec,
    settings: DeterministicSettings,
    hyperparameters: DeterministicHyperparameters,
    *,
    twin: bool,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """Deterministic policy gradients with single critics (DDPG), or with twin critics and target noise (TD3).

    Agents are updated one after another, in the order of the settings. Agent i_m ascends

        E[Q(s, μ_new^{i_1:m-1}(o), μ^{i_m}(o^{i_m}), a^{i_m+1:n})]

    for `epochs` steps. The actions of the agents updated later are those of the replay (`others="replay"`) or of their
    current policies (`others="policy"`). The critics regress on Σ_{j<k} γʲ rʲ + γᵏ (1 − terminated) Q′(s′, μ′(o′)),
    with target networks φ′ ← τ φ + (1 − τ) φ′. The output of a policy is squashed by tanh where an action is bounded.

    Args:
      name: the algorithm's name in results and error messages.
      spec: the environment's specification; every action must be a Box.
      settings, hyperparameters: the static settings, and the default hyperparameters, which `init` may replace.
      twin: two critics, the smaller of whose values is the target value, and clipped noise on the target actions.
      actor, critic: flax modules used as torsos instead of the MLP, from `x` `[…, O]` (for the critic the state and the
        joint action's features, `[…, S + A]`) to features `[…, H]`; see `hajax.haml`. `critic` may also be a
        `hajax.nn.TeamCritic`, which reads the observations and actions of all agents.

    Raises:
      ValueError: a hyperparameter is out of range, an action is not a Box, agents cannot share parameters, the reward
        is of the wrong kind, or the environment has a state per agent.
    """
    for agent in spec.agents:
        if not isinstance(agent.action_space, Box):
            raise ValueError(
                f"action_space={agent.action_space} of {agent.name} does not suit {name}, whose policies are "
                "deterministic; allowed: Box"
            )
    template.check_spec(name, spec, settings.per_agent_critics)
    groups, actions = make_groups(spec, settings.sharing), JointActions(spec)
    actor = policy_torso(spec, settings, actor)
    actors = TeamActors(spec, groups, actor, settings.agent_id, True, settings.output_gain, std="none")
    critics = action_values(
        spec, actions, settings, critic, copies=2 if twin else 1, per_agent=settings.per_agent_critics
    )
    parts = DeterministicParts(actors, critics, actions, settings, twin)
    return template.make_algorithm(name, parts, hyperparameters)
