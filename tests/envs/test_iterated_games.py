"""Two-action games played again and again: what is seen and rewarded, from each side."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hajax
from hajax.envs.iterated_games import iterated_prisoners_dilemma, matching_pennies

REWARDS = {
    iterated_prisoners_dilemma: {(0, 0): (-1, -1), (0, 1): (-3, 0), (1, 0): (0, -3), (1, 1): (-2, -2)},
    matching_pennies: {(0, 0): (1, -1), (0, 1): (-1, 1), (1, 0): (-1, 1), (1, 1): (1, -1)},
}


@pytest.mark.parametrize("game", REWARDS, ids=lambda game: game.__name__)
def test_rewards_and_what_each_agent_remembers(game):
    env, team = game(max_steps=4), game(max_steps=4, reward="team")
    state, ts = env.reset(jax.random.key(0))
    np.testing.assert_array_equal(ts.observation, [[1, 0, 0, 0, 0]] * 2)
    for t, ((a, b), rewards) in enumerate(REWARDS[game].items()):
        action = jnp.array([[a], [b]], float)
        _, shared = team.step(jax.random.key(0), state, action)
        state, ts = env.step(jax.random.key(0), state, action)
        np.testing.assert_array_equal(ts.reward, rewards)
        np.testing.assert_array_equal(shared.reward, [sum(rewards)] * 2)
        np.testing.assert_array_equal(np.argmax(ts.observation, -1), [1 + 2 * a + b, 1 + 2 * b + a])
        np.testing.assert_array_equal(ts.state, ts.observation[0])
        assert bool(ts.truncated) == (t == 3)
        assert not ts.terminated


def test_rewards_serve_both_precisions():
    """A step in float32 after one compiled in float64. JAX keeps a constant's conversion by the constant's identity."""
    env = matching_pennies()

    def reward():
        state, _ = env.reset(jax.random.key(0))
        return env.step(jax.random.key(1), state, jnp.zeros((2, 1)))[1].reward

    with jax.enable_x64(True):
        assert jax.jit(reward)().dtype == np.float64
    assert reward().dtype == np.float32


def test_naive_learners_defect():
    """Independent learners on their own rewards end where a single round has its only equilibrium."""
    env = hajax.make_env("games/iterated_prisoners_dilemma", max_steps=10)
    algo = hajax.make_algorithm("ippo", env, sharing="none", hidden_sizes=(16,), actor_lr=1e-2, critic_lr=1e-2)
    train = hajax.make_train(env, algo, total_steps=16_000, num_envs=32, rollout_length=10)
    state, _ = jax.jit(train)(jax.random.key(0))
    evaluate = hajax.make_evaluate(env, algo, num_episodes=16, deterministic=False)
    results = evaluate(jax.random.key(1), state)
    for agent in ("agent_0", "agent_1"):
        assert float(results[f"return_of_{agent}"].mean()) / 10 == pytest.approx(-2, abs=0.15)


def test_options_are_checked():
    with pytest.raises(ValueError, match="max_steps=0; allowed"):
        matching_pennies(max_steps=0)
    with pytest.raises(ValueError, match="reward='mine'; allowed: team, individual"):
        iterated_prisoners_dilemma(reward="mine")
