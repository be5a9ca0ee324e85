"""`physics=mujoco`: steps, starts of episodes and trajectories against MuJoCo driven directly."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import mamujoco as measured
import mujoco
import mujoco_oracle
import numpy as np
import pytest

import hajax
from hajax.envs import clip_action, mamujoco
from hajax.envs.mamujoco import from_file, tasks
from hajax.envs.mamujoco.in_c import STATE
from hajax.envs.mamujoco.partitions import agents, segmented
from hajax.envs.mamujoco.robots import ROBOTS
from hajax.runs import config
from hajax.runs.settings import validate
from hajax.runs.team import decided


@pytest.mark.parametrize(
    ("name", "version"),
    [
        *((name, "v5") for name in measured.DEFAULT),
        *((name, "v4") for name in ("ant_4x2", "humanoid_9_8", "reacher_2x1", "walker2d_2x3")),
    ],
)
def test_a_step_is_mujoco_s_to_the_last_bit(name, version):
    """With the options of the XML file, and what agents see is Gymnasium's; a reward is a sum in another order."""
    robot, partition = mamujoco.NAMES[name]
    segments = segmented(partition) if robot.startswith("many_agent") else 0
    given = mujoco_oracle.transitions(robot, version, 200, segments, own_solver=True)
    with jax.enable_x64(True):
        apart = measured.differences(measured.our_steps(name, version, given, "mujoco"), given)
    assert apart["other_ends"] == 0
    for kind in ("free", "contact"):
        for field in ("qpos", "qvel", "observation", "agents", "reward") if apart[kind]["steps"] else ():
            assert apart[kind][field]["max"] <= (1e-14 if field == "reward" else 0), (kind, field)


def numbers(bits):
    """MuJoCo's states `[…, S]` from their bits."""
    return np.asarray(bits).view(float)[..., 0]


@pytest.mark.parametrize("name", ["ant_4x2", "humanoid_9_8"])
def test_whole_episodes_of_a_program_in_single_precision_are_mujoco_s_to_the_last_bit(name):
    """Episodes that end, and the next ones, which begin as Gymnasium's do: `mj_resetData`, a state, `mj_forward`."""
    env = hajax.make_env(f"mamujoco/{name}", physics="mujoco", max_steps=12, obs="khop")
    robot = ROBOTS[name.split("_")[0]]
    model, layout = robot.model("v5"), env.spec.action_layout
    actions = layout.center + layout.scale * jax.random.uniform(
        jax.random.key(0), (40, 4, *layout.scale.shape), minval=-1.5, maxval=1.5
    )

    def step(state, inputs):
        key, action = inputs
        after, shown = jax.vmap(env.step)(jax.random.split(key, 4), state, action)
        return after, (after, shown)

    first, opening = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(1), 4))
    _, (after, shown) = jax.jit(lambda: jax.lax.scan(step, first, (jax.random.split(jax.random.key(2), 40), actions)))()
    data, starts, whole = mujoco.MjData(model), [], env.spec.state_size
    control = controls(name, model, np.asarray(clip_action(env.spec, actions)))
    for i in range(4):
        begins, state, seen = True, numbers(first.body.physics.bits[i]), opening.state[i]
        for t in range(40):
            if begins:
                mujoco.mj_resetData(model, data)
                data.qpos[:], data.qvel[:] = state[1 : 1 + model.nq], state[1 + model.nq : 1 + model.nq + model.nv]
                mujoco.mj_forward(model, data)
                starts.append(state)
                np.testing.assert_array_equal(state, state_of(model, data))
                np.testing.assert_array_equal(seen[: model.nq - 2], data.qpos[2:].astype(np.float32))
            data.ctrl[:] = control[t, i]
            mujoco.mj_step(model, data, robot.frame_skip)
            begins, state, seen = bool(shown.first[t, i]), numbers(after.body.physics.bits[t, i]), shown.state[t, i]
            final = shown.final.state[t, i]
            expected = np.concatenate([data.qpos[2:], data.qvel]).astype(np.float32)
            np.testing.assert_array_equal(final[: expected.size], expected)
            if not begins:
                np.testing.assert_array_equal(state, state_of(model, data))
    assert whole > expected.size
    assert len(starts) >= 12
    assert len({x.tobytes() for x in starts}) == len(starts)


def state_of(model, data):
    found = np.zeros(mujoco.mj_stateSize(model, STATE))
    mujoco.mj_getState(model, data, found, STATE)
    return found


def controls(name, model, action):
    """The agents' actions `[…, N, D]` in the order of the actuators."""
    order = {model.joint(model.actuator(i).trnid[0]).name: i for i in range(model.nu)}
    found = np.zeros((*action.shape[:-2], model.nu))
    for i, joints in enumerate(agents(*mamujoco.NAMES[name])):
        for j, joint in enumerate(joints):
            found[..., order[joint]] = action[..., i, j]
    return found


def test_seeds_in_one_program_and_one_robot_alone_take_the_same_steps():
    env = hajax.make_env("mamujoco/hopper_3x1", physics="mujoco", max_steps=3)

    def train(key):
        state, _ = jax.vmap(env.reset)(jax.random.split(key, 3))

        def step(state, key):
            action = jax.random.uniform(key, (3, 3, 1), minval=-1)
            state, shown = jax.vmap(env.step)(jax.random.split(key, 3), state, action)
            return state, shown

        return jax.lax.scan(step, state, jax.random.split(key, 7))

    keys = jax.random.split(jax.random.key(5), 2)
    together, alone = jax.jit(jax.vmap(train))(keys), jax.jit(train)(keys[1])
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[1], y), together, alone)
    final, shown = together
    assert np.asarray(shown.first).sum() == 2 * 3 * 2
    one, key = jax.tree.map(lambda x: x[0, 0], final), jax.random.key(9)
    action = jnp.full((3, 1), 0.3)
    single = jax.jit(env.step)(key, one, action)
    batch = jax.jit(jax.vmap(env.step, (None, 0, None)))(key, jax.tree.map(lambda x: x[0], final), action)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0], y), batch, single)


