"""The updates of HAPPO, MAPPO and IPPO equal those of `reference.py`, number for number, in float64.

Every comparison covers all parameters, both Adam moments of each, and the statistics, after each of several updates.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import types
from typing import Any

import expected
import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
import reference

from hajax.core import compound_ratio
from hajax.core.sequential import sequential_update
from hajax.spec import Box, Discrete, MultiDiscrete


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


BOX = Box((-1.0, 0.0), (1.0, 5.0))
LINE = Box((-np.inf,), (np.inf,))
TRIO = (Discrete(3),) * 3


@dataclasses.dataclass(frozen=True)
class Case:
    algorithm: str
    spaces: tuple
    settings: tuple = ()  # (name, value) pairs
    sizes: tuple | None = None
    reward: str = "team"
    inactive: float = 0.0  # share of dead agents


def case(algorithm, spaces, *, sizes=None, reward="team", inactive=0.0, **settings):
    return Case(algorithm, tuple(spaces), tuple(settings.items()), sizes, reward, inactive)


CASES = {
    "happo, one discrete agent": case("happo", [Discrete(3)]),
    "happo, one box agent": case("happo", [BOX], max_grad_norm=10.0),
    "happo, random order": case("happo", TRIO, epochs=2),
    "happo, minibatches": case("happo", [Discrete(2), BOX], order="fixed", minibatches=3),
    "happo, mixed team, some dead": case(
        "happo", [Discrete(3), BOX, MultiDiscrete((2, 3))], sizes=(2, 4, 3), order="fixed", inactive=0.3
    ),
    "happo, groups of two and one": case("happo", TRIO, order="fixed", sharing=(0, 0, 1), inactive=0.3),
    "happo, by type, agent id": case(
        "happo", [Discrete(3), LINE, Discrete(3)], sizes=(3, 2, 3), order="fixed", sharing="type", agent_id=True
    ),
    "happo, all shared, agent id": case("happo", TRIO, sharing="all", agent_id=True, inactive=0.3),
    "happo, other losses": case(
        "happo",
        [BOX, Discrete(3)],
        order="fixed",
        value_loss="squared",
        clip_value=False,
        normalise_values=False,
        layer_norm=False,
        action_scaling=False,
        hidden_sizes=(5, 4),
        decay_updates=4,
    ),
    "mappo, unshared": case("mappo", TRIO, sharing="none"),
    "mappo, shared": case("mappo", TRIO, inactive=0.3),
    "ippo, unshared": case("ippo", [Discrete(3), BOX], sizes=(2, 4), reward="individual", sharing="none"),
    "ippo, groups, normalised observations": case(
        "ippo",
        [BOX, Discrete(3), BOX],
        reward="individual",
        sharing=(0, 1, 0),
        normalise_observations=True,
        inactive=0.3,
    ),
}


@functools.cache
def learning(name: str) -> tuple[Any, problems.Recorder]:
    """The algorithm of a case and its update, compiled once for all tests."""
    chosen = CASES[name]
    spec = problems.make_spec(chosen.spaces, chosen.sizes, reward=chosen.reward)
    algo = problems.make_algorithm(chosen.algorithm, spec, **dict(chosen.settings))
    return algo, problems.Recorder(algo)


def problem(name: str, seed: int = 0) -> tuple[Any, Any, Any]:
    """The algorithm of a case, a random state and a random rollout."""
    algo, _ = learning(name)
    state = problems.random_state(algo, seed)
    return algo, state, problems.random_batch(algo, state, seed, inactive=CASES[name].inactive)


def update(name: str, state: Any, batch: Any, key: int = 0) -> tuple[Any, Any, list]:
    return learning(name)[1](jax.random.key(key), state, batch)


def expectation(algo: Any, state: Any, batch: Any, drawn: list) -> expected.Expected:
    """The reference's update, in the order that the algorithm says or has drawn."""
    num_groups = len(problems.groups_of(algo.spec, algo.settings.sharing))
    if algo.settings.order == "simultaneous":
        order = None
    elif algo.settings.order == "random" and num_groups > 1:
        order, *drawn = drawn
        assert sorted(order) == list(range(num_groups))
    else:
        order = range(num_groups)
    return expected.update(algo, state, batch, order, drawn)


