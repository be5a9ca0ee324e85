"""MAMuJoCo's environments: what is shown and paid, first states, ends of episodes, and what is refused."""

import base64
import json
import os
import re
import subprocess
import sys
import zlib

import jax
import jax.numpy as jnp
import mujoco as mujoco_s
import mujoco_oracle
import numpy as np
import pytest
import yaml
from PIL import Image

import hajax
from hajax.cli import main
from hajax.envs import mamujoco
from hajax.envs.mamujoco import from_file, tasks
from hajax.envs.mamujoco.robots import ROBOTS
from hajax.envs.mamujoco.tasks import Readings, Step
from hajax.runs import config
from hajax.runs.loading import load_run
from hajax.spaces import Box
from hajax.training.checkpoints import save_checkpoint
from hajax.training.policy import Policy


@pytest.fixture(scope="module")
def reacher():
    env = hajax.make_env("mamujoco/reacher_2x1", max_steps=3)
    return env._replace(reset=jax.jit(env.reset), step=jax.jit(env.step))


def test_full_observations_are_standardized_and_tell_the_agents_apart(reacher):
    _, shown = reacher.reset(jax.random.key(0))
    seen = np.asarray(shown.observation)
    np.testing.assert_allclose(seen.mean(1), 0, atol=1e-6)
    np.testing.assert_allclose(seen.std(1), 1, atol=1e-5)
    np.testing.assert_allclose(seen[0, :10], seen[1, :10], atol=1e-6)
    assert seen[0, 10] > seen[0, 11]
    assert seen[1, 10] < seen[1, 11]
    np.testing.assert_allclose(np.asarray(shown.state).std(), 1, atol=1e-5)


def test_every_agent_is_paid_the_robot_s_reward_and_episodes_are_cut(reacher):
    state, _ = reacher.reset(jax.random.key(0))
    ends = []
    for _ in range(3):
        state, shown = reacher.step(jax.random.key(1), state, jnp.zeros((2, 1)))
        ends.append((bool(shown.terminated), bool(shown.truncated)))
        offset = np.asarray(shown.final.state)
        assert shown.reward.shape == (2,)
        assert shown.reward[0] == shown.reward[1] < 0
        assert np.isfinite(offset).all()
    assert ends == [(False, False), (False, False), (False, True)]
    assert bool(shown.first)


@pytest.mark.parametrize("physics", ["faithful", "mujoco"])
def test_physics_that_blew_up_ends_the_episode_and_shows_no_nan(physics, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = hajax.make_env("mamujoco/reacher_2x1", physics=physics)
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    before = state.body.physics
    if physics == "mujoco":  # the first velocity, after the time and the positions
        infinity = np.array([np.inf]).view(np.uint32)
        spoiled = before._replace(bits=before.bits.at[1 + before.qpos.size].set(infinity))
    else:
        spoiled = before._replace(qvel=before.qvel.at[0].set(jnp.nan))
    given = state._replace(body=state.body._replace(physics=spoiled))
    following, shown = jax.jit(env.step)(jax.random.key(1), given, jnp.zeros((2, 1)))
    assert not [*tmp_path.iterdir()]  # MuJoCo writes a log
    assert (bool(shown.terminated), bool(shown.truncated)) == (True, False)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((following, shown)))
    np.testing.assert_array_equal(shown.reward, 0)


def test_first_states_differ_and_targets_are_uniform_in_their_disc(reacher):
    state, _ = jax.vmap(reacher.reset)(jax.random.split(jax.random.key(0), 4000))
    qpos, qvel = np.asarray(state.body.physics.qpos), np.asarray(state.body.physics.qvel)
    radius = np.hypot(*qpos[:, 2:].T)
    assert radius.max() < 0.2
    np.testing.assert_allclose((radius < 0.1).mean(), 0.25, atol=0.03)
    assert np.abs(qpos[:, :2]).max() <= 0.1
    assert np.abs(qvel[:, :2]).max() <= 0.005
    assert not qvel[:, 2:].any()