LIMB = """
<mujoco>
  <option timestep="0.005"/>
  <asset><mesh name="foot" vertex="0 0 0  0.2 0 0  0 0.2 0  0 0 0.2  0.2 0.2 0.1"/></asset>
  <worldbody>
    <geom type="plane" size="5 5 1"/>
    <body name="base" pos="0 0 0.35"><freejoint name="root"/><geom size="0.1"/>
      <body pos="0.1 0 0"><joint name="hip" axis="0 1 0" damping="0.1"/><geom type="mesh" mesh="foot"/><site name="s"/>
        <body pos="0.1 0 0"><joint name="knee" axis="0 1 0" damping="0.1"/>
          <geom type="ellipsoid" size="0.1 0.05 0.05"/>
        </body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <general joint="hip" dyntype="filter" dynprm="0.05" gainprm="3" ctrllimited="true" ctrlrange="-1 1"/>
    <muscle joint="knee" ctrllimited="true" ctrlrange="0 1" lengthrange="0.1 2"/>
  </actuator>
  <sensor><accelerometer site="s"/><touch site="s"/><jointpos joint="knee"/></sensor>
</mujoco>
"""


@pytest.fixture(scope="module")
def limb(tmp_path_factory):
    path = tmp_path_factory.mktemp("limb") / "limb.xml"
    path.write_text(LIMB)
    task = tasks.half_cheetah._replace(reset=lambda key, qpos, qvel: (qpos, qvel + 0.1 * jax.random.normal(key)))
    return from_file(path, task, frame_skip=2, observation="qpos qvel act sensordata", max_steps=30)


def test_a_file_with_what_mjx_lacks_works(limb):
    """A mesh that lies on the floor, a muscle and a filter, which have states, and sensors."""
    env = mamujoco.share(limb, [["hip"], ["knee"]], physics="mujoco", obs="khop")
    model = limb.model("v5")
    data = mujoco.MjData(model)
    state, shown = jax.jit(env.reset)(jax.random.key(0))
    data.qpos, data.qvel = state.body.physics.qpos, state.body.physics.qvel
    mujoco.mj_forward(model, data)
    step, touched = jax.jit(env.step), 0
    for t in range(30):
        now = numbers(state.body.physics.bits)
        np.testing.assert_array_equal(now, state_of(model, data))
        expected = np.concatenate([data.qpos, data.qvel, data.act, data.sensordata]).astype(np.float32)
        np.testing.assert_array_equal(shown.state, expected)
        data.ctrl = np.array([np.sin(t), 0.7], np.float32)
        state, shown = step(jax.random.key(t), state, jnp.array([[np.sin(t)], [0.7]]))
        mujoco.mj_step(model, data, 2)
        touched += data.ncon > 0
    assert touched > 5
    assert np.abs(data.act).min() > 0.01
    assert bool(shown.truncated)


def test_what_needs_mujoco_in_c_is_refused_elsewhere(limb, arms_with_sensor):
    with pytest.raises(ValueError, match=r"has 2 activations .*; allowed: .*, or physics='mujoco'"):
        mamujoco.share(limb, [["hip"], ["knee"]], physics="faithful")
    mamujoco.share(arms_with_sensor, [["arm"]], physics="mujoco")
    with pytest.raises(ValueError, match=r"observation names 'sensordata'; allowed: qpos, qvel, "):
        mamujoco.share(arms_with_sensor, [["arm"]], physics="faithful")


@pytest.fixture(scope="module")
def arms_with_sensor(tmp_path_factory):
    path = tmp_path_factory.mktemp("arm") / "arm.xml"
    path.write_text(
        """<mujoco><worldbody><body><joint name="arm"/><geom size="0.1"/></body></worldbody>
        <actuator><motor joint="arm"/></actuator><sensor><jointpos joint="arm"/></sensor></mujoco>"""
    )
    return from_file(path, tasks.swimmer, 1, observation="qpos sensordata")


def test_a_cpu_computes_mujoco_in_c_unless_told_otherwise():
    """A run records which physics it has, so that it is the same where it is resumed or loaded."""
    assert mamujoco.chosen_physics() == "mujoco"
    assert hajax.envs.env_options("mamujoco/ant_4x2")["physics"] == "auto"
    for given, recorded in ((), "mujoco"), (["env.physics=faithful"], "faithful"):
        settings = validate(config.compose(["env=mamujoco/ant_4x2", *given]))
        assert decided(settings).env == settings.env | {"physics": recorded}
    other = validate(config.compose(["env=mpe/simple_spread"]))
    assert decided(other) is other


CALLS = """
import os, resource, sys
if sys.argv[1] == "1":
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax, jax.numpy as jnp, hajax
env = hajax.make_env("mamujoco/reacher_2x1", physics="mujoco", max_steps=5)
state, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 8))
step = jax.jit(jax.vmap(env.step))
keys, action = jax.random.split(jax.random.key(1), 8), jnp.zeros((8, 2, 1))
for i in range(1100):
    state, shown = step(keys, state, action)
    if i == 100:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if i % 10 == 0:
        jax.block_until_ready(shown)
jax.block_until_ready(state)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


ONE = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="macOS and Windows cannot limit a process so")


@pytest.mark.parametrize("threads", [pytest.param("1", marks=ONE), "all"])
def test_a_thousand_compiled_calls_end_and_take_no_more_memory(threads):
    done = subprocess.run([sys.executable, "-c", CALLS, threads], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8_000  # KiB
