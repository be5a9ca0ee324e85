"""A padded agent equals the agent without padding: its update, its actions and its densities, to 1e-12.

The team is Discrete(3), Discrete(5), a Box with different bounds per dimension, and MultiDiscrete((2, 4)), each with
its own observation width. All padded entries of the parameters hold random numbers (see `problems.random_state`).
"""

from __future__ import annotations

import dataclasses
import functools

import expected
import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from hajax.spaces import Box, Discrete, MultiDiscrete
from hajax.spec import FinalStep, Timestep


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


@functools.cache
def learning(algorithm: str, **settings):
    reward = "individual" if algorithm == "ippo" else "team"
    spec = problems.make_spec(problems.MIXED, problems.MIXED_SIZES, reward=reward)
    algo = problems.make_algorithm(algorithm, spec, sharing="none", **settings)
    return algo, problems.Recorder(algo)


# The update.


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        ("happo", {"order": "fixed", "agent_id": True}),
        ("mappo", {"layer_norm": False}),
        ("ippo", {"normalize_observations": True}),
        ("happo", {"order": "fixed", "memory": "gru", "chunk_length": 3}),
    ],
)
def test_padded_update_equals_the_unpadded_one(algorithm, settings):
    """Against networks of each agent's own widths. Padded parameters keep their values and have no gradient."""
    algo, update = learning(algorithm, **settings)
    state = problems.random_state(algo, 1)
    for i in range(2):
        batch = problems.random_batch(algo, state, i, inactive=0.2)
        new_state, info, _ = update(jax.random.key(i), state, batch)
        order = range(4) if algorithm == "happo" else None
        wanted = expected.update(algo, state, batch, order)
        expected.assert_updated(algo, state, new_state, info, wanted, tolerance=1e-12)
        state = new_state


def alone(algo, state, batch, agent: int):
    """The agent as a team of one: specification, algorithm, state and batch without any padding."""
    spec = dataclasses.replace(algo.spec, agents=(algo.spec.agents[agent],))
    single = problems.make_algorithm("mappo", spec, sharing="none", order="simultaneous")

    template = problems.random_state(single, 0)
    full = flatten_dict(state.actors.params, sep="/")

    def copy(name, x):
        """The single agent's parameters, with the team's values in the entries that the agent has."""
        x, team = np.array(x), np.asarray(full[name])[agent]
        own = problems.own_entries(name, x.shape[1:], spec, False, 0)
        x[0][own] = team[problems.own_entries(name, team.shape, algo.spec, False, agent)]
        return jnp.asarray(x)

    names = flatten_dict(template.actors.params, sep="/")
    params = unflatten_dict({name: copy(name, x) for name, x in names.items()}, sep="/")
    layout = spec.action_layout
    o, d, c = spec.observation_size, *layout.choices.shape[1:]
    own = {
        "observation": batch.observation[:, :, [agent], :o],
        "final_observation": batch.final_observation[:, :, [agent], :o],
        "action_mask": batch.action_mask[:, :, [agent], :d, :c],
        "action": batch.action[:, :, [agent], :d],
        **{name: getattr(batch, name)[:, :, [agent]] for name in ("active", "log_prob", "reward")},
    }
    single_state = template._replace(actors=template.actors._replace(params=params), critics=state.critics)
    return single, single_state, batch._replace(**own)


@pytest.mark.parametrize("agent", [0, 2, 3])
def test_a_member_of_the_padded_team_learns_as_the_agent_alone(agent):
    """hajax against hajax: with simultaneous updates and a centralized critic, a team of one has equal advantages."""
    algo, update = learning("mappo")
    state = problems.random_state(algo, 2)
    batch = problems.random_batch(algo, state, 2)
    team, _, _ = update(jax.random.key(0), state, batch)
    single, single_state, single_batch = alone(algo, state, batch, agent)
    new, _, _ = problems.Recorder(single)(jax.random.key(0), single_state, single_batch)
    view = problems.actor_views(single, new)[0].read()
    problems.actor_views(algo, team)[agent].assert_equals(view, state.actors, 1e-12)
    expected.assert_trees_close(new.critics, team.critics, 1e-12)


# Acting.


def timestep(batch) -> Timestep:
    shared = {name: getattr(batch, name) for name in ("observation", "state", "action_mask", "active", "reward")}
    flags = {name: getattr(batch, name) for name in ("terminated", "truncated", "first")}
    final = FinalStep(batch.observation, batch.state, batch.action_mask, batch.active)
    return Timestep(**shared, **flags, final=final, metrics={})


