"""MuJoCo's physics in JAX (MJX), from a model to a step of the environment.

Between steps only joint positions, velocities and the starting point of the constraint solver are kept. Everything else
that MuJoCo derives is read at the end of a step and discarded, so that ten thousand environments fit in memory.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from hajax.envs.lazy import import_quietly
from hajax.envs.mamujoco.contacts import as_in_c, leave_contacts_with_the_world
from hajax.envs.mamujoco.kinematics import kinematics
from hajax.envs.mamujoco.tasks import Readings

mjx = import_quietly("mujoco.mjx")

FREE, BALL = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)
RK4, EULER = mujoco.mjtIntegrator.mjINT_RK4, mujoco.mjtIntegrator.mjINT_EULER
BEFORE_CONTACTS = (mjx.com_pos, mjx.tendon, mjx.crb, mjx.tendon_armature, mjx.factor_m, mjx.collision)
AFTER_CONTACTS = (
    mjx.make_constraint,
    mjx.transmission,
    mjx.fwd_velocity,
    mjx.fwd_actuation,
    mjx.fwd_acceleration,
)
# Steps of the solver's line search: MJX always takes all of the XML's 50, even if the first few have converged. With
# Newton's method nothing changes after the third, in 200 states of each robot (benchmarks/mujoco_solver.py).
LINE_SEARCH = 6
# The solver's iterations in `fast`. In C a single iteration makes a step's errors in contact up to four times as large
# as two do, and a hundred remove at most a third of them (benchmarks/mujoco_solver.py).
FAST_ITERATIONS, FAST_LINE_SEARCH = 2, 4
# The classical Runge-Kutta method: the nodes and the weights of its stages.
STAGES = np.array([[0.0, 0.5, 0.5, 1.0], [1 / 6, 1 / 3, 1 / 3, 1 / 6]]).T


class PhysicsState(NamedTuple):
    """The state at the start of a step."""

    qpos: jax.Array  # [nq]
    qvel: jax.Array  # [nv]
    qacc_warmstart: jax.Array  # [nv]: accelerations from which the constraint solver starts


@dataclasses.dataclass(frozen=True)
class Physics:
    """A model, and the number of its time steps in one step of the environment."""

    model: Any  # mujoco.MjModel
    frame_skip: int

    @property
    def compiled(self) -> Any:
        """The mjx.Model, in the default precision."""
        return _on_device(self.model, jnp.result_type(float).name)[0]

    @property
    def blank(self) -> Any:
        """An empty mjx.Data, in the default precision."""
        return _on_device(self.model, jnp.result_type(float).name)[1]

    @property
    def example(self) -> Readings:
        """Readings of zeros."""
        return self.read(self.blank)

    @property
    def dt(self) -> float:
        """Seconds in one step of the environment."""
        return self.model.opt.timestep * self.frame_skip

    def settle(self, qpos: jax.Array, qvel: jax.Array) -> tuple[PhysicsState, Readings]:
        """The state and readings of a new episode: no controls and no contact forces, as after Gymnasium's reset.

        Only quantities that depend on positions and velocities are computed: no collisions, no solver.
        """
        data = kinematics(self.model, self.compiled, self.blank.replace(qpos=qpos, qvel=qvel))
        for derive in (mjx.com_pos, mjx.com_vel, mjx.tendon):
            data = derive(self.compiled, data)
        readings = self.read(data)
        moving = readings.tendon_jacobian @ qvel
        # `kinematics` normalizes quaternions; MuJoCo leaves them unchanged until they are integrated.
        return PhysicsState(qpos, qvel, self.blank.qacc_warmstart), readings._replace(qpos=qpos, tendon_velocity=moving)

    def step(self, state: PhysicsState, ctrl: jax.Array) -> tuple[PhysicsState, Readings]:
        """`frame_skip` time steps under the same controls."""
        data = self.blank.replace(**state._asdict(), ctrl=ctrl.astype(state.qpos.dtype))
        advance = {RK4: self._runge_kutta, EULER: self._euler}.get(self.model.opt.integrator, self._implicit)
        data, _ = jax.lax.scan(advance, data, None, self.frame_skip)
        after = PhysicsState(data.qpos, data.qvel, data.qacc_warmstart)
        return after, self.read(mjx.rne_postconstraint(self.compiled, data))

    def read(self, data: Any) -> Readings:
        """The readings in MuJoCo's data."""
        derived = data._impl
        return Readings(
            qpos=data.qpos,
            qvel=data.qvel,
            ctrl=data.ctrl,
            position=data.xpos,
            center=data.xipos,
            mass=self.compiled.body_mass,
            cinert=derived.cinert,
            cvel=data.cvel,
            qfrc_actuator=data.qfrc_actuator,
            cfrc_ext=derived.cfrc_ext,
            tendon_jacobian=derived.ten_J.reshape(-1, self.model.nv),
            tendon_length=data.ten_length,
            tendon_velocity=derived.ten_velocity,
            act=data.act,
            sensordata=jnp.zeros(0),
        )

    def forward(self, data: Any) -> Any:
        """All derived quantities from positions, velocities and controls: `mjx.forward` with C's contacts.

        Cameras, lights and sensors are not computed.
        """
        given, data = data, kinematics(self.model, self.compiled, data)
        for derive in BEFORE_CONTACTS:
            data = derive(self.compiled, data)
        data = as_in_c(self.compiled, data)
        for derive in AFTER_CONTACTS:
            data = derive(self.compiled, data)
        constrained = data._impl.efc_J.size > 0
        data = mjx.solve(self.compiled, data) if constrained else data.replace(qacc=data.qacc_smooth)
        # In double precision MJX also widens integers, but a scan's carry must keep its types.
        return jax.tree.map(lambda new, old: new.astype(old.dtype), data, given)

    def _euler(self, data: Any, _: None) -> tuple[Any, None]:
        return mjx.euler(self.compiled, self.forward(data)), None

    def _implicit(self, data: Any, _: None) -> tuple[Any, None]:
        return mjx.implicit(self.compiled, self.forward(data)), None

    def _runge_kutta(self, data: Any, _: None) -> tuple[Any, None]:
        """One Runge-Kutta time step of order four. MJX unrolls the stages, which takes three times as long to compile.

        Derived quantities are those of the last stage; positions and velocities are those after the step.
        """
        start, dt = data, self.model.opt.timestep

        def stage(carry, numbers):
            data, slopes, total = carry
            ahead, weight = numbers
            qpos = self._integrate(start.qpos, slopes[0], ahead * dt)
            qvel = start.qvel + ahead * dt * slopes[1]
            data = self.forward(data.replace(qpos=qpos, qvel=qvel))
            here = self._tangent(ahead * dt * slopes[0], qvel), data.qacc
            return (data, here, jax.tree.map(lambda sum, x: sum + weight * x, total, here)), None

        none = jnp.zeros_like(start.qvel), jnp.zeros_like(start.qvel)
        (data, _last, total), _ = jax.lax.scan(stage, (data, none, none), STAGES.astype(start.qpos.dtype))
        qpos = self._integrate(start.qpos, total[0], dt)
        after = {"qpos": qpos, "qvel": start.qvel + dt * total[1], "qacc_warmstart": data.qacc}
        return data.replace(**after, time=start.time + dt), None

    def _tangent(self, moved: jax.Array, qvel: jax.Array) -> jax.Array:
        """The rate of the displacement since the start of the step; of a rotation it is not the angular velocity.

        MuJoCo 4 takes this into account (Munthe-Kaas's method), earlier versions and MJX do not.
        """
        for kind, v in zip(self.model.jnt_type, self.model.jnt_dofadr, strict=True):
            if kind in (FREE, BALL):
                turning = slice(v + 3, v + 6) if kind == FREE else slice(v, v + 3)
                qvel = qvel.at[turning].set(_growth(moved[turning], qvel[turning]))
        return qvel

    def _integrate(self, qpos: jax.Array, qvel: jax.Array, dt: jax.Array | float) -> jax.Array:
        """Positions after `dt` at a constant velocity; quaternions rotate about the body's own axes."""
        following = []
        for kind, q, v in zip(self.model.jnt_type, self.model.jnt_qposadr, self.model.jnt_dofadr, strict=True):
            if kind == FREE:
                following.append(qpos[q : q + 3] + dt * qvel[v : v + 3])
                q, v = q + 3, v + 3
            if kind in (FREE, BALL):
                following.append(_turned(qpos[q : q + 4], dt * qvel[v : v + 3]))
            else:
                following.append(qpos[q : q + 1] + dt * qvel[v : v + 1])
        return jnp.concatenate(following)