@pytest.mark.parametrize("name", CASES)
def test_update_equals_the_reference(name):
    algo, state, _ = problem(name)
    for i in range(3):
        batch = problems.random_batch(algo, state, 10 + i, inactive=CASES[name].inactive)
        new_state, info, drawn = update(name, state, batch, key=i)
        expected.assert_updated(algo, state, new_state, info, expectation(algo, state, batch, drawn))
        state = new_state


@pytest.mark.parametrize("name", ["happo, one discrete agent", "happo, one box agent"])
def test_happo_of_one_agent_is_ppo(name):
    """One agent: no M anywhere, just PPO on the standardised advantage."""
    algo, state, batch = problem(name)
    new_state, _, _ = update(name, state, batch)
    ppo = expected.update(algo, state, batch, order=None)
    problems.actor_views(algo, new_state)[0].assert_equals(ppo.actors[0], state.actors, 1e-10)
    problems.critic_views(algo, new_state)[0].assert_equals(ppo.critics[0], state.critics, 1e-10)


def test_minibatches_partition_the_samples_anew_in_every_pass():
    name = "happo, minibatches"
    algo, state, batch = problem(name)
    _, _, drawn = update(name, state, batch)
    assert len(drawn) == 2 * algo.settings.epochs + algo.settings.critic_epochs
    assert all(sorted(rows) == list(range(batch.log_prob[..., 0].size)) for rows in drawn)
    assert len({tuple(rows) for rows in drawn}) == len(drawn)


# The compound ratio M and the order.


def test_compound_ratio_is_the_product_of_ratios_on_the_full_batch(monkeypatch):
    """The carry that leaves the scan, against ratios computed by hand from the parameters that the update returns."""
    carries = []

    def recorded(*args):
        states, carry, infos = sequential_update(*args)
        jax.debug.callback(lambda x: carries.append(np.asarray(x)), carry)
        return states, carry, infos

    monkeypatch.setattr(compound_ratio, "sequential_update", recorded)
    name = "happo, groups of two and one"
    algo, state, batch = problem(name)
    new_state, info, _ = problems.Recorder(algo)(jax.random.key(0), state, batch)  # compiled anew, with the above
    jax.effects_barrier()
    product = np.ones(batch.log_prob[..., 0].size)
    for agent in range(3):
        log_prob, _, _ = problems.policy(algo, new_state, batch, agent)
        alive, old = (np.asarray(x[..., agent]).ravel() for x in (batch.active, batch.log_prob))
        product *= np.where(alive, np.exp(log_prob) / np.exp(old), 1)
    np.testing.assert_allclose(carries[0], product, 0, 1e-10)
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


def relabel(tree: Any, agents: list[int], axis: int) -> Any:
    return jax.tree.map(lambda x: jnp.take(x, jnp.array(agents), axis), tree)


def relabelled(state: Any, batch: Any, agents: list[int]) -> tuple[Any, Any]:
    """The same problem with agent `agents[i]` in place i."""
    fields = ("observation", "action_mask", "active", "action", "log_prob", "reward", "final_observation")
    return (
        state._replace(actors=relabel(state.actors, agents, 0)),
        batch._replace(**{field: relabel(getattr(batch, field), agents, 2) for field in fields}),
    )


def assert_trees_close(one: Any, other: Any, tolerance: float = 1e-10) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 0, tolerance), one, other)


