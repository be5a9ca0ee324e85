"""The particle tasks against mpe2, the implementation that published curves were measured on.

Both start from the same states and take the same actions, continuous ones in and out of their bounds. mpe2 runs in
float64 NumPy, one episode at a time; hajax runs all episodes at once.
"""

import functools
import importlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pettingzoo.utils.conversions import parallel_wrapper_fn
from pettingzoo.utils.env_logger import EnvLogger

from hajax.envs import make_env
from hajax.spaces import Box, Discrete

MAX_STEPS = 25
MODULES = {
    "mpe/simple_spread": "mpe2.simple_spread_v3",
    "mpe/simple_reference": "mpe2.simple_reference_v3",
    "mpe/simple_speaker_listener": "mpe2.simple_speaker_listener_v4",
}


class Case(NamedTuple):
    """Every environment plays `num_episodes`, one after the other through the automatic reset."""

    name: str
    actions: str
    reward: str
    num_envs: int = 50
    num_episodes: int = 2
    options: tuple = ()

    def __str__(self):
        return "-".join([self.name, self.actions, self.reward, *(f"{key}={value}" for key, value in self.options)])


CASES = [
    Case("mpe/simple_spread", "discrete", "team"),
    Case("mpe/simple_spread", "continuous", "individual"),
    Case("mpe/simple_reference", "discrete", "individual"),
    Case("mpe/simple_reference", "continuous", "team"),
    Case("mpe/simple_speaker_listener", "discrete", "team"),
    Case("mpe/simple_speaker_listener", "continuous", "individual"),
    Case("mpe/simple_spread", "discrete", "individual", 10, 2, (("num_agents", 5),)),
    Case("mpe/simple_spread", "continuous", "team", 10, 2, (("num_agents", 5), ("local_ratio", 0.2))),
    Case("mpe/simple_spread", "continuous", "individual", 3, 1, (("num_agents", 1),)),
    Case("mpe/simple_reference", "discrete", "individual", 5, 1, (("local_ratio", 0.9),)),
]


@pytest.fixture(autouse=True)
def quiet_mpe2(monkeypatch):
    """mpe2 logs a warning at every action that it clips, which takes longer than its step."""
    monkeypatch.setattr(EnvLogger, "warn_action_out_of_bound", lambda **_: None)


def random_actions(env, rng, num_steps, num_envs, dtype=np.float32):
    """`[T, E, N, D]`: uniform choices; Box components from [−0.7, 1.7], so that most vectors leave the bounds."""
    layout = env.spec.action_layout
    index = rng.integers(0, layout.choices.sum(-1), (num_steps, num_envs, *layout.discrete.shape))
    real = rng.uniform(-0.7, 1.7, index.shape)
    return np.where(layout.discrete, index, real).astype(dtype)


def roll_out(env, actions, seed=0):
    """All environments at once: the opening `(state, timestep)` `[E]`, and those after every step `[T, E]`."""

    @jax.jit
    def run(key, actions):
        reset_key, step_key = jax.random.split(key)
        opening = jax.vmap(env.reset)(jax.random.split(reset_key, actions.shape[1]))

        def step(state, inputs):
            keys, action = inputs
            state, timestep = jax.vmap(env.step)(keys, state, action)
            return state, (state, timestep)

        keys = jax.random.split(step_key, actions.shape[:2])
        return opening, jax.lax.scan(step, opening[0], (keys, actions))[1]

    return jax.tree.map(np.asarray, run(jax.random.key(seed), jnp.asarray(actions)))


@functools.cache
def our_episodes(case):
    """The environment of a case, its actions, and the roll-out with them."""
    env = make_env(case.name, actions=case.actions, reward=case.reward, **dict(case.options))
    actions = random_actions(env, np.random.default_rng(7), case.num_episodes * MAX_STEPS, case.num_envs)
    return env, actions, roll_out(env, actions)


def make_mpe2(case, clip=True):
    """mpe2's task with the options of the case; without `clip`, without the wrapper that clips actions."""
    renamed = {"num_agents": "N", "local_ratio": "local_ratio"}
    own = {renamed[key]: value for key, value in case.options}
    module = importlib.import_module(MODULES[case.name])
    build = module.parallel_env if clip else parallel_wrapper_fn(module.raw_env)
    return build(max_cycles=MAX_STEPS, continuous_actions=case.actions == "continuous", **own)


def set_world(reference, state):
    """Puts mpe2's world into the state of ours. In ours a goal belongs to the agent that should go there."""
    world = reference.unwrapped.world
    for entity, position in zip(world.entities, np.asarray(state.p_pos, np.float64), strict=True):
        entity.state.p_pos = position.copy()
        entity.state.p_vel = np.zeros(2)
    if state.goal is not None:
        goals = list(state.goal) if state.goal.ndim else [None, state.goal]
        for agent, goal in zip(world.agents, goals[::-1], strict=True):
            if goal is not None:
                agent.goal_b = world.landmarks[int(goal)]


