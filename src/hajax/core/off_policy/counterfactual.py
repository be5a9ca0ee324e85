"""Actor-critic with counterfactual baselines: policy gradients of all agents' own values, as in MAAC."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hajax.core.actors import GroupTables, TeamActors
from hajax.core.batches import CriticInput, OffPolicyBatch, critic_input, final_critic_input
from hajax.core.inactive import blank
from hajax.core.losses import weighted_mean
from hajax.core.neighborhoods import unrestricted
from hajax.core.off_policy.attention_settings import AttentionSettings
from hajax.core.off_policy.attention_values import AttentionValues
from hajax.core.off_policy.choices import Choices, log_probs
from hajax.core.off_policy.joint_sequence import GroupActor, GroupObjective, Info, OffPolicySamples
from hajax.core.off_policy.template import ObjectiveOfGroup, OffPolicyState, Parts
from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters
from hajax.spec import ActionLayout, Timestep


@dataclasses.dataclass(frozen=True)
class CounterfactualObjective(GroupObjective):
    """E[log π(a|o) · (A(o, a) − log π(a|o) / ρ)] of one group's policies, a ~ π.

    The second factor is constant in the gradient. A is the advantage over the counterfactual baseline.
    """

    actor: GroupActor
    action: jax.Array  # [K, B, D], as sampled (not clipped)
    advantage: jax.Array  # [K, B]
    attention: jax.Array  # [K, N], how much members attend to every agent

    def cost(self, log_prob: jax.Array, samples: OffPolicySamples) -> jax.Array:
        """The cost of an agent's action, from log π: log π / ρ, `[K, B]`."""
        return log_prob / self.hyperparameters.reward_scale

    def loss(self, key: jax.Array, params: Any, old_params: Any, samples: OffPolicySamples) -> tuple[jax.Array, Info]:
        layout, parameters = self.actor.tables.layout, self.actor.distribution(params, samples)
        # A padded member's action is another agent's, which it may not have: log π would be −∞, its gradient NaN.
        log_prob = jnp.where(samples.weight > 0, log_probability(parameters, layout, self.action), 0)
        surplus = jax.lax.stop_gradient(self.cost(log_prob, samples) - self.advantage)
        loss = weighted_mean(log_prob * surplus, samples.weight)
        penalty = weighted_mean(mean_square(parameters, layout), samples.weight)
        info = {"policy_loss": loss} | self.diagnostics(parameters, samples)
        return loss + self.hyperparameters.logit_penalty * penalty, info

    def diagnostics(self, parameters: ActionParameters, samples: OffPolicySamples) -> Info:
        """Scalars by name, from the policies' distributions."""
        entropy = distributions.entropy(parameters, self.actor.tables.layout)
        return {"entropy": weighted_mean(entropy, samples.weight)}


def log_probability(parameters: ActionParameters, layout: ActionLayout, action: jax.Array) -> jax.Array:
    """log π of actions `[…, D]`, for reals the log-density in units in which bounds are ±1, `[…]`."""
    scale = jnp.log(jnp.asarray(layout.scale, action.dtype))
    return distributions.log_prob(parameters, layout, action) + jnp.where(layout.continuous, scale, 0).sum(-1)


def outputs_of(parameters: ActionParameters, layout: ActionLayout) -> jax.Array:
    """The number of a policy's outputs, `[…]`: its available choices, of all components, and its Gaussian means."""
    count = jnp.zeros(())
    if parameters.logits is not None:
        count = count + (layout.discrete[..., None] & layout.choices & jnp.isfinite(parameters.logits)).sum((-1, -2))
    if parameters.mean is not None:
        count = count + jnp.broadcast_to(layout.continuous, parameters.mean.shape).sum(-1)
    return jnp.maximum(count, 1)


def mean_square(parameters: ActionParameters, layout: ActionLayout) -> jax.Array:
    """The mean of the squared outputs: logits of available choices, and means in units in which bounds are ±1."""
    total = jnp.zeros(())
    if parameters.logits is not None:
        there = layout.discrete[..., None] & layout.choices & jnp.isfinite(parameters.logits)
        total = total + jnp.square(jnp.where(there, parameters.logits, 0)).sum((-1, -2))
    if parameters.mean is not None:
        total = total + jnp.square(jnp.where(layout.continuous, parameters.mean, 0)).sum(-1)
    return total / outputs_of(parameters, layout)


class Alternatives(NamedTuple):
    """What every agent may do instead: all its choices, or actions that are drawn from its policy."""

    log_prob: jax.Array  # [B, N, M], 0 where the probability is 0
    weight: jax.Array  # [B, N, M], summing to 1: the probabilities, or 1/M
    action: jax.Array | None  # [M, B, N, D] if they are drawn


