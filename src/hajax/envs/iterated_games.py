"""Two agents play a game with two actions each, round after round, and remember the last round.

An agent observes a one-hot of five entries: the first round, or with action 0 written C and action 1 written D, what it
and the other did in the round before, CC, CD, DC, DD, its own action first. The critic's state is the observation of
agent 0. Interests differ, so the rewards are individual by default. Episodes are truncated after `max_steps` rounds: a
policy does not see the end, and its value is that of the game without one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hajax.colors import VERMILION
from hajax.envs.base import Environment, Viewer, timestep
from hajax.spaces import Discrete
from hajax.spec import AgentSpec, EnvSpec, RewardKind, Timestep
from hajax.validation import check_choice, check_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# [2, 2, 2]: the rewards of agent 0 and of agent 1 after the actions of agent 0 and of agent 1.
PRISONERS_DILEMMA = np.array([[[-1.0, -3.0], [0.0, -2.0]], [[-1.0, 0.0], [-3.0, -2.0]]])
MATCHING_PENNIES = np.array([[[1.0, -1.0], [-1.0, 1.0]], [[-1.0, 1.0], [1.0, -1.0]]])


class RoundState(NamedTuple):
    """What happened in the last round."""

    last: jax.Array  # int [2], the actions; of no meaning in the first round
    round: jax.Array  # int []


def iterated_prisoners_dilemma(*, max_steps: int = 150, reward: RewardKind = "individual") -> Environment:
    """The iterated prisoner's dilemma: action 0 cooperates, action 1 defects.

    Each is rewarded with −1 if both cooperate and −2 if both defect; a defector whose opponent cooperates with 0, the
    opponent with −3. These are the rewards of *Learning with Opponent-Learning Awareness* (Foerster et al., 2018):
    https://arxiv.org/abs/1709.04326.

    Args:
        max_steps: rounds of an episode.
        reward: `"individual"` gives every agent its own reward, `"team"` the sum.

    Raises:
        ValueError: an option has a value that is not allowed.
    """
    return _iterated("games/iterated_prisoners_dilemma", PRISONERS_DILEMMA, max_steps, reward)


def matching_pennies(*, max_steps: int = 150, reward: RewardKind = "individual") -> Environment:
    """Iterated matching pennies: agent 0 wins 1 from agent 1 if both show the same side, else it loses 1.

    The only equilibrium of a round is that both sides are equally likely.

    Args:
        max_steps: rounds of an episode.
        reward: `"individual"` gives every agent its own reward, `"team"` the sum, which is 0.

    Raises:
        ValueError: an option has a value that is not allowed.
    """
    return _iterated("games/matching_pennies", MATCHING_PENNIES, max_steps, reward)


def _iterated(name: str, payoff: np.ndarray, max_steps: int, reward: RewardKind) -> Environment:
    check_number("max_steps", max_steps, 1, whole=True)
    check_choice("reward", reward, ("team", "individual"))
    agents = tuple(AgentSpec(f"agent_{i}", (5,), Discrete(2)) for i in range(2))
    spec = EnvSpec(name, agents, state_size=5, max_steps=max_steps, reward=reward, masks_actions=False)

    def show(state: RoundState, **fields):
        own, other = state.last, state.last[::-1]
        outcome = jnp.where(state.round == 0, 0, 1 + 2 * own + other)
        observation = jax.nn.one_hot(outcome, 5, dtype=float)
        return state, timestep(spec, observation, observation[0], **fields)

    def reset(key):
        return show(RoundState(jnp.zeros(2, int), jnp.zeros((), int)), first=True)

    def step(key, state, action):
        state = RoundState(action[:, 0].astype(int), state.round + 1)
        own_rewards = jnp.asarray(payoff, float)[:, state.last[0], state.last[1]]
        return show(state, reward=own_rewards, truncated=state.round >= max_steps)

    def draw(axes: Axes, state: Any, action: Any, timestep: Timestep) -> None:
        """The rewards of both agents as a table, with the joint action outlined."""
        from matplotlib.patches import Rectangle

        row, column = (int(a) for a in np.asarray(action)[:, 0])
        axes.imshow(payoff.sum(0), cmap="Greys", vmin=payoff.sum(0).min() - 1, vmax=payoff.sum(0).max() + 4)
        for i, j in np.ndindex(2, 2):
            axes.text(j, i, f"{payoff[0, i, j]:g}, {payoff[1, i, j]:g}", size=15, ha="center", va="center")
        corner = (column - 0.46, row - 0.46)
        axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, color=VERMILION, linewidth=4, label="played"))
        axes.set(xticks=[0, 1], yticks=[0, 1], xlabel="action of agent_1", ylabel="action of agent_0")
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    return Environment(spec, reset, step, viewer=Viewer(draw))
