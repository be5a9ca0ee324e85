"""MAMuJoCo's environments: what is shown and paid, first states, ends of episodes, and what is refused."""

import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import mujoco as mujoco_s
import numpy as np
import pytest
from brax.envs import get_environment as brax_environment
from matplotlib.figure import Figure

import hajax
from hajax.cli import scenes
from hajax.colours import CYCLE
from hajax.envs import mamujoco
from hajax.envs.mamujoco import tasks
from hajax.envs.mamujoco.environment import RobotState
from hajax.envs.mamujoco.in_brax import COUNTERPARTS, in_brax
from hajax.envs.mamujoco.physics import PhysicsState
from hajax.envs.mamujoco.robots import ROBOTS, from_file
from hajax.envs.mamujoco.simulation import MujocoState
from hajax.envs.mamujoco.tasks import Readings, Step
from hajax.spec import Box
from hajax.training.policy import Policy

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))  # scripts that import each other
import mujoco_oracle


@pytest.fixture(scope="module")
def reacher():
    env = hajax.make_env("mamujoco/reacher_2x1", max_steps=3)
    return env._replace(reset=jax.jit(env.reset), step=jax.jit(env.step))


def test_full_observations_are_standardised_and_tell_the_agents_apart(reacher):
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


def test_physics_that_blew_up_ends_the_episode_and_shows_no_nan(reacher):
    state, _ = reacher.reset(jax.random.key(0))
    spoiled = state.body.physics._replace(qvel=state.body.physics.qvel.at[0].set(jnp.nan))
    given = state._replace(body=state.body._replace(physics=spoiled))
    following, shown = reacher.step(jax.random.key(1), given, jnp.zeros((2, 1)))
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
    policy = Policy(algo, algo.init(jax.random.key(0)), reacher.observe)
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


def readings(**given):
    blank = {name: np.zeros(0) for name in Readings._fields}
    return Readings(**{**blank, **{name: np.asarray(x, float) for name, x in given.items()}})


def judged(task, version, *, before=0.0, after=0.0, action=(0.0,), dt=0.05, **given):
    step = Step(np.asarray(before), np.asarray(after), readings(**given), np.asarray(action), dt)
    reward, ended = task.judge(step, version)
    return float(reward), bool(ended)


