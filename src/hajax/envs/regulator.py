"""A linear-quadratic game for continuous control, whose optimum is given by the Riccati equation.

The agents hold a vector at zero, each with one force:

    s' = A s + B a,    reward −(sᵀs + ½ aᵀa),

with A and B from `dynamics`: every agent has a coordinate that rotates into its neighbor's and a force that also moves
the other coordinates. All agents observe all of s, so the optimum is the linear regulator a = −K s of a single
controller. Episodes begin with s uniform in [−1, 1]ᴺ and are truncated after `max_steps`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hajax.envs.base import Environment, Viewer, clip_action, timestep
from hajax.envs.drawing import bars_drawing
from hajax.spaces import Box
from hajax.spec import AgentSpec, EnvSpec, RewardKind
from hajax.validation import check_number


class RegulatorState(NamedTuple):
    """The vector, and the number of steps so far in the episode."""

    position: jax.Array  # [N]
    step: jax.Array  # int []


def dynamics(num_agents: int) -> tuple[np.ndarray, np.ndarray]:
    """A and B, each `[N, N]`: coordinates shrink and rotate into each other; a quarter of a force moves the others."""
    identity = np.eye(num_agents)
    if num_agents == 1:
        return identity, identity
    turn = (np.roll(identity, 1, 0) - np.roll(identity, -1, 0)) if num_agents > 2 else np.array([[0, -1], [1, 0]])
    return 0.8 * identity + turn / 8, identity + (1 - identity) / 4


def linear_quadratic(
    *, num_agents: int = 2, bound: float = 1.5, max_steps: int = 25, reward: RewardKind = "team"
) -> Environment:
    """N agents hold a vector at zero.

    Args:
        num_agents: N.
        bound: forces are within ±`bound`; optimal ones are within ±1.
        max_steps: steps after which an episode is truncated.
        reward: `"team"` gives every agent −(sᵀs + ½ aᵀa), `"individual"` an equal share of it.

    Raises:
        ValueError: an option has a value that is not allowed.
    """
    check_number("num_agents", num_agents, 1, whole=True)
    check_number("bound", bound, 0, open_low=True)
    check_number("max_steps", max_steps, 1, whole=True)
    box = Box((-float(bound),), (float(bound),))
    agents = tuple(AgentSpec(f"agent_{i}", (num_agents,), box) for i in range(num_agents))
    spec = EnvSpec("games/linear_quadratic", agents, num_agents, max_steps, reward, masks_actions=False)
    drift, force = dynamics(num_agents)

    def show(state, **fields):
        observation = jnp.broadcast_to(state.position, (num_agents, num_agents))
        return state, timestep(spec, observation, state.position, **fields)

    def reset(key):
        position = jax.random.uniform(key, (num_agents,), minval=-1, maxval=1)
        return show(RegulatorState(position, jnp.zeros((), int)), first=True)

    def step(key, state, action):
        s, a = state.position, clip_action(spec, action)[:, 0].astype(state.position.dtype)
        cost = jnp.sum(jnp.square(s)) + jnp.sum(jnp.square(a)) / 2
        after = RegulatorState(jnp.asarray(drift, s.dtype) @ s + jnp.asarray(force, s.dtype) @ a, state.step + 1)
        return show(after, joint_reward=-cost, truncated=after.step >= max_steps)

    return Environment(spec, reset, step, viewer=Viewer(bars_drawing))
