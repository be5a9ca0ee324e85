"""Parameter groups: the agents that share parameters.

Parameters are stacked on a leading axis of G groups, 1 ≤ G ≤ N: G = N if no parameters are shared, G = 1 if all are.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from hajax.spec import EnvSpec
from hajax.validation import check_numbers


@dataclasses.dataclass(frozen=True)
class Groups:
    """A static assignment of N agents to G groups of at most K members."""

    assignment: tuple[int, ...]  # the group of each agent, numbered 0 … G−1

    @property
    def num_agents(self) -> int:
        return len(self.assignment)

    @functools.cached_property
    def num_groups(self) -> int:
        return max(self.assignment) + 1

    @functools.cached_property
    def members(self) -> np.ndarray:
        """The agents of each group, int `[G, K]`. Smaller groups are padded with their first agent."""
        rows = [[i for i, g in enumerate(self.assignment) if g == group] for group in range(self.num_groups)]
        size = max(map(len, rows))
        return np.array([row + row[:1] * (size - len(row)) for row in rows])

    @functools.cached_property
    def member_mask(self) -> np.ndarray:
        """False where `members` is padding, bool `[G, K]`."""
        sizes = np.bincount(self.assignment, minlength=self.num_groups)
        return np.arange(sizes.max()) < sizes[:, None]

    @functools.cached_property
    def first_member(self) -> np.ndarray:
        """The first agent of each group, int `[G]`. All agents of a group have equal spaces."""
        return self.members[:, 0]

    @functools.cached_property
    def _slots(self) -> np.ndarray:
        """The index of each agent in the flattened `[G, K]` table, int `[N]`."""
        real = np.flatnonzero(self.member_mask)
        slots = np.empty(self.num_agents, int)
        slots[self.members.ravel()[real]] = real
        return slots

    def gather(self, x: jax.Array, axis: int) -> jax.Array:
        """Moves the agent axis to the front and splits it: `[…, N, …] -> [G, K, …]`."""
        x = jnp.moveaxis(x, axis, 0)
        shape = self.members.shape
        if not np.array_equal(self.members.ravel(), np.arange(self.num_agents)):
            x = jnp.take(x, self.members.ravel(), axis=0)
        return x.reshape(*shape, *x.shape[1:])

    def scatter(self, x: jax.Array, axis: int) -> jax.Array:
        """The inverse of `gather`: `[G, K, …] -> […, N, …]`."""
        x = x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
        if not np.array_equal(self._slots, np.arange(x.shape[0])):
            x = jnp.take(x, self._slots, axis=0)
        return jnp.moveaxis(x, 0, axis)


def make_groups(spec: EnvSpec, sharing: str | Sequence[int]) -> Groups:
    """The groups for `sharing`: `"none"`, `"all"`, `"type"` (agents with equal spaces), or a group index per agent.

    Raises:
      ValueError: `sharing` is none of these, or agents of one group have different observation shapes or action spaces.
    """
    spaces = [(agent.observation_shape, agent.action_space) for agent in spec.agents]
    if sharing == "none":
        assignment = list(range(spec.num_agents))
    elif sharing == "all":
        assignment = [0] * spec.num_agents
    elif sharing == "type":
        kinds = list(dict.fromkeys(spaces))
        assignment = [kinds.index(space) for space in spaces]
    else:
        try:
            check_numbers("sharing", sharing, 0, whole=True)
        except ValueError as error:
            allowed = "none, all, type, or a list with the group of each agent"
            raise ValueError(f"sharing={sharing!r}; allowed: {allowed}") from error
        assignment = [int(g) for g in sharing]
        used = sorted(set(assignment))
        if len(assignment) != spec.num_agents or used != list(range(len(used))):
            raise ValueError(
                f"sharing={assignment}; allowed: {spec.num_agents} group indices, one per agent, none left out"
            )
    for agent, group in enumerate(assignment):
        other = assignment.index(group)
        if spaces[agent] != spaces[other]:
            names = spec.agents[other].name, spec.agents[agent].name
            raise ValueError(
                f"sharing={sharing!r} puts {names[0]} and {names[1]} in one group, but their spaces differ; "
                "allowed: none, type, or groups of agents with equal spaces"
            )
    return Groups(tuple(assignment))
