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
from hajax.core.batches import CriticInput, OnPolicyBatch, critic_input, example_critic_input, final_critic_input
from hajax.core.groups import Groups
from hajax.nn.memory import NO_MEMORY, NOTHING, Memory, MemoryInput, initial_input
from hajax.nn.networks import Critic, TeamCritic, init_params
from hajax.spec import EnvSpec


@dataclasses.dataclass(frozen=True)
class ValueFunctions:
    """Static description of the critics, with `V` values per step: V = 1 if centralized, V = N if individual.

    The centralized critic is a team of one "agent" that observes the state, so both kinds are one code path:
    parameters stacked over groups, values `[…, V]`. Where every agent has a state of its own
    (`EnvSpec.state_per_agent`), it is a team of N that share their parameters: one critic, V = N values.

    A `TeamCritic` in place of the torso reads the whole team, and so is centralized with one value; it has no memory.

    With a `memory` a critic remembers what it saw since the episode or the rollout began, whichever is later. It is no
    part of acting, so that nothing carries its memory from one rollout to the next; and since it learns as it is used,
    with an empty memory at every rollout's step 0, its values there are those of what little it has seen.
    """

    spec: EnvSpec
    agent_groups: Groups
    torso: nn.Module  # or a `TeamCritic`
    centralized: bool
    agent_id: bool
    memory: Memory = NO_MEMORY
    chunk_length: int = 1  # steps of a sample, if there is a memory

    @functools.cached_property
    def module(self) -> Critic:
        return Critic(self.torso, self.memory)

    @property
    def team(self) -> TeamCritic | None:
        """The `TeamCritic`, if the critic is one."""
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
        """bool `[G, S]`, or `None` if nothing is padded."""
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
        """What the critics see, `[…, V, S]`; for a `TeamCritic` a list of all that it reads, `[…, 1, …]`."""
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
        """One group's values `[…]` for inputs `[…, S]`, in normalized units if values are normalized.

        Also the memory after every step. Inputs are single steps or sequences, as the shapes of `memory_input` say.
        """
        if self.team is not None:
            return cast(jax.Array, self.team.apply({"params": params}, *inputs)), ()
        value, memory = self.module.apply({"params": params}, inputs, mask, memory_input)
        return value, memory

    def active(self, active: jax.Array) -> jax.Array:
        """bool `[…, V]`: the critic's agent (the team: any agent) is active, from `active` `[…, N]`."""
        return active.any(-1, keepdims=True) if self.joint else active

    def fill_inactive(self, value: jax.Array, active: jax.Array) -> jax.Array:
        """`value` `[…, V]`, in reward units, with substitutes for inactive agents' values, which no critic learns.

        They matter, because the advantage of the step after which an agent is inactive contains the next value. A
        team's reward goes on for all alike: the mean of the active agents' values. An agent's own reward is unknown
        once it is inactive: 0, and `bootstrapped` sees to it that rewards are summed there instead.
        """
        if self.joint:
            return value
        mean = jnp.zeros(())
        if self.spec.reward == "team":
            mean = jnp.where(active, value, 0).sum(-1, keepdims=True) / jnp.maximum(active.sum(-1, keepdims=True), 1)
        return jnp.where(active, value, mean)

    def bootstrapped(self, gae_lambda: float | jax.Array, final_active: jax.Array) -> float | jax.Array:
        """GAE's λ, but 1 where a step led to an agent's death and its reward is its own: there is no value to use."""
        if self.joint or self.spec.reward == "team":
            return gae_lambda
        return jnp.where(final_active, gae_lambda, 1)

    def of_rollout(self, params: Any, batch: OnPolicyBatch) -> tuple[jax.Array, jax.Array]:
        """Values `[T, E, V]` of a rollout's steps and of where each step led before any reset.

        Steps are remembered where the critic's agent is active. Where a step led is one step further in the same
        episode, and so evaluated with the memory of that step, whatever began afterwards.
        """
        sequences = self.memory.remembers
        axis = 1 if sequences else 2  # of V; sequences are [E, V, T, …]

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