@functools.cache
def acting():
    algo, _ = learning("happo", order="fixed", agent_id=True)
    return algo, jax.jit(algo.act, static_argnums=4, compiler_options=problems.QUICK)


def test_log_prob_of_acting_equals_that_of_the_unpadded_network():
    algo, act = acting()
    state = problems.random_state(algo, 3)
    batch = problems.random_batch(algo, state, 3)
    action, extras, _ = act(jax.random.key(0), state, timestep(batch), ())
    acted = batch._replace(action=action)
    for agent, space in enumerate(problems.MIXED):
        log_prob, _, _ = problems.policy(algo, state, acted, agent)
        np.testing.assert_allclose(extras.log_prob[..., agent].ravel(), log_prob, 0, 1e-12)
        assert not action[..., agent, space.num_components :].any()


def test_mode_is_the_most_probable_action_and_the_center_of_the_density():
    algo, act = acting()
    state = problems.random_state(algo, 3)
    batch = problems.random_batch(algo, state, 3)
    mode, extras, _ = act(jax.random.key(0), state, timestep(batch), (), True)
    for agent, space in enumerate(problems.MIXED):
        best = np.asarray(extras.log_prob[..., agent]).ravel()
        np.testing.assert_allclose(problems.policy(algo, state, batch._replace(action=mode), agent)[0], best, 0, 1e-12)
        for other in range(8):
            rng = np.random.default_rng(other)
            action = np.array(mode)
            if isinstance(space, Box):
                action[:, :, agent, :2] += 0.01 * rng.normal(size=(4, 3, 2))
            else:
                scores = rng.random(batch.action_mask[:, :, agent].shape) * batch.action_mask[:, :, agent]
                action[:, :, agent] = scores.argmax(-1)
            assert (problems.policy(algo, state, batch._replace(action=action), agent)[0] <= best + 1e-12).all()


def test_unavailable_actions_are_never_sampled_and_an_agent_without_choices_stays_finite():
    algo, act = acting()
    state = problems.random_state(algo, 4)
    batch = problems.random_batch(algo, state, 4)
    batch = batch._replace(action_mask=batch.action_mask.at[0, 0].set(False))
    layout, usable = algo.spec.action_layout, np.array(batch.action_mask)
    usable[0, 0] = layout.choices
    taken = np.zeros(usable.shape, int)
    for key in jax.random.split(jax.random.key(1), 300):
        action, extras, _ = act(key, state, timestep(batch), ())
        assert np.isfinite(extras.log_prob).all()
        taken += np.asarray(action, int)[..., None] == np.arange(usable.shape[-1])
    taken, usable = taken[..., layout.discrete, :], usable[..., layout.discrete, :]
    assert not taken[~usable].any()
    assert (taken[usable] > 0).mean() > 0.9


def test_fresh_kernels_of_padded_agents_are_orthogonal_on_their_own_inputs():
    algo, _ = learning("mappo")
    kernel = jax.jit(lambda key: algo.init(key).actors.params["torso"]["Dense_0"]["kernel"])(jax.random.key(5))
    kernel = np.asarray(kernel)
    for agent, size in enumerate(problems.MIXED_SIZES):
        own = kernel[agent, :size]
        np.testing.assert_allclose(own @ own.T, 2 * np.eye(size), 0, 1e-12)
        assert not kernel[agent, size:].any()


@pytest.mark.parametrize(
    "spaces", [(Discrete(3), Discrete(3)), (Discrete(3), MultiDiscrete((2, 4)), Box((-1.0,), (1.0,)))]
)
def test_an_update_compiled_without_action_masks_equals_one_in_which_nothing_is_masked(spaces):
    """Padded choices stay impossible, in teams of equal and of different agents."""
    specs = [dataclasses.replace(problems.make_spec(spaces), masks_actions=masks) for masks in (True, False)]
    masked, unmasked = (problems.make_algorithm("happo", spec, order="fixed") for spec in specs)
    state = problems.random_state(masked, 0)
    batch = problems.random_batch(masked, state, 0)
    choices = jnp.broadcast_to(specs[0].action_layout.choices, batch.action_mask.shape)
    update, update_unmasked = (jax.jit(algo.update, compiler_options=problems.QUICK) for algo in (masked, unmasked))
    one, _ = update(jax.random.key(0), state, batch._replace(action_mask=choices))
    other, _ = update_unmasked(jax.random.key(0), state, batch)  # the masks are not read
    expected.assert_trees_close(one, other, 1e-12)
