"""Action-value critics on the state and the joint action: one for the team, or one per agent; single or twin."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.core.joint_actions import JointActions
from hajax.nn.networks import Critic, init_params
from hajax.spec import EnvSpec


@dataclasses.dataclass(frozen=True)
class ActionValues:
    """Static description of V critics of `copies` networks each: V = 1 for the team's reward, V = N for agents' own.

    Parameters are stacked `[V, copies, …]`. Every network sees the state and the actions of all agents.
    """

    spec: EnvSpec
    actions: JointActions
    torso: nn.Module
    per_agent: bool
    copies: int

    @functools.cached_property
    def module(self) -> Critic:
        return Critic(self.torso)

    @property
    def num_critics(self) -> int:
        """V."""
        return self.spec.num_agents if self.per_agent else 1

    @property
    def input_size(self) -> int:
        return self.spec.state_size + self.actions.size

    def init(self, key: jax.Array) -> Any:
        """Parameters stacked `[V, copies, …]`, each network from a key of its own."""
        keys = jax.random.split(key, (self.num_critics, self.copies))
        init = functools.partial(init_params, self.module)
        return jax.vmap(jax.vmap(init, in_axes=(0, None)), in_axes=(0, None))(keys, jnp.zeros(self.input_size))

    def value(self, params: Any, state: jax.Array, joint: jax.Array) -> jax.Array:
        """One network's values `[…]` of states `[…, S]` and joint actions `[N, …, F]`."""
        x = jnp.concatenate([state, self.actions.flat(joint).astype(state.dtype)], -1)
        return self.module.apply({"params": params}, x)[0]

    def values(self, params: Any, state: jax.Array, joint: jax.Array) -> jax.Array:
        """All networks' values, `[V, copies, …]`."""
        of_copies = jax.vmap(self.value, in_axes=(0, None, None))
        return jax.vmap(of_copies, in_axes=(0, None, None))(params, state, joint)
