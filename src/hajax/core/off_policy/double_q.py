"""Double Q-learning for teams: individual action values, regressed on a joint critic or on individual targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.core.actors import policy_torso
from hajax.core.algorithm import Algorithm
from hajax.core.batches import CriticInput, OffPolicyBatch, critic_input, final_critic_input
from hajax.core.groups import make_groups
from hajax.core.inactive import blank
from hajax.core.losses import weighted_mean
from hajax.core.neighborhoods import unrestricted
from hajax.core.off_policy import template
from hajax.core.off_policy.choices import MOST_JOINT_CHOICES, TeamChoices, team_choices
from hajax.core.off_policy.joint_actions import JointActions
from hajax.core.off_policy.joint_critics import ActionValues, Critics, action_values, discounted
from hajax.core.off_policy.joint_sequence import GroupObjective, Info, OffPolicySamples, group_samples
from hajax.core.off_policy.own_values import OwnValues, ValueTables, best, make_dueling
from hajax.core.off_policy.settings import DoubleQHyperparameters, DoubleQSettings, DuelingSettings
from hajax.core.off_policy.template import ObjectiveOfGroup, OffPolicyState, Parts
from hajax.nn.dueling import Dueling
from hajax.nn.dueling import action_values as dueling_values
from hajax.nn.networks import TeamCritic, init_params
from hajax.spec import EnvSpec, Timestep

# `(joint [B, N, 1], slot) -> [B, M]`: the values of all choices of the agent `slot`, with the other agents' choices of
# the joint action.
Alternatives = Callable[[jax.Array, jax.Array], jax.Array]


class ChoiceValues(Critics, Protocol):
    """Critics of joint actions that are given as choice indices `[B, N, 1]`."""

    def init(self, key: jax.Array) -> Any:
        """Parameters stacked `[1, 1, …]`: one critic, one network."""

    def alternatives(self, params: Any, inputs: CriticInput) -> Alternatives:
        """The network's values of all choices of any one agent, given the choices of the others."""


@dataclasses.dataclass(frozen=True)
class JointValues(ChoiceValues):
    """Static description of the default critic: a dueling network from the state to the values of all joint choices."""

    spec: EnvSpec
    choices: TeamChoices
    module: Dueling

    def init(self, key: jax.Array) -> Any:
        params = init_params(self.module, key, jnp.zeros(self.spec.state_size))
        return jax.tree.map(lambda x: x[None, None], params)

    def table(self, params: Any, inputs: CriticInput) -> jax.Array:
        """Q(s, ·) `[B, J]`."""
        return dueling_values(self.module, params, inputs.state)

    def value(self, params: Any, inputs: CriticInput, joint: jax.Array) -> jax.Array:
        """Q(s, a) `[B]`."""
        index = self.choices.joint(joint[..., 0])
        return jnp.take_along_axis(self.table(params, inputs), index[:, None], -1, mode="clip")[:, 0]

    def alternatives(self, params: Any, inputs: CriticInput) -> Alternatives:
        table = self.table(params, inputs)
        return lambda joint, slot: self.choices.along(table, joint[..., 0], slot)


@dataclasses.dataclass(frozen=True)
class TeamCriticValues(ChoiceValues):
    """Static description of a `TeamCritic` as the critic, evaluated at the features of the chosen actions."""

    choices: TeamChoices
    values: ActionValues

    def init(self, key: jax.Array) -> Any:
        return self.values.init(key)

    def value(self, params: Any, inputs: CriticInput, joint: jax.Array) -> jax.Array:
        actions = self.values.actions
        features = actions.features(actions.spec.action_layout, self.choices.action(joint[..., 0]))
        return self.values.value(params, inputs, blank(features, inputs.active))

    def alternatives(self, params: Any, inputs: CriticInput) -> Alternatives:
        choices = jnp.arange(self.choices.table.exists.shape[-1])

        def values(joint: jax.Array, slot: jax.Array) -> jax.Array:
            def of_choice(choice):
                return self.value(params, inputs, joint.at[:, slot, 0].set(choice, mode="drop"))

            return jax.vmap(of_choice, out_axes=-1)(choices)

        return values


@dataclasses.dataclass(frozen=True)
class RegressionObjective(GroupObjective):
    """−E[mean over a of (q(o, a) − target(a))²] of one group's individual values q."""

    own: OwnValues
    tables: ValueTables
    target: jax.Array  # [K, B, M]
    available: jax.Array  # bool [K, B, M]

    def loss(self, key: jax.Array, params: Any, old_params: Any, samples: OffPolicySamples) -> tuple[jax.Array, Info]:
        values = self.own.values(params, self.tables, samples.observation)
        error = jnp.mean(jnp.square(self.target - values), -1, where=self.available)
        loss = weighted_mean(error, samples.weight)
        return loss, {"policy_loss": loss}


