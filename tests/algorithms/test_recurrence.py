"""Memory: resets, chunks, acting, and a game that cannot be solved without memory.

`test_exactness.py` compares updates with `reference_gru.py`.
"""

from __future__ import annotations

import functools
from typing import Any

import expected
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
from tiny import TINY_TRAINING

import hajax
from hajax.cli import main
from hajax.core.on_policy.compound_ratio import GroupPolicy
from hajax.core.on_policy.samples import group_samples
from hajax.core.on_policy.template import estimate, make_networks
from hajax.envs.base import Environment, timestep
from hajax.envs.batching import auto_reset, batched
from hajax.nn.memory import GRU, Memory, MemoryInput
from hajax.spaces import Box, Discrete
from hajax.spec import AgentSpec, EnvSpec
from hajax.training.checkpoints import read_checkpoint
from hajax.training.policy import Policy
from hajax.training.recording import record_episode
from hajax.training.rollout import rollout, start

TEAM = (Discrete(3), Box((-1.0, 0.0), (1.0, 5.0)))


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


# The recurrent unit.


@pytest.mark.usefixtures("float64")
def test_a_sequence_is_its_steps_one_after_another():
    """Including resets and inactive steps. The memory is 0 exactly at the start of an episode."""
    rng, gru = np.random.default_rng(0), GRU(5)
    x, h = jnp.asarray(rng.normal(size=(2, 3, 7, 4))), jnp.asarray(rng.normal(size=(2, 3, 5)))
    first, active = (jnp.asarray(rng.random((2, 3, 7)) < share) for share in (0.3, 0.6))
    params = gru.init(jax.random.key(0), x, MemoryInput(h, first, active))
    features, memory = gru.apply(params, x, MemoryInput(h, first, active))
    for t in range(7):
        one, after = gru.apply(params, x[:, :, t], MemoryInput(h, first[..., t], active[..., t]))
        np.testing.assert_allclose(features[:, :, t], one, 0, 1e-12)
        np.testing.assert_allclose(memory[:, :, t], after, 0, 1e-12)
        begun = np.asarray(first[..., t])
        fresh, _ = gru.apply(params, x[:, :, t], MemoryInput(jnp.zeros_like(h), ~first[..., t], active[..., t]))
        np.testing.assert_array_equal(one[begun], fresh[begun])
        kept = np.asarray(~first[..., t] & ~active[..., t])
        np.testing.assert_array_equal(after[kept], h[kept])
        h = after


class Custom(Memory):
    """A user's memory that violates the interface as `fault` says."""

    fault: str

    def initial_memory(self, batch_shape):
        return jnp.zeros((2, *batch_shape) if self.fault == "axes" else (*batch_shape, 2))

    @nn.compact
    def step(self, x, memory):
        if self.fault == "statistics":
            self.variable("batch_stats", "mean", jnp.zeros, ())
        features = nn.Dense(4)(x if self.fault != "batch" else x.reshape(-1))
        return features, memory.astype(complex) if self.fault == "dtype" else memory


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("axes", r"memory=Custom\(...\).initial_memory\(\(2, 3\)\) has shape \(2, 2, 3\); allowed: \(2, 3\), then"),
        ("statistics", r"memory=Custom\(...\) has variables batch_stats beside its parameters; allowed: parameters"),
        ("batch", r"memory=Custom\(...\) returns features of shape \(4,\); allowed: \(2, 3\) and one axis more"),
        (
            "dtype",
            r"memory=Custom\(...\) makes complex64\[2, 3, 2\] of float32\[2, 3, 2\]; allowed: a memory of the same",
        ),
    ],
)
def test_an_invalid_memory_is_refused(fault, message):
    with pytest.raises(ValueError, match=message):
        hajax.make_algorithm("happo", problems.make_spec(TEAM), memory=Custom(fault))


# Episodes.


def three_in_a_row(batch: Any) -> Any:
    """A rollout of one environment whose episodes end after steps 1, 3 and 5, the second one by truncation."""
    done = jnp.zeros_like(batch.terminated).at[jnp.array([1, 3, 5])].set(True)
    truncated = jnp.zeros_like(done).at[3].set(True)
    first = jnp.roll(done, 1, axis=0).at[0].set(False)  # it begins within an episode
    return batch._replace(terminated=done & ~truncated, truncated=truncated, first=first)