def play_mpe2(reference, spec, state, actions):
    """One episode of mpe2 from `state` with `actions` `[T, N, D]`, until it says that it is over.

    Returns the observations of every step including the first, rewards `[steps, N]`, and the truncation and
    termination flags of every step.
    """
    reference.reset(seed=0)
    set_world(reference, state)
    assert [agent.name for agent in spec.agents] == reference.possible_agents
    observations = [[reference.aec_env.observe(agent.name) for agent in spec.agents]]
    rewards, truncated, terminated = [], [], []
    for action in actions:
        chosen = {}
        for agent, row in zip(spec.agents, action, strict=True):
            own = row[: agent.action_space.num_components]
            chosen[agent.name] = int(own[0]) if agent.action_space.choices else own.copy()
        shown, reward, termination, truncation, _ = reference.step(chosen)
        observations.append([shown[agent.name] for agent in spec.agents])
        rewards.append([reward[agent.name] for agent in spec.agents])
        truncated.append(all(truncation.values()))
        terminated.append(any(termination.values()))
        if not reference.agents:
            break
    return observations, np.array(rewards), truncated, terminated


def unpadded(spec, observation):
    return [row[: agent.observation_size] for agent, row in zip(spec.agents, observation, strict=True)]


def assert_close(ours, theirs, tolerance=1e-4):
    for own, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(own, other, rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_spaces_are_those_of_mpe2(case):
    env, _, _ = our_episodes(case)
    reference = make_mpe2(case)
    for agent in env.spec.agents:
        theirs = reference.action_space(agent.name)
        if case.actions == "discrete":
            assert agent.action_space == Discrete(int(theirs.n))
        else:
            assert agent.action_space == Box(tuple(theirs.low), tuple(theirs.high))
        assert agent.observation_shape == reference.observation_space(agent.name).shape


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_episode_is_that_of_mpe2(case):
    env, actions, ((state, opening), (states, steps)) = our_episodes(case)
    reference = make_mpe2(case)
    first_observations, own_rewards = [], []
    for e in range(case.num_envs):
        for begin in range(0, len(actions), MAX_STEPS):
            start = jax.tree.map(lambda x, e=e: x[e], state)
            shown = opening.observation[e]
            if begin:
                start = jax.tree.map(lambda x, e=e, t=begin - 1: x[t, e], states)
                shown = steps.observation[begin - 1, e]
            observations, rewards, truncated, terminated = play_mpe2(reference, env.spec, start, actions[begin:, e])

            # Lengths and flags: mpe2 has stopped by itself; our episode ends at that step and not before.
            length = len(rewards)
            window = slice(begin, begin + length)
            assert length == MAX_STEPS
            assert steps.truncated[window, e].tolist() == truncated == [False] * (length - 1) + [True]
            assert steps.terminated[window, e].tolist() == terminated == [False] * length
            assert steps.first[window, e].tolist() == truncated

            assert_close(unpadded(env.spec, shown), observations[0])
            for t, theirs in enumerate(observations[1:], start=begin):
                assert_close(unpadded(env.spec, steps.final.observation[t, e]), theirs)
                if t < begin + length - 1:
                    assert_close(unpadded(env.spec, steps.observation[t, e]), theirs)
            # Their rewards are the agents' own; the team's is the sum, given to all.
            given = rewards if case.reward == "individual" else rewards.sum(-1, keepdims=True) + np.zeros_like(rewards)
            np.testing.assert_allclose(steps.reward[window, e], given, rtol=0, atol=1e-4)
            first_observations.append(np.concatenate(observations[0]))
            own_rewards.append(rewards)
    assert len(own_rewards) == case.num_envs * case.num_episodes
    assert_varied(case, first_observations, np.array(own_rewards), state.goal, actions)


def assert_varied(case, first_observations, own_rewards, goals, actions):
    """The episodes exercise what they are to compare: different starts, collisions, goals, actions out of bounds."""
    if case.num_envs < 10:
        return
    starts = np.unique(np.round(first_observations, 3), axis=0)
    assert len(starts) == len(first_observations)
    assert np.abs(own_rewards).min() > 0
    if case.actions == "continuous":
        assert 0.4 < np.mean((actions < 0) | (actions > 1)) < 0.8
    if case.name == "mpe/simple_spread":
        # Collisions are what makes the agents' own rewards differ.
        assert np.mean(np.ptp(own_rewards, axis=-1) > 0) > 0.02
    if goals is not None:
        assert set(np.ravel(goals)) == {0, 1, 2}


@pytest.mark.parametrize("name", MODULES)
def test_rewards_agree_to_1e_9_in_float64(name):
    """What differs in float32 is rounding: mpe2 computes in float64, and there we compute the same."""
    case = Case(name, "continuous", "individual")
    with jax.enable_x64(True):
        env = make_env(name, actions="continuous", reward="individual")
        actions = random_actions(env, np.random.default_rng(3), MAX_STEPS, 10, np.float64)
        (state, _), (_, steps) = roll_out(env, actions)
    reference = make_mpe2(case)
    assert steps.reward.dtype == steps.observation.dtype == np.float64
    for e in range(actions.shape[1]):
        start = jax.tree.map(lambda x, e=e: x[e], state)
        _, rewards, _, _ = play_mpe2(reference, env.spec, start, actions[:, e])
        np.testing.assert_allclose(steps.reward[:, e], rewards, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("case", "clip", "spoil", "swap_goals"),
    [
        pytest.param(CASES[1], False, np.copy, False, id="actions as they are"),
        pytest.param(CASES[0], True, lambda actions: actions % 4 + 1, False, id="other directions"),
        pytest.param(CASES[2], True, lambda actions: actions % 5 * 10 + actions // 5, False, id="other encoding"),
        pytest.param(CASES[2], True, np.copy, True, id="goals of the other agent"),
        pytest.param(CASES[4], True, lambda actions: np.roll(actions, 1, axis=0), False, id="a step late"),
    ],
)
def test_the_comparison_notices_other_semantics(case, clip, spoil, swap_goals):
    """What the comparison above finds equal is no triviality: mpe2 played otherwise differs in most episodes."""
    env, actions, ((state, _), (_, steps)) = our_episodes(case)
    reference = make_mpe2(case, clip)
    differing = 0
    for e in range(10):
        start = jax.tree.map(lambda x, e=e: x[e], state)
        start = start.replace(goal=start.goal[::-1]) if swap_goals else start
        observations, _, _, _ = play_mpe2(reference, env.spec, start, spoil(actions[:MAX_STEPS, e]))
        own = [unpadded(env.spec, observation) for observation in steps.final.observation[:MAX_STEPS, e]]
        pairs = [(a, b) for x, y in zip(own, observations[1:], strict=True) for a, b in zip(x, y, strict=True)]
        differing += any(np.abs(a - b).max() > 1e-2 for a, b in pairs)
    assert differing >= 5


@pytest.mark.parametrize("name", MODULES)
def test_resets_are_uniform_as_in_mpe2(name):
    """Positions uniform in [−1, 1]², goals uniform and independent, velocities and messages zero."""
    env, _, _ = our_episodes(next(case for case in CASES if case.name == name))
    state, timestep = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(11), 4000))
    positions = np.asarray(state.p_pos)
    assert -1 <= positions.min() < -0.999
    assert 0.999 < positions.max() <= 1
    # Five standard errors of each entity's mean and mean square.
    np.testing.assert_allclose(positions.mean(0), 0, atol=5 * np.sqrt(1 / 3 / 4000))
    np.testing.assert_allclose((positions**2).mean(0), 1 / 3, atol=5 * np.sqrt(4 / 45 / 4000))
    assert not np.any(state.p_vel)
    assert not np.any(state.c)
    assert timestep.first.all()
    if state.goal is not None:
        goals = np.asarray(state.goal).reshape(4000, -1)
        joint = goals @ 3 ** np.arange(goals.shape[1])
        share = 1 / 3 ** goals.shape[1]
        frequencies = np.bincount(joint, minlength=3 ** goals.shape[1]) / 4000
        np.testing.assert_allclose(frequencies, share, atol=5 * np.sqrt(share / 4000))