@dataclasses.dataclass(frozen=True)
class GreedyParts(Parts):
    """Policies that take the choice of the highest individual value, with ε-greedy exploration."""

    policies: OwnValues
    settings: DuelingSettings
    neighborhood = unrestricted

    @property
    def choices(self) -> TeamChoices:
        return self.policies.choices

    def act(self, key: jax.Array, state: OffPolicyState, timestep: Timestep, memory: Any, deterministic: bool) -> Any:
        params = state.actors.params
        if deterministic:
            index = self.policies.greedy(params, timestep.observation, timestep.action_mask)
        else:
            index = self.policies.epsilon_greedy(key, params, state.hyperparameters.epsilon, timestep)
        return self.choices.action(index), memory

    def joint(self, batch: OffPolicyBatch) -> jax.Array:
        """The choice indices of the agents' actions, `[…, N, 1]`."""
        return blank(self.choices.indices(batch.action), batch.active)[..., None]

    def actions(self, key: jax.Array, state: OffPolicyState, minibatch: OffPolicyBatch) -> jax.Array:
        index = self.policies.greedy(state.actors.params, minibatch.observation, minibatch.action_mask)
        return blank(index, minibatch.active)[..., None]


@dataclasses.dataclass(frozen=True)
class DoubleQParts(GreedyParts):
    """See `double_q_learning`."""

    critics: ChoiceValues

    def target_values(self, state: OffPolicyState, key: jax.Array, minibatch: OffPolicyBatch) -> jax.Array:
        """Q′(s′, a′) with a′ⁱ = argmax_a qⁱ(o′ⁱ, a), `[1, B]`."""
        index = self.policies.greedy(state.actors.params, minibatch.final_observation, minibatch.final_action_mask)
        joint = blank(index, minibatch.final_active)
        params = jax.tree.map(lambda x: x[0, 0], state.target_critics)
        return self.critics.value(params, final_critic_input(minibatch), joint[..., None])[None]

    def objective(
        self, key: jax.Array, state: OffPolicyState, minibatch: OffPolicyBatch, first: jax.Array
    ) -> ObjectiveOfGroup:
        params = jax.tree.map(lambda x: x[0, 0], state.critics.params)
        of_member = jax.vmap(self.critics.alternatives(params, critic_input(minibatch)), in_axes=(None, 0))
        common = self.common(state)

        def of_group(tables: ValueTables, joint: jax.Array, samples: OffPolicySamples) -> RegressionObjective:
            target = of_member(joint, samples.slot)  # [K, B, M]
            available = jnp.broadcast_to(self.policies.available(tables, samples.action_mask), target.shape)
            return RegressionObjective(**common, own=self.policies, tables=tables, target=target, available=available)

        return of_group

    def new_actions(
        self, key: jax.Array, objective: RegressionObjective, params: Any, samples: OffPolicySamples
    ) -> tuple[jax.Array, Info]:
        values = self.policies.values(params, objective.tables, samples.observation)
        return best(values, objective.available)[..., None], {}


@dataclasses.dataclass(frozen=True)
class IndependentObjective(GroupObjective):
    """−E[(y − q(o, a))²] of one group's individual values q, at the choices that were taken."""

    own: OwnValues
    tables: ValueTables

    def loss(self, key: jax.Array, params: Any, old_params: Any, samples: OffPolicySamples) -> tuple[jax.Array, Info]:
        target, taken = samples.objective_data
        values = self.own.values(params, self.tables, samples.observation)
        value = jnp.take_along_axis(values, taken, -1)[..., 0]
        loss = weighted_mean(jnp.square(target - value), samples.weight)
        return loss, {"value_loss": loss, "value": weighted_mean(value, samples.weight)}


