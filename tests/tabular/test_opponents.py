"""Agents with rewards of their own, and LOLA: values and gradients against other computations, and what is learned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hajax
from hajax.envs.iterated_games import MATCHING_PENNIES, PRISONERS_DILEMMA
from hajax.tabular import opponents


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def by_hand(payoffs, discount, parameters):
    """s₀ᵀ (I − γP)⁻¹ R of the paper, over the four outcomes, with numpy."""
    first = 1 / (1 + np.exp(-np.asarray(parameters)[..., 0]))  # [2, 5]

    def outcomes(a, b):
        return np.array([a * b, a * (1 - b), (1 - a) * b, (1 - a) * (1 - b)])

    chain = np.stack([outcomes(first[0, k], first[1, k]) for k in range(1, 5)])
    occupancy = outcomes(first[0, 0], first[1, 0]) @ np.linalg.inv(np.eye(4) - discount * chain)
    return payoffs.reshape(2, 4) @ occupancy


@pytest.mark.parametrize(("payoffs", "discount"), [(PRISONERS_DILEMMA, 0.96), (MATCHING_PENNIES, 0.9)])
def test_returns_are_those_of_the_paper_s_formula(payoffs, discount):
    played = opponents.iterated_game(payoffs, discount)
    for seed in range(5):
        parameters = jax.random.normal(jax.random.key(seed), (2, 5, 1))
        found = opponents.expected_returns(played, opponents.policy_of(played, parameters))
        np.testing.assert_allclose(found, by_hand(payoffs, discount, parameters), rtol=1e-10)


@pytest.mark.parametrize("name", ["iterated_prisoners_dilemma", "matching_pennies"])
def test_it_is_the_game_of_the_environment(name):
    env = hajax.make_env(f"games/{name}")
    payoffs = {"iterated_prisoners_dilemma": PRISONERS_DILEMMA, "matching_pennies": MATCHING_PENNIES}[name]
    played = opponents.iterated_game(payoffs, 0.9)
    key = jax.random.key(0)
    state, shown = env.reset(key)
    at = 0
    for actions in [(0, 0), (0, 1), (1, 1), (1, 0), (0, 0), (1, 1)]:
        assert int(shown.observation[0].argmax()) == at
        state, shown = env.step(key, state, jnp.array(actions)[:, None])
        np.testing.assert_array_equal(shown.reward, played.rewards[:, at, *actions])
        (at,) = np.flatnonzero(played.game.transition[at, *actions])


def test_gradients_are_the_derivatives_of_the_formula():
    """First and second derivatives of the numpy formula by central differences, in the terms of the paper."""
    played = opponents.iterated_game(PRISONERS_DILEMMA, 0.9)
    at = np.random.default_rng(1).normal(size=(2, 5, 1))
    step = 1e-4

    def moved(*changes):
        parameters = at.copy()
        for agent, state, sign in changes:
            parameters[agent, state, 0] += sign * step
        return by_hand(PRISONERS_DILEMMA, 0.9, parameters)

    first = np.array(
        [[moved((j, s, 1)) - moved((j, s, -1)) for s in range(5)] for j in range(2)]
    ) / (2 * step)  # [j, s, i]: of the return of i  # fmt: skip
    mixed = np.zeros((5, 5, 2))  # [s of agent 0, t of agent 1, i]
    for s in range(5):
        for t in range(5):
            signs = [(a, b) for a in (1, -1) for b in (1, -1)]
            mixed[s, t] = sum(a * b * moved((0, s, a), (1, t, b)) for a, b in signs) / (4 * step**2)
    naive = np.stack([first[0, :, 0], first[1, :, 1]])
    shaping = np.stack([mixed[..., 1] @ first[1, :, 0], mixed[..., 0].T @ first[0, :, 1]])
    gradient = jax.jit(lambda eta: opponents.lola_gradient(played, jnp.asarray(at), eta)[..., 0])
    for eta in (np.zeros(2), np.full(2, 0.7), np.array([1.0, 0.0])):
        found = gradient(eta)
        np.testing.assert_allclose(found, naive + eta[:, None] * shaping, rtol=1e-5, atol=1e-6)


def test_three_agents_with_other_numbers_of_actions():
    """The sum of the pairs' terms, from the whole matrix of second derivatives."""
    payoffs = np.random.default_rng(0).normal(size=(3, 1, 3, 2))
    played = opponents.iterated_game(payoffs, 0.5)
    parameters = jax.random.normal(jax.random.key(2), (3, 7, 2))

    def returns(parameters):
        return opponents.expected_returns(played, opponents.policy_of(played, parameters))

    first, second = (jax.jit(jax.jacrev(f))(parameters) for f in (returns, jax.jacrev(returns)))
    expected = [
        first[i, i] + sum(jnp.einsum("stuv,st->uv", second[j, j, :, :, i], first[i, j]) for j in range(3) if j != i)
        for i in range(3)
    ]
    found = jax.jit(opponents.lola_gradient)(played, parameters, 1.0)
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-8, atol=1e-10)
    assert np.abs(found[1]).min() > 0
    np.testing.assert_array_equal(found[0], 0)  # it has a single action
    np.testing.assert_array_equal(found[2, :, 1], 0)  # it has two of three


@jax.jit
def ends(played, starts, lookahead):
    """What pairs of learners reach: returns, and the probabilities of the first action."""

    def end(start):
        last = opponents.learn(played, start, 200, lookahead=lookahead)
        return last.returns[-1], jnp.exp(opponents.policy_of(played, last.parameters[-1]))[..., 0]

    return jax.vmap(end)(starts)


def learned(payoffs, discount, lookahead):
    played = opponents.iterated_game(payoffs, discount)
    starts = jax.random.normal(jax.random.key(7), (50, 2, 5, 1))
    returns, first = (np.asarray(x) for x in ends(played, starts, jnp.asarray(lookahead)))
    return (1 - discount) * returns, first


def test_naive_learners_defect_and_lola_reciprocates():
    rewards, _ = learned(PRISONERS_DILEMMA, 0.96, 0.0)
    assert rewards.mean() < -1.9
    rewards, first = learned(PRISONERS_DILEMMA, 0.96, 1.0)
    assert rewards.mean() > -1.15
    after_cooperation, after_defection = first[:, 0, [1, 3]], first[:, 0, [2, 4]]
    assert after_cooperation.mean() > 0.9
    assert after_defection.mean() < 0.3


def test_only_lola_finds_the_equilibrium_of_matching_pennies():
    naive, _ = learned(MATCHING_PENNIES, 0.9, 0.0)
    rewards, first = learned(MATCHING_PENNIES, 0.9, 1.0)
    assert np.std(naive[:, 0]) > 0.2
    assert np.std(rewards[:, 0]) < 0.05
    assert abs(first - 0.5).mean() < 0.05


def test_payoffs_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="payoffs has shape"):
        opponents.iterated_game(PRISONERS_DILEMMA[0], 0.9)