def side_by_side(batch: Any) -> Any:
    """The same episodes in separate environments, in which earlier memory must have no influence."""

    def split(x):
        return x.reshape(3, 2, *x.shape[2:]).swapaxes(0, 1)

    apart = jax.tree.map(split, batch._replace(memory=()))
    return apart._replace(memory=jnp.concatenate([batch.memory, 7 + batch.memory, batch.memory - 7]))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["happo", "hatrpo", "haa2c", "ippo"])
def test_an_update_over_several_episodes_equals_that_of_separate_episodes(name):
    spec = problems.make_spec(TEAM)
    settings = {"sharing": "none"} if name == "ippo" else {"order": "fixed"}
    long, short = (
        problems.make_algorithm(name, spec, memory="gru", chunk_length=steps, **settings) for steps in (6, 2)
    )
    state = problems.random_state(long, 0)
    batch = three_in_a_row(problems.random_batch(long, state, 0, num_envs=1, inactive=0.2))
    key = jax.random.key(0)
    together, info = jax.jit(long.update, compiler_options=problems.QUICK)(key, state, batch)
    apart, other = jax.jit(short.update, compiler_options=problems.QUICK)(key, state, side_by_side(batch))
    expected.assert_trees_close((together, info), (apart, other), 1e-9)
    blind = batch._replace(first=jnp.zeros_like(batch.first))  # a test of the test: the end of an episode is noticed
    wrong, _ = jax.jit(long.update, compiler_options=problems.QUICK)(key, state, blind)
    kernel = [s.actors.params["gru"]["kernel"] for s in (together, wrong)]
    assert float(jnp.abs(kernel[0] - kernel[1]).max()) > 1e-4


def counting(length: int) -> Environment:
    """Two agents that observe random numbers; episodes are truncated after `length` steps."""
    agents = tuple(AgentSpec(f"agent_{i}", (3,), space) for i, space in enumerate(TEAM))
    spec = EnvSpec("own/counting", agents, 4, length)

    def show(state, key, **fields):
        numbers = jax.random.normal(key, (10,))
        return state, timestep(spec, numbers[:6].reshape(2, 3), numbers[6:], **fields)

    def step(key, state, action):
        return show(state + 1, key, reward=jnp.arange(2.0), truncated=state + 1 >= length)

    return auto_reset(Environment(spec, lambda key: show(jnp.zeros((), int), key, first=True), step))


@functools.cache
def played() -> tuple[Any, Any, Any]:
    """An algorithm, its state, and a rollout by `act` that begins within an episode and contains ends of episodes."""
    env = counting(4)
    algo = problems.make_algorithm("happo", env.spec, memory="gru", chunk_length=3, normalize_values=False)
    state = problems.random_state(algo, 2)

    @jax.jit
    def play(state):
        envs = batched(env)
        actors = start(envs, algo, jax.random.key(0), 3)
        actors, _ = rollout(envs, algo, jax.random.key(1), state, actors, 2)
        return rollout(envs, algo, jax.random.key(2), state, actors, 9)[1]

    return algo, state, play(state)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("chunks", [False, True])
def test_ratios_start_at_one(chunks):
    """The update computes the distributions from which the rollout was sampled."""
    algo, state, batch = played()
    assert not batch.first[0].any()
    assert batch.first.sum() == 6
    assert float(jnp.abs(batch.memory).min(axis=(1, 2)).max()) > 0
    actors, critics = make_networks("happo", algo.spec, algo.settings, None, None)

    @jax.jit
    def log_ratios(batch):
        everyone = group_samples(actors, batch, estimate(critics, state, batch))
        ratios = []
        for i in range(2):
            tables, params, rows = jax.tree.map(lambda x, i=i: x[i], (actors.tables, state.actors.params, everyone))
            policy = GroupPolicy(actors, tables)
            ratios.append(policy.log_ratio(params, policy.samples_of(params, rows) if chunks else rows))
        return ratios

    for log_ratio in log_ratios(batch):
        assert log_ratio.shape == ((9, 3) if chunks else (3, 9))
        np.testing.assert_allclose(log_ratio, 0, 0, 1e-11)
    # A test of the test: any other memory is noticed.
    wrong = {
        "late": batch._replace(first=jnp.roll(batch.first, 1, axis=0)),
        "early": batch._replace(first=jnp.roll(batch.first, -1, axis=0)),
        "at once": batch._replace(first=batch.first.at[0].set(True)),
        "of another environment": batch._replace(memory=jnp.roll(batch.memory, 1, axis=0)),
        "of another agent": batch._replace(memory=jnp.roll(batch.memory, 1, axis=1)),
    }
    for name, other in wrong.items():
        assert all(np.abs(log_ratio).max() > 1e-4 for log_ratio in log_ratios(other)), name


