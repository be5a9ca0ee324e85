"""The simulation of a robot: from the controls of its actuators to readings, reward and termination."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hajax.envs.mamujoco.anatomy import SECTIONS, Anatomy
from hajax.envs.mamujoco.physics import Physics, PhysicsState
from hajax.envs.mamujoco.robots import Robot
from hajax.envs.mamujoco.tasks import Readings, Step, Version


class Simulation(NamedTuple):
    """A robot's physics and task as functions for one robot, which are vmapped over many.

    `readings` are the concatenated sections of `anatomy`, `[R]`.
    """

    anatomy: Anatomy
    model: Any  # mujoco.MjModel, as it is drawn
    reset: Callable[[jax.Array], tuple[Any, jax.Array]]  # key -> (state, readings)
    # (state, control [nu]) -> (state, readings, reward, terminated)
    step: Callable[[Any, jax.Array], tuple[Any, jax.Array, jax.Array, jax.Array]]
    qpos: Callable[[Any], Any]  # a state's joint positions, [nq]
    seconds: float  # in one step


class MujocoState(NamedTuple):
    """The state of the physics, and the task's value from the step before."""

    physics: PhysicsState
    mark: jax.Array


def in_mujoco(robot: Robot, physics: Physics, version: Version) -> Simulation:
    """The robot in MuJoCo's physics, with Gymnasium's task of that version."""

    def sections(readings: Readings) -> dict[str, jax.Array]:
        raw = {name: getattr(readings, name) for name in SECTIONS} | dict(robot.sections(readings))
        return {name: robot.seen(name, x) for name, x in raw.items()}

    with jax.ensure_compile_time_eval():
        sizes = {name: x.size for name, x in sections(physics.read(physics.blank)).items()}
    anatomy = Anatomy(robot, physics.model, sizes, robot.observation[version])

    def read(readings: Readings) -> jax.Array:
        shown = sections(readings)
        return jnp.concatenate([shown[name] for name in sizes])

    def reset(key):
        start = jnp.asarray(physics.model.qpos0, float), jnp.zeros(physics.model.nv, float)
        state, readings = physics.settle(*robot.task.reset(key, *start))
        return MujocoState(state, robot.task.mark(readings)), read(readings)

    def step(state, control):
        after, readings = physics.step(state.physics, control)
        mark = robot.task.mark(readings)
        reward, ended = robot.task.outcome(Step(state.mark, mark, readings, control, physics.dt), version)
        return MujocoState(after, mark), read(readings), reward, ended

    return Simulation(anatomy, physics.model, reset, step, lambda state: state.physics.qpos, physics.dt)
