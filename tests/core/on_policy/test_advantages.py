"""Advantages, value normalization and running moments against direct computations in NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hajax.core import normalization
from hajax.core.on_policy import advantages

T, E = 6, 3
FLOATS = hnp.arrays(float, (T, E), elements=st.floats(-10, 10))
FLAGS = hnp.arrays(bool, (T, E))
UNIT = st.floats(0, 1)
run = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.fixture(autouse=True, scope="module")
def float64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def gae():
    """The library's GAE; the test's arrays pass through one compiled program."""
    return jax.jit(lambda *args: advantages.generalized_advantages(advantages.trace_terms(*args)))


@given(reward=FLOATS, value=FLOATS, next_value=FLOATS, terminated=FLAGS, truncated=FLAGS, discount=UNIT, lam=UNIT)
@run
def test_gae_equals_the_sum_of_discounted_errors(gae, reward, value, next_value, terminated, truncated, discount, lam):
    """Any combination of terminations and truncations, also both in one step (which then counts as terminated)."""
    args = (reward, value, next_value, terminated, truncated, discount, lam)
    np.testing.assert_allclose(gae(*args), reference.gae(*args), 0, 1e-10)


def test_gae_by_hand(gae):
    """Three consecutive episodes: terminated at 1, truncated at 3, unfinished at 4. γ = ½, λ = ½, V = 1 everywhere."""
    reward = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0])[:, None]
    ones, final = jnp.ones((5, 1)), jnp.array([1.0, 100.0, 1.0, 11.0, 1.0])[:, None]
    terminated, truncated = (jnp.arange(5)[:, None] == t for t in (1, 3))
    # δ = (1 + ½ − 1, 2 + 0 − 1, 3 + ½ − 1, 4 + ½·11 − 1, 5 + ½ − 1); γλ = ¼.
    expected = [0.5 + 0.25 * 1, 1.0, 2.5 + 0.25 * 8.5, 8.5, 4.5]
    np.testing.assert_allclose(gae(reward, ones, final, terminated, truncated, 0.5, 0.5)[:, 0], expected, 0, 1e-12)


@given(data=st.data(), reward=FLOATS, value=FLOATS, terminated=FLAGS, truncated=FLAGS, discount=UNIT)
@run
def test_lambda_one_is_the_discounted_return_and_lambda_zero_the_error_of_one_step(
    gae, data, reward, value, terminated, truncated, discount
):
    done = terminated | truncated
    final = data.draw(FLOATS)
    inside = np.concatenate([value[1:], final[-1:]])
    next_value = np.where(done, final, inside)  # the next row's value, unless the episode ended
    monte_carlo = np.zeros((T, E))
    for env in range(E):
        following = next_value[-1, env]
        for t in reversed(range(T)):
            if done[t, env]:
                following = next_value[t, env]
            monte_carlo[t, env] = following = reward[t, env] + discount * following * (not terminated[t, env])
    args = (reward, value, next_value, terminated, truncated, discount)
    np.testing.assert_allclose(gae(*args, 1.0), monte_carlo - value, 0, 1e-10)
    one_step = reward + discount * next_value * (1 - terminated) - value
    np.testing.assert_allclose(gae(*args, 0.0), one_step, 0, 1e-12)


def test_truncation_bootstraps_from_its_own_final_value_and_termination_does_not(gae):
    """Raising the final value by 1 raises the advantage of a truncated step by γ, that of a terminated one by 0."""
    rng = np.random.default_rng(0)
    reward, value, final = rng.normal(size=(3, T, E))
    end = np.zeros((T, E), bool)
    end[2, 1] = True
    bump, none, discount, lam = end.astype(float), np.zeros_like(end), 0.9, 0.7
    for terminated, truncated, gain in ((none, end, discount), (end, none, 0.0), (end, end, 0.0)):
        low, high = (gae(reward, value, final + b, terminated, truncated, discount, lam) for b in (0, bump))
        expected = np.zeros((T, E))
        expected[:3, 1] = gain * (discount * lam) ** np.array([2, 1, 0])
        np.testing.assert_allclose(high - low, expected, 0, 1e-12)
        # Nothing of the next episode has an influence across the boundary.
        later = reward + 5.0 * (np.arange(T) > 2)[:, None]
        moved = gae(later, value, final, terminated, truncated, discount, lam) - low
        np.testing.assert_allclose(moved[:3, 1], 0, 0, 1e-12)
        assert np.abs(moved[:3, 0]).min() > 1e-3


def test_standardize_uses_the_weighted_entries_only():
    rng = np.random.default_rng(1)
    x, weight = rng.normal(2.0, 3.0, (4, 5)), rng.random((4, 5)) < 0.6
    seen = x[weight]
    actual = np.asarray(advantages.standardize(jnp.asarray(x), jnp.asarray(weight, float)))
    np.testing.assert_allclose(actual[weight], (seen - seen.mean()) / (seen.std() + 1e-5), 0, 1e-12)
    soiled = np.where(weight, x, np.inf)
    again = np.asarray(advantages.standardize(jnp.asarray(soiled), jnp.asarray(weight, float)))
    np.testing.assert_array_equal(again[weight], actual[weight])
    assert advantages.weighted_mean(jnp.asarray(x), jnp.zeros((4, 5))) == 0
    weights = rng.random((4, 5))
    mean = advantages.weighted_mean(jnp.asarray(x), jnp.asarray(weights))
    np.testing.assert_allclose(mean, np.average(x, weights=weights), 0, 1e-12)


# Value normalization.


def test_value_statistics_are_debiased_exponential_averages():
    """After batches x₁ … x_k the mean is Σ β^{k−i} x̄ᵢ / Σ β^{k−i}, and so for the squares."""
    rng, decay = np.random.default_rng(2), 0.8
    statistics, seen = normalization.init_value_statistics(), []
    probe = jnp.array([-3.0, 0.0, 2.5])
    np.testing.assert_array_equal(normalization.normalize_value(statistics, probe), probe)
    np.testing.assert_array_equal(normalization.denormalize_value(statistics, probe), probe)
    for i in range(4):
        target, alive = rng.normal(5.0, 1.0 + i, (2, 7)), rng.random((2, 7)) < 0.7
        soiled = np.where(alive, target, 1e6)
        statistics = normalization.update_value_statistics(statistics, soiled, jnp.asarray(alive, float), decay)
        seen.append(target[alive])
        powers = decay ** np.arange(len(seen))[::-1]
        mean = np.average([x.mean() for x in seen], weights=powers)
        square = np.average([(x**2).mean() for x in seen], weights=powers)
        normalized = normalization.normalize_value(statistics, probe)
        np.testing.assert_allclose(normalized, (probe - mean) / np.sqrt(square - mean**2), 0, 1e-10)
        np.testing.assert_allclose(normalization.denormalize_value(statistics, normalized), probe, 0, 1e-12)
    unchanged = normalization.update_value_statistics(statistics, target, jnp.zeros((2, 7)), decay)
    np.testing.assert_array_equal(unchanged, statistics)


def test_value_variance_has_a_floor():
    ones = jnp.ones(3)
    statistics = normalization.update_value_statistics(normalization.init_value_statistics(), 4 * ones, ones, 0.99999)
    np.testing.assert_allclose(normalization.normalize_value(statistics, jnp.array([4.0, 4.1])), [0, 1], 0, 1e-9)


# Running moments.


def test_running_moments_are_those_of_all_batches_together():
    rng, size = np.random.default_rng(3), 4
    moments = normalization.init_moments(size)
    probe = rng.normal(size=(5, size))
    np.testing.assert_array_equal(normalization.normalize_moments(moments, probe), probe)
    rows = []
    for shape in ((2, 3), (1, 1), (2, 6), (1, 4)):
        x, alive = rng.normal([1.0, -50.0, 0.0, 7.0], [1.0, 2.0, 0.1, 30.0], (*shape, size)), rng.random(shape) < 0.6
        alive[0, 0] = True
        soiled = np.where(alive[..., None], x, 1e3)
        moments = normalization.update_moments(moments, jnp.asarray(soiled), jnp.asarray(alive))
        rows = np.concatenate([rows, x[alive]]) if len(rows) else x[alive]
        assert moments.weight == len(rows)
        np.testing.assert_allclose(moments.mean, rows.mean(0), 1e-12, 1e-12)
        np.testing.assert_allclose(moments.deviation / moments.weight, rows.var(0), 1e-10, 1e-12)
    unchanged = normalization.update_moments(moments, jnp.asarray(x), jnp.zeros(shape))
    jax.tree.map(np.testing.assert_array_equal, unchanged, moments)
    expected = np.clip((probe - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-8), -10, 10)
    np.testing.assert_allclose(normalization.normalize_moments(moments, jnp.asarray(probe)), expected, 0, 1e-10)


def test_real_weights_count_as_repetitions():
    rng = np.random.default_rng(4)
    x, weight = rng.normal(size=(6, 2)), rng.integers(0, 4, 6)
    moments = normalization.update_moments(normalization.init_moments(2), jnp.asarray(x), jnp.asarray(weight, float))
    repeated = np.repeat(x, weight, axis=0)
    assert moments.weight == len(repeated)
    np.testing.assert_allclose(moments.mean, repeated.mean(0), 0, 1e-12)
    np.testing.assert_allclose(moments.deviation / moments.weight, repeated.var(0), 0, 1e-12)


def test_far_observations_are_clipped_and_constant_ones_become_zero():
    moments = normalization.update_moments(normalization.init_moments(2), jnp.array([[1.0, 3], [2, 3]]), jnp.ones(2))
    x = jnp.array([[100.0, 3.0], [-100.0, 3.0], [1.5, 3.0]])
    np.testing.assert_allclose(normalization.normalize_moments(moments, x), [[10, 0], [-10, 0], [0, 0]], 0, 1e-12)
