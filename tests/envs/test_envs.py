"""The environment contract, for every registered environment.

An environment joins the conformance table by its registry line. `environments.py` adds the options that one needs, and
further variants worth checking.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from environments import NAMES, OPTIONS, UNEVEN_PAYOFF, random_action

from hajax.envs import make_env
from hajax.envs.base import Environment, timestep
from hajax.envs.batching import auto_reset
from hajax.spaces import Discrete
from hajax.spec import AgentSpec, EnvSpec

CASES = [(name, i) for name in NAMES for i in range(len(OPTIONS.get(name, [{}])))]
NUM_ENVS = 3


@functools.cache
def roll_out(name, variant):
    """An environment and a roll-out of it: opening, timesteps `[T, E, …]`, actions; two episodes and a bit."""
    env = make_env(name, **OPTIONS.get(name, [{}])[variant])
    env = env._replace(reset=jax.jit(env.reset), step=jax.jit(env.step))

    @jax.jit
    def run(key):
        reset_key, scan_key = jax.random.split(key)
        state, opening = jax.vmap(env.reset)(jax.random.split(reset_key, NUM_ENVS))

        def step(state, key):
            action_key, step_key = jax.random.split(key)
            action = jax.vmap(random_action, (0, None))(jax.random.split(action_key, NUM_ENVS), env.spec)
            state, shown = jax.vmap(env.step)(jax.random.split(step_key, NUM_ENVS), state, action)
            return state, (shown, action)

        _, (steps, actions) = jax.lax.scan(step, state, jax.random.split(scan_key, 2 * env.spec.max_steps + 3))
        return opening, steps, actions

    return env, *jax.tree.map(np.asarray, run(jax.random.key(0)))


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]}")
def rolled(request):
    return roll_out(*request.param)


def test_shapes_and_dtypes_follow_the_spec(rolled):
    env, opening, steps, _ = rolled
    spec = env.spec
    expected = {
        "observation": ((spec.num_agents, spec.observation_size), np.float32),
        "state": (spec.state_shape, np.float32),
        "action_mask": ((spec.num_agents, spec.num_components, spec.num_choices), bool),
        "active": ((spec.num_agents,), bool),
        "reward": ((spec.num_agents,), np.float32),
        "terminated": ((), bool),
        "truncated": ((), bool),
        "first": ((), bool),
    }
    for shown, leading in ((opening, (NUM_ENVS,)), (steps, steps.first.shape)):
        for field, (shape, dtype) in expected.items():
            value = getattr(shown, field)
            assert (value.shape, value.dtype) == ((*leading, *shape), dtype), field
            if hasattr(shown.final, field):
                assert getattr(shown.final, field).shape == value.shape
        for value in jax.tree.leaves(shown):
            assert np.isfinite(value).all()
    assert jax.tree.structure(opening) == jax.tree.structure(steps)


def test_step_keeps_every_type_that_reset_has(rolled):
    """The carry of a scan: same tree, shapes, dtypes; in float64 too."""
    env, _, _, _ = rolled
    for x64 in (False, True):
        with jax.enable_x64(x64):
            opening = jax.eval_shape(env.reset, jax.random.key(0))
            action = jax.ShapeDtypeStruct((env.spec.num_agents, env.spec.num_components), jnp.result_type(float))
            later = jax.eval_shape(env.step, jax.random.key(0), opening[0], action)
            assert jax.tree.structure(opening) == jax.tree.structure(later)
            for a, b in zip(jax.tree.leaves(opening), jax.tree.leaves(later), strict=True):
                assert (a.shape, a.dtype) == (b.shape, b.dtype)


def test_padding_is_zero_and_masks_leave_a_choice(rolled):
    env, opening, steps, _ = rolled
    absent = ~env.spec.observation_mask
    for shown in (opening, steps, opening.final, steps.final):
        assert not np.any(shown.observation[..., absent])
        assert not np.any(shown.action_mask & ~env.spec.action_layout.choices)
        assert shown.action_mask.any(-1).all()


def test_padded_and_out_of_range_components_do_nothing(rolled):
    """What is beyond an agent's components has no effect; a Box component acts as if clipped to its bounds."""
    env, _, _, actions = rolled
    layout, (low, high) = env.spec.action_layout, env.spec.action_bounds
    own = layout.discrete | layout.continuous
    clean = np.where(own, np.clip(actions[0, 0], low, high), 0).astype(np.float32)
    dirty = np.where(own, actions[0, 0], 7).astype(np.float32)
    state, _ = env.reset(jax.random.key(1))
    assert_trees_equal(env.step(jax.random.key(2), state, dirty), env.step(jax.random.key(2), state, clean))


def test_functions_are_pure_and_vmap_changes_nothing(rolled):
    """Environment 1 of the roll-out alone, twice, with the same keys."""
    env, opening, steps, actions = rolled
    reset_key, scan_key = jax.random.split(jax.random.key(0))
    step_key = jax.random.split(jax.random.split(scan_key, len(actions))[0])[1]
    reset_key, step_key = (jax.random.split(key, NUM_ENVS)[1] for key in (reset_key, step_key))
    state, alone = env.reset(reset_key)
    assert_trees_equal(env.reset(reset_key), (state, alone))
    assert_trees_equal(alone, jax.tree.map(lambda x: x[1], opening), rtol=1e-6)
    later = env.step(step_key, state, actions[0, 1])
    assert_trees_equal(env.step(step_key, state, actions[0, 1]), later)
    assert_trees_equal(later[1], jax.tree.map(lambda x: x[0, 1], steps), rtol=1e-5)