@dataclasses.dataclass(frozen=True)
class IndependentParts(GreedyParts):
    """See `algorithms/id3qn.py`: every agent has its own targets, and there are no critics."""

    critics = None
    has_target_actors = True

    def target_values(self, state: OffPolicyState, key: jax.Array, minibatch: OffPolicyBatch) -> jax.Array:
        return self.final_values(state, minibatch)

    def final_values(self, state: OffPolicyState, minibatch: OffPolicyBatch) -> jax.Array:
        """q′ⁱ(o′ⁱ, argmax_a qⁱ(o′ⁱ, a)) `[N, B]`; for the team reward, the active agents' mean for the others."""
        own, active = self.policies, minibatch.final_active
        chosen = own.greedy(state.actors.params, minibatch.final_observation, minibatch.final_action_mask)
        values = own.team_values(state.target_actors, minibatch.final_observation)
        value = jnp.take_along_axis(values, chosen[..., None], -1)[..., 0]  # [B, N]
        if own.spec.reward == "team":
            mean = jax.vmap(weighted_mean)(value, active.astype(value.dtype))[:, None]
            return jnp.where(active, value, mean).T
        return jnp.where(active, value, 0).T

    def first_joint(self, key: jax.Array, state: OffPolicyState, minibatch: OffPolicyBatch) -> jax.Array:
        return self.joint(minibatch)  # not used by the objective

    def samples(self, state: OffPolicyState, minibatch: OffPolicyBatch) -> OffPolicySamples:
        """The samples; `objective_data` is the targets `[G, K, B]` and the taken choices' indices `[G, K, B, 1]`."""
        groups = self.policies.groups
        value = self.final_values(state, minibatch)
        target = discounted(minibatch, value, state.hyperparameters.discount)
        taken = groups.gather(self.choices.indices(minibatch.action), axis=1)[..., None]
        return group_samples(self.policies, minibatch)._replace(objective_data=(groups.gather(target, axis=0), taken))

    def objective(
        self, key: jax.Array, state: OffPolicyState, minibatch: OffPolicyBatch, first: jax.Array
    ) -> ObjectiveOfGroup:
        common = self.common(state)
        return lambda tables, joint, samples: IndependentObjective(**common, own=self.policies, tables=tables)

    def new_actions(
        self, key: jax.Array, objective: IndependentObjective, params: Any, samples: OffPolicySamples
    ) -> tuple[jax.Array, Info]:
        return samples.objective_data[1], {}  # not used: all agents are updated simultaneously


def double_q_learning(
    name: str,
    spec: EnvSpec,
    settings: DoubleQSettings,
    hyperparameters: DoubleQHyperparameters,
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """Double Q-learning with a joint critic, for a team with enumerable joint choices.

    The joint critic regresses on the double-Q target: the agents' individual values select the next choices, and the
    target critic evaluates them,

        y = Σ_{j<k} γʲ rʲ + γᵏ (1 − terminated) Q′(s′, a′),   a′ⁱ = argmax_a qⁱ(o′ⁱ, a),

    with the target network φ′ ← τ φ + (1 − τ) φ′. Agents are updated one after another, in the order of the settings,
    by `epochs` gradient steps. Agent i_m regresses the values of all its choices on the critic,

        E[mean over a of (q^{i_m}(o^{i_m}, a) − Q(s, a_new^{i_1:m-1}, a, a^{i_m+1:n}))²],

    where the agents updated before take the best choices of their new values. The agents updated later take the best
    choices of their current values (`others="policy"`) or those of the replay (`others="replay"`). The regression
    averages over everything that the agent does not observe, so its greedy choice is a best response given its
    observation. Choices that are not available are excluded everywhere.

    Args:
      name: the algorithm's name in results and error messages.
      spec: the environment's specification; all actions must be discrete.
      settings, hyperparameters: the static settings, and the default hyperparameters, which `init` may replace.
      actor, critic: flax modules used as torsos instead of the MLP, from `x` `[…, O]` (for the critic the state
        `[…, S]`) to features `[…, H]`; see `hajax.haml`. `critic` may also be a `hajax.nn.TeamCritic`, which reads the
        observations and actions of all agents and does not limit the number of joint choices.

    Raises:
      ValueError: a hyperparameter is out of range, an agent has a Box or too many choices, the team has too many joint
        choices, agents cannot share parameters, the reward is of the wrong kind, or the environment has a state per
        agent.
    """
    template.check_spec(name, spec, per_agent_critics=False)
    choices = team_choices(name, spec)
    read = isinstance(critic, TeamCritic)
    if not read and choices.num_joint > MOST_JOINT_CHOICES:
        counts = " x ".join(map(str, choices.counts))
        raise ValueError(
            f"{name} has a value for each of the team's {counts} = {choices.num_joint} joint choices; allowed: at most "
            f"{MOST_JOINT_CHOICES} (algo=id3qn has none)"
        )
    own = OwnValues(spec, make_groups(spec, settings.sharing), choices, policy_torso(spec, settings, actor), settings)
    critics: ChoiceValues
    if read:
        critics = TeamCriticValues(choices, action_values(spec, JointActions(spec), settings, critic, copies=1))
    else:
        torso = settings.torso("critic", critic, spec.state_size)
        critics = JointValues(spec, choices, make_dueling(settings, torso, choices.num_joint))
    return template.make_algorithm(name, DoubleQParts(own, settings, critics), hyperparameters)
