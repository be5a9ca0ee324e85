"""The sequential update: the compound ratio M, and the effect of the agents' order. In float64."""

from __future__ import annotations

import itertools
from typing import Any

import expected
import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
from cases import problem, update

from hajax.core.on_policy import compound_ratio
from hajax.core.sequential import sequential_update


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def test_compound_ratio_is_the_product_of_ratios_on_the_full_batch(monkeypatch):
    """The final carry of the scan, against ratios computed from the parameters that the update returns."""

    def recorded(*args):
        states, carry, infos = sequential_update(*args)
        return states, carry, infos | {"carry": carry}

    monkeypatch.setattr(compound_ratio, "sequential_update", recorded)
    algo, state, batch = problem("happo, groups of two and one")
    new_state, info, _ = problems.Recorder(algo)(jax.random.key(0), state, batch)  # compiled with the patch
    product = np.ones(batch.log_prob[..., 0].size)
    for agent in range(3):
        log_prob, _, _ = problems.policy(algo, new_state, batch, agent)
        alive, old = (np.asarray(x[..., agent]).ravel() for x in (batch.active, batch.log_prob))
        product *= np.where(alive, np.exp(log_prob) / np.exp(old), 1)
    np.testing.assert_allclose(info["carry"], product, 0, 1e-10)
    np.testing.assert_allclose(info["compound_ratio"], product.mean(), 0, 1e-10)
    assert product.std() > 0.1


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_sequential_update_hands_the_carry_from_group_to_group(order):
    def update_group(state, inputs, carry):
        return state + inputs * carry, carry * state + inputs, {"seen": carry}

    states, inputs, start = np.array([2.0, 3.0, 5.0]), np.array([0.5, -1.0, 4.0]), 7.0
    new, carry, info = sequential_update(update_group, jnp.array(order), states, inputs, jnp.array(start))
    by_hand, seen, passed = states.copy(), np.zeros(3), start
    for g in order:
        by_hand[g], seen[g], passed = states[g] + inputs[g] * passed, passed, passed * states[g] + inputs[g]
    np.testing.assert_array_equal(new, by_hand)
    np.testing.assert_array_equal(info["seen"], seen)
    assert carry == passed
    new, carry, info = sequential_update(update_group, None, states, inputs, jnp.array(start))
    np.testing.assert_array_equal(new, states + inputs * start)
    assert carry == start
    assert (info["seen"] == start).all()


def test_random_order_draws_every_permutation():
    name = "happo, random order"
    _, state, batch = problem(name)
    orders = [tuple(update(name, state, batch, key)[2][0].tolist()) for key in range(60)]
    assert set(orders) == set(itertools.permutations(range(3)))


def relabeled(state: Any, batch: Any, agents: list[int]) -> tuple[Any, Any]:
    """The same problem with agent `agents[i]` at index i."""
    fields = ("observation", "action_mask", "active", "action", "log_prob", "reward", "final_observation")
    return (
        state._replace(actors=expected.take(state.actors, agents, 0)),
        batch._replace(**{field: expected.take(getattr(batch, field), agents, 2) for field in fields}),
    )


@pytest.mark.parametrize("agents", [[1, 0, 2], [1, 2, 0], [2, 1, 0]])
def test_a_permuted_order_gives_the_permuted_result(agents):
    """With agents and order permuted in the same way, the agents' updates are equal."""
    name = "happo, random order"
    _, state, batch = problem(name)
    new_state, info, (order,) = update(name, state, batch, key=0)
    renamed = [agents.index(i) for i in order]
    for key in itertools.count():
        permuted, permuted_info, (drawn,) = update(name, *relabeled(state, batch, agents), key)
        if drawn.tolist() == renamed:
            break
    expected.assert_trees_close(permuted.actors, expected.take(new_state.actors, agents, 0), 1e-10)
    expected.assert_trees_close(permuted.critics, new_state.critics, 1e-10)
    expected.assert_trees_close(permuted_info["compound_ratio"], info["compound_ratio"], 1e-10)


def test_simultaneous_ignores_the_order_and_sequential_does_not():
    algo, state, batch = problem("mappo, unshared")
    at_once, info, drawn = update("mappo, unshared", state, batch)
    assert drawn == []
    assert info["compound_ratio"] == 1
    for agents in ([1, 2, 0], [2, 1, 0]):
        permuted, _, _ = update("mappo, unshared", *relabeled(state, batch, agents), key=7)
        expected.assert_trees_close(permuted.actors, expected.take(at_once.actors, agents, 0), 1e-13)
    # HAPPO from the same state (with as many epochs): only the first of the order does not see any M.
    for order in itertools.permutations(range(3)):
        sequential = expected.update(algo, state, batch, order)
        views = problems.actor_views(algo, at_once)
        views[order[0]].assert_equals(sequential.actors[order[0]], state.actors, 1e-10)
        for g in order[1:]:
            gap = views[g].read().params["logits/kernel"] - sequential.actors[g].params["logits/kernel"]
            assert np.abs(gap).max() > 1e-6
