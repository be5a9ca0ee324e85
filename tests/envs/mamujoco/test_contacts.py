"""Contacts and turning bodies of small models against MuJoCo's C, in float64."""

import jax
import mujoco
import numpy as np
import pytest

from hajax.envs.mamujoco.contacts import nearest
from hajax.envs.mamujoco.physics import PhysicsState, faithful

# A plane, and bodies that fly: what Gymnasium's robots are made of.
BODIES = """
<mujoco>
  <option integrator="{integrator}" timestep="0.005" solver="Newton" tolerance="1e-12"/>
  <worldbody>
    <geom type="plane" size="5 5 1" euler="{tilt}"/>
    <body><freejoint/><geom type="capsule" size="0.1 0.4"/></body>
    <body><freejoint/><geom type="capsule" size="0.2 0.3"/></body>
    <body><freejoint/><geom type="sphere" size="0.25"/></body>
    <body><freejoint/><geom type="sphere" size="0.15"/></body>
  </worldbody>
</mujoco>
"""
# A spinning top that nothing pulls, and a pendulum on a ball joint.
TURNING = """
<mujoco>
  <option integrator="RK4" timestep="0.05"/>
  <worldbody>
    <body><freejoint/><inertial pos="0.1 0 0" mass="1" diaginertia="1 2 2.5"/></body>
    <body pos="0 0 3"><joint type="ball"/><geom type="capsule" fromto="0 0 0 0.3 0.2 -0.5" size="0.05"/></body>
  </worldbody>
</mujoco>
"""


def physics_of(text, frame_skip=1):
    return faithful(mujoco.MjModel.from_xml_string(text), frame_skip)


def placed(model, rng, size, upright=False):
    """Positions of free bodies, close enough to touch; `upright`: their axes nearly vertical."""
    bodies = model.nq // 7
    qpos = np.zeros((size, bodies, 7))
    qpos[..., :3] = rng.uniform((-0.4, -0.4, 0.1), (0.4, 0.4, 0.6), (size, bodies, 3))
    turn = rng.normal(size=(size, bodies, 4))
    if upright:
        turn = np.array([1.0, 0, 0, 0]) + 0.05 * turn
    qpos[..., 3:] = turn / np.linalg.norm(turn, axis=-1, keepdims=True)
    return qpos.reshape(size, -1)