def test_rewards_and_ends_by_hand():
    assert judged(tasks.half_cheetah, "v5", after=0.1, action=(1.0, -0.5)) == (pytest.approx(2 - 0.125), False)
    upright = {"qpos": [0, 1.25, 0.1, 0], "qvel": [0, 0, 0, 0]}
    assert judged(tasks.hopper, "v5", after=0.1, action=(2.0,), **upright) == (pytest.approx(3 - 4e-3), False)
    for version, alive in (("v5", 0), ("v4", 1)):
        fallen = {"qpos": [0, 0.69, 0.1, 0], "qvel": [0, 0, 0, 0]}
        assert judged(tasks.hopper, version, after=0.1, **fallen) == (pytest.approx(2 + alive), True)
        assert judged(tasks.walker2d, version, qpos=[0, 1.0, 1.1]) == (pytest.approx(alive), True)
        low = {"qpos": [0, 0, 0.19], "qvel": [0], "cfrc_ext": [[0, 0, 3, 0, 0, 0.5]]}
        contact = 5e-4 * 1.25 if version == "v5" else 0
        assert judged(tasks.ant, version, **low) == (pytest.approx(alive - contact), True)
        bent = {"qpos": [0, 0, 0.9], "ctrl": [0.4], "mass": [1, 3], "centre": [[0, 0, 0]] * 2, "cfrc_ext": [[1e4] * 6]}
        contact = 10 if version == "v5" else 0
        expected = 5 * alive - 0.1 * 0.16 - contact
        assert judged(tasks.humanoid, version, **bent) == (pytest.approx(expected), True)
    fast = {"qpos": [0, 1.25, 0.1, 0], "qvel": [0, 0, 0, 101]}
    assert judged(tasks.hopper, "v5", **fast)[1]
    assert judged(tasks.swimmer, "v5", after=-0.05, action=(1, 1)) == (pytest.approx(-1 - 2e-4), False)
    offsets = {"before": [0.3, 0.4, 0], "after": [0, 0.1, 0], "action": (0.5,)}
    assert judged(tasks.reacher, "v5", **offsets) == (pytest.approx(-0.35), False)
    assert judged(tasks.reacher, "v4", **offsets) == (pytest.approx(-0.75), False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": "v3"}, "version='v3'; allowed: v4, v5"),
        ({"physics": "quick"}, "physics='quick'; allowed: faithful, fast, brax-spring, "),
        (
            {"physics": "brax-mjx", "version": "v4"},
            "version='v4' of mamujoco/reacher_2x1 with physics='brax-mjx', which has but one; allowed: v5",
        ),
        ({"obs": "half"}, "obs='half'; allowed: full, khop"),
        ({"obs": "khop", "k": -1}, "k=-1; allowed: a whole number >= 0"),
        ({"max_steps": 0}, "max_steps=0; allowed: a whole number >= 1"),
        ({"obs": "khop", "categories": ["qpos", "speed"]}, "categories names 'speed'; allowed: "),
        ({"obs": "khop", "categories": "qpos"}, "categories='qpos'; allowed: a list of texts"),
        ({"obs": "khop", "categories": []}, r"categories=\[\]; allowed: a list of texts"),
        ({"obs": "khop", "global_categories": "qpso"}, "global_categories names 'qpso'; allowed: "),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        hajax.make_env("mamujoco/reacher_2x1", **options)


def test_brax_s_robots_are_the_ones_it_has():
    refused = {
        "many_agent_swimmer_10x2": "faithful, fast",
        "swimmer_2x1": "faithful, fast, brax-generalized, brax-mjx",
    }
    for name, allowed in refused.items():
        with pytest.raises(ValueError, match=rf"'brax-spring' of mamujoco/{name}, which .* so; allowed: {allowed}$"):
            hajax.make_env(f"mamujoco/{name}", physics="brax-spring")


@pytest.mark.filterwarnings("ignore:Brax System")
@pytest.mark.parametrize("robot", mamujoco.BACKENDS)
def test_brax_s_joints_stand_in_our_order(robot):
    """Agents drive and see joints by the places that Gymnasium's file gives them."""
    simulation, env = in_brax(robot, "generalized"), brax_environment(COUNTERPARTS[robot].name, backend="generalized")
    own, theirs = simulation.anatomy.model, simulation.model
    assert (own.nq, own.nv, own.nu) == (theirs.nq, theirs.nv, theirs.nu)
    for i in range(own.njnt):
        assert own.joint(i).name == theirs.joint(i).name or robot == "swimmer"
        assert (own.jnt_qposadr[i], own.jnt_dofadr[i]) == (theirs.jnt_qposadr[i], theirs.jnt_dofadr[i])
    driven = own.actuator_trnid[:, 0]
    np.testing.assert_array_equal(env.sys.actuator.q_id, own.jnt_qposadr[driven])
    np.testing.assert_array_equal(env.sys.actuator.qd_id, own.jnt_dofadr[driven])
    np.testing.assert_allclose(env.sys.actuator.ctrl_range, own.actuator_ctrlrange, rtol=1e-6)


@pytest.mark.filterwarnings("ignore:Brax System")
def test_brax_under_our_partition():
    """HalfCheetah: what brax itself does with the same controls, and what agents see of it."""
    shared = [hajax.make_env("mamujoco/half_cheetah_2x3", physics="brax-spring", obs=obs) for obs in ("full", "khop")]
    env, own = brax_environment("halfcheetah", backend="spring"), shared[1].spec.agents[0].observation_size
    controls = np.random.default_rng(0).uniform(-1, 1, 6).astype(np.float32)
    action = controls.reshape(2, 3)  # the file has the back leg's thigh, shin and foot first, as the partition

    @jax.jit
    def both(key):
        theirs = env.step(env.reset(key), controls)
        return theirs.reward, theirs.obs, [made.step(key, made.reset(key)[0], action)[1] for made in shared]

    reward, observation, (full, local) = both(jax.random.key(2))
    np.testing.assert_allclose(full.reward, np.full(2, reward), rtol=1e-5)
    np.testing.assert_allclose(local.state, observation, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(full.state, (observation - observation.mean()) / observation.std(), rtol=1e-4, atol=1e-5)
    # With k = 1 the back leg sees its own joints' positions and velocities, in order of name, first those of `bfoot`.
    np.testing.assert_allclose(local.observation[0, :2], np.asarray(observation)[[4, 13]], rtol=1e-5)
    assert own == 12


def test_unknown_robots_and_partitions_are_refused_with_their_nearest():
    with pytest.raises(ValueError, match=r"unknown environment 'mamujoco/ant_3x2'; did you mean .*mamujoco/ant_4x2"):
        hajax.make_env("mamujoco/ant_3x2")


def test_without_the_extra_one_line_says_so(monkeypatch):
    monkeypatch.setattr(mamujoco, "find_spec", lambda package: None)
    with pytest.raises(ValueError, match=r"mamujoco/ant_4x2 needs mujoco, .*; pip install 'hajax\[mamujoco\]'"):
        hajax.make_env("mamujoco/ant_4x2")


def test_without_brax_one_line_says_so(monkeypatch):
    monkeypatch.setattr(mamujoco, "find_spec", lambda package: None if package == "brax" else package)
    with pytest.raises(ValueError, match=r"physics='brax-mjx' needs brax, not installed; pip install 'hajax\[brax\]'"):
        hajax.make_env("mamujoco/ant_4x2", physics="brax-mjx")


ARM = """
<mujoco>
  <option timestep="0.01" gravity="0 0 0"/>
  <worldbody>
    <body name="cart"><joint name="rail" type="slide" axis="1 0 0"/><geom size="0.1"/>
      <body name="left" pos="0 0.2 0"><joint name="left" axis="0 0 1"/><geom size="0.05" pos="0 0.1 0"/></body>
      <body name="right" pos="0 -0.2 0"><joint name="right" axis="0 0 1"/><geom size="0.05" pos="0 -0.1 0"/>
        <body name="hand" pos="0 -0.2 0"><joint name="wrist" axis="0 0 1"/><geom size="0.05" pos="0 -0.1 0"/></body>
      </body>
    </body>
  </worldbody>
  <actuator>
    <motor joint="wrist" ctrllimited="true" ctrlrange="-2 2"/>
    <motor joint="left" ctrllimited="true" ctrlrange="-1 1"/>
    <motor joint="right" ctrllimited="true" ctrlrange="-1 1"/>
  </actuator>
</mujoco>
"""


@pytest.fixture(scope="module")
def arms(tmp_path_factory):
    path = tmp_path_factory.mktemp("robot") / "arms.xml"
    path.write_text(ARM)
    return from_file(path, tasks.half_cheetah, frame_skip=2, hidden=1, max_steps=7)


def test_a_file_of_one_s_own_is_shared_by_lists_of_joints(arms):
    env = mamujoco.share(arms, [["right", "wrist"], ["left"]], obs="khop", k=1)
    assert [agent.observation_size for agent in env.spec.agents] == [2 * 2 + 1 + 1, 2 + 1 + 1]
    assert env.spec.agents[0].action_space == Box((-1, -2), (1, 2))
    assert (env.spec.name, env.spec.max_steps, env.spec.state_size) == ("mamujoco/own", 7, 3 + 4)
    state, _ = env.reset(jax.random.key(0))
    following, shown = jax.jit(env.step)(jax.random.key(0), state, jnp.array([[0.5, -3.0], [0.25, 9.0]]))
    # The cart's velocity less a tenth of the squared controls, which are clipped: 0.5, −2 and 0.25; the padding is not.
    velocity = (following.body.physics.qpos[0] - state.body.physics.qpos[0]) / 0.02
    np.testing.assert_allclose(shown.reward, velocity - 0.1 * (0.25 + 4 + 0.0625), atol=1e-4)


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
    (tmp_path / "dense.xml").write_text(ARM.replace("<option ", '<option solver="PGS" integrator="implicit" '))
    robot = from_file(tmp_path / "dense.xml", tasks.swimmer, 1)
    with pytest.raises(ValueError, match=r"^the robot's model: .*; allowed: what MuJoCo in JAX \(MJX\) has$"):
        mamujoco.share(robot, [["right", "wrist"], ["left"]])


def test_files_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"path='.*none.xml'; allowed: an MJCF file that exists"):
        from_file(tmp_path / "none.xml", tasks.swimmer, 1)
    (tmp_path / "nameless.xml").write_text(ARM.replace('name="rail" ', ""))
    (tmp_path / "none.txt").write_text("<mujoco><worldbody")
    with pytest.raises(ValueError, match=r"path='.*none.txt': .*; allowed: what MuJoCo can compile"):
        from_file(tmp_path / "none.txt", tasks.swimmer, 1)
    for change in (('motor joint="left"', 'motor joint="right"'), ("motor", "position")):
        (tmp_path / "other.xml").write_text(ARM.replace(*change))
        with pytest.raises(ValueError, match=r"actuators of .*; allowed: motors, at least one, each on a joint of its"):
            from_file(tmp_path / "other.xml", tasks.swimmer, 1)
    with pytest.raises(ValueError, match="frame_skip=0; allowed: a whole number >= 1"):
        from_file(tmp_path / "other.xml", tasks.swimmer, 0)
    with pytest.raises(ValueError, match=r"joint 0 of .* has no name"):
        from_file(tmp_path / "nameless.xml", tasks.swimmer, 1)


@pytest.fixture(scope="module")
def episode(reacher):
    """Three states of an arm that turns."""
    state, shown = reacher.reset(jax.random.key(0))
    turned = jnp.stack([state.body.physics.qpos.at[0].set(angle) for angle in (0.0, 1.0, 2.0)])
    physics = PhysicsState(turned, jnp.zeros_like(turned), jnp.zeros_like(turned))
    return RobotState(MujocoState(physics, jnp.zeros(3)), jnp.arange(3)), shown


class TestScenes:
    """Reacher in three dimensions."""

    def test_agents_have_their_colours_and_the_simulation_s_model_keeps_its_own(self, reacher):
        model = reacher.scene.model
        rgba = {name: model.geom_rgba[model.geom(name).id] for name in ("link0", "link1", "target")}
        for name, colour in (("link0", CYCLE[0]), ("link1", CYCLE[1]), ("target", "#999999")):
            assert bytes(np.round(rgba[name][:3] * 255).astype(np.uint8)).hex() == colour[1:].lower()
        own = ROBOTS["reacher"].model("v5")
        assert not np.allclose(own.geom_rgba[own.geom("link0").id], rgba["link0"])
        assert reacher.scene.seconds == pytest.approx(0.02)

    def test_a_page_shows_every_body_where_it_is(self, reacher, episode):
        qpos = np.asarray(reacher.scene.qpos(episode[0]))
        page = scenes.played(reacher.scene, qpos)
        model = reacher.scene.model
        assert sum(map(len, page["geoms"].values())) == model.ngeom
        assert page["geoms"]["body1"][0]["link_idx"] == model.body("body1").id - 1
        for angle, state in zip((0, 1, 2), page["states"]["x"], strict=True):
            elbow = state["pos"][model.body("body1").id - 1]
            np.testing.assert_allclose(elbow, [0.1 * np.cos(angle), 0.1 * np.sin(angle), 0.01], atol=1e-4)
        assert "viewer" in scenes.viewer(reacher, qpos)

    def test_pages_need_brax(self, reacher, monkeypatch):
        monkeypatch.setattr(scenes, "find_spec", lambda package: None)
        with pytest.raises(ValueError, match=r"html film needs brax, .*; pip install 'hajax\[brax\]'"):
            scenes.viewer(reacher, np.zeros((1, 4)))

    def test_mujoco_s_pictures_show_the_agents(self, reacher, episode):
        try:
            env = scenes.rendered(reacher)
        except ValueError:
            pytest.skip("this machine has no OpenGL")
        axes = Figure().add_subplot()
        states, shown = episode
        env.draw(axes, jax.tree.map(lambda x: x[1], states), np.zeros((2, 1)), shown)
        pixels = axes.images[0].get_array().astype(int)
        blue, red = (pixels[..., 2] - pixels[..., 0] > 40), (pixels[..., 0] - pixels[..., 2] > 40)
        assert blue.sum() > 200
        assert red.sum() > 200

    def test_without_opengl_one_line_says_so_and_auto_draws(self, reacher, monkeypatch):
        def broken(*arguments):
            raise RuntimeError("no display\nat all")

        monkeypatch.setattr(mujoco_s, "Renderer", broken)
        with pytest.raises(ValueError, match=r"MuJoCo cannot render here \(no display\); allowed: drawing, or a "):
            scenes.drawn(reacher, "mujoco")
        assert scenes.drawn(reacher, "auto").draw is reacher.draw

    def test_drawings_of_a_robot_far_away_are_no_wider(self):
        env = hajax.make_env("mamujoco/half_cheetah_2x3")
        limits = []
        for place in (0.0, 100.0):
            axes = Figure().add_subplot()
            qpos = jnp.zeros(9).at[0].set(place)
            physics = PhysicsState(qpos, jnp.zeros(9), jnp.zeros(9))
            state = RobotState(MujocoState(physics, jnp.zeros(())), jnp.zeros((), int))
            env.draw(axes, state, None, SimpleNamespace(reward=np.zeros(2)))
            limits.append(axes.get_xlim())
            assert f"{place:.0f}" in [label.get_text() for label in axes.get_xticklabels()]
        assert limits[0] == limits[1]
