"""Off-policy training: joint actions in updates, exploration, the loop, and a problem with a known optimum."""

from __future__ import annotations

import dataclasses
import functools
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np
import off_policy_problems
import problems
import pytest
import reference_off_policy as reference
from tiny import TINY_OFF_POLICY

import hajax
from hajax.cli import main
from hajax.core.off_policy import deterministic
from hajax.envs.base import timestep
from hajax.envs.regulator import dynamics, linear_quadratic
from hajax.runs import memory
from hajax.runs.memory import SAVING, memory_warning, shown_bytes
from hajax.spaces import Box, Discrete, MultiDiscrete
from hajax.training.off_policy import plan_updates, random_action
from hajax.training.replay import end_episodes

SPACES = (Box((-1.0, 0.0), (2.0, 0.5)), Box((-np.inf,), (np.inf,)), Box((-3.0,), (4.0,)))
SIZES = (3, 2, 4)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


# The joint action in an agent's gradient.


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "others"), [("haddpg", "replay"), ("haddpg", "policy"), ("maddpg", "policy"), ("maddpg", "replay")]
)
def test_the_joint_action_has_new_actions_of_the_earlier_agents_only(name, others):
    """Earlier agents act by their new policies, later ones as `others` says; in MADDPG no action is new."""
    spec = problems.make_spec(SPACES, SIZES)
    algo = off_policy_problems.make_algorithm(name, spec, others=others)
    state = off_policy_problems.random_state(algo, 0)
    seen, score = [], deterministic.score

    def recording(critics, params, state, joint, samples, own):
        words = jax.lax.bitcast_convert_type(joint, jnp.uint32)
        jax.debug.callback(
            lambda agent, x: seen.append((int(agent), np.array(x).view(float)[..., 0])), samples.slot[0], words
        )
        return score(critics, params, state, joint, samples, own)

    orders = set()
    for seed in range(3):
        seen.clear()
        batch = off_policy_problems.random_batch(algo, seed)
        with unittest.mock.patch.object(deterministic, "score", recording):
            new, _ = jax.jit(lambda *args: algo.update(*args))(jax.random.key(seed), state, batch)
        jax.effects_barrier()
        rows = off_policy_problems.transitions(algo, batch, 0)
        boxes = [reference.Bounds(np.array(space.low), np.array(space.high)) for space in SPACES]
        teams = (off_policy_problems.read(algo, s).actors for s in (state, new))
        before, after = (
            [reference.policy(p.params, box, x)[0] for p, box, x in zip(team, boxes, rows.observation, strict=True)]
            for team in teams
        )
        replayed = [box.unit(a) for box, a in zip(boxes, rows.action, strict=True)]
        order = [agent for agent, _ in seen]
        orders.add(tuple(order))
        assert sorted(order) == [0, 1, 2]
        for position, (agent, joint) in enumerate(seen):
            earlier = order[:position] if name == "haddpg" else []
            for other in {0, 1, 2} - {agent}:
                expected = after[other] if other in earlier else (replayed if others == "replay" else before)[other]
                np.testing.assert_allclose(joint[:, other, : expected.shape[-1]], expected, 0, 1e-12)
            if earlier:
                assert all(np.abs(after[i] - before[i]).max() > 1e-4 for i in earlier)
    assert (len(orders) > 1) == (name == "haddpg")


# Acting.


def exploring(**settings):
    algo = off_policy_problems.make_algorithm("haddpg", problems.make_spec(SPACES, SIZES), **settings)
    state = jax.jit(algo.init)(jax.random.key(0))
    spec = algo.spec
    env = linear_quadratic(num_agents=3)
    _, ts = env.reset(jax.random.key(0))
    observation = jnp.asarray(np.random.default_rng(0).normal(size=(3, spec.observation_size)) * spec.observation_mask)
    return algo, state, ts._replace(observation=observation, first=jnp.zeros((), bool))