@dataclasses.dataclass(frozen=True)
class CounterfactualParts(Parts):
    """See `hajax.algorithms.maac.maac`. The features of joint actions are the native actions, as sampled."""

    policies: TeamActors
    critics: AttentionValues
    settings: AttentionSettings
    neighborhood = unrestricted
    has_target_actors = True
    stochastic = True

    def team(self, params: Any, observation: jax.Array, action_mask: jax.Array) -> ActionParameters:
        mask = action_mask if self.policies.spec.masks_actions else None
        return self.policies.team_distribution(params, observation, mask)[0]

    def act(self, key: jax.Array, state: OffPolicyState, timestep: Timestep, memory: Any, deterministic: bool) -> Any:
        parameters = self.team(state.actors.params, timestep.observation, timestep.action_mask)
        layout = self.policies.layout
        if deterministic:
            return distributions.mode(parameters, layout), memory
        return distributions.sample(key, parameters, layout), memory

    def joint(self, batch: OffPolicyBatch) -> jax.Array:
        return blank(batch.action, batch.active)

    def drawn(
        self, key: jax.Array, params: Any, observation: jax.Array, action_mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Sampled actions of all agents `[B, N, D]`, and their log-probabilities `[B, N]`."""
        parameters = self.team(params, observation, action_mask)
        action = distributions.sample(key, parameters, self.policies.layout)
        return action, log_probability(parameters, self.policies.layout, action)

    def actions(self, key: jax.Array, state: OffPolicyState, minibatch: OffPolicyBatch) -> jax.Array:
        action, _ = self.drawn(key, state.actors.params, minibatch.observation, minibatch.action_mask)
        return blank(action, minibatch.active)

    def target_values(self, state: OffPolicyState, key: jax.Array, minibatch: OffPolicyBatch) -> jax.Array:
        """Q′ᵢ(o′, a′) − log πⁱ(a′ⁱ|o′ⁱ) / ρ, a′ ~ π′ of the target policies, `[N, B]`; 0 for inactive agents."""
        action, log_prob = self.drawn(
            key, state.target_actors, minibatch.final_observation, minibatch.final_action_mask
        )
        params = jax.tree.map(lambda x: x[0, 0], state.target_critics)
        value = self.critics.value(params, final_critic_input(minibatch), blank(action, minibatch.final_active))
        soft = value - log_prob.T / state.hyperparameters.reward_scale
        return jnp.where(minibatch.final_active.T, soft, 0)

    def log_probs(self, params: Any, minibatch: OffPolicyBatch) -> tuple[jax.Array, jax.Array]:
        """log π of all choices of all agents `[B, N, M]`, and whether they are possible."""
        assert self.critics.choices is not None
        logits = self.team(params, minibatch.observation, minibatch.action_mask).logits
        assert logits is not None
        of_agents = jax.vmap(log_probs, in_axes=(0, 1, 0), out_axes=1)
        return of_agents(Choices(*map(jnp.asarray, self.critics.choices.table)), logits, self.policies.layout)

    def log_probs_of(self, params: Any, minibatch: OffPolicyBatch, action: jax.Array | None) -> jax.Array:
        """log π of all agents' alternatives `[B, N, M]`: all choices, or the actions `[M, B, N, D]`."""
        if action is None:
            return self.log_probs(params, minibatch)[0]
        parameters = self.team(params, minibatch.observation, minibatch.action_mask)
        return jnp.moveaxis(log_probability(parameters, self.policies.layout, action), 0, -1)

    def alternatives(self, key: jax.Array, params: Any, minibatch: OffPolicyBatch) -> Alternatives:
        """All choices of every agent, or `baseline_samples` actions from its policy if they cannot be enumerated."""
        if self.critics.choices is not None:
            log_prob, possible = self.log_probs(params, minibatch)
            return Alternatives(log_prob, jnp.where(possible, jnp.exp(log_prob), 0), None)
        count = self.settings.baseline_samples
        seen = (params, minibatch.observation, minibatch.action_mask)
        action, log_prob = jax.vmap(lambda key: self.drawn(key, *seen))(jax.random.split(key, count))
        log_prob = jnp.moveaxis(log_prob, 0, -1)
        return Alternatives(log_prob, jnp.full_like(log_prob, 1 / count), action)

    def evaluated(
        self, params: Any, inputs: CriticInput, joint: jax.Array, alternatives: Alternatives
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Qᵢ(o, a) and Σ_b πⁱ(b|oⁱ) Qᵢ(o, b, a⁻ⁱ), `[B, N]`, and how much agents attend to each other, `[N, N]`."""
        value, values, logits = self.critics.alternatives(params, inputs, joint, alternatives.action)
        expected = jnp.sum(alternatives.weight * values, -1)
        return value, expected, self.critics.attention(logits, inputs.active)

    def group_objective(self, **fields: Any) -> CounterfactualObjective:
        """One group's objective with these fields."""
        return CounterfactualObjective(**fields)

    def objective(
        self, key: jax.Array, state: OffPolicyState, minibatch: OffPolicyBatch, first: jax.Array
    ) -> ObjectiveOfGroup:
        params = jax.tree.map(lambda x: x[0, 0], state.critics.params)
        inputs, common = critic_input(minibatch), self.common(state)
        alternatives = self.alternatives(key, state.actors.params, minibatch)

        def advantages(joint: jax.Array) -> tuple[jax.Array, jax.Array]:
            value, expected, attention = self.evaluated(params, inputs, joint, alternatives)
            return value - expected, attention

        of_all = advantages(first) if self.settings.order == "simultaneous" else None  # once, not per group

        def of_group(tables: GroupTables, joint: jax.Array, samples: OffPolicySamples) -> CounterfactualObjective:
            def of_members(x: jax.Array) -> jax.Array:  # [B, N, …] -> [K, B, …]
                return jnp.moveaxis(jnp.take(x, samples.slot, axis=1, mode="clip"), 1, 0)

            advantage, attention = advantages(joint) if of_all is None else of_all
            return self.group_objective(
                **common,
                actor=GroupActor(self.policies, tables),
                action=of_members(joint),
                advantage=of_members(advantage),
                attention=jnp.take(attention, samples.slot, axis=0, mode="clip"),
            )

        return of_group

    def new_actions(
        self, key: jax.Array, objective: CounterfactualObjective, params: Any, samples: OffPolicySamples
    ) -> tuple[jax.Array, Info]:
        parameters = objective.actor.distribution(params, samples)
        action = distributions.sample(key, parameters, objective.actor.tables.layout)
        return action, {"attention": objective.attention}

    def finish(self, state: OffPolicyState, minibatch: OffPolicyBatch, info: Info) -> tuple[OffPolicyState, Info]:
        return state, info | {"attention": self.policies.groups.scatter(info["attention"], axis=0)}  # [N, N]