def assert_trees_equal(first, second, rtol=0.0):
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


def test_automatic_reset(rolled):
    env, opening, steps, _ = rolled
    done = steps.terminated | steps.truncated
    assert opening.first.all()
    assert not (opening.terminated | opening.truncated).any()
    np.testing.assert_array_equal(steps.first, done)
    assert not (steps.terminated & steps.truncated).any()
    for field in ("observation", "state", "action_mask", "active"):
        shown, final = getattr(steps, field), getattr(steps.final, field)
        np.testing.assert_array_equal(shown[~done], final[~done])
    for e in range(NUM_ENVS):
        ends = np.flatnonzero(done[:, e])
        lengths = np.diff([-1, *ends])
        assert len(ends) >= 2
        assert lengths.max() <= env.spec.max_steps
        np.testing.assert_array_equal(lengths[steps.truncated[ends, e]], env.spec.max_steps)


def test_team_reward_is_the_same_for_all(rolled):
    env, _, steps, _ = rolled
    if env.spec.reward == "team":
        np.testing.assert_array_equal(steps.reward, np.broadcast_to(steps.reward[..., :1], steps.reward.shape))


@pytest.mark.parametrize("name", NAMES)
def test_state_of_observations_is_their_concatenation(name):
    options = {**OPTIONS.get(name, [{}])[0], "state": "observations"}
    env = make_env(name, **options)
    assert env.spec.name == name
    _, shown = jax.jit(env.reset)(jax.random.key(0))
    own = [shown.observation[i, : agent.observation_size] for i, agent in enumerate(env.spec.agents)]
    np.testing.assert_array_equal(shown.state, np.concatenate(own))
    np.testing.assert_array_equal(shown.final.state, shown.state)
    assert env.spec.state_size == sum(agent.observation_size for agent in env.spec.agents)


def test_automatic_reset_shows_the_new_episode_and_keeps_the_end_of_the_old():
    """With a key-dependent reset: the new opening is a fresh draw, `final` the old episode's own next step."""
    spec = EnvSpec("own/draw", (AgentSpec("one", (2,), Discrete(2)),), state_size=1, max_steps=2)

    def show(state, **fields):
        start, count = state
        return state, timestep(spec, jnp.stack([start, count])[None], count[None], **fields)

    def reset(key):
        return show((jax.random.uniform(key), jnp.zeros(())), first=True)

    def step(key, state, action):
        return show((state[0], state[1] + 1), reward=jnp.ones(1), truncated=state[1] >= 1)

    env = auto_reset(Environment(spec, reset, step))
    state, opening = env.reset(jax.random.key(0))
    state, middle = env.step(jax.random.key(1), state, jnp.zeros((1, 1)))
    state, last = env.step(jax.random.key(2), state, jnp.zeros((1, 1)))
    start = opening.observation[0, 0]
    assert middle.observation.tolist() == middle.final.observation.tolist() == [[start, 1.0]]
    assert last.final.observation.tolist() == [[start, 2.0]]
    assert last.final.state.tolist() == [2.0]
    assert last.observation[0, 1] == 0
    assert last.observation[0, 0] != start
    assert last.state.tolist() == [0.0]
    assert last.first
    assert last.truncated
    assert last.reward.tolist() == [1.0]
    _, following = env.step(jax.random.key(3), state, jnp.zeros((1, 1)))  # the new episode's
    assert following.observation.tolist() == [[last.observation[0, 0], 1.0]]
    assert not following.first
    assert not following.truncated


def test_padding_tables_of_speaker_and_listener():
    spec = make_env("mpe/simple_speaker_listener").spec
    assert [agent.name for agent in spec.agents] == ["speaker_0", "listener_0"]
    assert [agent.observation_size for agent in spec.agents] == [3, 11]
    assert spec.observation_mask.sum(-1).tolist() == [3, 11]
    assert not spec.observation_mask[0, 3:].any()
    assert spec.action_layout.choices.sum(-1).tolist() == [[3], [5]]
    assert spec.action_layout.discrete.all()
    assert (spec.max_steps, spec.state_size) == (25, 14)

    spec = make_env("mpe/simple_speaker_listener", actions="continuous").spec
    assert spec.action_layout.continuous.sum(-1).tolist() == [3, 5]
    assert not spec.has_discrete
    assert np.all(spec.action_layout.center[spec.action_layout.continuous] == 0.5)
    assert np.all(spec.action_layout.scale[spec.action_layout.continuous] == 0.5)


def test_padding_tables_of_an_uneven_matrix_game():
    spec = make_env("games/matrix", payoff=UNEVEN_PAYOFF).spec
    assert spec.action_layout.choices.sum(-1).tolist() == [[2], [3], [4]]
    assert [agent.action_space for agent in spec.agents] == [Discrete(2), Discrete(3), Discrete(4)]
