"""Rewards, terminations and initial states of Gymnasium's MuJoCo robots, versions 4 and 5, term by term.

A task is evaluated after a whole step, of `frame_skip` steps of physics. Body positions, inertias, velocities and
forces are those of MuJoCo's last evaluation of the dynamics, shortly before the integrated joint positions and
velocities. This is what Gymnasium reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

Version = Literal["v4", "v5"]


class Readings(NamedTuple):
    """The physical quantities of one robot after a step; world frame, SI units, angles in radians."""

    qpos: jax.Array  # [nq]
    qvel: jax.Array  # [nv]
    ctrl: jax.Array  # [nu]: the actuators' controls, within their ranges
    position: jax.Array  # [bodies, 3]: of the body frames (`xpos`)
    center: jax.Array  # [bodies, 3]: of mass (`xipos`)
    mass: jax.Array  # [bodies]
    cinert: jax.Array  # [bodies, 10]
    cvel: jax.Array  # [bodies, 6]
    qfrc_actuator: jax.Array  # [nv]
    cfrc_ext: jax.Array  # [bodies, 6]
    tendon_jacobian: jax.Array  # [tendons, nv]
    tendon_length: jax.Array  # [tendons]
    tendon_velocity: jax.Array  # [tendons]
    act: jax.Array  # [na]: the activations of actuators that have a state
    sensordata: jax.Array  # of the model's sensors; only MuJoCo in C computes them, else [0]


class Step(NamedTuple):
    """One step of the environment, from which the task computes reward and termination."""

    before: jax.Array  # `Task.mark` before the step
    after: jax.Array  # and after it
    readings: Readings
    action: jax.Array  # [nu]: of all agents, clipped to the controls' ranges
    dt: float  # seconds


class Task(NamedTuple):
    """`mark` is the value kept from one step to the next; `outcome(step, version)` returns reward and termination.

    `reset(key, qpos, qvel)` draws the initial state around the XML's.
    """

    mark: Callable[[Readings], jax.Array]
    outcome: Callable[[Step, Version], tuple[jax.Array, jax.Array]]
    reset: Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def _first_coordinate(readings: Readings) -> jax.Array:
    return readings.qpos[0]


def _torso(readings: Readings) -> jax.Array:
    return readings.position[1, 0]


def _center_of_mass(readings: Readings) -> jax.Array:
    return readings.mass @ readings.center[:, 0] / readings.mass.sum()


def _velocity(step: Step) -> jax.Array:
    return (step.after - step.before) / step.dt


def _square(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(x))


def _inside(low: float, x: jax.Array, high: float) -> jax.Array:
    return (low < x) & (x < high)


def _alive(reward: float, healthy: jax.Array, version: Version) -> jax.Array:
    """The healthy reward; version 4 also gives it in the step that ends the episode."""
    return jnp.where(healthy, reward, 0.0) if version == "v5" else jnp.full((), reward)


def _half_cheetah(step: Step, version: Version) -> tuple[jax.Array, jax.Array]:
    return _velocity(step) - 0.1 * _square(step.action), jnp.zeros((), bool)


def _coupled_half_cheetah(step: Step, version: Version) -> tuple[jax.Array, jax.Array]:
    return _velocity(step).mean() - 0.1 * _square(step.action) / 2, jnp.zeros((), bool)


def _swimmer(step: Step, version: Version) -> tuple[jax.Array, jax.Array]:
    return _velocity(step) - 1e-4 * _square(step.action), jnp.zeros((), bool)


def _hopper(step: Step, version: Version) -> tuple[jax.Array, jax.Array]:
    qpos, qvel = step.readings.qpos, step.readings.qvel
    small = _inside(-100, jnp.concatenate([qpos[2:], qvel]), 100).all()
    healthy = small & (qpos[1] > 0.7) & _inside(-0.2, qpos[2], 0.2)
    return _velocity(step) + _alive(1.0, healthy, version) - 1e-3 * _square(step.action), ~healthy


def _walker2d(step: Step, version: Version) -> tuple[jax.Array, jax.Array]:
    _, height, angle = step.readings.qpos[:3]
    healthy = _inside(0.8, height, 2.0) & _inside(-1.0, angle, 1.0)
    return _velocity(step) + _alive(1.0, healthy, version) - 1e-3 * _square(step.action), ~healthy


def _ant(step: Step, version: Version) -> tuple[jax.Array, jax.Array]:
    qpos, qvel = step.readings.qpos, step.readings.qvel
    finite = jnp.isfinite(qpos).all() & jnp.isfinite(qvel).all()
    healthy = finite & (qpos[2] >= 0.2) & (qpos[2] <= 1.0)
    reward = _velocity(step) + _alive(1.0, healthy, version) - 0.5 * _square(step.action)
    if version == "v5":
        reward -= 5e-4 * _square(jnp.clip(step.readings.cfrc_ext, -1, 1))
    return reward, ~healthy


def _humanoid(step: Step, version: Version) -> tuple[jax.Array, jax.Array]:
    healthy = _inside(1.0, step.readings.qpos[2], 2.0)
    reward = 1.25 * _velocity(step) + _alive(5.0, healthy, version) - 0.1 * _square(step.readings.ctrl)
    if version == "v5":
        reward -= jnp.minimum(5e-7 * _square(step.readings.cfrc_ext), 10.0)
    return reward, ~healthy


def _humanoid_standup(step: Step, version: Version) -> tuple[jax.Array, jax.Array]:
    # The height is divided by the time step of physics, not that of the environment.
    raised = step.readings.qpos[2] / 0.003
    impact = jnp.minimum(0.5e-6 * _square(step.readings.cfrc_ext), 10.0)
    return raised - 0.1 * _square(step.readings.ctrl) - impact + 1, jnp.zeros((), bool)


def _to_target(readings: Readings) -> jax.Array:
    """The vector from the target to the fingertip, the last two bodies."""
    return readings.position[-2] - readings.position[-1]


def _reacher(step: Step, version: Version) -> tuple[jax.Array, jax.Array]:
    """Reacher's reward; version 4 uses the position of the fingertip before the step."""
    offset = step.after if version == "v5" else step.before
    return -jnp.sqrt(_square(offset)) - _square(step.action), jnp.zeros((), bool)


