"""The single-state games: exact payoffs, and what the papers say of theirs."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hajax.envs import make_env
from hajax.envs.games import hasac_payoff, trap_of_heterogeneity_payoff, trap_of_homogeneity_payoff
from hajax.spaces import Box

UNEVEN_PAYOFF = np.arange(24.0).reshape(2, 3, 4) ** 2


@pytest.mark.parametrize("payoff", [UNEVEN_PAYOFF, [[1.0, 0.1], [0.3, 7.7]], np.linspace(-3, 5, 32).reshape((2,) * 5)])
def test_matrix_game_pays_its_tensor(payoff):
    """Exactly r(a) to every agent as a team, r(a)/N to each as an individual; one step, terminated."""
    table = np.asarray(payoff)
    joint_actions = np.array(list(itertools.product(*map(range, table.shape))), np.float32)[..., None]
    team, individual = (make_env("games/matrix", payoff=payoff, reward=kind) for kind in ("team", "individual"))
    for env, share in ((team, 1), (individual, 1 / table.ndim)):
        state, _ = env.reset(jax.random.key(0))
        _, shown = jax.jit(jax.vmap(env.step, (None, None, 0)))(jax.random.key(0), state, joint_actions)
        expected = np.repeat(table.ravel()[:, None], table.ndim, axis=-1)
        np.testing.assert_allclose(shown.reward, (expected * share).astype(np.float32), rtol=0 if share == 1 else 1e-6)
        assert shown.terminated.all()
        assert not shown.truncated.any()
        assert shown.first.all()
        assert np.all(np.asarray(shown.observation) == 1)
        assert shown.observation.shape[1:] == (table.ndim, 1)


def test_repeated_games_are_truncated():
    env = make_env("games/hasac_matrix", max_steps=3)
    state, _ = env.reset(jax.random.key(0))
    truncated = []
    for _ in range(6):
        state, shown = env.step(jax.random.key(0), state, jnp.ones((2, 1)))
        truncated.append(bool(shown.truncated))
        assert shown.reward.tolist() == [10.0, 10.0]
        assert not shown.terminated
    assert truncated == [False, False, True] * 2


def test_gaussian_game_pays_the_product():
    env = make_env("games/gaussian")
    assert [agent.action_space for agent in env.spec.agents] == [Box((-np.inf,), (np.inf,))] * 2
    state, _ = env.reset(jax.random.key(0))
    _, shown = env.step(jax.random.key(0), state, jnp.array([[-30.0], [2.5]]))
    assert shown.reward.tolist() == [-75.0, -75.0]
    assert shown.terminated
    _, shown = make_env("games/gaussian", reward="individual").step(jax.random.key(0), state, jnp.array([[3.0], [5.0]]))
    assert shown.reward.tolist() == [7.5, 7.5]


def test_payoffs_of_the_papers():
    """Propositions 1 and 2 of haml, with what their traps cost; the initial value of Appendix B of hasac."""
    for num_agents in (2, 4, 6):
        payoff = trap_of_homogeneity_payoff(num_agents)
        half = num_agents // 2
        assert payoff.shape == (2,) * num_agents
        assert payoff.sum() == 2
        assert payoff[(0,) * half + (1,) * half] == payoff[(1,) * half + (0,) * half] == 1
        # Every shared policy (p, 1 − p) earns 2·pʰ(1 − p)ʰ, at most 2/2ⁿ.
        for p in (0.3, 0.5):
            value = functools.reduce(lambda tensor, _: np.array([p, 1 - p]) @ tensor, range(num_agents), payoff)
            np.testing.assert_allclose(value, 2 * (p * (1 - p)) ** half)
    assert trap_of_heterogeneity_payoff().tolist() == [[0, 2], [2, -1]]
    initial = np.array([0.6, 0.2, 0.2])
    np.testing.assert_allclose(initial @ hasac_payoff() @ initial, -8.2)
    assert make_env("games/trap_of_homogeneity", num_agents=6).spec.num_agents == 6


@pytest.mark.parametrize("reward", ["team", "individual"])
def test_memory_game_pays_for_naming_the_first_cue_at_the_last_step(reward):
    env = make_env("games/memory", num_agents=3, num_cues=4, delay=2, reward=reward)
    for seed in range(5):
        state, shown = env.reset(jax.random.key(seed))
        cue = shown.observation[:, :4].argmax(-1)
        np.testing.assert_array_equal(shown.observation, jax.nn.one_hot(cue, 5))
        np.testing.assert_array_equal(shown.state[:-1], jax.nn.one_hot(cue, 4).ravel())
        assert shown.state[-1] == 0
        wrong = jnp.array([0, 0, 1])  # the last agent's answer
        for t in range(3):
            answer = ((cue + wrong) % 4)[:, None].astype(float)
            state, shown = env.step(jax.random.key(0), state, answer)
            observation = shown.final.observation
            assert shown.final.state[-1] == pytest.approx((t + 1) / 3)
            assert not observation[:, :4].any()
            assert set(observation[:, 4].tolist()) == {float(t == 1)}
            assert bool(shown.terminated) == (t == 2)
            own = np.array([1.0, 1.0, 0.0]) / 3 * (t == 2)
            wanted = own if reward == "individual" else np.full(3, own.sum())
            np.testing.assert_allclose(shown.reward, wanted, rtol=1e-6)
        assert shown.first
