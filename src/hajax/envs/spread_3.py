"""Three variants of simple_spread, in which more and more agents depend on each other.

They are Spread-3 of *Dealing with Non-Stationarity in MARL via Trust-Region Decomposition* (Li et al., 2022, Figure 7):
https://arxiv.org/abs/2102.10616. Three agents and three landmarks; the agents of a group cover the landmarks of the
same numbers together, and only they collide. Agent i of group g is rewarded with

    −Σ_{l ∈ g} min_{j ∈ g} |xʲ − yˡ| − (the number of agents j ∈ g that it touches).

The groups are {0}, {1}, {2} in `sep`, {0, 2}, {1} in `mix` and {0, 1, 2} in `ful`. Observations, actions and physics
are those of simple_spread. `ful` is simple_spread with `local_ratio=0.5` and twice its rewards.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hajax.envs.base import Environment
from hajax.envs.mpe import ActionKind, StateKind, particle_environment
from hajax.spec import RewardKind

RADIUS = 0.15  # of an agent
SEP, MIX, FUL = ((0,), (1,), (2,)), ((0, 2), (1,)), ((0, 1, 2),)


def spread_3_sep(
    *,
    actions: ActionKind = "discrete",
    reward: RewardKind = "team",
    state: StateKind = "observations",
    max_steps: int = 25,
) -> Environment:
    """Three agents that do not depend on each other: each goes to its own landmark.

    Args:
        actions: `"discrete"` or `"continuous"`.
        reward: `"team"` gives every agent the sum over agents, `"individual"` its own.
        state: the critic's state. `"observations"` is the concatenation of all agents' observations, `"environment"`
            the positions of agents and landmarks and the velocities of agents.
        max_steps: steps after which an episode is truncated.

    Raises:
        ValueError: an option has a value that is not allowed.
    """
    return _spread("mpe/spread_3_sep", SEP, actions, reward, state, max_steps)


def spread_3_mix(
    *,
    actions: ActionKind = "discrete",
    reward: RewardKind = "team",
    state: StateKind = "observations",
    max_steps: int = 25,
) -> Environment:
    """Agents 0 and 2 cover two landmarks together; agent 1 goes to its own and does not depend on them.

    Args:
        actions: `"discrete"` or `"continuous"`.
        reward: `"team"` gives every agent the sum over agents, `"individual"` its own.
        state: the critic's state. `"observations"` is the concatenation of all agents' observations, `"environment"`
            the positions of agents and landmarks and the velocities of agents.
        max_steps: steps after which an episode is truncated.

    Raises:
        ValueError: an option has a value that is not allowed.
    """
    return _spread("mpe/spread_3_mix", MIX, actions, reward, state, max_steps)


def spread_3_ful(
    *,
    actions: ActionKind = "discrete",
    reward: RewardKind = "team",
    state: StateKind = "observations",
    max_steps: int = 25,
) -> Environment:
    """All three agents cover three landmarks together.

    Args:
        actions: `"discrete"` or `"continuous"`.
        reward: `"team"` gives every agent the sum over agents, `"individual"` its own.
        state: the critic's state. `"observations"` is the concatenation of all agents' observations, `"environment"`
            the positions of agents and landmarks and the velocities of agents.
        max_steps: steps after which an episode is truncated.

    Raises:
        ValueError: an option has a value that is not allowed.
    """
    return _spread("mpe/spread_3_ful", FUL, actions, reward, state, max_steps)


def _spread(
    name: str,
    groups: Sequence[Sequence[int]],
    actions: ActionKind,
    reward: RewardKind,
    state: StateKind,
    max_steps: int,
) -> Environment:
    agents = sum(map(len, groups))
    group = np.array([next(k for k, members in enumerate(groups) if i in members) for i in range(agents)])
    same = group[:, None] == group[None]
    others = same & ~np.eye(agents, dtype=bool)
    options = {"num_agents": agents, "num_landmarks": agents, "local_ratio": 0.5}

    def own_reward(inner: Any) -> jax.Array:
        position, landmark = inner.p_pos[:agents], inner.p_pos[agents:]
        away = jnp.linalg.norm(position[:, None] - landmark[None], axis=-1)  # [agents, landmarks]
        nearest = jnp.where(same, away, jnp.inf).min(0)
        between = jnp.linalg.norm(position[:, None] - position[None], axis=-1)
        touched = (others & (between < 2 * RADIUS)).sum(1)
        return -jnp.where(same, nearest[None], 0).sum(1) - touched

    return particle_environment(
        name, "SimpleSpreadMPE", options, actions, reward, state, max_steps, touching=same, own_reward=own_reward
    )
