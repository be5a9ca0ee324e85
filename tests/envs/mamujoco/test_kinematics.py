"""Where bodies are: kinematics against MuJoCo's C."""

import time

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from hajax.envs.mamujoco.kinematics import kinematics
from hajax.envs.mamujoco.physics import faithful
from hajax.envs.mamujoco.robots import find_robot

FIELDS = "xpos xquat xmat xipos ximat xanchor xaxis geom_xpos geom_xmat site_xpos site_xmat"

# Every kind of joint, off its body's center and turned; three kinds of bodies at one distance; a body that is led.
TREE = """
<mujoco>
  <worldbody>
    <site pos="1 2 3"/>
    <body name="led" mocap="true" pos="0 0 3" quat="1 1 0 0"><geom size="0.1" pos="0.1 0 0"/></body>
    <body pos="0 0 1" euler="10 20 30"><freejoint/><geom size="0.1" pos="0.1 0.2 0"/>
      <body pos="0.3 0 0" euler="0 40 0">
        <joint type="slide" axis="1 1 0"/><joint type="hinge" axis="0 1 1" pos="0.1 0 0.2" ref="20"/>
        <geom type="capsule" size="0.05 0.2" euler="30 0 0"/><site pos="0 0 0.1" euler="0 0 45"/>
        <body pos="0 0.2 0"><joint type="ball" pos="0 0.1 0"/><geom size="0.1"/></body>
        <body pos="0 0 0.2"><joint axis="1 0 0"/><geom size="0.1"/></body>
      </body>
      <body pos="-0.3 0 0"><geom type="box" size="0.1 0.2 0.3" pos="0 0.1 0"/></body>
    </body>
  </worldbody>
</mujoco>
"""


def model_of(robot):
    if robot == "tree":
        return mujoco.MjModel.from_xml_string(TREE)
    return find_robot(*robot).model("v5")


def positions(model, count):
    return model.qpos0 + 0.5 * np.random.default_rng(0).normal(size=(count, model.nq))


@pytest.mark.parametrize(
    "robot", ["tree", ("humanoid", "9|8"), ("many_agent_ant", "1x2"), ("many_agent_swimmer", "3x2")]
)
def test_frames_are_c_s(robot):
    with jax.enable_x64(True):
        model = model_of(robot)
        physics = faithful(model, 1)
        qpos = positions(model, 5)
        place = jax.jit(lambda q: kinematics(model, physics.compiled, physics.blank.replace(qpos=q)))
        for q in qpos:
            ours = place(jnp.asarray(q))
            data = mujoco.MjData(model)
            data.qpos[:] = q
            mujoco.mj_kinematics(model, data)
            for name in FIELDS.split():
                expected = getattr(data, name)
                np.testing.assert_allclose(
                    getattr(ours, name).reshape(expected.shape), expected, atol=1e-12, err_msg=name
                )
            mujoco.mj_normalizeQuat(model, data.qpos)
            np.testing.assert_allclose(ours.qpos, data.qpos, atol=1e-12)


def test_a_long_robot_takes_as_long_as_its_segments():
    """XLA's code for MJX's kinematics of a chain this long does not end in many minutes."""
    seconds = []
    for partition in ("3x1", "10x2"):
        model = model_of(("many_agent_swimmer", partition))
        physics = faithful(model, 1)
        place = jax.jit(jax.vmap(lambda q, m=model, p=physics: kinematics(m, p.compiled, p.blank.replace(qpos=q)).xpos))
        qpos = jnp.asarray(positions(model, 64), float)
        jax.block_until_ready(place(qpos))
        repeats = []
        for _ in range(5):
            began = time.perf_counter()
            jax.block_until_ready(place(qpos))
            repeats.append(time.perf_counter() - began)
        seconds.append(min(repeats))
    assert seconds[1] < 100 * seconds[0]
