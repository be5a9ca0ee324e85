"""Actor-critic with counterfactual baselines: policy gradients of all agents' own values, as in MAAC."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hajax.core.actors import GroupTables, TeamActors
from hajax.core.batches import OffPolicyBatch, critic_input, final_critic_input
from hajax.core.inactive import blank
from hajax.core.losses import weighted_mean
from hajax.core.neighborhoods import unrestricted
from hajax.core.off_policy.attention_values import AttentionValues
from hajax.core.off_policy.choices import Choices, TeamChoices, log_probs
from hajax.core.off_policy.joint_sequence import GroupActor, GroupObjective, Info, OffPolicySamples, group_samples
from hajax.core.off_policy.settings import AttentionSettings
from hajax.core.off_policy.template import ObjectiveOfGroup, OffPolicyState, Parts
from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters
from hajax.spec import Timestep


class OwnData(NamedTuple):
    """What one group's objective reads beside the samples, arrays `[…]` (over all groups `[G, …]`)."""

    choices: Choices  # of the group's agents
    further: Any = None


@dataclasses.dataclass(frozen=True)
class CounterfactualObjective(GroupObjective):
    """E[log π(a|o) · (Q(o, a) − Σ_b π(b|o) Q(o, b) − log π(a|o) / ρ)] of one group's policies, a ~ π.

    The second factor is constant in the gradient.
    """

    actor: GroupActor
    values: jax.Array  # [K, B, M], given the other agents' actions
    taken: jax.Array  # int [K, B], the choices that were sampled
    attention: jax.Array  # [K, N], how much members attend to every agent

    def cost(self, log_prob: jax.Array, samples: OffPolicySamples) -> jax.Array:
        """What an agent pays for each choice, from log π: log π / ρ, `[K, B, M]`."""
        return log_prob / self.hyperparameters.reward_scale

    def log_probs(self, params: Any, samples: OffPolicySamples) -> tuple[ActionParameters, jax.Array, jax.Array]:
        """The policy's parameters, log π of all choices `[K, B, M]`, and whether they are possible."""
        parameters = self.actor.distribution(params, samples)
        assert parameters.logits is not None
        return parameters, *log_probs(samples.objective_data.choices, parameters.logits, self.actor.tables.layout)

    def loss(self, key: jax.Array, params: Any, old_params: Any, samples: OffPolicySamples) -> tuple[jax.Array, Info]:
        layout = self.actor.tables.layout
        parameters, log_prob, possible = self.log_probs(params, samples)
        prob = jnp.where(possible, jnp.exp(log_prob), 0)

        def at_taken(x: jax.Array) -> jax.Array:
            return jnp.take_along_axis(x, self.taken[..., None], -1)[..., 0]

        own = at_taken(log_prob)
        advantage = at_taken(self.values) - jnp.sum(prob * self.values, -1)
        surplus = jax.lax.stop_gradient(at_taken(self.cost(log_prob, samples)) - advantage)
        loss = weighted_mean(own * surplus, samples.weight)
        penalty = weighted_mean(mean_square(parameters, layout.choices & layout.discrete[..., None]), samples.weight)
        info = {"policy_loss": loss} | self.diagnostics(prob, log_prob, samples)
        return loss + self.hyperparameters.logit_penalty * penalty, info

    def diagnostics(self, prob: jax.Array, log_prob: jax.Array, samples: OffPolicySamples) -> Info:
        """Scalars by name, from π and log π of all choices `[K, B, M]`."""
        return {"entropy": weighted_mean(-jnp.sum(prob * log_prob, -1), samples.weight)}


def mean_square(parameters: ActionParameters, existing: Any) -> jax.Array:
    """The mean of the squared logits of available choices, `[…]`."""
    assert parameters.logits is not None
    there = existing & jnp.isfinite(parameters.logits)
    squares = jnp.square(jnp.where(there, parameters.logits, 0))
    return squares.sum((-1, -2)) / jnp.maximum(there.sum((-1, -2)), 1)


