"""MAMuJoCo's steps against Gymnasium's, in MuJoCo's C, from the same states, in float64."""

import jax
import mamujoco as measured
import mujoco
import mujoco_oracle
import numpy as np
import pytest

from hajax.envs.mamujoco.contacts import meeting
from hajax.envs.mamujoco.physics import PhysicsState, faithful, fast
from hajax.envs.mamujoco.robots import ROBOTS, find_robot


@pytest.mark.parametrize(
    ("name", "version"),
    [
        *((robot, "v5") for robot in ("half_cheetah_2x3", "hopper_3x1", "swimmer_2x1", "ant_4x2")),
        pytest.param("walker2d_2x3", "v5", marks=pytest.mark.evidence),  # another hopper
        ("reacher_2x1", "v5"),
        ("reacher_2x1", "v4"),
    ],
)
def test_a_step_is_mujoco_s(name, version):
    """What agents see of themselves and around them is gymnasium-robotics' too, which has version 5 only.

    All robots are in benchmarks/mamujoco.py; these compile fast.
    """
    robot, _, partition = name.rpartition("_")
    given = mujoco_oracle.transitions(robot, version, 200)
    neighbors = mujoco_oracle.local_observations(robot, partition, given) if version == "v5" else None
    with jax.enable_x64(True):
        apart = measured.differences(measured.our_steps(name, version, given), given, neighbors)
    assert apart["other_ends"] == 0
    for kind in ("free", "contact"):
        fields = {*measured.MEASURED} - ({"neighbors"} if neighbors is None else set())
        for field in fields if apart[kind]["steps"] else ():
            assert apart[kind][field]["max"] < 1e-9, (kind, field)


def test_what_is_compared_with_runs_for_the_coupled_cheetahs():
    """As gymnasium-robotics' own does not with MuJoCo 4. The tendon pulls both as much, against each other."""
    given = mujoco_oracle.transitions("coupled_half_cheetah", "v5", 3)
    assert given.observation.shape == (3, 40)
    first, second = given.observation[:, 34:36], given.observation[:, 36:38]
    np.testing.assert_allclose(first, -second, 0, 1e-12)
    assert (np.abs(first).max(1) > 1e-4).all()


def test_what_was_measured_goes_on_only_with_the_same(tmp_path):
    output = tmp_path / "kept.json"
    assert (
        mujoco_oracle.measured_before(None, {"states": 3}) == mujoco_oracle.measured_before(output, {"states": 3}) == {}
    )
    output.write_text('{"states": 3, "robots": {"ant": 1}}', encoding="utf-8")
    assert mujoco_oracle.measured_before(output, {"states": 3}) == {"ant": 1}
    with pytest.raises(SystemExit, match=r"kept.json was measured with {'states': 3}, not {'states': 4}; give another"):
        mujoco_oracle.measured_before(output, {"states": 4})


