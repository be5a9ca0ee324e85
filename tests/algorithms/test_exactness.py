"""The updates of on-policy algorithms equal those of `reference.py` in float64.

Every comparison covers all parameters, both Adam moments of each, and the statistics, after each of several updates.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import types

import cases
import expected
import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
import reference
from cases import BOX, CASES, expectation, problem, update

from hajax.spaces import Discrete, MultiDiscrete


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", CASES)
def test_update_equals_the_reference(name):
    algo, state, _ = problem(name)
    for i in range(3):
        batch = problems.random_batch(algo, state, 10 + i, inactive=CASES[name].inactive)
        new_state, info, drawn = update(name, state, batch, key=i)
        expected.assert_updated(algo, state, new_state, info, expectation(algo, state, batch, drawn))
        state = new_state


NARROW = {
    "happo, narrow inputs": cases.case(
        "happo", [Discrete(3), BOX, MultiDiscrete((2, 3))], sizes=(1, 15, 2), inactive=0.3
    ),
    "hatrpo, narrow inputs": cases.case("hatrpo", [Discrete(3), BOX], sizes=(1, 2), order="fixed"),
    "ippo, narrow inputs": cases.case(
        "ippo", [BOX, Discrete(3), BOX], sizes=(2, 1, 2), reward="individual", sharing=(0, 1, 0), agent_id=True
    ),
}


@pytest.mark.parametrize("name", NARROW)
def test_few_inputs_are_not_normalized(name, monkeypatch):
    """Also in teams of different widths, in actors and critics."""
    monkeypatch.setattr(reference, "LAYER_NORM_MIN_INPUTS", 3)
    settings = (*NARROW[name].settings, ("layer_norm_min_inputs", 3))
    monkeypatch.setitem(CASES, name, dataclasses.replace(NARROW[name], settings=settings))
    algo, state, batch = problem(name)
    new_state, info, drawn = update(name, state, batch)
    expected.assert_updated(algo, state, new_state, info, expectation(algo, state, batch, drawn))


@pytest.mark.parametrize("name", ["happo, one discrete agent", "happo, one box agent"])
def test_happo_of_one_agent_is_ppo(name):
    """With one agent there is no M: the update is PPO on the standardized advantage."""
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


# Independent and shared learners as plain PPO.


def test_unshared_ippo_is_one_ppo_per_agent():
    """Each agent learns from its individual reward alone: the data of other agents has no influence."""
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
            old, new = (expected.take(getattr(s, part), [agent], 0) for s in (new_state, alone))
            expected.assert_trees_close(old, new, 0)
        one = jax.tree.leaves(expected.take(new_state.actors.params, [other], 0))
        two = jax.tree.leaves(expected.take(alone.actors.params, [other], 0))
        assert max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(one, two, strict=True)) > 1e-3


def test_shared_mappo_is_one_ppo_on_the_pooled_batch():
    """The members' samples are concatenated, as if they were of one agent."""
    name = "mappo, shared"
    algo, state, batch = problem(name)
    new_state, _, _ = update(name, state, batch)
    hp = jax.tree.map(float, state.hyperparameters)
    _, streams = expected.streams(algo, state, batch)
    critic, statistics = problems.critic_views(algo, state)[0].read(), {"weight": 0}
    *_, advantages_with = expected.update_critics(
        [critic], [statistics | {"mean": 0.0, "mean_square": 0.0}], [[0]], streams, batch,
        hp=hp, settings=algo.settings, reward="team", learning_rate=0.0, epochs=[[]],
    )  # fmt: skip
    agents = [problems.samples(algo, state, batch, i) for i in range(3)]
    fields = {f.name: [getattr(a, f.name) for a in agents] for f in dataclasses.fields(reference.Samples)}
    fields.pop("sequences")
    masks = [np.concatenate(component) for component in zip(*fields.pop("available"), strict=True)]
    pool = reference.Samples(available=masks, **{name: np.concatenate(x) for name, x in fields.items()})
    advantage = reference.standardize([np.tile(advantages_with()[0].ravel(), 3)], [pool.active])[0]
    passes = [[np.arange(len(advantage))]] * algo.settings.epochs
    view = problems.actor_views(algo, state)[0].read()
    ppo = reference.ppo(view, None, [(pool, advantage)], hp, hp.actor_lr, passes)
    problems.actor_views(algo, new_state)[0].assert_equals(ppo, state.actors, 1e-10)


# Inactive agents.


@pytest.mark.parametrize(
    "name",
    [
        "happo, mixed team, some dead",
        "mappo, shared",
        "happo, all shared, agent id",
        "happo, gru, groups of two and one",
        "ippo, groups, normalized observations",
        "ippo, a team's reward, some dead",
        "ippo, gru",
    ],
)
def test_data_of_inactive_agents_has_no_influence(name):
    """At arbitrary steps, with one critic for the team or with individual critics."""
    algo, state, batch = problem(name)
    rng, dead = np.random.default_rng(5), ~np.asarray(batch.active)
    assert dead.any()
    unseen = True if algo.settings.centralized else ~np.asarray(batch.final_active)[..., None]
    masks = problems.random_batch(algo, state, 99).action_mask
    garbage = batch._replace(
        observation=jnp.where(dead[..., None], 30 * rng.normal(size=batch.observation.shape), batch.observation),
        action_mask=jnp.where(dead[..., None, None], masks, batch.action_mask),
        action=jnp.where(dead[..., None], rng.integers(2, size=batch.action.shape), batch.action),
        log_prob=jnp.where(dead, batch.log_prob + 3 * rng.normal(size=dead.shape), batch.log_prob),
        final_observation=jnp.where(unseen, 100 * rng.normal(size=batch.observation.shape), batch.final_observation),
    )
    clean, soiled = update(name, state, batch)[0], update(name, state, garbage)[0]
    expected.assert_trees_close(clean, soiled, 0)


def test_agents_inactive_for_an_episode_have_no_influence_on_their_critics():
    """An episode in which an agent is inactive throughout does not influence its critic, not even by its rewards."""
    name = "ippo, groups, normalized observations"
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
    expected.assert_trees_close(clean, soiled, 0)


# The reference itself.


@pytest.mark.parametrize(
    "name", ["happo, mixed team, some dead", "happo, other losses", "happo, gru, groups of two and one"]
)
def test_gradients_of_the_reference_are_those_of_its_losses(name):
    """Against central differences in every parameter."""
    algo, state, batch = problem(name)
    hp = types.SimpleNamespace(**problems.NUMBERS, **problems.ASCENT)
    rng = np.random.default_rng(3)
    losses = []
    for agent, view in enumerate(problems.actor_views(algo, state)):
        samples = problems.samples(algo, state, batch, agent)
        members = [(samples, rng.normal(size=len(samples.active)))]
        loss = functools.partial(reference.ppo_loss, bounds=problems.bounds(algo, agent), members=members, hp=hp)
        losses.append((view.read().params, loss))
    critic = problems.critic_views(algo, state)[0].read().params
    x = np.asarray(batch.state).reshape(-1, 4)
    rows = expected.streams(algo, state, batch)[1][0].sequences
    old, target = reference.value(critic, x, rows)[0] + 0.2 * rng.normal(size=len(x)), rng.normal(size=len(x))
    data = {"x": x, "old": old, "target": target, "hp": hp, "sequences": rows}
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
