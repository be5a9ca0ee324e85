"""Enumeration of discrete actions: the choices of each agent, and the joint choices of the team."""

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
from hajax.spec import ActionLayout, EnvSpec

# The largest numbers of choices of one agent, and of joint choices of a team, for which values are enumerated.
MOST_CHOICES = 256
MOST_JOINT_CHOICES = 10_000


class Choices(NamedTuple):
    """All M choices of one agent, one for each combination of its components (with leading axes for several agents)."""

    index: Any  # int [M, D]: the index in each component
    exists: Any  # bool [M]: false where padded

    def available(self, action_mask: jax.Array) -> jax.Array:
        """Whether all components of each choice are available, `[…, D, C] -> bool […, M]`.

        `action_mask` is as returned by `available_choices`, in which every component has an available choice.
        """
        components = jnp.arange(self.index.shape[-1])
        return action_mask[..., components, self.index].all(-1) & self.exists


def log_probs(choices: Choices, logits: jax.Array, layout: ActionLayout) -> tuple[jax.Array, jax.Array]:
    """log π of all choices of one group's agents, `[…, M]`, 0 where π is 0, and whether π is positive.

    `logits` `[…, D, C]` are −inf where a choice is unavailable.
    """
    index, exists = jnp.asarray(choices.index, int), jnp.asarray(choices.exists)
    scores = jax.nn.log_softmax(logits)[..., jnp.arange(index.shape[-1]), index]  # [..., M, D]
    scores = jnp.where(layout.discrete, scores, 0).sum(-1)
    possible = exists & jnp.isfinite(scores)
    return jnp.where(possible, scores, 0), possible


def unlisted(spec: EnvSpec, agents: Sequence[int]) -> str:
    """The reason why an agent's choices cannot be enumerated (a Box, or more than `MOST_CHOICES`); empty if none."""
    for agent in (spec.agents[i] for i in agents):
        if isinstance(agent.action_space, Box):
            return f"{agent.name} has a Box"
        if (count := math.prod(agent.action_space.choices)) > MOST_CHOICES:
            return f"{agent.name} has {count} joint choices, more than {MOST_CHOICES}"
    return ""


def choices_of(spec: EnvSpec, agents: Sequence[int]) -> Choices:
    """The choices of these agents, `[len(agents), M, D]` and `[len(agents), M]`, padded to the largest M."""
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
    """Indices of choices: 0 … Mᵢ−1 for agent i, and 0 … J−1 for the team, J = ∏ Mᵢ, in which agent 0 varies slowest."""

    spec: EnvSpec

    @functools.cached_property
    def table(self) -> Choices:
        """The choices of all agents, `[N, M, D]` and `[N, M]`."""
        return choices_of(self.spec, range(self.spec.num_agents))

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """The number of choices Mᵢ of each agent, int `[N]`."""
        return self.table.exists.sum(-1)

    @property
    def num_joint(self) -> int:
        """The number of joint choices, J."""
        return math.prod(self.counts.tolist())

    @functools.cached_property
    def strides(self) -> np.ndarray:
        """The change of the joint index when agent i's index grows by 1, int `[N]`."""
        return np.array([math.prod(self.counts[i + 1 :].tolist()) for i in range(len(self.counts))])

    def indices(self, action: jax.Array) -> jax.Array:
        """The choice indices of the agents' actions, `[…, N, D] -> int […, N]`."""
        strides = np.zeros((self.spec.num_agents, self.spec.num_components), int)
        for i, agent in enumerate(self.spec.agents):
            sizes = agent.action_space.choices
            strides[i, : len(sizes)] = [math.prod(sizes[d + 1 :]) for d in range(len(sizes))]
        return jnp.sum(action.astype(int) * strides, -1)

    def action(self, indices: jax.Array) -> jax.Array:
        """The actions with these choice indices, `int […, N] -> […, N, D]`."""
        agents = jnp.arange(self.spec.num_agents)
        return jnp.asarray(self.table.index, float)[agents, indices]

    def joint(self, indices: jax.Array) -> jax.Array:
        """The joint index of the agents' choice indices, `int […, N] -> int […]`."""
        return jnp.sum(indices * self.strides, -1)

    def along(self, values: jax.Array, indices: jax.Array, agent: jax.Array) -> jax.Array:
        """The entries of `values` `[B, J]` for all choices of one agent, the other agents' choices being `indices`.

        Args:
          values: a value per joint choice, `[B, J]`.
          indices: the choice indices of all agents, `[B, N]`.
          agent: the agent's index.

        Returns:
          `[B, M]`, meaningless for choices that the agent does not have.
        """
        stride = jnp.take(jnp.asarray(self.strides), agent, mode="clip")
        own = jnp.take(indices, agent, axis=-1, mode="clip")
        index = (self.joint(indices) - stride * own)[:, None] + stride * jnp.arange(self.table.exists.shape[-1])
        return jnp.take_along_axis(values, index, -1, mode="clip")


def team_choices(name: str, spec: EnvSpec) -> TeamChoices:
    """The team's choices. Raises ValueError if an agent has a Box or more than `MOST_CHOICES` choices."""
    if reason := unlisted(spec, range(spec.num_agents)):
        raise ValueError(
            f"{name} has a value for every choice of an agent, but {reason}; allowed: discrete actions, at most "
            f"{MOST_CHOICES} joint choices of an agent"
        )
    return TeamChoices(spec)