def test_gaussian_exploration_is_fresh_noise_in_units_of_the_bounds():
    algo, state, ts = exploring(exploration_noise=0.05)
    mode, _, _ = algo.act(jax.random.key(0), state, ts, (), True)
    keys = jax.random.split(jax.random.key(1), 4000)
    actions = jax.jit(jax.vmap(lambda key: algo.act(key, state, ts, ())[0]))(keys)
    owned, scale = algo.spec.action_layout.continuous, algo.spec.action_layout.scale
    noise = np.asarray((actions - mode) / scale)
    np.testing.assert_allclose(noise[:, owned].mean(0), 0, atol=0.005)
    np.testing.assert_allclose(noise[:, owned].std(0), 0.05, rtol=0.05)
    assert not np.asarray(actions)[:, ~owned].any()


def test_exploration_stays_within_bounds():
    algo, state, ts = exploring(exploration_noise=30.0)
    actions = jax.jit(jax.vmap(lambda key: algo.act(key, state, ts, ())[0]))(jax.random.split(jax.random.key(1), 500))
    for i, space in enumerate(SPACES):
        own = np.asarray(actions)[:, i, : space.num_components]
        assert (own >= np.array(space.low)).all()
        assert (own <= np.array(space.high)).all()
        if np.isfinite(space.low).all():
            assert {*np.unique(own.round(5))} >= {*space.low, *space.high}


def test_the_ou_process_remembers_and_forgets_at_the_end_of_an_episode():
    algo, state, ts = exploring(exploration="ou", exploration_noise=0.02, ou_rate=0.25)
    memory = algo.initial_memory(())
    assert memory.shape == (3, 2)
    noises, key = [], jax.random.key(3)
    for step in range(3000):
        _, _, memory = act(algo)(jax.random.fold_in(key, step), state, ts, memory)
        noises.append(np.asarray(memory))
    x = np.array(noises)[100:].reshape(-1, 6)
    # Stationary: variance σ²/(1 − (1 − θ)²), autocorrelation 1 − θ.
    np.testing.assert_allclose(x.std(0), 0.02 / np.sqrt(1 - 0.75**2), rtol=0.12)
    np.testing.assert_allclose((x[1:] * x[:-1]).mean(0) / x.var(0), 0.75, atol=0.06)
    opening = ts._replace(first=jnp.ones((), bool))
    one, other = (algo.act(jax.random.key(5), state, opening, m)[2] for m in (memory, 100 + memory))
    np.testing.assert_array_equal(one, other)
    kept = algo.act(jax.random.key(5), state, ts, memory, True)[2]
    np.testing.assert_array_equal(kept, memory)


@functools.cache
def act(algo):
    return jax.jit(lambda key, state, ts, memory: algo.act(key, state, ts, memory))


