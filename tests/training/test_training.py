"""The runners' side of the contract: what they refuse, what they count, and modules of the user's own."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest

import hajax
from hajax.envs import games
from hajax.envs.base import Environment, timestep
from hajax.envs.batching import auto_reset
from hajax.spaces import Discrete
from hajax.spec import AgentSpec, EnvSpec

SMALL = {"hidden_sizes": (8,), "epochs": 2, "critic_epochs": 2}


def train_a_little(env, algo, **options):
    train = hajax.make_train(env, algo, total_steps=3 * 16, num_envs=8, rollout_length=2, **options)
    return jax.jit(train)(jax.random.key(0))


def test_an_environment_resets_whether_or_not_it_came_from_make_env():
    bare, made = games.hasac_matrix(max_steps=3), hajax.make_env("games/hasac_matrix", max_steps=3)
    assert not bare.resets
    assert made.resets
    assert auto_reset(made) is made
    states = []
    for env in (bare, made):
        state, metrics = train_a_little(env, hajax.make_algorithm("happo", env, **SMALL))
        states.append(state)
        np.testing.assert_array_equal(metrics["episodes"], [0, 8, 8])  # ends after steps 3 and 6, in pairs of steps
        assert np.isnan(metrics["episode_return"][0])
        assert set(np.asarray(metrics["episode_length"][1:])) == {3.0}
    jax.tree.map(np.testing.assert_array_equal, states[0].actors.params, states[1].actors.params)


def test_a_pair_that_does_not_fit_is_refused_before_compiling():
    team, individual = (hajax.make_env("games/hasac_matrix", reward=reward) for reward in ("team", "individual"))
    algo = hajax.make_algorithm("happo", team, **SMALL)
    with pytest.raises(ValueError, match=r"reward='individual' of games/hasac_matrix; allowed: 'team'"):
        hajax.make_train(individual, algo, total_steps=100)
    with pytest.raises(ValueError, match=r"agents=.* of games/gaussian; allowed: .*Discrete"):
        hajax.make_evaluate(hajax.make_env("games/gaussian"), algo)
    with pytest.raises(ValueError, match=r"total_steps=0; allowed: a whole number >= 1"):
        hajax.make_train(team, algo, total_steps=0)
    three = hajax.make_algorithm("happo", team, minibatches=3)
    with pytest.raises(ValueError, match=r"minibatches=3 does not divide num_envs × rollout_length = 16"):
        hajax.make_train(team, three, total_steps=100, num_envs=8, rollout_length=2)
    chunks = {"memory": "gru", "chunk_length": 3}
    with pytest.raises(ValueError, match=r"chunk_length=3 does not divide rollout_length=8; allowed: a divisor of 8"):
        hajax.make_loop(team, hajax.make_algorithm("happo", team, **chunks), num_envs=8, rollout_length=8)
    recurrent = hajax.make_algorithm("happo", team, minibatches=3, **chunks)
    with pytest.raises(ValueError, match=r"minibatches=3 does not divide num_envs × rollout_length / 3 = 16"):
        hajax.make_loop(team, recurrent, num_envs=8, rollout_length=6)
    hajax.make_evaluate(individual, algo, num_episodes=2)  # the kind of reward does not matter to a policy


def test_evaluation_counts_first_episodes_only():
    payoff = np.array([[1.0, 2.0], [3.0, 4.0]])
    env = hajax.make_env("games/matrix", payoff=payoff, max_steps=4)
    algo = hajax.make_algorithm("happo", env, **SMALL)
    state = jax.jit(algo.init)(jax.random.key(0))
    for limit, steps in ((None, 4), (11, 4), (3, 3)):
        evaluate = hajax.make_evaluate(env, algo, num_episodes=5, max_steps=limit)
        results = evaluate(jax.random.key(1), state)
        np.testing.assert_array_equal(results["episode_length"], np.full(5, steps))
        per_step = results["episode_return"] / steps
        assert np.all(np.isin(per_step, payoff))  # deterministic: the same joint action at every step


def test_evaluation_counts_nothing_after_an_episode_while_others_go_on():
    """Every step is rewarded with 1 and 2, so that returns are multiples of the length, which the reset has drawn."""
    agents = tuple(AgentSpec(name, (1,), Discrete(2)) for name in ("one", "two"))
    spec = EnvSpec("own/lengths", agents, state_size=1, max_steps=6, reward="individual")

    def show(state, **fields):
        return state, timestep(spec, jnp.zeros((2, 1)), jnp.zeros(1), **fields)

    def reset(key):
        return show((jax.random.randint(key, (), 1, 7), jnp.zeros((), int)), first=True)

    def step(key, state, action):
        length, t = state
        return show((length, t + 1), reward=jnp.array([1.0, 2.0]), terminated=t + 1 >= length)

    env = Environment(spec, reset, step)
    algo = hajax.make_algorithm("ippo", env, **SMALL)
    results = hajax.make_evaluate(env, algo, num_episodes=20)(jax.random.key(0), algo.init(jax.random.key(1)))
    assert len(set(results["episode_length"].tolist())) > 3
    np.testing.assert_array_equal(results["episode_return"], 3 * results["episode_length"])
    np.testing.assert_array_equal(results["return_of_one"], results["episode_length"])
    np.testing.assert_array_equal(results["return_of_two"], 2 * results["episode_length"])


def test_learning_rates_fall_to_zero_over_the_run():
    env = hajax.make_env("games/hasac_matrix")
    algo = hajax.make_algorithm("happo", env, **SMALL)
    decayed, _ = train_a_little(env, algo, lr_decay=True)
    constant, _ = train_a_little(env, algo)
    assert float(decayed.hyperparameters.decay_updates) == 3
    assert np.isinf(constant.hyperparameters.decay_updates)
    assert not np.allclose(decayed.actors.params["logits"]["kernel"], constant.actors.params["logits"]["kernel"])


class Plain(nn.Module):
    """A torso that knows nothing of masks, with flax's default precision."""

    @nn.compact
    def __call__(self, x):
        return nn.tanh(nn.Dense(4)(x))