def test_a_policy_acts_in_gymnasium_robotics(reacher):
    algo = hajax.make_algorithm("happo", reacher, hidden_sizes=(8,))
    policy = Policy(algo, jax.jit(algo.init)(jax.random.key(0)), reacher.observe)
    state, shown = reacher.reset(jax.random.key(3))
    with mujoco_oracle.quietly():
        from gymnasium_robotics import mamujoco_v1

        theirs = mamujoco_v1.parallel_env("Reacher", "2x1")
    theirs.reset(seed=0)
    theirs.single_agent_env.unwrapped.set_state(*map(np.asarray, (state.body.physics.qpos, state.body.physics.qvel)))
    np.testing.assert_allclose(reacher.observe(jnp.asarray(theirs.state(), float)), shown.observation, atol=1e-5)
    actions, memory = policy(state=theirs.state())
    expected, _, _ = algo.act(jax.random.key(0), policy.state, shown, (), True)
    for i, agent in enumerate(theirs.agents):
        np.testing.assert_allclose(actions[agent], np.clip(expected[i], -1, 1), atol=1e-5)
    theirs.step(actions)
    with pytest.raises(ValueError, match="state of mamujoco/reacher_2x1 has 9 entries; allowed: 10"):
        policy(memory=memory, state=theirs.state()[:9])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What a training leaves, of a reacher that was not trained."""
    path = tmp_path_factory.mktemp("reacher")
    settings = config.compose(["env=mamujoco/reacher_2x1", "env.physics=fast", "algo.hidden_sizes=[8]"])
    (path / "config.yaml").write_text(yaml.safe_dump(settings))
    env = hajax.make_env("mamujoco/reacher_2x1", physics="fast")
    algo = hajax.make_algorithm("happo", env, hidden_sizes=(8,))
    states = jax.jit(jax.vmap(algo.init))(jax.random.split(jax.random.key(0), settings["num_seeds"]))
    save_checkpoint(path / "checkpoints", 0, {"train": {"algorithm": states}}, {}, keep=1)
    return path


def test_a_run_s_policy_is_loaded_to_act_in_gymnasium_robotics(run, reacher):
    with mujoco_oracle.quietly():
        from gymnasium_robotics import mamujoco_v1

        theirs = mamujoco_v1.parallel_env("Reacher", "2x1")
    theirs.reset(seed=0)
    actions, _ = hajax.load_policy(run)(state=theirs.state())
    loaded = load_run(run)
    env, algo = loaded.team.env, loaded.team.algorithm
    shown = reacher.reset(jax.random.key(0))[1]._replace(observation=env.observe(jnp.asarray(theirs.state(), float)))
    expected, _, _ = algo.act(jax.random.key(0), loaded.state(0), shown, (), True)
    for i, agent in enumerate(theirs.agents):
        np.testing.assert_allclose(actions[agent], np.clip(expected[i], -1, 1), atol=1e-5)


@pytest.mark.evidence
def test_films_of_a_run(run, tmp_path):
    film = tmp_path / "film.gif"
    assert main(["render", str(run), "--max-steps=3", "--renderer=drawing", f"--output={film}"]) == 0
    with Image.open(film) as image:
        assert (image.n_frames, image.info["duration"]) == (3, 20)
    page = tmp_path / "film.html"
    assert main(["render", str(run), "--max-steps=3", f"--output={page}"]) == 0
    (packed,) = re.findall(r'var system = "(.*?)"', page.read_text())
    assert len(json.loads(zlib.decompress(base64.b64decode(packed)))["states"]["x"]) == 3


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("reacher_2x1", "Reacher"),
        ("swimmer_2x1", "Swimmer"),
        pytest.param("hopper_3x1", "Hopper", marks=pytest.mark.evidence),
        pytest.param("walker2d_2x3", "Walker2d", marks=pytest.mark.evidence),
    ],
)
def test_agents_that_see_their_surroundings_see_and_act_in_gymnasium_robotics_as_here(name, theirs):
    """What is no list of entries there, too: Reacher's angles, the speeds that Swimmer's rotors share, bounded ones."""
    env = hajax.make_env(f"mamujoco/{name}", obs="khop", k=1, physics="faithful")
    algo = hajax.make_algorithm("happo", env, hidden_sizes=(8,))
    policy = Policy(algo, jax.jit(algo.init)(jax.random.key(0)))
    state, shown = jax.jit(env.reset)(jax.random.key(3))
    fast = {"walker2d_2x3": 20.0, "hopper_3x1": 20.0}.get(name, 0.0)  # the joints; agents see Hopper's up to 10 only
    qvel = state.body.physics.qvel.at[3:].add(fast)
    state = state._replace(body=state.body._replace(physics=state.body.physics._replace(qvel=qvel)))
    with mujoco_oracle.quietly():
        from gymnasium_robotics import mamujoco_v1

        theirs = mamujoco_v1.parallel_env(theirs, name.rpartition("_")[2], agent_obsk=1)
    theirs.reset(seed=0)
    theirs.single_agent_env.unwrapped.set_state(*map(np.asarray, (state.body.physics.qpos, state.body.physics.qvel)))
    step = jax.jit(env.step)
    drawn = np.random.default_rng(0).uniform(-1, 1, (2, env.spec.num_agents, env.spec.num_components))
    fastest = 0.0
    for actions in drawn.astype(np.float32):
        seen = theirs.step(dict(zip(theirs.agents, actions, strict=True)))[0]
        state, shown = step(jax.random.key(0), state, jnp.asarray(actions))
        for i, agent in enumerate(theirs.agents):
            size = env.spec.agents[i].observation_size
            np.testing.assert_allclose(shown.observation[i, :size], seen[agent], atol=1e-4)
            fastest = max(fastest, np.abs(seen[agent]).max())
    assert (fastest > 10) == (name == "walker2d_2x3")
    chosen, _ = policy(seen)
    expected, _, _ = algo.act(jax.random.key(0), policy.state, shown, (), True)
    for i, agent in enumerate(theirs.agents):
        np.testing.assert_allclose(chosen[agent], np.clip(expected[i], -1, 1), atol=1e-4)


@pytest.mark.parametrize("robot", [robot for robot in ROBOTS if robot != "reacher"])
def test_first_states_are_drawn_as_gymnasium_draws_them(robot):
    body, count = ROBOTS[robot], 5000
    model = body.model("v5")
    start = jnp.asarray(model.qpos0, float), jnp.zeros(model.nv)
    keys = jax.random.split(jax.random.key(0), count)
    ours = np.concatenate(jax.vmap(lambda key: body.task.reset(key, *start))(keys), 1)
    env = mujoco_oracle.make(robot, "v5")
    env.reset(seed=0)
    theirs = np.empty_like(ours)
    for row in theirs:
        env.reset_model()
        row[:] = np.concatenate([env.data.qpos, env.data.qvel])
    np.testing.assert_allclose(ours.mean(0), theirs.mean(0), atol=0.02)
    np.testing.assert_allclose(ours.std(0), theirs.std(0), rtol=0.1)
    for a, b in zip(ours.T, theirs.T, strict=True):  # normal noise and uniform of one deviation differ by 0.06
        both = np.sort(np.concatenate([a, b]))
        apart = np.abs(np.searchsorted(np.sort(a), both, "right") - np.searchsorted(np.sort(b), both, "right")).max()
        assert apart / count < 0.045


def readings(**given):
    blank = {name: np.zeros(0) for name in Readings._fields}
    return Readings(**{**blank, **{name: np.asarray(x, float) for name, x in given.items()}})


def outcome(task, version, *, before=0.0, after=0.0, action=(0.0,), dt=0.05, **given):
    step = Step(np.asarray(before), np.asarray(after), readings(**given), np.asarray(action), dt)
    reward, ended = task.outcome(step, version)
    return float(reward), bool(ended)


def test_rewards_and_ends_by_hand():
    assert outcome(tasks.half_cheetah, "v5", after=0.1, action=(1.0, -0.5)) == (pytest.approx(2 - 0.125), False)
    upright = {"qpos": [0, 1.25, 0.1, 0], "qvel": [0, 0, 0, 0]}
    assert outcome(tasks.hopper, "v5", after=0.1, action=(2.0,), **upright) == (pytest.approx(3 - 4e-3), False)
    for version, alive in (("v5", 0), ("v4", 1)):
        fallen = {"qpos": [0, 0.69, 0.1, 0], "qvel": [0, 0, 0, 0]}
        assert outcome(tasks.hopper, version, after=0.1, **fallen) == (pytest.approx(2 + alive), True)
        assert outcome(tasks.walker2d, version, qpos=[0, 1.0, 1.1]) == (pytest.approx(alive), True)
        low = {"qpos": [0, 0, 0.19], "qvel": [0], "cfrc_ext": [[0, 0, 3, 0, 0, 0.5]]}
        contact = 5e-4 * 1.25 if version == "v5" else 0
        assert outcome(tasks.ant, version, **low) == (pytest.approx(alive - contact), True)
        bent = {"qpos": [0, 0, 0.9], "ctrl": [0.4], "mass": [1, 3], "center": [[0, 0, 0]] * 2, "cfrc_ext": [[1e4] * 6]}
        contact = 10 if version == "v5" else 0
        expected = 5 * alive - 0.1 * 0.16 - contact
        assert outcome(tasks.humanoid, version, **bent) == (pytest.approx(expected), True)
    fast = {"qpos": [0, 1.25, 0.1, 0], "qvel": [0, 0, 0, 101]}
    assert outcome(tasks.hopper, "v5", **fast)[1]
    assert outcome(tasks.swimmer, "v5", after=-0.05, action=(1, 1)) == (pytest.approx(-1 - 2e-4), False)
    offsets = {"before": [0.3, 0.4, 0], "after": [0, 0.1, 0], "action": (0.5,)}
    assert outcome(tasks.reacher, "v5", **offsets) == (pytest.approx(-0.35), False)
    assert outcome(tasks.reacher, "v4", **offsets) == (pytest.approx(-0.75), False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "v3"}, "version='v3'; allowed: v4, v5"),
        ({"physics": "quick"}, "physics='quick'; allowed: auto, mujoco, faithful, fast, brax-spring, "),
        (
            {"physics": "brax-mjx", "version": "v4"},
            "version='v4' of mamujoco/reacher_2x1 with physics='brax-mjx', which has only one; allowed: v5",
        ),
        ({"obs": "half"}, "obs='half'; allowed: full, khop"),
        ({"obs": "khop", "k": -1}, "k=-1; allowed: a whole number >= 0"),
        ({"max_steps": 0}, "max_steps=0; allowed: a whole number >= 1"),
        ({"obs": "khop", "categories": ["qpos", "speed"]}, "categories names 'speed'; allowed: "),
        ({"obs": "khop", "categories": "qpos"}, "categories='qpos'; allowed: a list of texts"),
        ({"obs": "khop", "categories": []}, r"categories=\[\]; allowed: a list of texts"),
        ({"obs": "khop", "categories": [["qpos", "qvel"], ["qpos"]]}, r"categories=\[\['qpos', .*; allowed: a list of"),
        ({"obs": "khop", "categories": 5}, "categories=5; allowed: a list of texts"),
        ({"obs": "khop", "global_categories": ["qpos"]}, r"global_categories=\['qpos'\]; allowed: a text"),
        ({"reward": "shared"}, "reward='shared'; allowed: team, individual"),
        ({"obs": "khop", "global_categories": "qpso"}, "global_categories names 'qpso'; allowed: "),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        hajax.make_env("mamujoco/reacher_2x1", **options)


def test_unknown_robots_and_partitions_are_refused_with_their_nearest():
    with pytest.raises(ValueError, match=r"unknown environment 'mamujoco/ant_3x2'; did you mean .*mamujoco/ant_4x2"):
        hajax.make_env("mamujoco/ant_3x2")


def test_robots_of_many_segments_have_names_of_any_numbers():
    env = hajax.make_env("mamujoco/many_agent_swimmer_3x1", physics="fast")
    assert (env.spec.name, env.spec.num_agents) == ("mamujoco/many_agent_swimmer_3x1", 3)
    settings = config.compose(["env=mamujoco/many_agent_swimmer_3x1", "env.obs=khop"])["env"]
    assert (settings["name"], settings["obs"], settings["k"]) == ("mamujoco/many_agent_swimmer_3x1", "khop", 1)
    with pytest.raises(ValueError, match=r"partition '1x1'; allowed: NxM with N and M at least 1 and N · M at least 2"):
        hajax.make_env("mamujoco/many_agent_swimmer_1x1")


def test_what_is_infinite_is_not_clipped_out_of_sight():
    seen = ROBOTS["hopper"].seen("qvel", jnp.array([3.0, -20.0, jnp.inf, jnp.nan]))
    np.testing.assert_array_equal(seen, [3, -10, np.inf, np.nan])


def test_without_the_extra_one_line_says_so(monkeypatch):
    monkeypatch.setattr(mamujoco, "find_spec", lambda package: None)
    with pytest.raises(ValueError, match=r"mamujoco/ant_4x2 needs mujoco, .*; pip install 'hajax\[mamujoco\]'"):
        hajax.make_env("mamujoco/ant_4x2")
    with pytest.raises(ValueError, match=r"from_file needs mujoco, .*; pip install 'hajax\[mamujoco\]'"):
        mamujoco.from_file("robot.xml", None, 1)


def test_where_mujoco_does_not_start_one_line_says_so():
    """It starts its OpenGL when it is imported, and raises what comes."""
    making = [sys.executable, "-c", "import hajax; hajax.make_env('mamujoco/reacher_2x1')"]
    ended = subprocess.run(making, env=os.environ | {"MUJOCO_GL": "nonsense"}, capture_output=True, text=True)
    assert ended.stderr.splitlines()[-1].startswith(
        "ValueError: mamujoco/reacher_2x1 needs mujoco, which does not start here with MUJOCO_GL='nonsense' (invalid "
    )


ARM = """
<mujoco>
  <option timestep="0.01" gravity="0 0 0" integrator="RK4"/>
  <worldbody>
    <body name="cart"><freejoint name="rail"/><geom size="0.1"/>
      <body name="left" pos="0 0.2 0"><joint name="left" axis="0 0 1"/><geom size="0.05" pos="0 0.1 0"/></body>
      <body name="right" pos="0 -0.2 0"><joint name="right" axis="0 0 1"/><geom size="0.05" pos="0 -0.1 0"/>
        <body name="hand" pos="0 -0.2 0"><joint name="wrist" axis="0 0 1"/><geom size="0.05" pos="0 -0.1 0"/></body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor joint="wrist" ctrllimited="true" ctrlrange="-2 2"/>
    <position joint="left" kp="0.3" kv="0.1" ctrllimited="true" ctrlrange="-1 1"/>
    <velocity joint="right" kv="0.2" ctrllimited="true" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    path = tmp_path_factory.mktemp("robot") / "arms.xml"
    path.write_text(ARM)
    return from_file(path, tasks.half_cheetah, frame_skip=2, hidden=1, max_steps=7)


