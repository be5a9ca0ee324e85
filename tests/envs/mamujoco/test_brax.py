"""MAMuJoCo's robots in brax's physics: the same robots that brax has, under our partitions."""

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
from brax.envs import get_environment
from brax.envs.half_cheetah import Halfcheetah
from brax.envs.humanoid import Humanoid

import hajax
from hajax.envs import mamujoco
from hajax.envs.mamujoco.in_brax import COUNTERPARTS, in_brax
from hajax.envs.mamujoco.models import without_log

pytestmark = pytest.mark.filterwarnings("ignore:Brax System")


def brax_environment(name, backend):
    with without_log():
        return get_environment(name, backend=backend)


def test_nothing_is_left_in_the_working_directory(tmp_path, monkeypatch):
    """MuJoCo would write its warnings there."""
    monkeypatch.chdir(tmp_path)
    hajax.make_env("mamujoco/humanoid_9_8", physics="brax-spring")
    hajax.make_env("mamujoco/humanoid_9_8")
    assert list(tmp_path.iterdir()) == []


def test_brax_s_robots_are_the_ones_it_has():
    refused = {
        "many_agent_swimmer_10x2": "auto, mujoco, faithful, fast",
        "swimmer_2x1": "auto, mujoco, faithful, fast, brax-generalized",
    }
    for name, allowed in refused.items():
        with pytest.raises(
            ValueError,
            match=rf"'brax-spring' of mamujoco/{name}, which brax does not have with this robot; allowed: {allowed}$",
        ):
            hajax.make_env(f"mamujoco/{name}", physics="brax-spring")


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


@pytest.mark.parametrize("robot", mamujoco.BACKENDS)
def test_brax_has_what_is_promised_and_nothing_else(robot):
    for backend in ("spring", "positional", "generalized", "mjx"):
        if backend in mamujoco.BACKENDS[robot]:
            assert brax_environment(COUNTERPARTS[robot].name, backend=backend).backend == backend
        else:
            with pytest.raises(ValueError, match="Unsupported backend"):
                brax_environment(COUNTERPARTS[robot].name, backend=backend)


@pytest.mark.parametrize(("robot", "scale"), [("humanoid", 2.5), ("half_cheetah", 1.0)])
def test_brax_gets_its_actions_in_its_own_units(robot, scale, monkeypatch):
    """Brax's humanoid takes actions in ±1 and makes controls in ±0.4 of them."""
    simulation = in_brax(robot, "spring")
    state = problems.zeros_of(jax.eval_shape(simulation.reset, jax.random.key(0))[0])
    size = simulation.anatomy.layout.sizes["observation"]

    def recording(self, before, action):
        return before.replace(obs=jnp.zeros(size), reward=action)

    for robots in (Humanoid, Halfcheetah):
        monkeypatch.setattr(robots, "step", recording)
    control = jnp.linspace(-0.4, 0.4, simulation.anatomy.model.nu)
    np.testing.assert_allclose(simulation.step(jax.random.key(0), state, control)[2], scale * control, rtol=1e-5)


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


def test_without_brax_one_line_says_so(monkeypatch):
    monkeypatch.setattr(mamujoco, "find_spec", lambda package: None if package == "brax" else package)
    with pytest.raises(ValueError, match=r"physics='brax-mjx' needs brax, not installed; pip install 'hajax\[brax\]'"):
        hajax.make_env("mamujoco/ant_4x2", physics="brax-mjx")
