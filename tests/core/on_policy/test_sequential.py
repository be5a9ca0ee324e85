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

from hajax.algorithms.a2po import joint_clip
from hajax.core.drifts import PolicyChange
from hajax.core.on_policy import compound_ratio
from hajax.core.on_policy.guards import GUARDS, CompoundRatio, diagnostics
from hajax.core.on_policy.settings import KL_BUDGETS, A2POHyperparameters, Hyperparameters
from hajax.core.sequential import ORDERS_BY_SCORE, draw_permutation, sequential_update
from hajax.spaces import Discrete


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
    np.testing.assert_allclose(np.exp(info["carry"][0].log), product, 0, 1e-10)
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


def permutations(order, scores, draws=4000):
    """How often each permutation is drawn."""
    keys = jax.random.split(jax.random.key(0), draws)
    drawn = jax.vmap(lambda key: draw_permutation(key, len(scores), order, jnp.array(scores)))(keys)
    return {tuple(row): count / draws for row, count in zip(*np.unique(drawn, axis=0, return_counts=True), strict=True)}


def test_greedy_orders_by_score_and_breaks_ties_at_random():
    assert permutations("greedy", [1.0, 5.0, -3.0, np.nan, 4.0]) == {(1, 4, 0, 2, 3): 1.0}
    halves = permutations("greedy", [2.0, 7.0, 2.0])
    assert set(halves) == {(1, 0, 2), (1, 2, 0)}
    np.testing.assert_allclose(list(halves.values()), 0.5, atol=0.03)


def test_semi_greedy_takes_the_best_and_a_random_group_in_turn():
    drawn = permutations("semi_greedy", [1.0, 4.0, 3.0, 2.0])
    # After 1, any of the others; then the best that is left.
    assert set(drawn) == {(1, 0, 2, 3), (1, 2, 3, 0), (1, 3, 2, 0)}
    np.testing.assert_allclose(list(drawn.values()), 1 / 3, atol=0.03)
    equal = permutations("semi_greedy", [0.0, 0.0, 0.0])
    assert len(equal) == 6
    np.testing.assert_allclose(list(equal.values()), 1 / 6, atol=0.03)


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


@pytest.mark.parametrize("algorithm", ["happo", "hatrpo"])
def test_guards_orders_and_budgets_are_equal_with_one_agent(algorithm):
    spec = problems.make_spec((Discrete(3),), None)
    base = problems.make_algorithm(algorithm, spec)
    state = problems.random_state(base, 0)
    batch = problems.random_batch(base, state, 0)
    variants = [{"guard": guard, "center_advantage": center} for guard in GUARDS for center in (False, True)]
    variants += [{"order": order} for order in ("fixed", "simultaneous", *ORDERS_BY_SCORE)]
    variants += [{"kl_budget": budget} for budget in KL_BUDGETS] if algorithm == "hatrpo" else []
    wanted, info, _ = problems.Recorder(base)(jax.random.key(0), state, batch)
    assert float(info["effective_samples"][0]) == 1
    assert float(info["guarded"][0]) == 0
    for changes in variants:
        algo = problems.make_algorithm(algorithm, spec, **changes)
        updated, _, _ = problems.Recorder(algo)(jax.random.key(0), state, batch)
        expected.assert_trees_close(updated.actors, wanted.actors, 1e-14)
    if algorithm == "happo":
        a2po = problems.make_algorithm("a2po", spec)
        updated, _, _ = problems.Recorder(a2po)(jax.random.key(0), problems.random_state(a2po, 0), batch)
        expected.assert_trees_close((updated.actors, updated.critics), (wanted.actors, wanted.critics), 1e-14)


def test_a2pos_drift_is_one_within_its_interval_of_preceding_ratios():
    """Zero with zero slope at the old policy, and nowhere negative, for 1 ± ε/2; not for ratios beyond 1 ± ε."""
    rng = np.random.default_rng(0)
    advantage, log_ratio = rng.normal(size=(2, 1, 1000))
    preceding = rng.uniform(0.9, 1.1, (1, 1000))

    def drift(log_ratio, preceding):
        change = PolicyChange(log_ratio, jnp.array(preceding * advantage), None, None, None, jnp.array(preceding))  # type: ignore[arg-type]
        return joint_clip(change, A2POHyperparameters(clip=0.2))

    still = jnp.zeros_like(log_ratio)
    value, slope = jax.vmap(jax.value_and_grad(lambda x, g, a: drift(x, g)[0, a]), (None, None, 0))(
        still, preceding, jnp.arange(1000)
    )
    assert not value.any()
    assert not slope.any()
    there = np.asarray(drift(log_ratio, preceding))
    assert there.min() == 0
    assert (there > 0).mean() > 0.1
    # r · M − D is the clipped surrogate of the joint ratio.
    joint = np.exp(log_ratio) * preceding
    surrogate = np.minimum(joint * advantage, np.clip(joint, 0.8, 1.2) * advantage)
    np.testing.assert_allclose(np.exp(log_ratio) * preceding * advantage - there, surrogate, 0, 1e-12)
    assert np.asarray(drift(still, 1.5 * preceding)).max() > 0.1


def test_diagnostics_of_the_ratio_by_hand():
    """Four samples, of which the group is inactive at the last: ratios 4, 1, ½ and (not counted) 100."""
    ratio = CompoundRatio(jnp.log(jnp.array([4.0, 1.0, 0.5, 100.0])), None)
    share = jnp.array([[1.0, 1.0, 1.0, 0.0]])
    hyperparameters = Hyperparameters(truncation=2.0)
    whole = diagnostics(ratio, GUARDS["none"](ratio, share, hyperparameters), share)
    np.testing.assert_allclose(whole["compound_ratio_max"], 4)
    np.testing.assert_allclose(whole["effective_samples"], 5.5**2 / (3 * 17.25))
    assert whole["guarded"] == 0
    cut = diagnostics(ratio, GUARDS["truncate"](ratio, share, hyperparameters), share)
    np.testing.assert_allclose(cut["effective_samples"], 3.5**2 / (3 * 5.25))
    np.testing.assert_allclose(cut["guarded"], 1 / 3)
    even = GUARDS["normalize"](ratio, share, hyperparameters)
    np.testing.assert_allclose(even[:3], np.array([4, 1, 0.5]) * 3 / 5.5)


def test_a_truncated_ratio_stays_finite_where_the_ratio_overflows():
    ratio = CompoundRatio(jnp.array([0.0, 800.0]), None)
    share = jnp.ones((1, 2))
    weights = GUARDS["truncate"](ratio, share, Hyperparameters(truncation=2.0))
    np.testing.assert_allclose(weights, [1, 2])
    assert all(jnp.isfinite(value) for value in diagnostics(ratio, weights, share).values())


def test_a_joint_budget_bounds_the_sum_of_the_agents_divergences():
    """And what is left unspent lets later agents go further than an equal share."""
    for name, budget in (("hatrpo, clipped, joint budget", "joint"), ("hatrpo, unspent budget", "unspent")):
        algo, state, batch = problem(name)
        assert algo.settings.kl_budget == budget
        sizes = np.array([len(group) for group in problems.groups_of(algo.spec, algo.settings.sharing)])
        for key in range(3):
            _, info, _ = update(name, state, batch, key)
            kl = np.asarray(info["kl"])
            assert (sizes * kl).sum() <= 0.5 * (1 + 1e-7)
            if budget == "joint":
                assert (kl <= 0.5 / 3 * (1 + 1e-7)).all()