@pytest.mark.parametrize("agents", [[1, 0, 2], [1, 2, 0], [2, 1, 0]])
def test_a_permuted_order_gives_the_permuted_result(agents):
    """Agents renamed and the order renamed with them: the same agents learn the same."""
    name = "happo, random order"
    _, state, batch = problem(name)
    new_state, info, (order,) = update(name, state, batch, key=0)
    renamed = [agents.index(i) for i in order]
    for key in itertools.count():
        permuted, permuted_info, (drawn,) = update(name, *relabelled(state, batch, agents), key)
        if drawn.tolist() == renamed:
            break
    assert_trees_close(permuted.actors, relabel(new_state.actors, agents, 0))
    assert_trees_close(permuted.critics, new_state.critics)
    assert_trees_close(permuted_info["compound_ratio"], info["compound_ratio"])


def test_simultaneous_ignores_the_order_and_sequential_does_not():
    algo, state, batch = problem("mappo, unshared")
    at_once, info, drawn = update("mappo, unshared", state, batch)
    assert drawn == []
    assert info["compound_ratio"] == 1
    for agents in ([1, 2, 0], [2, 1, 0]):
        permuted, _, _ = update("mappo, unshared", *relabelled(state, batch, agents), key=7)
        assert_trees_close(permuted.actors, relabel(at_once.actors, agents, 0), 1e-13)
    # HAPPO from the same state (with as many epochs): only the first of the order does not see any M.
    for order in itertools.permutations(range(3)):
        sequential = expected.update(algo, state, batch, order)
        views = problems.actor_views(algo, at_once)
        views[order[0]].assert_equals(sequential.actors[order[0]], state.actors, 1e-10)
        for g in order[1:]:
            gap = views[g].read().params["logits/kernel"] - sequential.actors[g].params["logits/kernel"]
            assert np.abs(gap).max() > 1e-6


# Independent and shared learners as plain PPO.


def test_unshared_ippo_is_one_ppo_per_agent():
    """Each agent learns as if alone, from its own reward: the others' data have no influence."""
    name = "ippo, unshared"
    _, state, batch = problem(name)
    new_state, _, _ = update(name, state, batch)
    for agent in range(2):
        other = 1 - agent
        changed = batch._replace(
            observation=batch.observation.at[:, :, other, 0].add(1.0),
            reward=batch.reward.at[:, :, other].add(3.0),
            log_prob=batch.log_prob.at[:, :, other].add(0.3),
            active=batch.active.at[:2, :, other].set(False),
        )
        alone, _, _ = update(name, state, changed)
        for part in ("actors", "critics", "value_statistics"):
            old, new = (relabel(getattr(s, part), [agent], 0) for s in (new_state, alone))
            assert_trees_close(old, new, 0)
        one = jax.tree.leaves(relabel(new_state.actors.params, [other], 0))
        two = jax.tree.leaves(relabel(alone.actors.params, [other], 0))
        assert max(float(jnp.abs(a - b).max()) for a, b in zip(one, two, strict=True)) > 1e-3


def test_shared_mappo_is_one_ppo_on_the_pooled_batch():
    """The members' samples end to end, as those of one agent."""
    name = "mappo, shared"
    algo, state, batch = problem(name)
    new_state, _, _ = update(name, state, batch)
    hp = jax.tree.map(float, state.hyperparameters)
    _, streams = expected.streams(algo, state, batch)
    critic, statistics = problems.critic_views(algo, state)[0].read(), {"weight": 0}
    *_, advantages = expected.update_critics(
        [critic], [statistics | {"mean": 0.0, "mean_square": 0.0}], [[0]], streams, batch,
        hp=hp, settings=algo.settings, learning_rate=0.0, epochs=[[]],
    )  # fmt: skip
    agents = [problems.samples(algo, state, batch, i) for i in range(3)]
    fields = {f.name: [getattr(a, f.name) for a in agents] for f in dataclasses.fields(reference.Samples)}
    masks = [np.concatenate(component) for component in zip(*fields.pop("available"), strict=True)]
    pool = reference.Samples(available=masks, **{name: np.concatenate(x) for name, x in fields.items()})
    advantage = reference.standardise([np.tile(advantages[0], 3)], [pool.active])[0]
    passes = [[np.arange(len(advantage))]] * algo.settings.epochs
    view = problems.actor_views(algo, state)[0].read()
    ppo = reference.ppo(view, None, [(pool, advantage)], hp, hp.actor_lr, passes)
    problems.actor_views(algo, new_state)[0].assert_equals(ppo, state.actors, 1e-10)


