"""Rover-Tower: rovers that see nothing but themselves are led to their goals by the messages of towers.

The task of *Actor-Attention-Critic for Multi-Agent Reinforcement Learning* (Iqbal & Sha, 2019, Section 4.1,
https://arxiv.org/abs/1810.02912), as in its public code. In every episode towers and rovers are paired at random, and
every pair is given one of the landmarks. Physics are those of MPE without collisions: with the direction u of a rover,

    v ← 0.75 v + 0.1 · 2.25 u,  cut to a speed of 1;   x ← x + 0.1 v.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hajax.colors import CYCLE, YELLOW
from hajax.envs.base import Environment, Viewer, pad_observations, state_from_observations, timestep
from hajax.envs.drawing import FAR, NEAR
from hajax.envs.mpe import DIRECTIONS
from hajax.spaces import Discrete
from hajax.spec import AgentSpec, EnvSpec, RewardKind, Timestep
from hajax.validation import check_choice, check_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAIRS, LANDMARKS, MESSAGES = 4, 6, 5
# The public code multiplies by the rovers' acceleration of 1.5 twice.
TIME, DAMPING, ACCELERATION, FASTEST = 0.1, 0.25, 1.5**2, 1.0
# A pair is rewarded with BONUS if the squared distance of its rover to its goal is below CLOSE.
BONUS, CLOSE = 10.0, 1.5 * (0.075 + 0.04)


class RoverTowerState(NamedTuple):
    """Rovers, towers and landmarks of one episode."""

    rover: jax.Array  # [4, 2], positions
    velocity: jax.Array  # [4, 2]
    tower: jax.Array  # [4, 2]
    landmark: jax.Array  # [6, 2]
    rover_of: jax.Array  # int [4], the rover of each tower
    goal: jax.Array  # int [4], the landmark of each tower's rover
    message: jax.Array  # [4, 5], of each tower, one-hot; 0 before the first step
    step: jax.Array  # int []


def rover_tower(
    *,
    reward: RewardKind = "team",
    state: Literal["observations", "environment"] = "observations",
    max_steps: int = 25,
) -> Environment:
    """Four towers lead four rovers to their goals.

    A rover observes its tower's index, one-hot, the tower's last message, its own position and its velocity: 13
    entries. Its action is a movement, Discrete(5): stay, left, right, down, up. A tower observes its rover's index,
    one-hot, the rover's position and the goal's: 8 entries. Its action is a message, Discrete(5).

    The individual reward of both agents of a pair is −d² + 10 · [d² < 0.1725], d the distance of the rover to its goal.

    Args:
        reward: `"team"` gives every agent the sum over agents, `"individual"` its own.
        state: the critic's state. `"observations"` is the concatenation of all agents' observations, `"environment"`
            the positions of rovers and landmarks, the rovers' velocities, the messages, and each tower's rover and
            goal, one-hot.
        max_steps: steps after which an episode is truncated.

    Raises:
        ValueError: an option has a value that is not allowed.
    """
    check_choice("reward", reward, ("team", "individual"))
    check_choice("state", state, ("observations", "environment"))
    check_number("max_steps", max_steps, 1, whole=True)
    rovers = [AgentSpec(f"rover_{i}", (PAIRS + MESSAGES + 4,), Discrete(5)) for i in range(PAIRS)]
    towers = [AgentSpec(f"tower_{i}", (PAIRS + 4,), Discrete(MESSAGES)) for i in range(PAIRS)]
    size = 4 * PAIRS + 2 * LANDMARKS + PAIRS * (MESSAGES + PAIRS + LANDMARKS)
    spec = EnvSpec("mpe/rover_tower", (*rovers, *towers), size, max_steps, reward, masks_actions=False)

    def show(world: RoverTowerState, **fields):
        tower_of = jnp.argsort(world.rover_of)
        pair = jax.nn.one_hot(jnp.stack([tower_of, world.rover_of]), PAIRS, dtype=world.rover.dtype)
        heard = world.message[tower_of]
        of_rovers = jnp.concatenate([pair[0], heard, world.rover, world.velocity], -1)
        of_towers = jnp.concatenate([pair[1], world.rover[world.rover_of], world.landmark[world.goal]], -1)
        goals = jax.nn.one_hot(world.goal, LANDMARKS, dtype=world.rover.dtype)
        parts = (world.rover, world.landmark, world.velocity, world.message, pair[1], goals)
        critic_state = jnp.concatenate([part.ravel() for part in parts])
        return world, timestep(spec, pad_observations(spec, [*of_rovers, *of_towers]), critic_state, **fields)

    def reset(key):
        places, pairs, goals = jax.random.split(key, 3)
        position = jax.random.uniform(places, (2 * PAIRS + LANDMARKS, 2), minval=-1.0, maxval=1.0)
        rover, tower, landmark = jnp.split(position, [PAIRS, 2 * PAIRS])
        rover_of = jax.random.permutation(pairs, PAIRS)
        goal = jax.random.randint(goals, (PAIRS,), 0, LANDMARKS)
        still, silent = jnp.zeros_like(rover), jnp.zeros((PAIRS, MESSAGES), rover.dtype)
        return show(
            RoverTowerState(rover, still, tower, landmark, rover_of, goal, silent, jnp.zeros((), int)), first=True
        )

    def step(key, world, action):
        chosen = action[:, 0].astype(int)
        force = jnp.array(DIRECTIONS, world.rover.dtype)[chosen[:PAIRS]]
        velocity = (1 - DAMPING) * world.velocity + TIME * ACCELERATION * force
        speed = jnp.sqrt(jnp.sum(velocity**2, -1, keepdims=True))
        velocity = jnp.where(speed > FASTEST, velocity / jnp.where(speed > 0, speed, 1) * FASTEST, velocity)
        world = world._replace(
            rover=world.rover + TIME * velocity,
            velocity=velocity,
            message=jax.nn.one_hot(chosen[PAIRS:], MESSAGES, dtype=world.rover.dtype),
            step=world.step + 1,
        )
        away = jnp.sum((world.rover[world.rover_of] - world.landmark[world.goal]) ** 2, -1)
        of_towers = BONUS * (away < CLOSE) - away
        own = jnp.concatenate([of_towers[jnp.argsort(world.rover_of)], of_towers])
        return show(world, reward=own, truncated=world.step >= max_steps)

    env = Environment(spec, reset, step, viewer=Viewer(_draw))
    return state_from_observations(env) if state == "observations" else env


def _draw(axes: Axes, world: Any, action: Any, timestep: Timestep) -> None:
    """Rovers as discs, and in the color of its rover a tower as a square with its message, and the goal as a ring.

    A goal is lit if its rover is close. A rover out of view is at the border.
    """
    from matplotlib.patches import Circle, Rectangle

    rover, tower, landmark = (np.asarray(x) for x in (world.rover, world.tower, world.landmark))
    half = NEAR if np.abs(rover).max() + 0.08 <= NEAR else FAR
    shown = np.clip(rover, 0.08 - half, half - 0.08)
    for place in landmark:
        axes.add_patch(Circle(tuple(place), 0.04, color="0.75", label="landmark", zorder=1))
    for k, (i, goal) in enumerate(zip(np.asarray(world.rover_of), np.asarray(world.goal), strict=True)):
        color, place = CYCLE[i], landmark[goal]
        if np.sum((rover[i] - place) ** 2) < CLOSE:
            axes.add_patch(Circle(tuple(place), 0.2, color=YELLOW, linewidth=0, alpha=0.6, label="lit", zorder=0))
        ring = {"fill": False, "color": color, "linewidth": 2, "label": f"goal of rover_{i}", "zorder": 2}
        axes.add_patch(Circle(tuple(place), 0.07 + 0.03 * k, **ring))
        axes.plot(*np.stack([tower[k], shown[i]]).T, color=color, linewidth=1, linestyle=(0, (2, 3)), zorder=0)
        axes.add_patch(Rectangle(tuple(tower[k] - 0.06), 0.12, 0.12, color=color, label=f"tower_{k}", zorder=3))
        axes.add_patch(Circle(tuple(shown[i]), 0.075, color=color, label=f"rover_{i}", zorder=4))
        number: dict[str, Any] = {"color": "white", "size": 8, "weight": "bold", "ha": "center", "va": "center"}
        for (x, y), text in ((shown[i], str(i)), (tower[k], str(int(np.asarray(action)[PAIRS + k, 0])))):
            axes.text(x, y, text, zorder=5, **number)
    axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
    axes.tick_params(labelsize=8, color="0.6", labelcolor="0.4")
    axes.spines[:].set_color("0.6")
    axes.set_xlabel("discs: rovers; squares: towers with messages; rings: goals", loc="left")
