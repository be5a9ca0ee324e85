"""MAMuJoCo's steps against Gymnasium's, in MuJoCo's C, from the same states, in float64."""

import jax
import jax.numpy as jnp
import mujoco_oracle
import numpy as np
import pytest

import hajax.envs.mamujoco as mamujoco
from hajax.envs.mamujoco import PARTITIONS
from hajax.envs.mamujoco.anatomy import Anatomy
from hajax.envs.mamujoco.environment import RobotState
from hajax.envs.mamujoco.physics import faithful
from hajax.envs.mamujoco.robots import ROBOTS, find_robot

COUNT = 200


def our_steps(robot, name, version, given):
    """The timesteps that follow `given`'s states and actions, and the physics' states."""
    body = ROBOTS[robot]
    physics = faithful(body.model(version), body.frame_skip)
    anatomy = Anatomy(body, physics, version)
    env = getattr(mamujoco, f"{robot}_{name}")(version=version, obs="khop")
    action = np.zeros((len(given.action), env.spec.num_agents, env.spec.num_components))
    for i, agent in enumerate(PARTITIONS[robot][name].split("|")):
        for j, joint in enumerate(agent.split()):
            action[:, i, j] = given.action[:, anatomy.actuators[joint]]

    def step(qpos, qvel, action):
        state, readings = physics.settle(qpos, qvel)
        return env.step(jax.random.key(0), RobotState(state, body.task.mark(readings), jnp.zeros((), int)), action)

    after, shown = jax.jit(jax.vmap(step))(given.qpos, given.qvel, action)
    return after.physics, shown


@pytest.mark.parametrize(
    ("robot", "name", "version"), [("half_cheetah", "2x3", "v5"), ("reacher", "2x1", "v5"), ("reacher", "2x1", "v4")]
)
def test_a_step_is_mujoco_s(robot, name, version):
    with jax.enable_x64(True):
        given = mujoco_oracle.transitions(robot, version, COUNT)
        physics, shown = our_steps(robot, name, version, given)
        np.testing.assert_allclose(physics.qpos, given.next_qpos, rtol=0, atol=1e-9)
        np.testing.assert_allclose(physics.qvel, given.next_qvel, rtol=0, atol=1e-9)
        np.testing.assert_allclose(shown.state, given.observation, rtol=0, atol=1e-9)
        np.testing.assert_allclose(shown.reward[:, 0], given.reward, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(shown.terminated, given.terminated)


def assert_same_model(own, theirs):
    """Every number of a model but names, pictures and the sizes of buffers."""
    for field in dir(theirs):
        value = getattr(theirs, field)
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