@pytest.mark.parametrize(("upright", "tilt"), [(False, "0 0 0"), (True, "0 0 0"), (False, "70 20 0")])
def test_contacts_are_mujoco_s(upright, tilt):
    """Where they are, how deep, and how their frames are turned, on which the pyramids of friction stand."""
    seen = set()
    with jax.enable_x64(True):
        physics = physics_of(BODIES.format(integrator="Euler", tilt=tilt))
        model, data = physics.model, mujoco.MjData(physics.model)
        qpos = placed(model, np.random.default_rng(int(upright)), 100, upright)
        ours = jax.device_get(
            jax.jit(jax.vmap(lambda q: physics.forward(physics.blank.replace(qpos=q))._impl.contact))(qpos)
        )
    for i, given in enumerate(qpos):
        data.qpos = given
        mujoco.mj_forward(model, data)
        for pair in {tuple(pair) for pair in data.contact.geom.tolist()}:
            theirs = [contact for contact in data.contact if tuple(contact.geom) == pair]
            own = [j for j, geom in enumerate(ours.geom[i].tolist()) if tuple(geom) == pair and ours.dist[i, j] < 0]
            assert len(own) == len(theirs), (i, pair)
            own.sort(key=lambda j: ours.dist[i, j])
            for j, contact in zip(own, sorted(theirs, key=lambda contact: contact.dist), strict=True):
                np.testing.assert_allclose(ours.dist[i, j], contact.dist, atol=1e-12)
                np.testing.assert_allclose(ours.pos[i, j], contact.pos, atol=1e-12)
                np.testing.assert_allclose(ours.frame[i, j].ravel(), contact.frame, atol=1e-9)
                seen.add(tuple(int(kind) for kind in model.geom_type[list(pair)]))
    plane, sphere, capsule = (int(getattr(mujoco.mjtGeom, f"mjGEOM_{name}")) for name in ("PLANE", "SPHERE", "CAPSULE"))
    assert seen == {(plane, sphere), (plane, capsule), (sphere, sphere), (sphere, capsule), (capsule, capsule)}


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_capsule_upright_on_a_tilted_plane_has_a_frame(precision):
    """Its axis shows no direction across the normal but by rounding."""
    tilted = np.array([np.cos(0.4), 0, np.sin(0.4), 0])
    normal = np.array([np.sin(0.8), 0, np.cos(0.8)])
    with jax.enable_x64(precision == "float64"):
        physics = physics_of(BODIES.format(integrator="Euler", tilt=f"0 {np.degrees(0.8)} 0"))
        qpos = np.concatenate([[0, 0, height, 1, 0, 0, 0] for height in (0, 9.0, 18.0, 27.0)])
        qpos[:7] = np.concatenate([0.45 * normal, tilted])
        data = jax.jit(lambda q: physics.forward(physics.blank.replace(qpos=q)))(qpos.astype(precision))
        contact = jax.device_get(data._impl.contact)
    frames = contact.frame[contact.dist < 0]
    assert len(frames) == 1
    assert contact.dist.min() == pytest.approx(-0.05, abs=1e-6)
    np.testing.assert_allclose(frames[0] @ frames[0].T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(frames[0, 0], normal, atol=1e-6)


def test_nearest_points_are_nearest():
    """No pair of 201 x 201 points is nearer; segments that cross, are parallel, or are points, too."""
    rng = np.random.default_rng(0)
    center, half, other, other_half = rng.normal(size=(4, 40, 3))
    other_half[:5] = 2 * half[:5]
    half[5:10] = 0
    other_half[8:15] = 0
    other[15:20] = center[15:20]
    x = np.linspace(-1, 1, 201)
    with jax.enable_x64(True):
        one, two = jax.device_get(jax.jit(jax.vmap(nearest))(center, half, other, other_half))
    for i in range(40):
        first, second = center[i] + x[:, None] * half[i], other[i] + x[:, None] * other_half[i]
        on_grid = np.linalg.norm(first[:, None] - second, axis=-1).min()
        assert np.linalg.norm(one[i] - two[i]) <= on_grid + 1e-12
        for point, middle, reach in ((one[i], center[i], half[i]), (two[i], other[i], other_half[i])):
            np.testing.assert_allclose(np.cross(point - middle, reach), 0, atol=1e-12)
            assert np.linalg.norm(point - middle) <= np.linalg.norm(reach) + 1e-12


@pytest.mark.parametrize("integrator", ["Euler", "RK4"])
def test_bodies_that_fall_on_each_other(integrator):
    """Thirty steps one after another: what a step leaves behind is what the next one starts from."""
    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
        physics = physics_of(BODIES.format(integrator=integrator, tilt="0 0 0"), frame_skip=3)
        model, data = physics.model, mujoco.MjData(physics.model)
        qpos, qvel = placed(model, rng, 1)[0], rng.normal(size=model.nv)
        state, step = PhysicsState(qpos, qvel, np.zeros(model.nv)), jax.jit(physics.step)
        data.qpos, data.qvel, touching = qpos, qvel, 0
        for _ in range(10):
            state, _ = step(state, np.zeros(0))
            mujoco.mj_step(model, data, 3)
            touching += data.ncon > 0
            np.testing.assert_allclose(state.qpos, data.qpos, atol=1e-9)
            np.testing.assert_allclose(state.qvel, data.qvel, atol=1e-8)
    assert touching >= 5


def test_one_process_computes_contacts_in_both_precisions():
    """While a program lives, JAX keeps the arrays of NumPy's that it closes over in that program's precision."""
    physics = physics_of(BODIES.format(integrator="Euler", tilt="0 0 0"))
    qpos = placed(physics.model, np.random.default_rng(4), 1)[0]
    programs, found = [], []
    for precision in ("float32", "float64"):
        with jax.enable_x64(precision == "float64"):
            programs.append(jax.jit(lambda q: physics.forward(physics.blank.replace(qpos=q))))
            data = programs[-1](qpos.astype(precision))
            assert data.qacc.dtype == precision
            found.append(np.asarray(data._impl.contact.dist))
    np.testing.assert_allclose(*found, atol=1e-6)


def test_turning_bodies_are_integrated_as_mujoco_does():
    """Runge and Kutta's method for slow and fast turns: up to two radians in a time step."""
    rng = np.random.default_rng(3)
    with jax.enable_x64(True):
        physics = physics_of(TURNING)
        model, data = physics.model, mujoco.MjData(physics.model)
        step = jax.jit(physics.step)
        for speed in (0.0, 0.1, 1.0, 10.0, 20.0):
            qpos, qvel = model.qpos0 + 0.3 * rng.normal(size=model.nq), speed * rng.normal(size=model.nv)
            mujoco.mj_normalizeQuat(model, qpos)
            data.qpos, data.qvel = qpos, qvel
            state, _ = step(PhysicsState(qpos, qvel, np.zeros(model.nv)), np.zeros(0))
            mujoco.mj_step(model, data)
            np.testing.assert_allclose(state.qpos, data.qpos, atol=1e-11)
            np.testing.assert_allclose(state.qvel, data.qvel, rtol=1e-11, atol=1e-11)
