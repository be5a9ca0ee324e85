"""What the other agents' changes do to an agent's environment: the papers' theorems and lemmas, on random games."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tabular_reference import games_and_policies, one

from hajax import tabular
from hajax.tabular import variation
from hajax.tabular.policies import joint_probabilities, kl_divergence

NUMBER = 200
# Pinsker's inequality: ‖p − q‖₁ ≤ √2 · √KL(p ‖ q), with KL in nats.
PINSKER = math.sqrt(2)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def drawn():
    with jax.enable_x64(True):
        game, first, second = games_and_policies(NUMBER, policies=2, num_agents=(2, 3), num_actions=(2, 3))
        # Steps of all lengths: a policy moves by a share of the way to another.
        share = jnp.logspace(-3, 0, NUMBER)[:, None, None, None]
        mixed = jnp.log((1 - share) * jnp.exp(first) + share * jnp.exp(second))
        return game, first, jnp.where(game.action_mask[:, :, None], mixed, first)


def divergences_of_tables(game, old, new):
    """KL of the joint policy `[S]`, and of the joint policy of all but each agent `[N, S]`, from their tables."""

    def of(agents):
        states, width = old.shape[1:]
        found = np.zeros(states)
        for actions in itertools.product(range(width), repeat=len(agents)):
            p, q = (math.prod(np.exp(x[i, :, a]) for i, a in zip(agents, actions, strict=True)) for x in (old, new))
            found += np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / np.where(p > 0, q, 1)), 0)
        return found

    every = range(old.shape[0])
    return of(tuple(every)), np.stack([of(tuple(j for j in every if j != i)) for i in every])


def test_the_joint_divergence_is_the_sum_of_the_agents(drawn):
    """Theorem 3, and Theorem 2 with what it leaves out: the mean over i of KL(π^{−i}) is (N − 1)/N of the joint KL."""
    game, old, new = drawn
    for k in range(0, NUMBER, 10):
        joint, others = divergences_of_tables(one(game, k), *(np.asarray(x[k]) for x in (old, new)))
        each = np.asarray(kl_divergence(old[k], new[k]))
        np.testing.assert_allclose(joint, each.sum(0), rtol=1e-9, atol=1e-12)
        agents = each.shape[0]
        np.testing.assert_allclose(others.mean(0), joint * (agents - 1) / agents, rtol=1e-9, atol=1e-12)
        assert joint.max() >= others.mean(0).max()
        found = variation(one(game, k), old[k], new[k]).others_kl
        states = np.asarray(game.state_mask[k])
        np.testing.assert_allclose(found, others[:, states].max(1), rtol=1e-9, atol=1e-12)


def faced(table, joint, agent):
    """E[table | s, aⁱ] of a table `[S, A, …, A, …]`, with the joint distribution `[S, A, …, A]`."""
    axes = tuple(j + 1 for j in range(joint.ndim - 1) if j != agent)
    own = joint.sum(axes, keepdims=True)
    share = np.divide(joint, own, out=np.zeros_like(joint), where=own > 0)
    return (share.reshape(share.shape + (1,) * (table.ndim - joint.ndim)) * table).sum(axes)


def test_variations_are_those_of_the_definitions(drawn):
    game, old, new = drawn
    for k in range(0, NUMBER, 25):
        mine, states = one(game, k), np.asarray(game.state_mask[k])
        before, after = (np.asarray(joint_probabilities(jnp.exp(x[k]))) for x in (old, new))
        found = variation(mine, old[k], new[k])
        for i in range(old.shape[1]):
            reward, transition = (
                (faced(np.asarray(table), after, i) - faced(np.asarray(table), before, i))[states]
                for table in (mine.reward, mine.transition)
            )
            np.testing.assert_allclose(found.reward[i], abs(reward).max(), atol=1e-12)
            np.testing.assert_allclose(found.transition[i], abs(transition).sum(-1).max(), atol=1e-12)


def test_variations_are_bounded_with_pinskers_constant(drawn):
    game, old, new = drawn
    found = jax.jit(jax.vmap(variation))(game, old, new)
    bound = PINSKER * np.sqrt(found.others_kl)
    largest = np.abs(game.reward).max(tuple(range(1, game.reward.ndim)))[:, None]
    assert (found.transition <= bound + 1e-12).all()
    assert (found.reward <= largest * bound + 1e-12).all()
    assert (found.transition > 0.5 * bound)[np.asarray(bound) > 0].any()  # and not by far


def test_the_paper_s_constant_is_too_small():
    """The other agent decides the reward and the next state, and moves from (0.5, 0.5) to (0.6, 0.4)."""
    decided = np.broadcast_to(np.eye(2), (2, 2, 2, 2))  # [s, a⁰, a¹, s']: the next state is a¹
    reward = np.broadcast_to([1.0, -1.0], (2, 2, 2))
    game = tabular.make_game(reward, decided, [1.0, 0.0], 0.9)
    old = jnp.log(jnp.full((2, 2, 2), 0.5))
    new = old.at[1].set(jnp.log(jnp.array([0.6, 0.4])))
    found = variation(game, old, new)
    np.testing.assert_allclose(found.transition[0], 0.2)
    np.testing.assert_allclose(found.reward[0], 0.2)
    np.testing.assert_allclose(found.others_kl[0], -0.5 * math.log(1 - 0.04))
    root = math.sqrt(found.others_kl[0])
    assert 2 * math.log(2) * root < 0.2 < PINSKER * root
    np.testing.assert_array_equal([found.transition[1], found.reward[1], found.others_kl[1]], 0)  # agent 0 did not move