def test_random_actions_are_uniform_over_available_choices():
    spaces = (Discrete(4), Box((-1.0, 2.0), (3.0, 4.0)), MultiDiscrete((3, 2)), Box((-np.inf,), (np.inf,)))
    spec = problems.make_spec(spaces)
    mask = np.broadcast_to(spec.action_layout.choices, (20_000, *spec.action_layout.choices.shape)).copy()
    mask[:, 0, 0, 2] = False
    mask[:, 2, 1] = False  # no choice is available: then all are
    actions = np.asarray(random_action(spec, jax.random.key(0), jnp.asarray(mask)))
    for agent, component, choices in ((0, 0, (0, 1, 3)), (2, 0, (0, 1, 2)), (2, 1, (0, 1))):
        values, counts = np.unique(actions[:, agent, component], return_counts=True)
        np.testing.assert_array_equal(values, choices)
        np.testing.assert_allclose(counts / 20_000, 1 / len(choices), atol=0.015)
    for component, (low, high) in enumerate(((-1, 3), (2, 4))):
        x = actions[:, 1, component]
        assert low <= x.min() < x.max() <= high
        quartiles = low + (high - low) * np.array([1, 2, 3]) / 4
        np.testing.assert_allclose(np.quantile(x, [0.25, 0.5, 0.75]), quartiles, atol=0.05)
    assert actions[:, 3, 0].std() == pytest.approx(1, abs=0.03)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("name", "settings", "unread"),
    [
        ("hasac", {}, {"temperature"}),
        ("hasac", {"auto_temperature": False}, {"temperature_lr", "target_entropy", "target_entropy_share"}),
        ("haddpg", {"exploration": "ou"}, set()),
        ("hatd3", {}, {"ou_rate"}),
        ("had3qn", {}, set()),
        ("id3qn", {"order": "simultaneous"}, set()),
    ],
)
def test_every_hyperparameter_of_the_state_has_an_effect(name, settings, unread):
    """`act` and `update` read the hyperparameters of the state, not the defaults, so that a sweep is a `vmap`."""
    spaces = {"hasac": [Discrete(3), SPACES[0]], "had3qn": [Discrete(3)] * 2, "id3qn": [Discrete(3)] * 2}
    spec = problems.make_spec(spaces.get(name, SPACES[:2]))
    algo = off_policy_problems.make_algorithm(name, spec, **settings)
    state, batch = off_policy_problems.random_state(algo, 0), off_policy_problems.random_batch(algo, 0)
    blank = jnp.zeros((64, spec.num_agents, spec.observation_size)), jnp.zeros((64, spec.state_size))
    shown = jax.vmap(lambda observation, state: timestep(spec, observation, state))(*blank)
    memory = jax.tree.map(lambda x: x + 0.3, algo.initial_memory((64,)))

    @jax.jit
    def used(numbers):
        given = state._replace(hyperparameters=numbers)
        action, _, following = algo.act(jax.random.key(1), given, shown, memory)
        new, _ = algo.update(jax.random.key(0), given, batch)
        return action, following, new._replace(hyperparameters=None)

    before, same = used(state.hyperparameters), set()
    for number, value in vars(state.hyperparameters).items():
        changed = value * 0.5 if np.isfinite(value) else jnp.asarray(1e-3)
        if distance(used(state.hyperparameters.replace(**{number: changed})), before) == 0:
            same.add(number)
    assert same == unread | {"decay_updates"}  # without effect in the first update


# The loop.


SMALL = {"hidden_sizes": (8,), "batch_size": 16, "buffer_size": 120, "warmup_steps": 40, "n_step": 2}


