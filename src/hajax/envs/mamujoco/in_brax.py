"""The robots in brax's physics, through `brax.envs`: its models, rewards, terminations and observations.

It is fast enough for a laptop, but the robots differ from MuJoCo's: brax has its own XML files, without collisions of a
robot with itself, and for `spring` and `positional` other time steps and gears. The tasks are close to Gymnasium's
version 4, without contact forces. The partitions are hajax's.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import jax
import jax.numpy as jnp

from hajax.envs.lazy import import_quietly
from hajax.envs.mamujoco.anatomy import Anatomy
from hajax.envs.mamujoco.models import without_log
from hajax.envs.mamujoco.robots import ROBOTS, Robot
from hajax.envs.mamujoco.simulation import Simulation


@dataclasses.dataclass(frozen=True)
class Counterpart:
    """Brax's name of a robot, and the differences from hajax's robot."""

    name: str
    categories: tuple[str, ...] = ("qpos qvel", "qpos")
    sections: dict[str, slice] = dataclasses.field(default_factory=dict)  # of the observation of brax's single agent
    scales_controls: bool = False  # its actions are in [-1, 1] for all ranges of controls


COUNTERPARTS = {
    "half_cheetah": Counterpart("halfcheetah"),
    "hopper": Counterpart("hopper"),
    "walker2d": Counterpart("walker2d"),
    "ant": Counterpart("ant"),
    "humanoid": Counterpart("humanoid", scales_controls=True),
    "humanoid_standup": Counterpart("humanoidstandup", scales_controls=True),
    "swimmer": Counterpart("swimmer"),
    "reacher": Counterpart(
        "reacher",
        categories=ROBOTS["reacher"].categories,
        sections={"cos": slice(0, 2), "sin": slice(2, 4), "offset": slice(-3, None)},
    ),
}


def as_in_brax(robot: str) -> Robot:
    """The robot with the readings of brax: positions, velocities, and the observation of brax's agent."""
    categories = COUNTERPARTS[robot].categories
    return dataclasses.replace(ROBOTS[robot], categories=categories, observation={"v5": "observation"})


def in_brax(robot: str, backend: str) -> Simulation:
    """The robot of that name in one of brax's physics: `spring`, `positional`, `generalized` or `mjx`."""
    envs = import_quietly("brax.envs")
    counterpart, body = COUNTERPARTS[robot], as_in_brax(robot)
    with jax.ensure_compile_time_eval(), without_log(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Brax System", UserWarning)  # that it is not maintained: docs/mamujoco.md
        env = envs.get_environment(counterpart.name, backend=backend)
        high, seconds = jnp.asarray(env.sys.actuator.ctrl_range[:, 1]), float(env.dt)

    def sections(state: Any, observation: jax.Array) -> dict[str, jax.Array]:
        raw = {"qpos": state.q, "qvel": state.qd, "observation": observation}
        raw |= {name: observation[where] for name, where in counterpart.sections.items()}
        return {name: body.seen(name, x) for name, x in raw.items()}

    def read(after: Any) -> jax.Array:
        shown = sections(after.pipeline_state, after.obs)
        return jnp.concatenate([shown[name] for name in sizes])

    def reset(key):
        first = env.reset(key)
        return first.pipeline_state, read(first)

    def step(key, state, control):
        action = control / high if counterpart.scales_controls else control
        # The environment of a robot that never terminates does not set `done`.
        before = envs.State(state, obs=None, reward=None, done=jnp.zeros(()), metrics={})
        after = env.step(before, action)
        return after.pipeline_state, read(after), after.reward, after.done > 0

    first = jax.eval_shape(env.reset, jax.random.key(0))
    sizes = {name: x.size for name, x in jax.eval_shape(sections, first.pipeline_state, first.obs).items()}
    # Joints are in the order of Gymnasium's file, whose names the partitions use; brax names the swimmer's differently.
    anatomy = Anatomy(body, body.model("v5"), sizes, body.observation["v5"])
    return Simulation(anatomy, env.sys.mj_model, reset, step, lambda state: state.q, seconds)
