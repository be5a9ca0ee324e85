"""Replay: what is sampled is what a list of all transitions says, n steps summed by a naive loop, over mixed ends."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest

from hajax.core.off_policy.joint_critics import discounted
from hajax.envs.base import concatenate_observations, timestep
from hajax.spaces import Box, Discrete
from hajax.training import replay as replays

NUM_ENVS, CAPACITY = 3, 17
SPEC = dataclasses.replace(problems.make_spec([Discrete(3), Box((-1.0,), (3.0,))], sizes=(2, 4)), reward="individual")
FIELDS = ("observation", "state", "active", "action_mask")


def shown(rng: np.random.Generator, serial: np.ndarray):
    """A timestep `[E]` of random contents whose first observation entry is a serial number."""
    observation = rng.normal(size=(NUM_ENVS, SPEC.num_agents, SPEC.observation_size)) * SPEC.observation_mask
    observation[:, 0, 0] = serial
    mask = rng.random((NUM_ENVS, *SPEC.action_layout.choices.shape)) < 0.5
    active = rng.random((NUM_ENVS, SPEC.num_agents)) < 0.7
    state = rng.normal(size=(NUM_ENVS, SPEC.state_size))
    return {"observation": observation, "state": state, "active": active, "action_mask": mask}


class Naive:
    """Every transition of every environment, and which rows its ring of `CAPACITY` would still hold."""

    def __init__(self):
        self.steps = [[] for _ in range(NUM_ENVS)]
        self.heads = np.zeros(NUM_ENVS, int)

    def add(self, seen, action, reward, terminated, truncated, final):
        for e in range(NUM_ENVS):
            row = {name: seen[name][e] for name in FIELDS} | {"row": self.heads[e]}
            row |= {f"final_{name}": final[name][e] for name in FIELDS}
            row |= {"action": action[e], "reward": reward[e], "terminated": terminated[e], "truncated": truncated[e]}
            self.steps[e].append(row)
        self.heads += 1 + (terminated | truncated)

    @property
    def oldest(self) -> int:
        """The first step whose row no environment has overwritten, or will have once its next row is."""
        worlds = zip(self.steps, self.heads, strict=True)
        held = [[step["row"] > head - CAPACITY for step in steps] for steps, head in worlds]
        return int(np.argmax(np.all(held, 0)))

    def transition(self, env: int, first: int, num_steps: int) -> dict:
        rewards, k = np.zeros((num_steps, SPEC.num_agents)), 0
        for k in range(1, num_steps + 1):
            step = self.steps[env][first + k - 1]
            rewards[k - 1] = step["reward"]
            if step["terminated"] or step["truncated"]:
                break
        start = self.steps[env][first]
        result = {name: start[name] for name in (*FIELDS, "action")}
        result |= {f"final_{name}": step[f"final_{name}"] for name in FIELDS}
        return result | {"reward": rewards, "steps": k, "terminated": step["terminated"]}


add = jax.jit(replays.add)


@functools.cache
def sampler(num_steps):
    return jax.jit(lambda replay, key: replays.sample(SPEC, replay, key, (2, 300), num_steps))


@functools.cache
def filled(num_steps: int, ends: float, seed: int = 0):
    """A replay and its naive double after `num_steps` steps, of which a share `ends` ends an episode."""
    rng, naive, replay = np.random.default_rng(seed), Naive(), replays.init_replay(SPEC, NUM_ENVS, CAPACITY)
    ts = jax.jit(jax.vmap(functools.partial(timestep, SPEC)))
    serial = np.arange(NUM_ENVS)
    seen = shown(rng, serial)
    for _ in range(num_steps):
        terminated = rng.random(NUM_ENVS) < ends / 2
        truncated = ~terminated & (rng.random(NUM_ENVS) < ends / 2)
        action = rng.normal(size=(NUM_ENVS, SPEC.num_agents, SPEC.num_components))
        reward = rng.normal(size=(NUM_ENVS, SPEC.num_agents))
        final, opening = shown(rng, serial + NUM_ENVS), shown(rng, serial + 2 * NUM_ENVS)
        done = terminated | truncated
        after = {name: np.array([(opening if d else final)[name][e] for e, d in enumerate(done)]) for name in FIELDS}
        serial = serial + NUM_ENVS * (1 + done)
        arrays = {"reward": reward, "terminated": terminated, "truncated": truncated}
        before, last = ts(seen["observation"], seen["state"]), ts(final["observation"], final["state"])
        before = before._replace(**{name: jnp.asarray(seen[name]) for name in FIELDS})
        last_step = last.final._replace(**{name: jnp.asarray(final[name]) for name in FIELDS})
        last = last._replace(**{name: jnp.asarray(after[name]) for name in FIELDS}, **arrays, final=last_step)
        replay = add(replay, before, jnp.asarray(action), last)
        naive.add(seen, action, reward, terminated, truncated, final)
        seen = after
    return replay, naive


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("ends", [0.0, 0.2, 0.6, 1.0])
@pytest.mark.parametrize("num_steps", [1, 3, 7])
def test_samples_are_the_transitions_of_a_naive_list(ends, num_steps):
    """From the first possible moment until the ring has been written several times."""
    for stored in (num_steps, 9, 23, 60):
        if stored < num_steps:
            continue
        replay, naive = filled(stored, ends)
        assert (int(replay.oldest), int(replay.steps)) == (naive.oldest, stored)
        last = stored - num_steps
        if last < naive.oldest:
            continue
        batch = jax.device_get(sampler(num_steps)(replay, jax.random.key(stored)))
        drawn = set()
        where = {steps[k]["observation"][0, 0]: (e, k) for e, steps in enumerate(naive.steps) for k in range(stored)}
        for p, b in np.ndindex(2, 300):
            env, first = where[batch.observation[p, b, 0, 0]]
            drawn.add((env, first))
            for name, expected in naive.transition(env, first, num_steps).items():
                np.testing.assert_array_equal(getattr(batch, name)[p, b], expected, err_msg=name)
        # 600 draws from at most 3 · 17: each is missed with a probability of e^−11.
        assert drawn == {(e, k) for e in range(NUM_ENVS) for k in range(naive.oldest, last + 1)}


def test_sampling_is_uniform():
    replay, naive = filled(23, 0.2)
    batch = replays.sample(SPEC, replay, jax.random.key(0), (1, 60_000), 1)
    _, counts = np.unique(batch.observation[0, :, 0, 0], return_counts=True)
    expected = 60_000 / len(counts)
    assert len(counts) == NUM_ENVS * (23 - naive.oldest)
    chi_square = np.sum((counts - expected) ** 2 / expected)
    assert chi_square < len(counts) + 4 * np.sqrt(2 * len(counts))


@pytest.mark.parametrize("discount", [0.0, 0.9, 1.0])
def test_targets_equal_a_naive_sum(discount):
    replay, _ = filled(40, 0.3)
    batch = jax.tree.map(lambda x: x[0], replays.sample(SPEC, replay, jax.random.key(0), (1, 200), 4))
    value = np.random.default_rng(0).normal(size=(2, 200))
    target = discounted(batch, jnp.asarray(value), discount)
    for b, agent in np.ndindex(200, 2):
        k, expected = int(batch.steps[b]), 0.0
        for j in range(k):
            expected += discount**j * float(batch.reward[b, j, agent])
        expected += 0.0 if batch.terminated[b] else discount**k * value[agent, b]
        np.testing.assert_allclose(target[agent, b], expected, 0, 1e-12)
    np.testing.assert_allclose(discounted(batch, jnp.asarray(value[:1]), discount)[0], target[0], 0, 0)


def test_a_replay_keeps_nothing_that_it_can_make_up():
    """The state that is the observations, masks that allow everything, and a team's reward more than once."""
    lean = dataclasses.replace(SPEC, reward="team", masks_actions=False, state_from_observations=True, state_size=6)
    full, small = (jax.eval_shape(lambda s=s: replays.init_replay(s, 2, 10)) for s in (SPEC, lean))
    assert (small.rows.state, small.rows.action_mask, small.rows.reward.shape) == (None, None, (20, 1))
    assert (full.rows.state.shape, full.rows.reward.shape) == ((20, SPEC.state_size), (20, 2))
    replay = replays.init_replay(lean, 2, 10)
    assert replays.replay_bytes(lean, 2, 10) == sum(x.nbytes for x in jax.tree.leaves(replay))
    observation = np.random.default_rng(0).normal(size=(2, 2, 4)) * SPEC.observation_mask
    seen = jax.vmap(functools.partial(timestep, lean))(observation, concatenate_observations(lean, observation))
    after = seen._replace(reward=jnp.full((2, 2), 5.0))
    replay = replays.add(replay, seen, jnp.ones((2, 2, 1)), after)
    batch = replays.sample(lean, replay, jax.random.key(0), (1, 8), 1)
    np.testing.assert_array_equal(batch.state, concatenate_observations(lean, batch.observation))
    np.testing.assert_array_equal(batch.reward, jnp.full((1, 8, 1, 2), 5.0))
    assert batch.action_mask.shape == (1, 8, *lean.action_layout.choices.shape)
    np.testing.assert_array_equal(batch.action_mask[0, 0], lean.action_layout.choices)