@dataclasses.dataclass(frozen=True)
class CounterfactualParts(Parts):
    """See `hajax.algorithms.maac.maac`."""

    policies: TeamActors
    critics: AttentionValues
    settings: AttentionSettings
    neighborhood = unrestricted
    has_target_actors = True
    stochastic = True

    @property
    def choices(self) -> TeamChoices:
        return self.critics.choices

    def team(self, params: Any, observation: jax.Array, action_mask: jax.Array) -> ActionParameters:
        mask = action_mask if self.policies.spec.masks_actions else None
        return self.policies.team_distribution(params, observation, mask)[0]

    def act(self, key: jax.Array, state: OffPolicyState, timestep: Timestep, memory: Any, deterministic: bool) -> Any:
        parameters, layout = (
            self.team(state.actors.params, timestep.observation, timestep.action_mask),
            self.policies.layout,
        )
        if deterministic:
            return distributions.mode(parameters, layout), memory
        return distributions.sample(key, parameters, layout), memory

    def joint(self, batch: OffPolicyBatch) -> jax.Array:
        """The choice indices of the agents' actions, `[…, N, 1]`."""
        return blank(self.choices.indices(batch.action), batch.active)[..., None]

    def drawn(
        self, key: jax.Array, params: Any, observation: jax.Array, action_mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Sampled choices of all agents, int `[B, N]`, and their log-probabilities."""
        parameters = self.team(params, observation, action_mask)
        action = distributions.sample(key, parameters, self.policies.layout)
        return self.choices.indices(action), distributions.log_prob(parameters, self.policies.layout, action)

    def actions(self, key: jax.Array, state: OffPolicyState, minibatch: OffPolicyBatch) -> jax.Array:
        index, _ = self.drawn(key, state.actors.params, minibatch.observation, minibatch.action_mask)
        return blank(index, minibatch.active)[..., None]

    def target_values(self, state: OffPolicyState, key: jax.Array, minibatch: OffPolicyBatch) -> jax.Array:
        """Q′ᵢ(o′, a′) − log πⁱ(a′ⁱ|o′ⁱ) / ρ, a′ ~ π′ of the target policies, `[N, B]`; 0 for inactive agents."""
        index, log_prob = self.drawn(key, state.target_actors, minibatch.final_observation, minibatch.final_action_mask)
        joint = blank(index, minibatch.final_active)[..., None]
        params = jax.tree.map(lambda x: x[0, 0], state.target_critics)
        value = self.critics.value(params, final_critic_input(minibatch), joint)
        soft = value - log_prob.T / state.hyperparameters.reward_scale
        return jnp.where(minibatch.final_active.T, soft, 0)

    def samples(self, state: OffPolicyState, minibatch: OffPolicyBatch) -> OffPolicySamples:
        table = self.choices.table
        first = self.policies.groups.first_member
        own = Choices(jnp.asarray(table.index[first]), jnp.asarray(table.exists[first]))
        return group_samples(self.policies, minibatch)._replace(objective_data=OwnData(own))

    def group_objective(self, samples: OffPolicySamples, **fields: Any) -> CounterfactualObjective:
        """One group's objective with these fields."""
        return CounterfactualObjective(**fields)

    def objective(self, state: OffPolicyState, minibatch: OffPolicyBatch, first: jax.Array) -> ObjectiveOfGroup:
        params = jax.tree.map(lambda x: x[0, 0], state.critics.params)
        inputs, common = critic_input(minibatch), self.common(state)

        def read(joint: jax.Array) -> tuple[jax.Array, jax.Array]:
            values, logits = self.critics.table(params, inputs, joint)
            return values, self.critics.attention(logits, inputs.active)

        of_all = read(first) if self.settings.order == "simultaneous" else None  # once, not in every group's turn

        def of_group(tables: GroupTables, joint: jax.Array, samples: OffPolicySamples) -> CounterfactualObjective:
            def of_members(x: jax.Array) -> jax.Array:  # [B, N, …] -> [K, B, …]
                return jnp.moveaxis(jnp.take(x, samples.slot, axis=1, mode="clip"), 1, 0)

            values, attention = read(joint) if of_all is None else of_all
            return self.group_objective(
                samples,
                **common,
                actor=GroupActor(self.policies, tables),
                values=of_members(values),
                taken=of_members(joint[..., 0].astype(int)),
                attention=jnp.take(attention, samples.slot, axis=0, mode="clip"),
            )

        return of_group

    def new_actions(
        self, key: jax.Array, objective: CounterfactualObjective, params: Any, samples: OffPolicySamples
    ) -> tuple[jax.Array, Info]:
        parameters = objective.actor.distribution(params, samples)
        action = distributions.sample(key, parameters, objective.actor.tables.layout)
        choices = samples.objective_data.choices
        matches = (action[..., None, :].astype(int) == jnp.asarray(choices.index)).all(-1)
        index = jnp.argmax(matches & jnp.asarray(choices.exists), -1)
        return index[..., None], {"attention": objective.attention}

    def finish(self, state: OffPolicyState, minibatch: OffPolicyBatch, info: Info) -> tuple[OffPolicyState, Info]:
        return state, info | {"attention": self.policies.groups.scatter(info["attention"], axis=0)}  # [N, N]