def test_environment_state_holds_what_the_world_holds():
    """Positions, velocities and messages of those that have them, and each agent's own goal."""
    env = make_env("mpe/simple_reference", state="environment", max_steps=2)
    assert env.spec.state_size == 2 * 5 + 2 * 2 + 10 * 2 + 3 * 2
    inner, timestep = jax.jit(env.reset)(jax.random.key(0))
    inner, timestep = jax.jit(env.step)(jax.random.key(1), inner, jnp.array([[2.0 + 5 * 3], [0.0 + 5 * 9]]))
    positions, velocities, messages, goals = jnp.split(timestep.state, [10, 14, 34])
    np.testing.assert_array_equal(positions, inner.p_pos.ravel())
    np.testing.assert_allclose(velocities, [0.5, 0.0, 0.0, 0.0])
    assert np.flatnonzero(messages).tolist() == [3, 10 + 9]
    np.testing.assert_array_equal(goals.reshape(2, 3).argmax(-1), inner.goal)
    # The first agent sees the color of the second agent's goal.
    assert timestep.observation[0, 8:11].argmax() == inner.goal[1]
    assert make_env("mpe/simple_speaker_listener", state="environment").spec.state_size == 2 * 5 + 2 + 3 + 3
    assert make_env("mpe/simple_spread", state="environment", num_agents=4).spec.state_size == 2 * 8 + 2 * 4