def test_a_vmapped_seed_trains_as_the_seed_alone_and_numbers_are_traced():
    env = linear_quadratic()
    algo = hajax.make_algorithm("hatd3", env, **SMALL, normalize_observations=True)
    train = hajax.make_train(env, algo, total_steps=40 + 12 * 32, num_envs=4, rollout_length=8)
    keys = jax.random.split(jax.random.key(0), 3)
    together, metrics = jax.jit(jax.vmap(train))(keys)
    alone, its_metrics = jax.jit(train)(keys[1])
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(together), strict=True):
        np.testing.assert_allclose(one, other[1], rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(metrics["episode_return"][1], its_metrics["episode_return"], rtol=1e-4)
    assert metrics["episode_return"].shape == (3, 12)
    assert int(alone.updates) == 12 * 8 // 2  # two critic steps each
    sweep = algo.hyperparameters.replace(actor_lr=jnp.array([0.0, 1e-2]))
    axes = jax.tree.map(lambda _: None, algo.hyperparameters).replace(actor_lr=0)
    swept, _ = jax.jit(jax.vmap(train, in_axes=(None, axes)))(keys[1], sweep)
    still, moved = (jax.tree.map(lambda x, i=i: x[i], swept) for i in (0, 1))
    # A constant policy equals its target; a trained policy differs from it.
    assert distance(still.actors.params, still.target_actors) < 1e-6
    assert distance(moved.actors.params, moved.target_actors) > 1e-3


def distance(a, b):
    return max(
        float(np.abs(np.asarray(x) - np.asarray(y)).max())
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_learning_rates_decay_over_the_updates_of_the_run():
    env = linear_quadratic()
    algo = hajax.make_algorithm("haddpg", env, **SMALL)
    train = hajax.make_train(env, algo, total_steps=40 + 5 * 32, num_envs=4, rollout_length=8, lr_decay=True)
    state, _ = jax.jit(train)(jax.random.key(0))
    assert float(state.hyperparameters.decay_updates) == int(state.updates) == 5 * 8


@functools.cache
def pair(name):
    """Two agents in fixed order, with the replay's actions of agents not updated yet; and the compiled update."""
    spec = problems.make_spec([Discrete(3)] * 2 if name.endswith("qn") else SPACES[:2])
    settings = {"order": "simultaneous"} if name == "id3qn" else {"order": "fixed", "others": "replay"}
    algo = off_policy_problems.make_algorithm(name, spec, **settings)
    return off_policy_problems.random_state(algo, 0), off_policy_problems.random_batch(algo, 0), jax.jit(algo.update)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["hatd3", "hasac", "had3qn", "id3qn"])
def test_decayed_rates_are_those_of_actors_critics_and_temperatures(name):
    """After one update of four, each rate is three quarters of its value; the update equals one with these rates."""
    state, batch, update = pair(name)
    state = state._replace(updates=jnp.ones_like(state.updates))
    numbers = state.hyperparameters
    rates = {rate: getattr(numbers, rate) for rate in vars(numbers) if rate.endswith("_lr")}
    assert len(rates) == {"hasac": 3, "id3qn": 1}.get(name, 2)

    def updated(**changed):
        return update(jax.random.key(0), state._replace(hyperparameters=numbers.replace(**changed)), batch)[0]

    decayed, full = updated(decay_updates=jnp.asarray(4.0)), updated()
    wanted = updated(**{rate: 0.75 * value for rate, value in rates.items()})
    for part in ("actors", "critics", "temperatures"):
        if getattr(state, part) is not None:
            assert distance(getattr(decayed, part).params, getattr(wanted, part).params) < 1e-12
            assert distance(getattr(decayed, part).params, getattr(full, part).params) > 1e-5


def test_updates_that_a_rollout_does_not_complete_come_after_the_next():
    """Five critic steps per rollout and two per update: two updates, then three. With HARL's 50 and 8: six or seven."""
    env = linear_quadratic()
    algo = hajax.make_algorithm("hatd3", env, **SMALL)

    def count(key, state, batch):
        return state._replace(updates=state.updates + 1), {"one": jnp.ones(())}

    loop = hajax.make_loop(env, algo._replace(update=count), num_envs=4, rollout_length=5)
    assert (loop.steps_per_iteration, loop.updates_per_iteration) == (2 * 4 * 5, 5)
    keys = jax.random.split(jax.random.key(0), 2)
    train_state, metrics = jax.jit(jax.vmap(lambda key: loop.iterate(loop.init(key))))(keys)
    np.testing.assert_array_equal(train_state.algorithm.updates, 5)
    np.testing.assert_array_equal(metrics["one"], 1)

    harl = dataclasses.replace(algo.settings, policy_delay=8, updates_per_step=1.0)
    np.testing.assert_array_equal(plan_updates(harl, 50).sum(1), [6, 6, 6, 7])
    even = dataclasses.replace(algo.settings, policy_delay=2)
    assert plan_updates(even, 8).tolist() == [[True] * 4]
    # And the real update runs under it.
    loop = hajax.make_loop(env, algo, num_envs=4, rollout_length=5)
    train_state, metrics = jax.jit(lambda key: loop.iterate(loop.init(key)))(keys[0])
    assert int(train_state.algorithm.updates) == 5
    assert all(np.isfinite(x).all() for name, x in metrics.items() if not name.startswith("episode"))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(train_state.algorithm.actors.params))


