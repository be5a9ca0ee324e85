"""Critics of all agents that attend to each other, and their regression."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

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
from hajax.spec import ActionLayout, EnvSpec


def within_bounds(layout: ActionLayout, action: jax.Array) -> jax.Array:
    """Actions `[…, D]` in native units, their bounded components clipped to the bounds."""
    center, scale = (jnp.asarray(table, action.dtype) for table in (layout.center, layout.scale))
    return jnp.where(layout.bounded, jnp.clip(action, center - scale, center + scale), action)


@dataclasses.dataclass(frozen=True)
class AttentionValues(Critics):
    """Static description of one network with the values of all agents; joint actions are native ones, `[B, N, D]`.

    With `choices` it has a value for each choice of an agent, else an agent's own action is an input of its value.
    """

    spec: EnvSpec
    choices: TeamChoices | None
    width: int
    heads: int

    @functools.cached_property
    def module(self) -> AttentionCritic:
        count = 1 if self.choices is None else self.choices.table.exists.shape[-1]
        return AttentionCritic(count, self.width, self.heads, reads_own_action=self.choices is None)

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
        """The features of joint actions `[…, N, D]`, `[…, N, F]`, zeros for inactive agents."""
        layout = self.spec.action_layout
        features = self.actions.features(layout, within_bounds(layout, joint))
        return blank(features, jnp.broadcast_to(active, features.shape[:-1]))

    def alternatives(
        self, params: Any, inputs: CriticInput, joint: jax.Array, own: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Every agent's value of the joint action `[B, N]`, those of its alternatives, and the attention's logits.

        The alternatives are all choices of an agent, `[B, N, M]`, or its actions in `own` `[M, B, N, D]`; the others
        act as in the joint action.
        """
        observation, features = blank(inputs.observation, inputs.active), self.features(joint, inputs.active)
        given = ({"params": params}, observation, features, inputs.active)
        found: Any
        if self.choices is not None:
            found = self.module.apply(*given)
            values, logits = found
            index = self.choices.indices(joint)[..., None]
            return jnp.take_along_axis(values, index, -1)[..., 0], values, logits
        mine = features[None]
        if own is not None:
            mine = jnp.concatenate([mine, self.features(own, inputs.active)])
        found = self.module.apply(*given, mine)
        values, logits = jnp.moveaxis(found[0][..., 0], 0, -1), found[1]
        return values[..., 0], values[..., 1:], logits

    def value(self, params: Any, inputs: CriticInput, joint: jax.Array) -> jax.Array:
        """Every agent's value of the joint action, `[N, B]`."""
        return self.alternatives(params, inputs, joint)[0].T

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
        shared = with_shared_gradients_of_the_mean(params, agents)
        value, _, logits = self.alternatives(shared, inputs, joint)
        value = value.T
        active = jnp.moveaxis(inputs.active, -1, 0).astype(value.dtype)  # [N, B]
        errors = jax.vmap(weighted_mean)(jnp.square(target - value), active)
        pairs = pairs_of(inputs.active).astype(value.dtype)
        squares = jnp.einsum("bhij,bij->hi", jnp.square(logits), pairs)
        penalty = jnp.sum(squares / jnp.maximum(pairs.sum((0, 2)), 1))
        return errors.sum() + hyperparameters.attention_penalty * penalty, weighted_mean(value, active)

    def limits(self, hyperparameters: Any) -> tuple[jax.Array, jax.Array | float]:
        return hyperparameters.critic_max_grad_norm * self.spec.num_agents, hyperparameters.critic_l2
