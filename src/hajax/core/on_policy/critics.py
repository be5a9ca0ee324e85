"""State-value critics: one for the team on the state, or one per group on individual observations."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hajax.core.actors import policy_input, policy_input_mask
from hajax.core.batches import CriticInput, OnPolicyBatch, critic_input, example_critic_input, final_critic_input
from hajax.core.groups import Groups
from hajax.nn.memory import NO_MEMORY, NOTHING, BaseMemory, MemoryInput, initial_input
from hajax.nn.networks import Critic, TeamCritic, init_params
from hajax.spec import EnvSpec


@dataclasses.dataclass(frozen=True)
class ValueFunctions:
    """Static description of the critics, with `V` values per step: V = 1 if centralized, V = N if individual.

    A centralized critic is treated as a team of one agent that observes the state, so that both kinds share one code
    path: parameters stacked over groups, values `[…, V]`. With a state per agent (`EnvSpec.state_per_agent`) it is
    treated as a team of N agents that share parameters: one critic, V = N values.

    A `hajax.nn.TeamCritic` in place of the torso reads the whole team. It is centralized, has one value and no memory.

    The `memory` of a critic begins with the episode or with the rollout, whichever is later: acting does not evaluate
    critics, so no critic memory is carried from one rollout to the next. Critics are trained in the same way, with the
    initial memory at step 0 of every rollout.
    """

    spec: EnvSpec
    agent_groups: Groups
    torso: nn.Module  # or a `TeamCritic`
    centralized: bool
    agent_id: bool
    memory: BaseMemory = NO_MEMORY
    chunk_length: int = 1  # steps per sample, with a memory

    @functools.cached_property
    def module(self) -> Critic:
        return Critic(self.torso, self.memory)

    @property
    def team(self) -> TeamCritic | None:
        """The critic if it is a `TeamCritic`, else `None`."""
        return self.torso if isinstance(self.torso, TeamCritic) else None

    @property
    def joint(self) -> bool:
        """Whether there is one value for the whole team, V = 1."""
        return self.centralized and (self.team is not None or not self.spec.state_per_agent)

    @functools.cached_property
    def groups(self) -> Groups:
        if not self.centralized:
            return self.agent_groups
        return Groups((0,) if self.joint else (0,) * self.spec.num_agents)

    @functools.cached_property
    def mask(self) -> np.ndarray | None:
        """The input entries that each group's critic has, bool `[G, S]`; `None` if nothing is padded."""
        if self.centralized:
            return None
        mask = policy_input_mask(self.spec, self.agent_id)
        return None if mask.all() else mask[self.groups.first_member]

    @property
    def input_size(self) -> int:
        if self.centralized:
            return self.spec.state_size
        return self.spec.observation_size + (self.spec.num_agents if self.agent_id else 0)

    def inputs(self, given: CriticInput) -> Any:
        """The critics' inputs `[…, V, S]`; for a `TeamCritic`, the list of inputs that it reads, `[…, 1, …]`."""
        if self.team is not None:
            axis = given.active.ndim - 1
            return [jnp.expand_dims(getattr(given, name), axis) for name in self.team.reads]
        if self.centralized:
            return given.state[..., None, :] if self.joint else given.state
        return policy_input(self.spec, given.observation, self.agent_id)

    def init(self, key: jax.Array) -> Any:
        """Parameters stacked `[G, …]`."""

        if self.team is not None:
            read = [getattr(example_critic_input(self.spec), name) for name in self.team.reads]
            return jax.tree.map(lambda x: x[None], init_params(self.team, key, *read))

        def init_group(key, mask):
            return init_params(self.module, key, jnp.zeros(self.input_size), mask, initial_input(self.memory))

        return jax.vmap(init_group)(jax.random.split(key, self.groups.num_groups), self.mask)

    def group_value(
        self,
        params: Any,
        mask: jax.Array | np.ndarray | None,
        inputs: Any,
        memory_input: MemoryInput = NOTHING,
    ) -> tuple[jax.Array, Any]:
        """One group's values `[…]` for inputs `[…, S]`, and the memory after every step.

        Values are in normalized units if values are normalized. Inputs are single steps or sequences; the shapes of
        `memory_input` decide which.
        """
        if self.team is not None:
            return cast(jax.Array, self.team.apply({"params": params}, *inputs)), ()
        value, memory = self.module.apply({"params": params}, inputs, mask, memory_input)
        return value, memory

    def active(self, active: jax.Array) -> jax.Array:
        """Whether the critic's agent (for the team: any agent) is active, bool `[…, V]`, from `active` `[…, N]`."""
        return active.any(-1, keepdims=True) if self.joint else active

    def fill_inactive(self, value: jax.Array, active: jax.Array) -> jax.Array:
        """`value` `[…, V]`, in reward units, with substitutes for the values of inactive agents.

        Critics are not trained on inactive agents, but the advantage of the step at which an agent becomes inactive
        contains its next value. With a team reward, which continues for all agents, the substitute is the mean of the
        active agents' values. With individual rewards it is 0, and `bootstrapped` sums the rewards instead.
        """
        if self.joint:
            return value
        mean = jnp.zeros(())
        if self.spec.reward == "team":
            mean = jnp.where(active, value, 0).sum(-1, keepdims=True) / jnp.maximum(active.sum(-1, keepdims=True), 1)
        return jnp.where(active, value, mean)

    def bootstrapped(self, gae_lambda: float | jax.Array, final_active: jax.Array) -> float | jax.Array:
        """λ of GAE, but 1 after steps at which an agent with an individual reward becomes inactive and has no value."""
        if self.joint or self.spec.reward == "team":
            return gae_lambda
        return jnp.where(final_active, gae_lambda, 1)

    def of_rollout(self, params: Any, batch: OnPolicyBatch) -> tuple[jax.Array, jax.Array]:
        """Values `[T, E, V]` of the rollout's steps, and of what each step led to before any automatic reset.

        The memory changes at steps at which the critic's agent is active. The final input of step t is one step later
        in the same episode, and is evaluated with the memory after step t.
        """
        sequences = self.memory.remembers
        axis = 1 if sequences else 2  # the axis of V; sequences are [E, V, T, …]

        def arranged(x):
            return jnp.moveaxis(x, 0, 2) if sequences else x

        def values(given, memory, first):
            inputs = jax.tree.map(arranged, self.inputs(given)), self.memory.select(memory, first, active)
            grouped = jax.tree.map(lambda x: self.groups.gather(x, axis), inputs)
            results = jax.vmap(self.group_value)(params, self.mask, *grouped)
            value, memory = jax.tree.map(lambda x: self.groups.scatter(x, axis), results)
            return jnp.moveaxis(value, 2, 0) if sequences else value, memory

        active = self.active(batch.active)
        first = arranged(jnp.broadcast_to(batch.first[..., None], active.shape))
        active = arranged(active)
        value, memory = values(critic_input(batch), self.memory.initial_memory(active.shape[:2]), first)
        final_value, _ = values(final_critic_input(batch), memory, jnp.zeros_like(first))
        return value, final_value
