"""Individual action values qⁱ(oⁱ, a), and the greedy and ε-greedy policies that follow from them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.core.actors import policy_input, policy_input_mask
from hajax.core.groups import Groups
from hajax.core.off_policy.choices import Choices, TeamChoices
from hajax.core.off_policy.settings import DuelingSettings
from hajax.nn.dueling import Dueling, action_values
from hajax.nn.networks import available_choices, init_params
from hajax.spec import ActionLayout, EnvSpec, Timestep


class ValueTables(NamedTuple):
    """The masks and layouts of each group: arrays `[G, …]`, or one group's inside a scan or vmap."""

    observation_mask: jax.Array | None  # bool [G, O]; None if no agent is padded
    choices: Choices
    layout: ActionLayout


@dataclasses.dataclass(frozen=True)
class OwnValues:
    """Static description of the agents' dueling networks on their observations; parameters are stacked over groups."""

    spec: EnvSpec
    groups: Groups
    choices: TeamChoices
    torso: nn.Module
    settings: DuelingSettings

    @property
    def agent_id(self) -> bool:
        return self.settings.agent_id

    @functools.cached_property
    def module(self) -> Dueling:
        return make_dueling(self.settings, self.torso, self.choices.table.exists.shape[-1])

    @functools.cached_property
    def tables(self) -> ValueTables:
        mask, first = policy_input_mask(self.spec, self.agent_id), self.groups.first_member
        choices = Choices(*(table[first] for table in self.choices.table))
        layout = ActionLayout(*(table[first] for table in self.spec.action_layout))
        return ValueTables(None if mask.all() else mask[first], choices, layout)

    def init(self, key: jax.Array) -> Any:
        """Parameters of every group, stacked `[G, …]`, initialized with a separate key per group."""
        example = policy_input(self.spec, jnp.zeros((self.spec.num_agents, self.spec.observation_size)), self.agent_id)

        def init_group(key, tables):
            return init_params(self.module, key, example[0], tables.observation_mask, tables.choices.exists)

        return jax.vmap(init_group)(jax.random.split(key, self.groups.num_groups), self.tables)

    def values(self, params: Any, tables: ValueTables, observation: jax.Array) -> jax.Array:
        """One group's values `[…, M]` for inputs `[…, O]`; meaningless for choices that its agents do not have."""
        return action_values(self.module, params, observation, tables.observation_mask, tables.choices.exists)

    def team_values(self, params: Any, observation: jax.Array) -> jax.Array:
        """All agents' values, `[…, N, O] -> […, N, M]`."""
        axis = observation.ndim - 2
        inputs = self.groups.gather(policy_input(self.spec, observation, self.agent_id), axis)
        return self.groups.scatter(jax.vmap(self.values)(params, self.tables, inputs), axis)

    def available(self, tables: ValueTables, action_mask: jax.Array | None) -> jax.Array:
        """The available choices of one group's agents, `[…, D, C] -> bool […, M]`; `[M]` without a mask."""
        if action_mask is None:
            return jnp.asarray(tables.choices.exists)
        return tables.choices.available(available_choices(tables.layout, action_mask))

    def team_available(self, action_mask: jax.Array) -> jax.Array:
        """The available choices of all agents, `[…, N, D, C] -> bool […, N, M]`; `[N, M]` without action masks."""
        if not self.spec.masks_actions:
            return jnp.asarray(self.choices.table.exists)
        axis = action_mask.ndim - 3
        of_groups = jax.vmap(self.available)(self.tables, self.groups.gather(action_mask, axis))
        return self.groups.scatter(of_groups, axis)

    def greedy(self, params: Any, observation: jax.Array, action_mask: jax.Array) -> jax.Array:
        """The indices of all agents' best choices, int `[…, N]`."""
        return best(self.team_values(params, observation), self.team_available(action_mask))

    def epsilon_greedy(self, key: jax.Array, params: Any, epsilon: float | jax.Array, timestep: Timestep) -> jax.Array:
        """As `greedy`, but each agent in each environment independently takes a uniform choice with probability ε."""
        available = self.team_available(timestep.action_mask)
        greedy = best(self.team_values(params, timestep.observation), available)
        coin_key, choice_key = jax.random.split(key)
        explores = jax.random.uniform(coin_key, greedy.shape) < epsilon
        logits = jnp.broadcast_to(jnp.where(available, 0.0, -jnp.inf), (*greedy.shape, available.shape[-1]))
        return jnp.where(explores, jax.random.categorical(choice_key, logits), greedy)


def make_dueling(settings: DuelingSettings, torso: nn.Module, num_actions: int) -> Dueling:
    """The dueling network that the settings describe."""
    heads = (settings.head_sizes, settings.activation, settings.layer_norm, settings.output_gain)
    return Dueling(torso, num_actions, *heads)


def best(values: jax.Array, available: jax.Array) -> jax.Array:
    """The index of the best available choice, `[…, M] -> int […]`. Ties go to the lowest index."""
    return jnp.argmax(jnp.where(available, values, -jnp.inf), -1)