@pytest.mark.usefixtures("float64")
def test_final_states_are_evaluated_with_the_memory_of_their_episode():
    """Inside an episode that is the value of the next step; at its end, the value if the episode had continued."""
    algo, state, batch = played()
    _, critics = make_networks("happo", algo.spec, algo.settings, None, None)
    of_rollout, learned = jax.jit(critics.of_rollout), state.critics.params
    value, final = of_rollout(learned, batch)
    inside = ~np.asarray(batch.truncated)[:-1]
    np.testing.assert_allclose(final[:-1][inside], value[1:][inside], 0, 1e-12)
    # If the episode continued, the next step would have the final state and `first` false.
    for t, e in zip(*np.nonzero(np.asarray(batch.truncated)[:-1]), strict=True):
        on = batch._replace(
            state=batch.state.at[t + 1, e].set(batch.final_state[t, e]), first=batch.first.at[t + 1, e].set(False)
        )
        gone_on, _ = of_rollout(learned, on)
        np.testing.assert_allclose(final[t, e], gone_on[t + 1, e], 0, 1e-12)
        assert abs(float(final[t, e, 0] - value[t + 1, e, 0])) > 1e-3


@pytest.mark.usefixtures("float64")
def test_who_is_not_alive_remembers_what_it_did():
    algo, state, batch = played()
    seen = timestep(algo.spec, batch.observation[0, 0], batch.state[0, 0], active=jnp.array([True, False]))
    before = batch.memory[0]
    _, _, after = algo.act(jax.random.key(0), state, seen, before)
    np.testing.assert_array_equal(after[1], before[1])
    assert float(jnp.abs(after[0] - before[0]).min()) > 0


def test_without_memory_nothing_is_stored_or_computed_for_it():
    """No recurrent parameters, no carried arrays, and fewer loops than with a memory."""
    loops = {}
    for memory in ("none", "gru"):
        algo = problems.make_algorithm("happo", problems.make_spec(TEAM), memory=memory, chunk_length=3)
        state = problems.random_state(algo, 0)
        batch = problems.random_batch(algo, state, 0)
        kept = jax.tree.leaves(algo.initial_memory((2,))), jax.tree.leaves(batch.memory)
        assert [len(leaves) for leaves in kept] == ([0, 0] if memory == "none" else [1, 1])
        recurrent = [
            path for path, _ in jax.tree.leaves_with_path(state) if "gru" in jax.tree_util.keystr(path).lower()
        ]
        assert bool(recurrent) == (memory == "gru")
        loops[memory] = str(jax.make_jaxpr(algo.update)(jax.random.key(1), state, batch)).count(" scan[")
    assert loops["none"] < loops["gru"]


# Chunks.


@pytest.mark.usefixtures("float64")
def test_chunks_change_the_gradient_and_nothing_else():
    """The losses before the first step are equal; back-propagation stops at the beginning of a chunk."""
    _, state, batch = played()
    results = {}
    for length in (9, 3, 1):
        one_pass = {"epochs": 1, "critic_epochs": 1, "normalize_values": False, "order": "fixed"}
        algo = problems.make_algorithm("happo", counting(4).spec, memory="gru", chunk_length=length, **one_pass)
        results[length] = jax.jit(algo.update, compiler_options=problems.QUICK)(jax.random.key(0), state, batch)
    whole, info = results[9]
    for length in (3, 1):
        new, other = results[length]
        for name in ("policy_loss", "entropy", "value_loss"):
            np.testing.assert_allclose(info[name][0], other[name][0], 0, 1e-10)
        for part in ("actors", "critics"):
            kernels = [getattr(s, part).optimizer.mu["gru"]["kernel"] for s in (whole, new)]
            assert float(jnp.abs(kernels[0] - kernels[1]).max() / jnp.abs(kernels[0]).max()) > 1e-4


@pytest.mark.usefixtures("float64")
def test_a_vmapped_seed_updates_as_the_seed_alone():
    algo = problems.make_algorithm("happo", problems.make_spec(TEAM), memory="gru", chunk_length=3, minibatches=2)
    states = [problems.random_state(algo, seed) for seed in range(2)]
    batches = [problems.random_batch(algo, state, seed, num_envs=2) for seed, state in enumerate(states)]
    keys = jax.random.split(jax.random.key(0), 2)
    stacked = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *zip(states, batches, strict=True))
    together = jax.jit(jax.vmap(algo.update), compiler_options=problems.QUICK)(keys, *stacked)
    alone = jax.jit(algo.update, compiler_options=problems.QUICK)
    for i in range(2):
        one = alone(keys[i], states[i], batches[i])
        expected.assert_trees_close(jax.tree.map(lambda x, i=i: x[i], together), one, 1e-10)


