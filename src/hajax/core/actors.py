"""The team's actors: one network definition, parameters stacked over groups."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hajax.core.groups import Groups
from hajax.core.settings import TeamSettings
from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters
from hajax.nn.layers import LAYER_NORM_MIN_INPUTS
from hajax.nn.memory import NO_MEMORY, NOTHING, BaseMemory, MemoryInput, initial_input
from hajax.nn.networks import Actor, StdKind, init_params
from hajax.spec import ActionLayout, EnvSpec, Timestep


class GroupTables(NamedTuple):
    """The padding masks and the action layout of each group: arrays `[G, …]`, or one group's inside a scan or vmap."""

    observation_mask: jax.Array | None  # bool [G, O]; None if no agent is padded
    layout: ActionLayout


def policy_input(spec: EnvSpec, observation: jax.Array, agent_id: bool) -> jax.Array:
    """The padded observations `[…, N, O]`, with a one-hot agent id appended to each if `agent_id`."""
    if not agent_id:
        return observation
    identity = jnp.eye(spec.num_agents, dtype=observation.dtype)
    return jnp.concatenate([observation, jnp.broadcast_to(identity, (*observation.shape[:-1], spec.num_agents))], -1)


def policy_input_mask(spec: EnvSpec, agent_id: bool) -> np.ndarray:
    """The entries of `policy_input` that each agent has, bool `[N, O]`."""
    ids = np.ones((spec.num_agents, spec.num_agents if agent_id else 0), bool)
    return np.concatenate([spec.observation_mask, ids], -1)


def policy_torso(spec: EnvSpec, settings: TeamSettings, own: nn.Module | None) -> nn.Module:
    """The torso of the team's actors: the user's module, checked, or the MLP of the settings.

    Warns if the MLP normalizes the input of an agent with one or two entries, which removes almost all information.
    """
    mask = policy_input_mask(spec, settings.agent_id)
    for agent, width in zip(spec.agents, mask.sum(-1).tolist(), strict=True):
        if own is None and (left := settings.left_to_see(width)):
            numbers = f"the {width} {'number' if width == 1 else 'numbers'} that it observes"
            warnings.warn(
                f"layer_norm_min_inputs={settings.layer_norm_min_inputs} leaves {agent.name} of {spec.name} {left} of "
                f"{numbers}; the default, {LAYER_NORM_MIN_INPUTS}, leaves all",
                stacklevel=2,
            )
    return settings.torso("actor", own, mask.shape[-1], not mask.all())


@dataclasses.dataclass(frozen=True)
class TeamActors:
    """Static description of the team's actors; parameters are arguments, stacked over groups.

    `torso` is any flax module from observations to features (see `hajax.haml`). With `action_scaling`, the Gaussian of
    a bounded Box component is in units in which the bounds are ±1; without, it is in native units (as in HARL). Every
    agent has a `memory`, which is unchanged while the agent is inactive.
    """

    spec: EnvSpec
    groups: Groups
    torso: nn.Module
    agent_id: bool
    action_scaling: bool
    output_gain: float
    std: StdKind = "parameter"
    std_scale: float = 0.5
    memory: BaseMemory = NO_MEMORY
    chunk_length: int = 1  # steps per sample, with a memory

    @functools.cached_property
    def module(self) -> Actor:
        spec = self.spec
        return Actor(
            torso=self.torso,
            num_components=spec.num_components,
            num_choices=spec.num_choices,
            has_discrete=spec.has_discrete,
            equal_choices=bool(spec.action_layout.choices.all()),
            has_continuous=spec.has_continuous,
            output_gain=self.output_gain,
            std=self.std,
            std_scale=self.std_scale,
            memory=self.memory,
        )

    @functools.cached_property
    def layout(self) -> ActionLayout:
        """The action tables of all agents, `[N, D]` and `[N, D, C]`."""
        layout = self.spec.action_layout
        if not self.action_scaling:
            layout = layout._replace(center=np.zeros_like(layout.center), scale=np.ones_like(layout.scale))
        return layout

    @functools.cached_property
    def tables(self) -> GroupTables:
        mask = policy_input_mask(self.spec, self.agent_id)
        first = self.groups.first_member
        return GroupTables(None if mask.all() else mask[first], ActionLayout(*(table[first] for table in self.layout)))

    def init(self, key: jax.Array) -> Any:
        """Parameters of every group, stacked `[G, …]`, initialized with a separate key per group."""
        example = policy_input(self.spec, jnp.zeros((self.spec.num_agents, self.spec.observation_size)), self.agent_id)

        def init_group(key, tables):
            inputs = (example[0], tables.observation_mask, tables.layout, None, initial_input(self.memory))
            return init_params(self.module, key, *inputs)

        return jax.vmap(init_group)(jax.random.split(key, self.groups.num_groups), self.tables)

    def initial_memory(self, batch_shape: tuple[int, ...]) -> Any:
        """The memory of all agents at the start of an episode, arrays `[…, N, …]`."""
        return self.memory.initial_memory((*batch_shape, self.spec.num_agents))

    def distribution(
        self,
        params: Any,
        tables: GroupTables,
        observation: jax.Array,
        action_mask: jax.Array | None,
        memory_input: MemoryInput = NOTHING,
    ) -> tuple[ActionParameters, Any]:
        """One group's action distribution for inputs `[…, O]` and masks `[…, D, C]`, and the memory after every step.

        `params` and `tables` are the group's. Inputs are single steps or sequences; the shapes of `memory_input` decide
        which.
        """
        inputs = (observation, tables.observation_mask, tables.layout, action_mask, memory_input)
        parameters, memory = self.module.apply({"params": params}, *inputs)
        return parameters, memory

    def act(
        self,
        key: jax.Array,
        params: Any,
        timestep: Timestep,
        memory: Any,
        deterministic: bool,
    ) -> tuple[jax.Array, jax.Array, Any]:
        """Actions `[…, N, D]` of all agents, their log-probabilities `[…, N]`, and the new memory."""
        memory_input = self.memory.select(memory, timestep.first, timestep.active)
        seen = (timestep.observation, timestep.action_mask)
        parameters, memory = self.team_distribution(params, *seen, memory_input)
        if deterministic:
            action = distributions.mode(parameters, self.layout)
        else:
            action = distributions.sample(key, parameters, self.layout)
        return action, distributions.log_prob(parameters, self.layout, action), memory

    def team_distribution(
        self,
        params: Any,
        observation: jax.Array,
        action_mask: jax.Array | None,
        memory_input: MemoryInput = NOTHING,
    ) -> tuple[ActionParameters, Any]:
        """All agents' action distributions for observations `[…, N, O]`, masks `[…, N, D, C]`, and the new memory."""
        inputs = (policy_input(self.spec, observation, self.agent_id), action_mask, memory_input)
        inputs = jax.tree.map(lambda x: self.groups.gather(x, axis=observation.ndim - 2), inputs)
        results = jax.vmap(self.distribution)(params, self.tables, *inputs)
        return jax.tree.map(lambda x: self.groups.scatter(x, axis=observation.ndim - 2), results)
