"""Games with a single state, whose optimum, gradients and equilibria are known exactly.

Every agent observes the constant [1.]. The team reward is the payoff r(a), and an individual reward is the equal share
r(a)/N.

By default an episode is one round, which terminates, so that its value is E[r]. With `max_steps` above 1 the game is
repeated, and the last round is truncated: the constant observation does not distinguish rounds, so the value is that
of the game without an end, E[r]/(1 − γ).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hajax.envs.base import Environment, Viewer, timestep
from hajax.envs.drawing import Draw, choices_drawing, product_drawing, table_drawing
from hajax.spaces import ActionSpace, Box, Discrete
from hajax.spec import AgentSpec, EnvSpec, RewardKind
from hajax.validation import check_number

Payoff = np.ndarray | Sequence[Any]


class GameState(NamedTuple):
    """The number of rounds so far in the episode."""

    round: jax.Array  # int []


def trap_of_homogeneity_payoff(num_agents: int = 2) -> np.ndarray:
    """The payoff `[2]*n` of Proposition 1 of *Heterogeneous-Agent Mirror Learning* (Kuba et al., 2022b).

    1 where the first half of the agents take one action and the second half the other, else 0. The best shared policy
    has the value 2/2ⁿ, the best separate policies have the value 1.

    Raises:
        ValueError: `num_agents` is odd or not between 2 and 20 (the tensor has 2ⁿ entries).
    """
    check_number("num_agents", num_agents, 2, 20, whole=True)
    if num_agents % 2:
        raise ValueError(f"num_agents={num_agents}; allowed: even numbers from 2 to 20")
    half = num_agents // 2
    payoff = np.zeros((2,) * num_agents)
    payoff[(0,) * half + (1,) * half] = 1.0
    payoff[(1,) * half + (0,) * half] = 1.0
    return payoff


def trap_of_heterogeneity_payoff() -> np.ndarray:
    """The payoff `[2, 2]` of Proposition 2 of *Heterogeneous-Agent Mirror Learning* (Kuba et al., 2022b).

    Agents that both respond to the other's old policy arrive at the worst joint action, −1.
    """
    return np.array([[0.0, 2.0], [2.0, -1.0]])


def hasac_payoff() -> np.ndarray:
    """The payoff `[3, 3]` of Figure 1 of the HASAC paper (Liu et al., 2024): 5, 10, 20 for equal actions, else −20."""
    payoff = np.full((3, 3), -20.0)
    np.fill_diagonal(payoff, [5.0, 10.0, 20.0])
    return payoff


def matrix(
    payoff: Payoff = ((1.0, 0.0), (0.0, 1.0)), *, max_steps: int = 1, reward: RewardKind = "team"
) -> Environment:
    """The common-payoff game of a tensor: agent i has Discrete(nᵢ) actions, nᵢ the tensor's i-th length.

    Args:
        payoff: `[n₁, …, n_N]`, the team's payoff r(a) of every joint action; without one, two agents who should agree.
        max_steps: rounds of an episode; see the module's docstring for how it ends.
        reward: `"team"` gives every agent r(a), `"individual"` its share r(a)/N.

    Raises:
        ValueError: `payoff` is not a finite tensor with an axis per agent, or another option is not allowed.
    """
    return _matrix("games/matrix", payoff, max_steps, reward)


def trap_of_homogeneity(*, num_agents: int = 2, max_steps: int = 1, reward: RewardKind = "team") -> Environment:
    """The game that agents with shared policies cannot play (Kuba et al., 2022b, Proposition 1).

    It is `matrix` with `trap_of_homogeneity_payoff(num_agents)`.

    Args:
        num_agents: N, an even number from 2 to 20.
        max_steps: rounds of an episode; see the module's docstring for how it ends.
        reward: `"team"` gives every agent r(a), `"individual"` its share r(a)/N.
    """
    return _matrix("games/trap_of_homogeneity", trap_of_homogeneity_payoff(num_agents), max_steps, reward)


def trap_of_heterogeneity(*, max_steps: int = 1, reward: RewardKind = "team") -> Environment:
    """The game in which simultaneous improvements fail (Kuba et al., 2022b, Proposition 2).

    It is `matrix` with `trap_of_heterogeneity_payoff()`.

    Args:
        max_steps: rounds of an episode; see the module's docstring for how it ends.
        reward: `"team"` gives every agent r(a), `"individual"` its share r(a)/N.
    """
    return _matrix("games/trap_of_heterogeneity", trap_of_heterogeneity_payoff(), max_steps, reward)


def hasac_matrix(*, max_steps: int = 1, reward: RewardKind = "team") -> Environment:
    """The 3 × 3 game with a tempting local optimum (Liu et al., 2024, Figure 1).

    It is `matrix` with `hasac_payoff()`.

    Args:
        max_steps: rounds of an episode; see the module's docstring for how it ends.
        reward: `"team"` gives every agent r(a), `"individual"` its share r(a)/N.
    """
    return _matrix("games/hasac_matrix", hasac_payoff(), max_steps, reward)


def gaussian(*, max_steps: int = 1, reward: RewardKind = "team") -> Environment:
    """The game r(a) = a₁·a₂ of two agents with one unbounded real action each.

    Figure 1 of *Trust Region Policy Optimisation in Multi-Agent Reinforcement Learning* (Kuba et al., 2022a): from
    means of opposite sign, simultaneous updates decrease the expected payoff μ₁·μ₂, sequential ones increase it.

    Args:
        max_steps: rounds of an episode; see the module's docstring for how it ends.
        reward: `"team"` gives both agents a₁·a₂, `"individual"` half of it each.

    Raises:
        ValueError: an option has a value that is not allowed.
    """
    line = Box((-np.inf,), (np.inf,))

    def payoff(action):
        return action[0, 0] * action[1, 0]

    return _single_state_game("games/gaussian", (line, line), payoff, max_steps, reward, product_drawing)


def _matrix(name: str, payoff: Payoff, max_steps: int, reward: RewardKind) -> Environment:
    try:
        table = np.array(payoff, dtype=float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"payoff={payoff!r} of {name!r}; allowed: a tensor of numbers, one axis per agent") from error
    if table.ndim == 0 or table.size == 0 or not np.isfinite(table).all():
        raise ValueError(
            f"payoff of {name!r} has shape {table.shape} and {np.isfinite(table).sum()} finite entries; "
            "allowed: finite entries, one axis per agent, at least one action each"
        )

    def look_up(action):
        joint = tuple(action[i, 0].astype(int) for i in range(table.ndim))
        return jnp.asarray(table, float)[joint]

    draw = table_drawing(table) if table.ndim <= 2 else choices_drawing(table)
    return _single_state_game(name, tuple(Discrete(n) for n in table.shape), look_up, max_steps, reward, draw)


def _single_state_game(
    name: str,
    action_spaces: tuple[ActionSpace, ...],
    payoff: Callable[[jax.Array], jax.Array],
    max_steps: int,
    reward: RewardKind,
    draw: Draw,
) -> Environment:
    """`payoff` maps the joint action `[N, D]` to the team's scalar payoff."""
    check_number("max_steps", max_steps, 1, whole=True)
    agents = tuple(AgentSpec(f"agent_{i}", (1,), space) for i, space in enumerate(action_spaces))
    spec = EnvSpec(name, agents, state_size=1, max_steps=max_steps, reward=reward, masks_actions=False)

    def show(state, **fields):
        return state, timestep(spec, jnp.ones((spec.num_agents, 1)), jnp.ones(1), **fields)

    def reset(key):
        return show(GameState(jnp.zeros((), int)), first=True)

    def step(key, state, action):
        state = GameState(state.round + 1)
        joint_reward = payoff(action).astype(jnp.result_type(float))
        over = state.round >= max_steps
        ending = {"terminated": over} if max_steps == 1 else {"truncated": over}
        return show(state, joint_reward=joint_reward, **ending)

    return Environment(spec, reset, step, viewer=Viewer(draw))