@pytest.mark.parametrize("physics", ["faithful", "mujoco"])
def test_a_file_of_one_s_own_is_shared_by_lists_of_joints(physics, arms):
    """What it sees, is paid and does, which is what MuJoCo does in C: a free body, and Runge and Kutta's method."""
    env = mamujoco.share(arms, [["right", "wrist"], ["left"]], obs="khop", k=1, physics=physics)
    common = 6 + 6  # where the cart is, but for the first position, and how it moves
    assert [agent.observation_size for agent in env.spec.agents] == [2 * 2 + 1 + common, 2 + 1 + common]
    assert env.spec.agents[0].action_space == Box((-1, -2), (1, 2))
    assert (env.spec.name, env.spec.max_steps, env.spec.state_size) == ("mamujoco/own", 7, 9 + 9)
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    following, shown = jax.jit(env.step)(jax.random.key(0), state, jnp.array([[0.5, -3.0], [0.25, 9.0]]))
    # The cart's velocity less a tenth of the squared controls, which are clipped: 0.5, −2 and 0.25; the padding is not.
    before, after = state.body.physics, following.body.physics
    velocity = (after.qpos[0] - before.qpos[0]) / 0.02
    np.testing.assert_allclose(shown.reward, velocity - 0.1 * (0.25 + 4 + 0.0625), atol=1e-4)
    model = arms.model("v5")
    data = mujoco_s.MjData(model)
    data.qpos, data.qvel, data.ctrl = before.qpos, before.qvel, [-2, 0.25, 0.5]  # wrist, left, right
    mujoco_s.mj_step(model, data, 2)
    np.testing.assert_allclose(after.qpos, data.qpos, atol=1e-5)
    np.testing.assert_allclose(after.qvel, data.qvel, atol=1e-4)