def _growth(rotation: jax.Array, angular_velocity: jax.Array) -> jax.Array:
    """The rate of the rotation vector of a body rotated by `rotation` with this angular velocity, in the body's axes.

    `ω + u×ω/2 + (1 - θ/2 cot(θ/2))/θ² u×(u×ω)` with u the rotation and θ its angle.
    """
    square = jnp.sum(jnp.square(rotation))
    large = square > 0.01
    half = jnp.sqrt(jnp.where(large, square, 1)) / 2
    series = 1 / 12 + square / 720 + jnp.square(square) / 30240  # the remainder is below 1e-12
    weight = jnp.where(large, (1 - half / jnp.tan(half)) / (4 * jnp.square(half)), series)
    once = jnp.cross(rotation, angular_velocity)
    return angular_velocity + once / 2 + weight * jnp.cross(rotation, once)


def _turned(quaternion: jax.Array, rotation: jax.Array) -> jax.Array:
    """The unit quaternion `(w, x, y, z)` rotated by a vector: its direction is the axis, its length the angle."""
    square = jnp.sum(jnp.square(rotation))
    still = square == 0
    angle = jnp.sqrt(jnp.where(still, 1, square))
    half = jnp.where(still, 0, angle / 2)
    w, xyz = jnp.cos(half), jnp.sin(half) * rotation / angle
    ours, theirs = quaternion[1:], quaternion[0]
    turned = jnp.concatenate([(theirs * w - ours @ xyz)[None], theirs * xyz + w * ours + jnp.cross(ours, xyz)])
    return turned / jnp.sqrt(jnp.sum(jnp.square(turned)))