@pytest.mark.parametrize("ends", [0.0, 0.6])
@pytest.mark.parametrize("stored", [9, 23, 60])
def test_ended_episodes_are_truncated_with_their_final_observations(ends, stored):
    """After `end_episodes` the last step of every environment is the last of its episode, and nothing else changes."""
    replay, naive = filled(stored, ends)
    replay = jax.jit(replays.end_episodes)(replay)
    for e, steps in enumerate(naive.steps):
        went_on = not (steps[-1]["terminated"] or steps[-1]["truncated"])
        steps = naive.steps[e] = [*steps[:-1], steps[-1] | {"truncated": steps[-1]["truncated"] or went_on}]
        naive.heads = naive.heads + went_on * (np.arange(NUM_ENVS) == e)
    try:
        np.testing.assert_array_equal(replay.head, naive.heads)
        # The next step begins an episode, and must not be taken for what followed the last one.
        rng, ts = np.random.default_rng(1), jax.jit(jax.vmap(functools.partial(timestep, SPEC)))
        serial = 10_000 + np.arange(NUM_ENVS)
        seen, final = shown(rng, serial), shown(rng, serial + NUM_ENVS)
        no, action = np.zeros(NUM_ENVS, bool), rng.normal(size=(NUM_ENVS, SPEC.num_agents, SPEC.num_components))
        reward = rng.normal(size=(NUM_ENVS, SPEC.num_agents))
        arrays = {"reward": reward, "terminated": no, "truncated": no}
        before = ts(seen["observation"], seen["state"])._replace(**{name: jnp.asarray(seen[name]) for name in FIELDS})
        after = ts(final["observation"], final["state"])
        after = after._replace(**arrays, final=after.final._replace(**{k: jnp.asarray(final[k]) for k in FIELDS}))
        replay = add(replay, before, jnp.asarray(action), after)
        naive.add(seen, action, reward, no, no, final)
        batch = jax.device_get(sampler(3)(replay, jax.random.key(stored)))
        assert (int(replay.oldest), int(replay.steps)) == (naive.oldest, stored + 1)
        every = range(stored + 1)
        where = {steps[k]["observation"][0, 0]: (e, k) for e, steps in enumerate(naive.steps) for k in every}
        drawn = set()
        for p, b in np.ndindex(2, 300):
            env, first = where[batch.observation[p, b, 0, 0]]
            drawn.add(first)
            for name, expected in naive.transition(env, first, 3).items():
                np.testing.assert_array_equal(getattr(batch, name)[p, b], expected, err_msg=name)
        assert drawn == set(range(naive.oldest, stored - 1))
    finally:
        filled.cache_clear()  # its doubles were changed
