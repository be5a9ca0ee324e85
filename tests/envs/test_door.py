"""The door of an environment: what its functions show is converted where that loses nothing, else refused by name."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hajax
import hajax.envs
from hajax.cli import main
from hajax.envs import make_env, register_env
from hajax.envs.base import Environment, timestep
from hajax.envs.batching import auto_reset
from hajax.spaces import Discrete
from hajax.spec import AgentSpec, EnvSpec, FinalStep, Timestep

SPEC = EnvSpec("town", (AgentSpec("a", 2, Discrete(3)), AgentSpec("b", 2, Discrete(3))), 2, 4)


class State(NamedTuple):
    t: jax.Array
    x: jax.Array


def town(spec: EnvSpec = SPEC, change=lambda shown: shown, length: int = 4, **fields) -> Environment:
    """Episodes of `length` steps; `change` is applied to every timestep, `fields` are given to those of `step`."""

    def show(state, **given):
        seen = jnp.broadcast_to(state.x, (spec.num_agents, 2))
        return state, change(timestep(spec, seen, state.x, **given))

    def reset(key):
        return show(State(jnp.zeros((), int), jax.random.normal(key, (2,))), first=True)

    def step(key, state, action):
        state = State(state.t + 1, state.x)
        usual = {"reward": action[:, 0], "truncated": state.t >= length}
        return show(state, **(usual | {name: field(state) for name, field in fields.items()}))

    return Environment(spec, reset, step)


def final(**fields):
    """A change of what `final` holds."""
    return lambda shown: shown._replace(final=shown.final._replace(**{n: f(shown) for n, f in fields.items()}))


def cast(name, dtype):
    return lambda shown: shown._replace(**{name: getattr(shown, name).astype(dtype)})


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(hajax.envs, "_registered", {})


def made(env: Environment) -> Environment:
    register_env("town", lambda: env)
    return make_env("town")


CONVERTED = {
    "truncated as float32": town(truncated=lambda s: (s.t >= 4) * 1.0),
    "terminated as int32": town(terminated=lambda s: (s.t >= 9) * 1),
    "first as float32": town(change=cast("first", float)),
    "active as int8": town(active=lambda s: jnp.ones(2, jnp.int8)),
    "action_mask as float32": town(action_mask=lambda s: jnp.ones((2, 1, 3))),
    "reward as int32": town(reward=lambda s: jnp.array([1, 2])),
    "reward as bool": town(reward=lambda s: jnp.array([True, False])),
    "reward as a list": town(reward=lambda s: [1.0, 2.0]),
    "a joint reward as a Python number": town(reward=lambda s: None, joint_reward=lambda s: 3),
    "observations of bytes": town(change=cast("observation", jnp.uint8)),
    "a state of whole numbers": town(change=cast("state", int)),
    "final observations of whole numbers": town(change=final(observation=lambda s: s.observation.astype(int))),
    "final flags as float32": town(change=final(active=lambda s: s.active * 1.0)),
    "a metric that is true or false": town(metrics=lambda s: {"won": s.t > 2}),
    "reset without first": town(change=lambda shown: shown._replace(first=jnp.array(False))),
}


@pytest.mark.parametrize("case", CONVERTED)
def test_numbers_of_another_kind_are_converted(case):
    env = made(CONVERTED[case])
    usual = made(town())
    state, opening = env.reset(jax.random.key(0))
    _, shown = env.step(jax.random.key(1), state, jnp.ones((2, 1)))
    for timestep_, function in ((opening, "reset"), (shown, "step")):
        _, other = usual.reset(jax.random.key(0))
        for name in (*(set(Timestep._fields) - {"metrics", "final"}),):
            assert getattr(timestep_, name).dtype == getattr(other, name).dtype, (name, function)
        for name in FinalStep._fields:
            assert getattr(timestep_.final, name).dtype == getattr(other, name).dtype, name
        assert all(value.dtype == jnp.float32 for value in timestep_.metrics.values())
    assert opening.first
    assert not shown.first
    assert opening.reward.tolist() == [0, 0]


def test_conversions_keep_the_values():
    masked = town(
        action_mask=lambda s: jnp.array([[[1, 0, 2]], [[0, 0, 1]]]),
        active=lambda s: jnp.array([1.0, 0.0]),
        reward=lambda s: jnp.array([2, 3]),
        truncated=lambda s: (s.t >= 4) * 1.0,
    )
    env = made(masked)
    state, _ = env.reset(jax.random.key(0))
    for t in range(4):
        state, shown = env.step(jax.random.key(t), state, jnp.ones((2, 1)))
        assert bool(shown.truncated) == (t == 3)
    assert shown.final.action_mask.tolist() == [[[True, False, True]], [[False, False, True]]]
    assert shown.final.active.tolist() == [True, False]
    assert shown.reward.tolist() == [5, 5]
    bytes_ = made(town(change=lambda s: s._replace(observation=jnp.full((2, 2), 200, jnp.uint8))))
    assert bytes_.reset(jax.random.key(0))[1].observation.tolist() == [[200.0, 200.0]] * 2


REFUSED = {
    "a metric per agent": (
        town(metrics=lambda s: {"alive": jnp.ones(2)}),
        r"metrics\['alive'\] of town has shape \(2,\) in step; allowed: a scalar",
    ),
    "metrics in a list": (town(metrics=lambda s: [jnp.ones(())]), "metrics of town is list in step; allowed: a dict"),
    "no reward": (town(reward=lambda s: None), r"reward of town is missing in step; allowed: reward=\[N\]"),
    "one reward for two agents": (
        town(dataclasses.replace(SPEC, reward="individual"), reward=lambda s: jnp.ones(1)),
        r"reward of town has shape \(1,\) in step; allowed: \(2,\), as its EnvSpec says",
    ),
    "flags per agent": (
        town(terminated=lambda s: jnp.zeros(2, bool)),
        r"terminated of town has shape \(2,\) in step; allowed: \(\), as its EnvSpec says",
    ),
    "complex observations": (
        town(change=cast("observation", jnp.complex64)),
        "observation of town has type complex64 in reset; allowed: real numbers",
    ),
    "a key for a flag": (
        town(truncated=lambda s: jax.random.key(0)),
        "truncated of town has type key<fry> in step; allowed: truth values",
    ),
    "a narrow final observation": (
        town(change=final(observation=lambda s: jnp.ones((2, 1)))),
        r"final.observation of town has shape \(2, 1\) in reset; allowed: \(2, 2\), as its EnvSpec says",
    ),
    "a wide state": (town(change=lambda s: s._replace(state=jnp.ones(5))), r"state of town has shape \(5,\) in reset"),
    "another order of results": (
        town()._replace(reset=lambda key: town().reset(key)[::-1]),
        r"reset of town returns Timestep, State; allowed: \(state, Timestep\)",
    ),
    "results as Gymnasium has them": (
        town()._replace(step=lambda key, state, action: (jnp.ones(2), 0.0, False, False, {})),
        r"step of town returns \w+, \w+, \w+, \w+, dict; allowed: \(state, Timestep\)",
    ),
    "a state that changes its type": (
        town()._replace(step=lambda key, s, action: (State(s.t * 1.0, s.x), town().step(key, s, action)[1])),
        "t in the state of town is int32.* after reset and float32.* after step; allowed: the same type and shape",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_before_anything_compiles(case):
    env, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        made(env)
    with pytest.raises(ValueError, match=message):  # nor does it come in by another door
        auto_reset(env)


def endless() -> Environment:
    return town(length=7)


def test_an_episode_that_outlives_its_limit_ends_the_run_by_name(tmp_path, monkeypatch, capsys):
    """At the first evaluation, before any training; unless the limit of evaluations is another one."""
    monkeypatch.chdir(tmp_path)
    register_env("town", endless)
    tiny = ["env=town", "algo.hidden_sizes=[4]", "num_envs=2", "rollout_length=4", "total_steps=8", "eval.episodes=3"]
    tiny += ["num_seeds=1", "progress=false"]
    assert main(["train", *tiny, "out_dir=run"]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "3 of 3 episodes of town went on after max_steps=4, the limit in its EnvSpec; allowed: `truncated`" in err
    assert main(["train", *tiny, "out_dir=other", "eval.max_steps=4"]) == 0
    assert main(["evaluate", "other", "--episodes", "2"]) == 0


def test_python_sees_which_episodes_had_not_finished():
    for env, finished in ((endless(), False), (town(), True)):
        algo = hajax.make_algorithm("happo", env, hidden_sizes=(4,))
        results = hajax.make_evaluate(env, algo, num_episodes=3)(jax.random.key(0), algo.init(jax.random.key(1)))
        assert results["finished"].tolist() == [finished] * 3
        assert results["episode_length"].tolist() == [4.0] * 3


def test_an_evaluation_ends_with_its_episodes():
    """Its program runs as many steps as the longest episode has, and not as many as the limit allows."""
    counted = []

    def count(t):
        counted.append(int(t))
        return np.float32(0)

    def counting(s):
        nothing = jax.experimental.io_callback(count, jax.ShapeDtypeStruct((), jnp.float32), s.t, ordered=False)
        return (s.t >= 3) | (nothing > 1)

    env = town(dataclasses.replace(SPEC, max_steps=1000), truncated=counting)
    algo = hajax.make_algorithm("happo", env, hidden_sizes=(4,))
    evaluate = hajax.make_evaluate(env, algo, num_episodes=1)
    results = evaluate(jax.random.key(0), algo.init(jax.random.key(1)))
    assert results["episode_length"].tolist() == [3.0]
    assert sorted(counted) == [1, 2, 3]


def test_a_seed_that_is_evaluated_beside_longer_ones_has_its_own_results():
    """Seeds under vmap go on until the last is over; what is over stays as it is."""

    def policy_length(s):  # episodes end at random
        return s.x[0] + s.t > 3

    env = town(dataclasses.replace(SPEC, max_steps=50), terminated=policy_length, truncated=lambda s: s.t >= 50)
    algo = hajax.make_algorithm("happo", env, hidden_sizes=(4,))
    states = jax.vmap(algo.init)(jax.random.split(jax.random.key(0), 3))
    keys = jax.random.split(jax.random.key(1), 3)
    evaluate = hajax.make_evaluate(env, algo, num_episodes=2)
    together = jax.jit(jax.vmap(evaluate))(keys, states)
    for k in range(3):
        alone = jax.jit(evaluate)(keys[k], jax.tree.map(lambda x, k=k: x[k], states))
        jax.tree.map(np.testing.assert_array_equal, alone, jax.tree.map(lambda x, k=k: x[k], together))
    assert len(set(together["episode_length"].ravel().tolist())) > 1