def test_a_restart_truncates_the_episodes_under_way_in_the_replay_too():
    env = linear_quadratic()
    loop = hajax.make_loop(env, hajax.make_algorithm("hatd3", env, **SMALL), num_envs=4, rollout_length=5)
    before = jax.jit(loop.init)(jax.random.key(0))
    after = jax.jit(loop.restart)(jax.random.key(1), before)
    assert after.actors.timestep.first.all()
    assert not before.actors.timestep.first.all()
    jax.tree.map(np.testing.assert_array_equal, after.replay, end_episodes(before.replay))
    assert (after.replay.head != before.replay.head).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 121}, r"buffer_size=120 is less than batch_size=121; allowed: at least 121"),
        (
            {"n_step": 20},
            r"buffer_size=120 leaves 30 observations to each of num_envs=4 environments; allowed .*n_step=20: .* 168",
        ),
        ({"warmup_steps": 10}, r"warmup_steps=10 ends before .*batch_size=16, n_step=2 and num_envs=4: at least 16"),
        ({"n_step": 11}, r"warmup_steps=40 ends before .*n_step=11 and num_envs=4: at least 44"),
        (
            {"updates_per_step": 0.3},
            r"updates_per_step=0\.3 gives 2\.4 critic steps after every rollout_length=8 ",
        ),
        (
            {"n_step": 26, "warmup_steps": 200, "buffer_size": 300},
            r"n_step=26 is longer than an episode of games/linear_quadratic, .* after 25 steps; allowed: at most 25",
        ),
        ({"updates_per_step": 0.01}, r"updates_per_step=0\.01 gives 0\.08 critic steps"),
    ],
)
def test_sizes_that_conflict_are_refused_before_compiling(settings, message):
    env = linear_quadratic()
    algo = hajax.make_algorithm("hatd3", env, **(SMALL | settings))
    with pytest.raises(ValueError, match=message):
        hajax.make_loop(env, algo, num_envs=4, rollout_length=8)


def test_a_run_is_longer_than_its_warm_up():
    env = linear_quadratic()
    algo = hajax.make_algorithm("hatd3", env, **SMALL)
    with pytest.raises(ValueError, match="total_steps=40; allowed: more than the 40 of the warm-up"):
        hajax.make_train(env, algo, total_steps=40, num_envs=4, rollout_length=8)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"reward": "individual"}, r"reward='individual' of random does not suit hatd3.*; allowed: team$"),
        ({"state_per_agent": True}, r"state_per_agent=True of random does not suit hatd3.*; allowed: False"),
    ],
)
def test_a_joint_critic_needs_one_reward_and_one_state(field, message):
    spec = dataclasses.replace(problems.make_spec(SPACES), **field)
    with pytest.raises(ValueError, match=message):
        hajax.make_algorithm("hatd3", spec)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["haddpg", "hatd3", "hasac", "had3qn"])
def test_inactive_agents_are_not_trained_and_have_no_influence(name):
    """An agent that is inactive throughout. With `others="replay"` its observations have no influence."""
    state, batch, update = pair(name)
    active = batch.active.at[..., 1].set(False)
    moments = []
    for shift in (0.0, 3.0):
        seen = batch.observation.at[..., 1, :].add(shift)
        new, _ = update(jax.random.key(0), state, batch._replace(active=active, observation=seen))
        moments.append(new.actors.optimizer.mu)
    living, dead = (jax.tree.map(lambda x, i=i: x[i], moments[0]) for i in (0, 1))
    assert max(float(np.abs(x).max()) for x in jax.tree.leaves(living)) > 1e-4
    assert not any(np.any(x) for x in jax.tree.leaves(dead))
    assert distance(*moments) == 0


def test_a_batch_has_a_minibatch_for_every_critic_step():
    spec = problems.make_spec(SPACES)
    algo = off_policy_problems.make_algorithm("hatd3", spec)
    batch = off_policy_problems.random_batch(off_policy_problems.make_algorithm("haddpg", spec), 0)
    with pytest.raises(ValueError, match=r"batch of 1 minibatches .*; allowed with policy_delay=2: 2"):
        algo.update(jax.random.key(0), algo.init(jax.random.key(0)), batch)


