"""All that agents with discrete actions can choose: every agent's own choices, numbered, and the team's."""

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
    """The numbering of a team's choices: agent i's 0 … Mᵢ−1, and the team's 0 … J−1, J = ∏ Mᵢ, agent 0's slowest."""

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
        """By how much the team's number grows with agent i's, int `[N]`."""
        return np.array([math.prod(self.counts[i + 1 :].tolist()) for i in range(len(self.counts))])

    def number(self, action: jax.Array) -> jax.Array:
        """The numbers of the agents' actions, `[…, N, D] -> int […, N]`."""
        strides = np.zeros((self.spec.num_agents, self.spec.num_components), int)
        for i, agent in enumerate(self.spec.agents):
            sizes = agent.action_space.choices
            strides[i, : len(sizes)] = [math.prod(sizes[d + 1 :]) for d in range(len(sizes))]
        return jnp.sum(action.astype(int) * strides, -1)

    def action(self, number: jax.Array) -> jax.Array:
        """The actions with those numbers, `int […, N] -> […, N, D]`."""
        agents = jnp.arange(self.spec.num_agents)
        return jnp.asarray(self.table.index)[agents, number].astype(float)

    def joint(self, number: jax.Array) -> jax.Array:
        """The team's number from its agents', `int […, N] -> […]`."""
        return jnp.sum(number * self.strides, -1)

    def along(self, values: jax.Array, number: jax.Array, agent: jax.Array) -> jax.Array:
        """What becomes of `values` `[B, J]` with each choice of one agent, the others' being as in `number` `[B, N]`.

        Returns `[B, M]`; meaningless for choices that the agent does not have.
        """
        stride = jnp.take(jnp.asarray(self.strides), agent, mode="clip")
        own = jnp.take(number, agent, axis=-1, mode="clip")
        places = self.joint(number) - stride * own
        index = places[:, None] + stride * jnp.arange(self.table.exists.shape[-1])
        return jnp.take_along_axis(values, index, -1, mode="clip")