# Acting.


def test_evaluation_and_policies_carry_the_memory():
    """Both against `act` step by step. The memory decides, because the agents observe nothing when they must answer."""
    env = hajax.make_env("games/memory", delay=3, num_cues=4)
    algo = hajax.make_algorithm("happo", env, hidden_sizes=(8,), memory="gru", output_gain=5.0, layer_norm_min_inputs=1)
    state = jax.jit(algo.init)(jax.random.key(3))
    policy, record = Policy(algo, state), jax.jit(record_episode(env, algo))
    evaluate, act = jax.jit(hajax.make_evaluate(env, algo, num_episodes=1)), jax.jit(algo.act, static_argnums=4)
    reset, answers = jax.jit(env.reset), set()
    for seed in range(12):
        episode = record(jax.random.key(seed), state)
        memory, own = algo.initial_memory(()), policy.initial_memory()
        assert memory.shape == own.shape == (2, 8)
        _, seen = reset(jax.random.split(jax.random.split(jax.random.key(seed))[0], 1)[0])
        for t in range(4):
            action, _, memory = act(jax.random.key(0), state, seen, memory, True)
            np.testing.assert_array_equal(episode.action[t], action)
            given = {agent.name: np.asarray(seen.observation[i]) for i, agent in enumerate(env.spec.agents)}
            named, own = policy(given, own)
            assert list(named.values()) == np.asarray(action)[:, 0].astype(int).tolist()
            np.testing.assert_allclose(own, memory, 0, 1e-6)
            seen = jax.tree.map(lambda x, t=t: np.asarray(x)[t], episode.timestep)
        answers.add(tuple(action[:, 0].tolist()))
        scored = evaluate(jax.random.key(seed), state)
        assert scored["episode_return"][0] == pytest.approx(float(episode.reward.sum()))
    assert len(answers) > 1


@pytest.mark.parametrize("memory", ["gru", "none"])
def test_the_memory_game_is_solved_with_a_memory_and_not_without(memory):
    """The optimum is 1; without a memory every policy has 1/2 on average."""
    env = hajax.make_env("games/memory")
    algo = hajax.make_algorithm(
        "happo", env, hidden_sizes=(16,), memory=memory, chunk_length=12, actor_lr=5e-3, critic_lr=5e-3
    )
    train = hajax.make_train(env, algo, total_steps=64 * 12 * 60, num_envs=64, rollout_length=12)
    state, _ = jax.jit(train)(jax.random.key(0))
    results = jax.jit(hajax.make_evaluate(env, algo, num_episodes=1000))(jax.random.key(1), state)["episode_return"]
    if memory == "gru":
        assert results.min() == 1
    else:
        assert abs(results.mean() - 0.5) < 5 * 0.5 / np.sqrt(2 * 1000)


# On the command line.


@pytest.mark.usefixtures("shared_programs")
def test_a_resumed_run_with_memory_is_the_same_bit_for_bit(tmp_path):
    """It stops within episodes, so the checkpoint contains the memory."""
    settings = ["env=games/memory", "num_seeds=2", *TINY_TRAINING, "algo.memory=gru", "algo.chunk_length=4"]
    settings += ["eval_interval=32"]
    assert main(["train", *settings, "total_steps=96", f"out_dir={tmp_path / 'whole'}"]) == 0
    assert main(["train", *settings, "total_steps=64", f"out_dir={tmp_path / 'halves'}"]) == 0
    assert main(["train", f"out_dir={tmp_path / 'halves'}", "resume=true", "total_steps=96", "progress=false"]) == 0
    whole, halves = (read_checkpoint(tmp_path / name / "checkpoints") for name in ("whole", "halves"))
    assert whole.arrays == halves.arrays
    assert (tmp_path / "whole/metrics.csv").read_bytes() == (tmp_path / "halves/metrics.csv").read_bytes()
    memories = [entry for name, entry in whole.arrays.items() if name.startswith("train/actors/memory")]
    assert [entry["shape"] for entry in memories] == [[2, 4, 2, 8]]
    policy = hajax.load_policy(tmp_path / "halves")
    assert policy.initial_memory().shape == (2, 8)
