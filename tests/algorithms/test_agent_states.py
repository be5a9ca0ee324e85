"""Critics of environments with a state per agent (`EnvSpec.state_per_agent`)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest

import hajax
from hajax.core.on_policy import template
from hajax.envs.base import Environment, timestep
from hajax.spaces import Discrete

ONE = problems.make_spec([Discrete(3)] * 3)
OWN = dataclasses.replace(ONE, state_per_agent=True)


def for_each_agent(batch):
    """The batch with the team's state repeated for every agent."""

    def copies(x):
        return jnp.repeat(x[..., None, :], 3, axis=-2)

    return batch._replace(state=copies(batch.state), final_state=copies(batch.final_state))


@pytest.mark.parametrize(("name", "sharing", "memory"), [("happo", "none", "none"), ("mappo", "all", "gru")])
def test_equal_states_of_all_agents_give_the_update_with_one_state(name, sharing, memory):
    """There is one critic in both cases; three equal values per step have the weight of one."""
    with jax.enable_x64(True):
        settings = {"memory": memory, "chunk_length": 3} | ({"order": "fixed"} if name == "happo" else {})
        one, own = (
            problems.make_algorithm(name, spec, sharing=sharing, normalize_observations=True, **settings)
            for spec in (ONE, OWN)
        )
        updates = jax.jit(one.update), jax.jit(own.update)
        for seed in range(2):
            state = problems.random_state(one, seed)
            shapes = jax.tree.map(jnp.shape, jax.eval_shape(own.init, jax.random.key(0)))
            assert jax.tree.map(jnp.shape, state) == shapes
            batch = problems.random_batch(one, state, seed)
            after = updates[0](jax.random.key(seed), state, batch)
            same = updates[1](jax.random.key(seed), state, for_each_agent(batch))
            # Statistics of states count every agent's.
            moments = same[0].moments
            once = moments.state._replace(weight=moments.state.weight / 3, deviation=moments.state.deviation / 3)
            same = (same[0]._replace(moments=moments._replace(state=once)), same[1])
            for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(same), strict=True):
                np.testing.assert_allclose(a, b, rtol=0, atol=1e-10)


def test_each_agent_s_value_is_of_its_own_state():
    algo = problems.make_algorithm("happo", OWN)
    _, critics = template.make_networks("happo", OWN, algo.settings, None, None)
    state = problems.random_state(algo, 0)
    one = problems.make_algorithm("happo", ONE)
    batch, deadly = (
        for_each_agent(problems.random_batch(one, problems.random_state(algo, 0), 0, inactive=share))
        for share in (0, 0.4)
    )
    other = batch._replace(state=batch.state.at[:, :, 1].set(jnp.arange(4.0) ** 2))
    before, after = (template.estimate(critics, state, x) for x in (batch, other))
    assert before.value.shape == (4, 3, 3)
    np.testing.assert_array_equal(template.estimate(critics, state, deadly).active, deadly.active)
    for name in ("value", "advantage"):
        changed = np.abs(getattr(before, name) - getattr(after, name)) > 1e-6
        assert changed[..., 1].mean() > 0.9
        assert not changed[..., [0, 2]].any()


def environment(spec):
    def show(**fields):
        return jnp.zeros(()), timestep(spec, jnp.ones((3, 3)), jnp.ones(spec.state_shape), **fields)

    return Environment(spec, lambda key: show(), lambda key, state, action: show(joint_reward=0.0, truncated=True))


def test_shapes_of_states_are_checked_everywhere():
    lead = (4, 2)
    arrays = {"observation": (3, 3), "action": (3, 1), "log_prob": (3,), "reward": (), "final_observation": (3, 3)}
    arrays = {name: jnp.zeros((*lead, *shape)) for name, shape in arrays.items()}
    own, one = jnp.zeros((*lead, 3, 4)), jnp.zeros((*lead, 4))
    assert hajax.on_policy_batch(OWN, **arrays, state=own, final_state=own).state.shape == own.shape
    with pytest.raises(ValueError, match=r"state has shape \(4, 2, 4\); allowed: \(4, 2, 3, 4\) for random"):
        hajax.on_policy_batch(OWN, **arrays, state=one, final_state=one)
    algo = problems.make_algorithm("happo", ONE)
    with pytest.raises(ValueError, match=r"state_per_agent=True of random; allowed: False, for which happo was made"):
        hajax.make_loop(environment(OWN), algo, num_envs=2, rollout_length=2)
    loop = hajax.make_loop(environment(OWN), problems.make_algorithm("happo", OWN), num_envs=2, rollout_length=2)
    jax.eval_shape(lambda key: loop.iterate(loop.init(key)), jax.random.key(0))


@pytest.mark.parametrize("reward", ["team", "individual"])
def test_the_step_of_a_death_is_judged_without_the_dead_agent_s_value(reward):
    """The value of an inactive agent is not trained.

    With a team reward the active agents' values replace it, here at λ = 0. With individual rewards the return of the
    step is the sum of the rewards that follow, at any λ.
    """
    spec = dataclasses.replace(OWN, reward=reward)
    algo = problems.make_algorithm("ippo", spec, normalize_values=False)
    _, critics = template.make_networks("ippo", spec, algo.settings, None, None)
    state = problems.random_state(algo, 0)
    gae_lambda = 0.0 if reward == "team" else 0.6
    state = state._replace(hyperparameters=state.hyperparameters.replace(gae_lambda=gae_lambda, discount=0.9))
    batch = problems.random_batch(algo, state, 0)
    alive, never = jnp.ones_like(batch.active), jnp.zeros_like(batch.terminated)
    batch = batch._replace(
        terminated=never.at[-1].set(True),
        truncated=never,
        active=alive.at[1:, :, 2].set(False),
        final_active=alive.at[:, :, 2].set(False),
    )
    value, advantage, *_ = template.estimate(critics, state, batch)
    _, final = critics.of_rollout(state.critics.params, batch)
    if reward == "team":
        later = 0.9 * np.mean(final[0, :, :2], -1)
        own = batch.reward[0, :, :2] + 0.9 * final[0, :, :2] - value[0, :, :2]
        np.testing.assert_allclose(advantage[0, :, :2], own, rtol=1e-4, atol=1e-6)
    else:
        later = (0.9 ** jnp.arange(1, 4) @ batch.reward[1:, :, 2]).reshape(-1)
    wanted = batch.reward[0, :, 2] + later - value[0, :, 2]
    np.testing.assert_allclose(advantage[0, :, 2], wanted, rtol=1e-4, atol=1e-6)