# Inactive agents.


@pytest.mark.parametrize("name", ["happo, mixed team, some dead", "mappo, shared", "happo, all shared, agent id"])
def test_what_dead_agents_see_and_do_has_no_influence(name):
    """Central critic: arbitrary steps."""
    algo, state, batch = problem(name)
    rng, dead = np.random.default_rng(5), ~np.asarray(batch.active)
    assert dead.any()
    masks = problems.random_batch(algo, state, 99).action_mask
    garbage = batch._replace(
        observation=jnp.where(dead[..., None], 30 * rng.normal(size=batch.observation.shape), batch.observation),
        action_mask=jnp.where(dead[..., None, None], masks, batch.action_mask),
        action=jnp.where(dead[..., None], rng.integers(2, size=batch.action.shape), batch.action),
        log_prob=jnp.where(dead, batch.log_prob + 3 * rng.normal(size=dead.shape), batch.log_prob),
        final_observation=100 * rng.normal(size=batch.observation.shape),
    )
    clean, soiled = update(name, state, batch)[0], update(name, state, garbage)[0]
    assert_trees_close(clean, soiled, 0)


def test_agents_dead_for_an_episode_have_no_influence_on_their_critics():
    """Individual critics: an episode in which the agent is dead throughout has no influence, rewards included."""
    name = "ippo, groups, normalised observations"
    _, state, batch = problem(name)
    done = jnp.zeros_like(batch.terminated).at[1].set(True)
    dead = jnp.zeros_like(batch.active).at[:2, 0, 0].set(True).at[2:, 1, 2].set(True).at[:, 2, 1].set(True)
    batch = batch._replace(terminated=done, truncated=jnp.zeros_like(done), active=~dead)
    garbage = batch._replace(
        observation=jnp.where(dead[..., None], 20.0, batch.observation),
        final_observation=jnp.where(dead[..., None], -40.0, batch.final_observation),
        reward=jnp.where(dead, 100.0, batch.reward),
        log_prob=jnp.where(dead, 1.0, batch.log_prob),
    )
    clean, soiled = update(name, state, batch)[0], update(name, state, garbage)[0]
    assert_trees_close(clean, soiled, 0)


# The reference itself.


@pytest.mark.parametrize("name", ["happo, mixed team, some dead", "happo, other losses"])
def test_gradients_of_the_reference_are_those_of_its_losses(name):
    """Central differences of every parameter."""
    algo, state, batch = problem(name)
    hp = types.SimpleNamespace(**problems.NUMBERS)
    rng = np.random.default_rng(3)
    losses = []
    for agent, view in enumerate(problems.actor_views(algo, state)):
        samples = problems.samples(algo, state, batch, agent)
        members = [(samples, rng.normal(size=len(samples.active)))]
        loss = functools.partial(reference.ppo_loss, bounds=problems.bounds(algo, agent), members=members, hp=hp)
        losses.append((view.read().params, loss))
    critic = problems.critic_views(algo, state)[0].read().params
    x = np.asarray(batch.state).reshape(-1, 4)
    old, target = reference.value(critic, x)[0] + 0.2 * rng.normal(size=len(x)), rng.normal(size=len(x))
    data = {"x": x, "old": old, "target": target, "hp": hp}
    for kind, clip in itertools.product(("huber", "squared"), (True, False)):
        losses.append((critic, functools.partial(reference.value_loss, **data, kind=kind, clip_value=clip)))
    for params, loss in losses:
        _, gradient = loss(params)
        for name, array in params.items():
            for index in np.ndindex(*array.shape):
                sides = []
                for h in (1e-6, -1e-6):
                    moved = array.copy()
                    moved[index] += h
                    sides.append(loss(params | {name: moved})[0])
                np.testing.assert_allclose((sides[0] - sides[1]) / 2e-6, gradient[name][index], 0, 1e-8)
