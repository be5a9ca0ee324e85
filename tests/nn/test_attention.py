"""The attention critic in float64, against loops over agents and heads, with its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_attention import looped

from hajax.nn.attention import SHARED, AttentionCritic, with_shared_gradients_of_the_mean

N, M, B = 4, 3, 6


@pytest.fixture(scope="module")
def case():
    with jax.enable_x64(True):
        critic = AttentionCritic(M, width=8, heads=2)
        keys = jax.random.split(jax.random.key(0), 5)
        inputs = (
            jax.random.normal(keys[0], (B, N, 5)),
            jax.random.normal(keys[1], (B, N, 3)),
            jnp.ones((B, N), bool).at[1, 2].set(False).at[2, jnp.array([0, 1, 3])].set(False),
        )
        params = critic.init(keys[2], *inputs)["params"]
        leaves, tree = jax.tree.flatten(params)  # biases too
        of_leaves = zip(leaves, jax.random.split(keys[3], len(leaves)), strict=True)
        noise = [x + 0.3 * jax.random.normal(key, x.shape) for x, key in of_leaves]
        return critic, jax.tree.unflatten(tree, noise), inputs


@jax.enable_x64(True)
def test_values_and_gradients_are_those_of_the_loops(case):
    critic, params, inputs = case
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float64")}
    weight = jax.random.normal(jax.random.key(9), (B, N, M))

    def of(function):
        return jax.value_and_grad(lambda params: jnp.sum(weight * jnp.sin(function(params))))(params)

    ours, gradient = jax.jit(lambda: of(lambda params: critic.apply({"params": params}, *inputs)[0]))()
    theirs, expected = jax.jit(lambda: of(lambda params: looped(params, *inputs, heads=2, width=8)[0]))()
    assert float(ours) == pytest.approx(float(theirs), abs=1e-11)
    for name, x in expected.items():
        np.testing.assert_allclose(gradient[name], x, atol=1e-10, err_msg=name)


@jax.enable_x64(True)
def test_an_agent_s_own_action_does_not_change_its_values_and_others_do(case):
    critic, params, (observation, action, active) = case
    active = jnp.ones_like(active)
    before, _ = critic.apply({"params": params}, observation, action, active)
    after, _ = critic.apply({"params": params}, observation, action.at[:, 1].add(1.0), active)
    changed = np.abs(after - before).max((0, 2)) > 1e-9
    assert changed.tolist() == [True, False, True, True]


@jax.enable_x64(True)
def test_inactive_agents_are_not_attended_to_and_a_lonely_one_has_finite_gradients(case):
    critic, params, (observation, action, active) = case

    def values(observation, action):
        return critic.apply({"params": params}, observation, action, active)

    base, logits = values(observation, action)
    moved, _ = values(observation.at[1, 2].add(5.0), action.at[1, 2].add(5.0))
    np.testing.assert_array_equal(np.delete(base[1], 2, 0), np.delete(moved[1], 2, 0))
    assert (logits[1, :, :, 2] == 0).all()
    assert (jnp.diagonal(logits, axis1=-2, axis2=-1) == 0).all()
    gradient = jax.grad(lambda params: critic.apply({"params": params}, observation, action, active)[0].sum())(params)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradient))


@jax.enable_x64(True)
def test_shared_parts_get_the_mean_of_the_agents_gradients(case):
    critic, params, inputs = case

    def total(params):
        return critic.apply({"params": params}, *inputs)[0].sum()

    def scaled(params):
        return total(with_shared_gradients_of_the_mean(params, N))

    assert float(total(params)) == pytest.approx(float(scaled(params)), abs=1e-12)
    whole, shares = jax.grad(total)(params), jax.grad(scaled)(params)
    for name in params:
        np.testing.assert_allclose(shares[name], whole[name] / (N if name in SHARED else 1), atol=1e-12, err_msg=name)