def test_whole_numbers_may_be_written_as_floats():
    algo = hajax.make_algorithm("hatd3", problems.make_spec(SPACES), buffer_size=1e6, warmup_steps=2e3)
    assert (algo.settings.buffer_size, type(algo.settings.buffer_size)) == (1_000_000, int)
    with pytest.raises(ValueError, match=r"buffer_size=1000\.5; allowed: a whole number >= 1"):
        hajax.make_algorithm("hatd3", problems.make_spec(SPACES), buffer_size=1000.5)


def test_training_metrics_exclude_the_episodes_of_the_warm_up():
    env = linear_quadratic(max_steps=5)
    algo = hajax.make_algorithm("hatd3", env, **(SMALL | {"warmup_steps": 48}))
    loop = hajax.make_loop(env, algo, num_envs=4, rollout_length=8)
    _, metrics = jax.jit(lambda key: loop.iterate(loop.init(key)))(jax.random.key(0))
    assert int(metrics["episodes"]) == 8  # of steps 13 to 20: the episodes that end at steps 15 and 20
    assert float(metrics["episode_length"]) == 5


def test_own_transitions_are_checked():
    spec = problems.make_spec(SPACES, SIZES)
    shape = (1, 5, 3)
    given = {
        "observation": jnp.zeros((*shape, 4)),
        "state": jnp.zeros((1, 5, 4)),
        "action": jnp.zeros((*shape, 2)),
        "reward": jnp.ones((1, 5, 2)),
        "final_observation": jnp.zeros((*shape, 4)),
        "final_state": jnp.zeros((1, 5, 4)),
    }
    batch = hajax.off_policy_batch(spec, **given)
    assert batch.reward.shape == (1, 5, 2, 3)
    assert int(batch.steps.min()) == 2
    with pytest.raises(ValueError, match=r"action has shape \(1, 5, 3\); allowed: \(1, 5, 3, 2\), as random says"):
        hajax.off_policy_batch(spec, **(given | {"action": jnp.zeros(shape)}))
    with pytest.raises(ValueError, match=r"observation has shape \(5, 3, 4\); allowed: \[P, B, N, O\]"):
        hajax.off_policy_batch(spec, **(given | {"observation": jnp.zeros((5, 3, 4))}))


def test_a_replay_that_does_not_fit_into_memory_is_reported():
    assert memory_warning(1000, 8, 50) is None
    warning = memory_warning(10**15, 8, 1000)
    assert warning is not None
    assert warning.startswith("algo.buffer_size=1000 takes 1,000 TB for each of num_seeds=8, 8,000 TB in all, but ")
    copies = memory_warning(10**15, 8, 1000, twice=SAVING)
    assert copies is not None
    assert (
        "8,000 TB in all, and as much again while a checkpoint is written (not with checkpoint.replay=false)" in copies
    )
    grid = memory_warning(10**14, 8, 1000, points=3)
    assert grid is not None
    assert "for each of num_seeds=8 at each of 3 points, 2,400 TB in all, but " in grid
    fits, fits_twice = (int(text.split("at most ")[1].split()[0]) for text in (warning, copies))
    assert fits_twice <= fits


def test_a_run_whose_replay_does_not_fit_reports_it_first(tmp_path, monkeypatch, capsys):
    """400 rows for each of two seeds, and their copies in a checkpoint; also without progress."""
    monkeypatch.setattr(memory, "free_memory", lambda: 1000)
    settings = [*TINY_OFF_POLICY, "total_steps=104", "eval_interval=32", f"out_dir={tmp_path / 'run'}"]
    assert main(["train", *settings]) == 0
    (warning,) = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert warning.startswith("hajax train: warning: algo.buffer_size=400 takes ")
    assert warning.endswith("but 1 kB are free; at most 5 would fit")
    assert [shown_bytes(x) for x in (12, 3456, 7.89e6, 999.7e6)] == ["12 bytes", "3.46 kB", "7.89 MB", "1 GB"]


# A problem whose optimum is known.


