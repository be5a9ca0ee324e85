"""State-value critics: one for the team on the state, or one per group on the agents' own observations."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hajax.core.actors import policy_input, policy_input_mask
from hajax.core.groups import Groups
from hajax.core.normalisation import RunningMoments, normalise_moments
from hajax.nn.networks import Critic, init_params
from hajax.spec import EnvSpec


@dataclasses.dataclass(frozen=True)
class ValueFunctions:
    """Static description of the critics. `V` of them judge a step: V = 1 if centralised, V = N if individual.

    The centralised critic is a team of one "agent" that observes the state, so both kinds are one code path:
    parameters stacked over groups, values `[…, V]`. Where every agent has a state of its own
    (`EnvSpec.state_per_agent`), it is a team of N that share their parameters: one critic, V = N values.
    """

    spec: EnvSpec
    agent_groups: Groups
    torso: nn.Module
    centralised: bool
    agent_id: bool

    @functools.cached_property
    def module(self) -> Critic:
        return Critic(self.torso)

    @property
    def joint(self) -> bool:
        """Whether one value judges the whole team, V = 1."""
        return self.centralised and not self.spec.state_per_agent

    @functools.cached_property
    def groups(self) -> Groups:
        if not self.centralised:
            return self.agent_groups
        return Groups((0,) if self.joint else (0,) * self.spec.num_agents)

    @functools.cached_property
    def mask(self) -> np.ndarray | None:
        """bool `[G, S]`, or `None` if nothing is padded."""
        if self.centralised:
            return None
        mask = policy_input_mask(self.spec, self.agent_id)
        return None if mask.all() else mask[self.groups.first_member]

    @property
    def input_size(self) -> int:
        if self.centralised:
            return self.spec.state_size
        return self.spec.observation_size + (self.spec.num_agents if self.agent_id else 0)

    def inputs(self, observation: jax.Array, state: jax.Array) -> jax.Array:
        """What the critics see, `[…, V, S]`, from observations `[…, N, O]` and states `[…, S]` or `[…, N, S]`."""
        if self.centralised:
            return state[..., None, :] if self.joint else state
        return policy_input(self.spec, observation, self.agent_id)

    def init(self, key: jax.Array) -> Any:
        """Parameters stacked `[G, …]`."""

        def init_group(key, mask):
            return init_params(self.module, key, jnp.zeros(self.input_size), mask)

        return jax.vmap(init_group)(jax.random.split(key, self.groups.num_groups), self.mask)

    def group_value(
        self, params: Any, mask: jax.Array | np.ndarray | None, moments: RunningMoments | None, inputs: jax.Array
    ) -> jax.Array:
        """One group's values `[…]` for inputs `[…, S]`, in normalised units if values are normalised."""
        if moments is not None:
            inputs = normalise_moments(moments, inputs)
        return cast(jax.Array, self.module.apply({"params": params}, inputs, mask))

    def values(self, params: Any, moments: RunningMoments | None, inputs: jax.Array) -> jax.Array:
        """All values `[…, V]` for inputs `[…, V, S]`."""
        axis = inputs.ndim - 2
        values = jax.vmap(self.group_value)(params, self.mask, moments, self.groups.gather(inputs, axis))
        return self.groups.scatter(values, axis)
