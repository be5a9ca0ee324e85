"""All choices of agents with discrete actions, one by one: those of every agent, and the team's joint ones."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hajax.spaces import Box
from hajax.spec import EnvSpec

# Joint choices of one agent, and of a team, for which values are computed one by one.
MOST_CHOICES = 256
MOST_JOINT_CHOICES = 10_000


class Choices(NamedTuple):
    """All M choices of one agent, each of all its components together (with leading axes for several agents)."""

    index: Any  # int [M, D]: the choice of each component
    exists: Any  # bool [M]

    def available(self, action_mask: jax.Array) -> jax.Array:
        """Those of which all components are available, `[…, D, C] -> […, M]`.

        `action_mask` is that of `nn.networks.available_choices`, which leaves every component something.
        """
        components = jnp.arange(self.index.shape[-1])
        return action_mask[..., components, self.index].all(-1) & self.exists


def unlisted(spec: EnvSpec, agents: Sequence[int]) -> str:
    """Why the choices of one of those agents can't be listed; empty if all can: no Box, at most `MOST_CHOICES`."""
    for agent in (spec.agents[i] for i in agents):
        if isinstance(agent.action_space, Box):
            return f"{agent.name} has a Box"
        if (count := math.prod(agent.action_space.choices)) > MOST_CHOICES:
            return f"{agent.name} has {count} joint choices, more than {MOST_CHOICES}"
    return ""


def choices_of(spec: EnvSpec, agents: Sequence[int]) -> Choices:
    """The choices of those agents, `[…, M, D]` and `[…, M]` with one leading axis, padded to the largest M."""
    tables = [
        np.array(list(itertools.product(*(range(n) for n in spec.agents[i].action_space.choices)))) for i in agents
    ]
    widest = max(map(len, tables))
    index = np.zeros((len(tables), widest, spec.num_components), int)
    exists = np.zeros((len(tables), widest), bool)
    for i, table in enumerate(tables):
        index[i, : len(table), : table.shape[1]] = table
        exists[i, : len(table)] = True
    return Choices(index, exists)


@dataclasses.dataclass(frozen=True)
class TeamChoices:
    """Indices of a team's choices: 0 … Mᵢ−1 of agent i, and 0 … J−1 of the team, J = ∏ Mᵢ, with agent 0's slowest."""

    spec: EnvSpec

    @functools.cached_property
    def table(self) -> Choices:
        """`[N, M, D]` and `[N, M]`."""
        return choices_of(self.spec, range(self.spec.num_agents))

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """Mᵢ, int `[N]`."""
        return self.table.exists.sum(-1)

    @property
    def num_joint(self) -> int:
        """J."""
        return math.prod(self.counts.tolist())

    @functools.cached_property
    def strides(self) -> np.ndarray:
        """The step of the team's index when agent i's grows by 1, int `[N]`."""
        return np.array([math.prod(self.counts[i + 1 :].tolist()) for i in range(len(self.counts))])

    def indices(self, action: jax.Array) -> jax.Array:
        """The indices of the agents' actions, `[…, N, D] -> int […, N]`."""
        strides = np.zeros((self.spec.num_agents, self.spec.num_components), int)
        for i, agent in enumerate(self.spec.agents):
            sizes = agent.action_space.choices
            strides[i, : len(sizes)] = [math.prod(sizes[d + 1 :]) for d in range(len(sizes))]
        return jnp.sum(action.astype(int) * strides, -1)

    def action(self, indices: jax.Array) -> jax.Array:
        """The actions with those indices, `int […, N] -> […, N, D]`."""
        agents = jnp.arange(self.spec.num_agents)
        return jnp.asarray(self.table.index)[agents, indices].astype(float)

    def joint(self, indices: jax.Array) -> jax.Array:
        """The team's index from its agents', `int […, N] -> […]`."""
        return jnp.sum(indices * self.strides, -1)

    def along(self, values: jax.Array, indices: jax.Array, agent: jax.Array) -> jax.Array:
        """The `values` `[B, J]` of all choices of one agent, while the others choose `indices` `[B, N]`.

        Returns `[B, M]`, without meaning for choices that the agent does not have.
        """
        stride = jnp.take(jnp.asarray(self.strides), agent, mode="clip")
        own = jnp.take(indices, agent, axis=-1, mode="clip")
        index = (self.joint(indices) - stride * own)[:, None] + stride * jnp.arange(self.table.exists.shape[-1])
        return jnp.take_along_axis(values, index, -1, mode="clip")