@functools.lru_cache(maxsize=64)
def _on_device(model: Any, dtype: str) -> tuple[Any, Any]:
    """`mjx.Model` and `mjx.Data` in the default precision, concrete even if the caller is being traced.

    Raises ValueError if MJX does not support the model.
    """
    try:
        with jax.ensure_compile_time_eval():
            return mjx.put_model(model), mjx.make_data(model)
    except NotImplementedError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"the robot's model: {reason}; allowed: what MuJoCo in JAX (MJX) supports, or physics='mujoco'"
        ) from error


def faithful(model: Any, frame_skip: int) -> Physics:
    """The model with the options of its XML, except a solver that MJX lacks and the length of Newton's line search.

    PGS is replaced by Newton's. Both solve the same convex problem; in C their velocities differ by 2e-6 per step in
    the median (Humanoid). Raises ValueError if actuators have a state, which is not kept between steps.
    """
    if model.na:
        raise ValueError(
            f"the robot's model has {model.na} activations of actuators; allowed: actuators without a state, or "
            "physics='mujoco'"
        )
    model = copy.copy(model)
    if model.opt.solver == mujoco.mjtSolver.mjSOL_PGS:
        model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    if model.opt.solver == mujoco.mjtSolver.mjSOL_NEWTON and model.opt.cone == mujoco.mjtCone.mjCONE_PYRAMIDAL:
        model.opt.ls_iterations = min(model.opt.ls_iterations, LINE_SEARCH)
    return Physics(model, frame_skip)


def fast(model: Any, frame_skip: int) -> Physics:
    """The same with a cheaper integrator and solver and without self-collisions, which matter little for learning.

    - Runge-Kutta's four evaluations of the dynamics per time step are replaced by Euler's one, implicit in joint
      damping.
    - The solver takes `FAST_ITERATIONS` Newton steps from the end of the last time step, instead of as many as it
      needs.
    - Parts of the robot collide only with static geometries, and not with each other, except for pairs that the XML
      lists.
    """
    model = faithful(model, frame_skip).model
    if model.opt.integrator == mujoco.mjtIntegrator.mjINT_RK4:
        model.opt.integrator = mujoco.mjtIntegrator.mjINT_EULER
    model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    model.opt.iterations, model.opt.ls_iterations = FAST_ITERATIONS, FAST_LINE_SEARCH
    leave_contacts_with_the_world(model)
    return Physics(model, frame_skip)