@pytest.mark.parametrize(
    ("robot", "partition", "message"),
    [
        (
            "arms",
            [["left", "right"]],
            "of mamujoco/own leaves out wrist; allowed: each of wrist, left, right",
        ),
        ("arms", [["left", "right"], ["wrist", "rail"]], "names 'rail', which no actuator drives"),
        ("spider", [["leg"]], "unknown robot 'spider'"),
    ],
)
def test_partitions_of_one_s_own_are_checked(robot, partition, message, arms):
    with pytest.raises(ValueError, match=message):
        mamujoco.share(arms if robot == "arms" else robot, partition)


def test_models_that_mjx_cannot_compute_are_refused(tmp_path):
    (tmp_path / "implicit.xml").write_text(ARM.replace('"RK4"', '"implicit"'))
    robot = from_file(tmp_path / "implicit.xml", tasks.swimmer, 1)
    with pytest.raises(
        ValueError, match=r"^the robot's model: .*; allowed: what MuJoCo in JAX \(MJX\) supports, or physics='mujoco'$"
    ):
        mamujoco.share(robot, [["right", "wrist"], ["left"]], physics="faithful")


def test_files_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"path='.*none.xml'; allowed: an MJCF file that exists"):
        from_file(tmp_path / "none.xml", tasks.swimmer, 1)
    (tmp_path / "nameless.xml").write_text(ARM.replace(' name="rail"', ""))
    (tmp_path / "none.txt").write_text("<mujoco><worldbody")
    with pytest.raises(ValueError, match=r"path='.*none.txt': .*; allowed: a file that MuJoCo can compile"):
        from_file(tmp_path / "none.txt", tasks.swimmer, 1)
    (tmp_path / "other.xml").write_text(ARM.replace('position joint="left"', 'position joint="right"'))
    with pytest.raises(ValueError, match=r"actuators of .*; allowed: at least one, each on a different joint"):
        from_file(tmp_path / "other.xml", tasks.swimmer, 1)
    (tmp_path / "arms.xml").write_text(ARM)
    with pytest.raises(ValueError, match=r"hidden=11; allowed: at most the 10 joint positions of "):
        from_file(tmp_path / "arms.xml", tasks.swimmer, 1, hidden=11)
    for text in ("qpos speed", "qpos:a", "qpos:1:2:3"):
        robot = from_file(tmp_path / "arms.xml", tasks.swimmer, 1, observation=text)
        with pytest.raises(ValueError, match=rf"observation names '{text.split()[-1]}'; allowed: qpos, qvel, "):
            mamujoco.share(robot, [["right", "wrist"], ["left"]])
    with pytest.raises(ValueError, match="frame_skip=0; allowed: a whole number >= 1"):
        from_file(tmp_path / "other.xml", tasks.swimmer, 0)
    with pytest.raises(ValueError, match=r"joint 0 of .* has no name"):
        from_file(tmp_path / "nameless.xml", tasks.swimmer, 1)