def test_positions_are_integrated_as_mujoco_does():
    """Ant's and HalfCheetah's joints: free, hinge and slide; from quaternions that are none, too."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        for robot in ("ant", "half_cheetah"):
            physics = faithful(ROBOTS[robot].model("v5"), 1)
            for _ in range(20):
                qpos, qvel = rng.normal(size=physics.model.nq), 3 * rng.normal(size=physics.model.nv)
                ours = physics._integrate(qpos, qvel, 0.7)
                mujoco.mj_integratePos(physics.model, qpos, qvel, 0.7)
                np.testing.assert_allclose(ours, qpos, atol=1e-12)
        still = np.zeros(physics.model.nv)
        np.testing.assert_array_equal(physics._integrate(qpos, still, 0.7), qpos)


@pytest.mark.parametrize("robot", ["ant", "humanoid", "coupled_half_cheetah"])
def test_a_new_episode_shows_what_mujoco_derives(robot):
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        physics = faithful(ROBOTS[robot].model("v5"), 1)
        model, data = physics.model, mujoco.MjData(physics.model)
        data.qpos[:] = model.qpos0 + 0.1 * rng.normal(size=model.nq)
        data.qvel[:] = rng.normal(size=model.nv)
        shown = jax.jit(physics.settle)(data.qpos.copy(), data.qvel.copy())[1]
        mujoco.mj_forward(model, data)
        theirs = {"qpos": data.qpos, "position": data.xpos, "center": data.xipos, "mass": model.body_mass}
        theirs |= {name: getattr(data, name) for name in ("qvel", "ctrl", "cinert", "cvel", "qfrc_actuator")}
        theirs |= {"tendon_length": data.ten_length, "tendon_velocity": data.ten_velocity}
        for name, value in theirs.items():
            np.testing.assert_allclose(getattr(shown, name), value, atol=1e-10, err_msg=name)


def assert_same_model(own, theirs):
    """Every number of a model but names, pictures and the sizes of buffers."""
    for part, own_part in ((theirs.opt, own.opt), (theirs.stat, own.stat)):
        for field in dir(part):
            value = getattr(part, field)
            # The oracle has exchanged a solver that MJX lacks.
            if isinstance(value, int | float | np.ndarray) and field != "solver":
                np.testing.assert_array_equal(getattr(own_part, field), value, err_msg=field)
    for field in dir(theirs):
        value = getattr(theirs, field)
        if field in ("nq", "nv", "nu", "na", "nbody", "njnt", "ngeom", "ntendon", "neq"):
            assert getattr(own, field) == value
        drawn = field.startswith(("name", "mat_", "tex_", "site_size", "tendon_rgba"))
        if isinstance(value, np.ndarray) and value.dtype != object and not drawn and field != "_sizes":
            np.testing.assert_array_equal(getattr(own, field), value, err_msg=field)


@pytest.mark.parametrize("version", ["v4", "v5"])
@pytest.mark.parametrize("robot", [robot for robot in ROBOTS if robot != "coupled_half_cheetah"])
def test_models_are_gymnasium_s(robot, version):
    theirs = mujoco_oracle.make(robot, version)
    assert_same_model(ROBOTS[robot].model(version), theirs.model)
    assert ROBOTS[robot].frame_skip == theirs.frame_skip


@pytest.mark.parametrize(
    ("robot", "partition", "segments"),
    [
        ("many_agent_swimmer", "10x2", 20),
        ("many_agent_swimmer", "1x2", 2),
        ("many_agent_ant", "2x3", 6),
        ("many_agent_ant", "2x1", 2),
        ("coupled_half_cheetah", "1p1", 0),
    ],
)
def test_models_are_gymnasium_robotics(robot, partition, segments):
    assert_same_model(find_robot(robot, partition).model("v5"), mujoco_oracle.robotics_model(robot, segments))


def test_loading_a_robot_writes_no_log(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for robot in ROBOTS.values():
        robot.model("v5")
    assert not [*tmp_path.iterdir()]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("robot", ["hopper", "ant", "half_cheetah", "swimmer"])
def test_fast_physics_takes_euler_s_step_and_leaves_the_file_s_model_alone(robot):
    given = ROBOTS[robot].model("v5")
    own, original = fast(given, 4).model, ROBOTS[robot].model("v5")
    assert own.opt.integrator == mujoco.mjtIntegrator.mjINT_EULER
    assert (own.opt.iterations, own.opt.timestep) == (2, original.opt.timestep)
    assert (given.opt.iterations, given.opt.integrator) == (original.opt.iterations, original.opt.integrator)
    np.testing.assert_array_equal(given.geom_contype, original.geom_contype)


def test_fast_physics_has_the_world_s_contacts_and_no_others():
    """A humanoid near the ground, its limbs anyhow."""
    model = ROBOTS["humanoid"].model("v5")
    poses = np.random.default_rng(0).uniform(-1.5, 1.5, (20, model.nq))
    poses[:, 2] = 0.5
    pairs: dict[str, set] = {"all": set(), "fast": set()}
    for name, shown in (("all", model), ("fast", fast(model, 5).model)):
        data = mujoco.MjData(shown)
        for pose in poses:
            data.qpos[:] = pose
            mujoco.mj_forward(shown, data)
            pairs[name] |= {tuple(sorted(pair)) for pair in data.contact.geom.tolist()}
    of_world = {pair for pair in pairs["all"] if 0 in shown.geom_bodyid[list(pair)]}
    assert of_world
    assert pairs["all"] - of_world
    assert pairs["fast"] == of_world


MASKED = """
<mujoco>
  <worldbody>
    <geom name="floor" type="plane" size="9 9 1" contype="1" conaffinity="1"/>
    <geom name="marker" type="cylinder" size="0.1 0.1" contype="0" conaffinity="0"/>
    <geom name="rail" type="capsule" size="0.1 0.1" contype="4" conaffinity="0"/>
    <body><freejoint/><geom name="body" size="0.1" contype="0" conaffinity="1"/></body>
    <body><freejoint/><geom name="wheel" size="0.1" contype="2" conaffinity="5"/></body>
    <body><freejoint/><geom name="lamp" size="0.1" contype="2" conaffinity="2"/></body>
  </worldbody>
</mujoco>
"""


def test_fast_physics_leaves_pairs_that_the_masks_keep_apart():
    """Nothing touches a marker, only the wheel the rail, the lamp not even the floor; body, wheel and lamp not each
    other."""
    model = fast(mujoco.MjModel.from_xml_string(MASKED), 1).model
    names = [model.geom(i).name for i in range(model.ngeom)]
    pairs = {(names[i], names[j]) for i in range(3) for j in range(3, 6) if meeting(model)[i, j]}
    assert pairs == {("floor", "body"), ("floor", "wheel"), ("rail", "wheel")}
    assert not meeting(model)[3:, 3:].any()


def test_actuators_with_a_state_are_refused():
    text = """<mujoco><worldbody><body><joint name="arm"/><geom size="0.1"/></body></worldbody>
    <actuator><general joint="arm" dyntype="filter" dynprm="0.1"/></actuator></mujoco>"""
    with pytest.raises(
        ValueError, match="the robot's model has 1 activations of actuators; allowed: actuators without"
    ):
        faithful(mujoco.MjModel.from_xml_string(text), 1)


def test_fast_physics_is_mujoco_s_with_the_same_options():
    """HalfCheetah, 100 states, one time step: what the options say is what is computed."""
    with jax.enable_x64(True):
        given = mujoco_oracle.transitions("half_cheetah", "v5", 100)
        physics = fast(ROBOTS["half_cheetah"].model("v5"), 1)
        start = PhysicsState(given.qpos, given.qvel, np.zeros_like(given.qvel))
        after, _ = jax.device_get(jax.jit(jax.vmap(physics.step))(start, given.action))
    data = mujoco.MjData(physics.model)
    for i in range(100):
        data.qpos, data.qvel, data.ctrl, data.qacc_warmstart = given.qpos[i], given.qvel[i], given.action[i], 0
        mujoco.mj_step(physics.model, data)
        np.testing.assert_allclose(after.qvel[i], data.qvel, atol=1e-9)
        np.testing.assert_allclose(after.qpos[i], data.qpos, atol=1e-9)
