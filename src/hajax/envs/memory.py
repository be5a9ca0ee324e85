"""A game that needs memory: every agent sees a cue in the first step, and must name it some steps later.

An episode has `delay + 1` steps. In the first step agent i observes one of `num_cues` cues, drawn uniformly and
independently for each agent; then nothing; and in the last step a question mark. Its action in the last step is its
answer; earlier actions have no effect. The team reward is the share of right answers (the individual reward is 1/N
for a right one), and the episode terminates.

A policy that remembers the cue has a return of 1, the optimum. In the last step the observation does not depend on the
cue, so every policy without memory has an expected return of exactly 1/`num_cues`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hajax.colors import BLUE, VERMILION
from hajax.envs.base import Environment, Viewer, timestep
from hajax.spaces import Discrete
from hajax.spec import AgentSpec, EnvSpec, RewardKind, Timestep
from hajax.validation import check_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class MemoryState(NamedTuple):
    """The cues, and the number of steps so far in the episode."""

    cue: jax.Array  # int [N]
    step: jax.Array  # int []


def memory(*, num_agents: int = 2, num_cues: int = 2, delay: int = 5, reward: RewardKind = "team") -> Environment:
    """Every agent is shown a cue and names it `delay` steps later, which needs a memory.

    Observations `[num_cues + 1]` are the one-hot cue, in the first step, and a 1 in the last step. The critic's state
    `[num_agents · num_cues + 1]` is all cues, in every step, and the elapsed share of the episode.

    Args:
        num_agents: N.
        num_cues: the number of cues, and of answers.
        delay: steps from the cue to the answer.
        reward: `"team"` gives every agent the share of right answers, `"individual"` 1/N for its own right answer.

    Raises:
        ValueError: an option has a value that is not allowed.
    """
    check_number("num_agents", num_agents, 1, whole=True)
    check_number("num_cues", num_cues, 2, whole=True)
    check_number("delay", delay, 1, whole=True)
    agents = tuple(AgentSpec(f"agent_{i}", (num_cues + 1,), Discrete(num_cues)) for i in range(num_agents))
    spec = EnvSpec("games/memory", agents, num_agents * num_cues + 1, delay + 1, reward, masks_actions=False)

    def show(state, **fields):
        cues = jax.nn.one_hot(state.cue, num_cues, dtype=float)
        asked = jnp.full((num_agents, 1), state.step == delay, float)
        observation = jnp.concatenate([jnp.where(state.step == 0, cues, 0), asked], -1)
        critic_state = jnp.append(cues.ravel(), state.step / (delay + 1))
        return state, timestep(spec, observation, critic_state, **fields)

    def reset(key):
        return show(MemoryState(jax.random.randint(key, (num_agents,), 0, num_cues), jnp.zeros((), int)), first=True)

    def step(key, state, action):
        answered = state.step == delay
        right = answered & (action[:, 0].astype(int) == state.cue)
        reward = right.astype(float) / num_agents
        return show(state._replace(step=state.step + 1), reward=reward, terminated=answered)

    return Environment(spec, reset, step, viewer=Viewer(_draw))


def _draw(axes: Axes, state: Any, action: Any, timestep: Timestep) -> None:
    """A row per agent: its cue as a ring, its action as a disc, which is pale before the last step."""
    answer = np.asarray(action)[:, 0]
    rows = np.arange(len(answer))
    asked = bool(timestep.terminated)
    axes.scatter(answer, rows, s=300, color=BLUE, alpha=1 if asked else 0.25, label="answer" if asked else "action")
    axes.scatter(np.asarray(state.cue), rows, s=700, facecolor="none", edgecolor=VERMILION, linewidth=3, label="cue")
    axes.set_title(f"step {int(state.step)}" + (": asked" if asked else ""), size=11)
    choices = np.arange(timestep.action_mask.shape[-1])
    axes.set(xlabel="cue", xticks=choices, xlim=(-0.7, choices[-1] + 0.7), ylim=(len(rows) - 0.3, -0.7))
    axes.set_yticks(rows, [f"agent_{i}" for i in rows])
    axes.spines[:].set_visible(False)