def _noise(scale: float, normal_velocities: bool = False):
    """Uniform noise on positions; uniform or normal noise of the same scale on velocities."""

    def reset(key, qpos, qvel):
        position_key, velocity_key = jax.random.split(key)
        draw = jax.random.normal if normal_velocities else _uniform
        position = qpos + scale * _uniform(position_key, qpos.shape, qpos.dtype)
        return position, qvel + scale * draw(velocity_key, qvel.shape, qvel.dtype)

    return reset


def _uniform(key, shape, dtype):
    return jax.random.uniform(key, shape, dtype, -1, 1)


def _reach(key, qpos, qvel):
    """A target uniform in a disc of radius 0.2, and an arm near its rest."""
    arm_key, angle_key, radius_key, velocity_key = jax.random.split(key, 4)
    angle = jnp.pi * jax.random.uniform(angle_key, (), qpos.dtype, -1, 1)
    radius = 0.2 * jnp.sqrt(jax.random.uniform(radius_key, (), qpos.dtype))
    target = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])
    arm = qpos[:-2] + 0.1 * _uniform(arm_key, qpos[:-2].shape, qpos.dtype)
    velocity = qvel[:-2] + 0.005 * _uniform(velocity_key, qvel[:-2].shape, qvel.dtype)
    return jnp.concatenate([arm, target]), jnp.concatenate([velocity, jnp.zeros(2, qvel.dtype)])


half_cheetah = Task(_first_coordinate, _half_cheetah, _noise(0.1, normal_velocities=True))
coupled_half_cheetah = Task(
    lambda readings: readings.qpos[jnp.array([0, 9])], _coupled_half_cheetah, _noise(0.1, normal_velocities=True)
)
swimmer = Task(_first_coordinate, _swimmer, _noise(0.1))
hopper = Task(_first_coordinate, _hopper, _noise(5e-3))
walker2d = Task(_first_coordinate, _walker2d, _noise(5e-3))
ant = Task(_torso, _ant, _noise(0.1, normal_velocities=True))
humanoid = Task(_center_of_mass, _humanoid, _noise(1e-2))
humanoid_standup = Task(_first_coordinate, _humanoid_standup, _noise(1e-2))
reacher = Task(_to_target, _reacher, _reach)
