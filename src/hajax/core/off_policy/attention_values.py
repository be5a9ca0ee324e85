"""Critics of all agents that attend to each other, and their regression."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, cast

import jax
import jax.numpy as jnp

from hajax.core.batches import CriticInput, example_critic_input
from hajax.core.inactive import blank
from hajax.core.losses import weighted_mean
from hajax.core.off_policy.choices import TeamChoices
from hajax.core.off_policy.joint_actions import JointActions
from hajax.core.off_policy.joint_critics import Critics
from hajax.nn.attention import AttentionCritic, attention_weights, pairs_of, with_shared_gradients_of_the_mean
from hajax.nn.networks import init_params
from hajax.spec import EnvSpec


@dataclasses.dataclass(frozen=True)
class AttentionValues(Critics):
    """Static description of one network with the values of all agents, whose joint actions are choices `[B, N, 1]`."""

    spec: EnvSpec
    choices: TeamChoices
    width: int
    heads: int

    @functools.cached_property
    def module(self) -> AttentionCritic:
        return AttentionCritic(self.choices.table.exists.shape[-1], self.width, self.heads)

    @functools.cached_property
    def actions(self) -> JointActions:
        return JointActions(self.spec)

    def init(self, key: jax.Array) -> Any:
        """Parameters stacked `[1, 1, …]`: one network."""
        inputs = example_critic_input(self.spec)
        features = jnp.zeros(self.actions.own.shape)
        params = init_params(self.module, key, inputs.observation, features, inputs.active)
        return jax.tree.map(lambda x: x[None, None], params)

    def features(self, joint: jax.Array, active: jax.Array) -> jax.Array:
        """The features of joint actions, `[B, N, F]`, zeros for inactive agents."""
        action = self.choices.action(joint[..., 0])
        return blank(self.actions.features(self.spec.action_layout, action), active)

    def table(self, params: Any, inputs: CriticInput, joint: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The values of all choices of every agent given the others', `[B, N, M]`, and the attention's logits."""
        observation = blank(inputs.observation, inputs.active)
        features = self.features(joint, inputs.active)
        found = self.module.apply({"params": params}, observation, features, inputs.active)
        return cast(tuple[jax.Array, jax.Array], found)

    def value(self, params: Any, inputs: CriticInput, joint: jax.Array) -> jax.Array:
        """Every agent's value of the joint action, `[N, B]`."""
        values, _ = self.table(params, inputs, joint)
        return jnp.take_along_axis(values, joint.astype(int), -1)[..., 0].T

    def attention(self, logits: jax.Array, active: jax.Array) -> jax.Array:
        """How much agents attend to each other, `[N, N]`: means over heads and the samples in which both are active."""
        others = pairs_of(active)  # [B, N, N]
        weights = attention_weights(logits / math.sqrt(self.width // self.heads), others[:, None]).mean(1)
        both = others.astype(weights.dtype)
        return jnp.sum(weights * both, 0) / jnp.maximum(both.sum(0), 1)

    def of_networks(self, target: jax.Array) -> jax.Array:
        return target[None]  # one network has the targets of all agents

    def loss(
        self, params: Any, inputs: CriticInput, joint: jax.Array, target: jax.Array, hyperparameters: Any
    ) -> tuple[jax.Array, jax.Array]:
        """Σᵢ (mean (yⁱ − Qᵢ)² + c Σ_h mean of the squared logits), over the samples in which agent i is active."""
        agents = self.spec.num_agents
        values, logits = self.table(with_shared_gradients_of_the_mean(params, agents), inputs, joint)
        value = jnp.take_along_axis(values, joint.astype(int), -1)[..., 0].T
        active = jnp.moveaxis(inputs.active, -1, 0).astype(value.dtype)  # [N, B]
        errors = jax.vmap(weighted_mean)(jnp.square(target - value), active)
        pairs = pairs_of(inputs.active).astype(value.dtype)
        squares = jnp.einsum("bhij,bij->hi", jnp.square(logits), pairs)
        penalty = jnp.sum(squares / jnp.maximum(pairs.sum((0, 2)), 1))
        return errors.sum() + hyperparameters.attention_penalty * penalty, weighted_mean(value, active)

    def limits(self, hyperparameters: Any) -> tuple[jax.Array, jax.Array | float]:
        return hyperparameters.critic_max_grad_norm * self.spec.num_agents, hyperparameters.critic_l2