def best_cost(num_agents: int, steps: int) -> float:
    """E[s₀ᵀ P s₀] of the undiscounted game of `steps` steps, by the Riccati recursion; s₀ is uniform in [−1, 1]ᴺ."""
    a, b = dynamics(num_agents)
    p = np.zeros((num_agents, num_agents))
    for _ in range(steps):
        gain = np.linalg.solve(np.eye(num_agents) / 2 + b.T @ p @ b, b.T @ p @ a)
        p = np.eye(num_agents) + a.T @ p @ (a - b @ gain)
    return float(np.trace(p)) / 3


def test_the_riccati_controller_has_the_optimal_cost():
    """A test of environment and recursion: over ten steps the stationary gain is within 1% of the optimal cost."""
    env = linear_quadratic(max_steps=10)
    a, b = dynamics(2)
    p = np.zeros((2, 2))
    for _ in range(200):
        gain = np.linalg.solve(np.eye(2) / 2 + b.T @ p @ b, b.T @ p @ a)
        p = np.eye(2) + a.T @ p @ (a - b @ gain)

    def play(key):
        state, ts = env.reset(key)

        def step(carry, _):
            state, ts, total, largest = carry
            action = -jnp.asarray(gain, ts.state.dtype) @ ts.state
            state, ts = env.step(key, state, action[:, None])
            return (state, ts, total + ts.reward[0], jnp.maximum(largest, jnp.abs(action).max())), ts.truncated

        (_, _, total, largest), ends = jax.lax.scan(step, (state, ts, 0.0, 0.0), None, 10)
        return total, largest, ends

    total, largest, ends = jax.vmap(play)(jax.random.split(jax.random.key(0), 20_000))
    assert -float(total.mean()) == pytest.approx(best_cost(2, 10), rel=0.01)
    assert float(largest.max()) < 1  # of bounds of ±1.5
    np.testing.assert_array_equal(ends[0], [False] * 9 + [True])


@pytest.mark.parametrize(
    ("name", "within", "steps", "batch_size", "num_seeds"),
    [("hatd3", 0.05, 15_000, 64, 2), ("haddpg", 0.10, 25_000, 128, 1), ("hasac", 0.05, 25_000, 128, 1)],
)
def test_the_linear_quadratic_game_is_solved(name, within, steps, batch_size, num_seeds):
    """Discount 0.9, ten steps cut by truncation, from which targets bootstrap, as in a game without end.

    The learned actions stay inside the bounds; without bounds the optimum is known.
    """
    env = linear_quadratic(max_steps=10)
    settings = {"hidden_sizes": (64, 64), "activation": "silu", "batch_size": batch_size, "warmup_steps": 1000}
    numbers = {"actor_lr": 1e-3, "critic_lr": 3e-3, "target_rate": 0.02, "discount": 0.9}
    algo = hajax.make_algorithm(name, env, **settings, buffer_size=50_000, **numbers)
    train = hajax.make_train(env, algo, total_steps=steps, num_envs=10, rollout_length=10, lr_decay=True)
    train = jax.jit(jax.vmap(train), compiler_options=problems.LONG)
    state, _ = train(jax.random.split(jax.random.key(0), num_seeds))
    evaluate = jax.jit(jax.vmap(hajax.make_evaluate(env, algo, num_episodes=4000), in_axes=(None, 0)))
    cost = -np.asarray(evaluate(jax.random.key(1), state)["episode_return"].mean(-1))
    assert (cost < (1 + within) * best_cost(2, 10)).all()
    # No policy is better than the optimum, up to the sampling of 4,000 initial states.
    assert (cost > 0.97 * best_cost(2, 10)).all()

    def forces(state, key):
        """The actions of one episode, `[10, N]`."""

        def step(carry, _):
            simulation, ts = carry
            action, _, _ = algo.act(key, state, ts, algo.initial_memory(()), True)
            return env.step(key, simulation, action), action[:, 0]

        return jax.lax.scan(step, env.reset(key), None, 10)[1]

    keys = jax.random.split(jax.random.key(2), 1000)
    largest = jax.jit(jax.vmap(lambda state: jnp.abs(jax.vmap(lambda key: forces(state, key))(keys)).max()))(state)
    assert (np.asarray(largest) < 0.9 * 1.5).all()