class Masked(nn.Module):
    """A torso that wants to know which entries exist."""

    @nn.compact
    def __call__(self, x, mask=None):
        assert mask is not None
        return nn.tanh(nn.Dense(4)(jnp.where(mask, x, 0)))


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize(
    "torso", [Plain(), Masked(), nn.Sequential([nn.Dense(4), nn.relu])], ids=["plain", "mask", "seq"]
)
def test_modules_of_the_users_own(torso, x64):
    with jax.enable_x64(x64):
        spec = problems.make_spec(problems.MIXED, problems.MIXED_SIZES)
        algo = hajax.make_algorithm("happo", spec, actor=torso, critic=Plain(), **SMALL)
        state = jax.jit(algo.init)(jax.random.key(0))
        standard = problems.make_algorithm("happo", spec)
        batch = problems.random_batch(standard, problems.random_state(standard, 0), 0)
        new_state, _ = jax.jit(algo.update)(jax.random.key(1), state, batch)
        moved = jax.tree.map(
            lambda a, b: float(np.abs(np.asarray(a) - np.asarray(b)).max()),
            new_state.actors.params,
            state.actors.params,
        )
        assert all(np.isfinite(x) for x in jax.tree.leaves(moved))
        assert max(jax.tree.leaves(moved["torso"])) > 0


def test_an_algorithm_compiled_without_masks_refuses_an_environment_that_masks():
    env = hajax.make_env("games/hasac_matrix")
    algo = hajax.make_algorithm("happo", env)
    masking = env._replace(spec=dataclasses.replace(env.spec, masks_actions=True))
    with pytest.raises(ValueError, match=r"masks_actions=True of .*; allowed: False, for which happo was made"):
        hajax.make_loop(masking, algo, num_envs=1, rollout_length=1)
