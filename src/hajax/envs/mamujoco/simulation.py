"""The simulation of a robot: from the controls of its actuators to readings, reward and termination."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from hajax.envs.mamujoco.anatomy import OF_ALL, SECTIONS, Anatomy
from hajax.envs.mamujoco.in_c import Engine
from hajax.envs.mamujoco.robots import Robot
from hajax.envs.mamujoco.tasks import Readings, Step, Version

if TYPE_CHECKING:
    from hajax.envs.mamujoco.physics import Physics


class Simulation(NamedTuple):
    """A robot's physics and task as functions for one robot, which are vmapped over many.

    `readings` are the concatenated sections of `anatomy`, `[R]`.
    """

    anatomy: Anatomy
    model: Any  # mujoco.MjModel, as it is drawn
    reset: Callable[[jax.Array], tuple[Any, jax.Array]]  # key -> (state, readings)
    # (key, state, control [nu]) -> (state, readings, reward, terminated)
    step: Callable[[jax.Array, Any, jax.Array], tuple[Any, jax.Array, jax.Array, jax.Array]]
    qpos: Callable[[Any], Any]  # a state's joint positions, [nq]
    seconds: float  # in one step
    # state -> (state, readings) of the next episode, if steps prepare it
    reopen: Callable[[Any], tuple[Any, jax.Array]] | None = None


class MujocoState(NamedTuple):
    """The state of the physics, and the task's value from the step before."""

    physics: Any  # PhysicsState, or CState
    mark: jax.Array


def in_mujoco(robot: Robot, physics: Physics | Engine, version: Version) -> Simulation:
    """The robot in MuJoCo's physics, in JAX or in C, with Gymnasium's task of that version."""

    def sections(readings: Readings) -> dict[str, jax.Array]:
        raw = {name: getattr(readings, name) for name in (*SECTIONS, *OF_ALL)} | dict(robot.sections(readings))
        return {name: robot.seen(name, x) for name, x in raw.items()}

    with jax.ensure_compile_time_eval():
        sizes = {name: x.size for name, x in sections(physics.example).items() if x.size}
    anatomy = Anatomy(robot, physics.model, sizes, robot.observation[version])

    def read(readings: Readings) -> jax.Array:
        shown = sections(readings)
        return jnp.concatenate([shown[name] for name in sizes])

    def draw(key):
        start = jnp.asarray(physics.model.qpos0, float), jnp.zeros(physics.model.nv, float)
        return robot.task.reset(key, *start)

    def begun(state, readings):
        return MujocoState(state, robot.task.mark(readings)), read(readings)

    def reset(key):
        return begun(*physics.settle(*draw(key)))

    def step(key, state, control):
        stepped: tuple[Any, Readings] = (
            physics.step(state.physics, control, *draw(key))
            if isinstance(physics, Engine)
            else physics.step(state.physics, control)
        )
        after, readings = stepped
        mark = robot.task.mark(readings)
        reward, ended = robot.task.outcome(Step(state.mark, mark, readings, control, physics.dt), version)
        return MujocoState(after, mark), read(readings), reward, ended

    simulation = Simulation(anatomy, physics.model, reset, step, lambda state: state.physics.qpos, physics.dt)
    if isinstance(physics, Engine):
        return simulation._replace(reopen=lambda state: begun(*physics.reopen(state.physics)))
    return simulation
