"""The order of samples in an epoch: every sample once, uniformly distributed, and a different order for every key."""

import jax
import numpy as np
import pytest
from scipy import stats

from hajax.core.optimization import shuffle


@pytest.mark.parametrize("size", [1, 2, 3, 31, 32, 33, 2048, 4000, 2**20 + 1])
def test_every_sample_comes_once(size):
    order = np.asarray(shuffle(jax.random.key(0), size))
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(size))


@pytest.mark.parametrize("size", [5, 64, 3000])
def test_every_sample_is_equally_likely_in_every_quarter(size):
    """A chi-squared test of the (first, middle, last) samples against the quarters of the epoch."""
    orders = np.asarray(jax.vmap(lambda key: shuffle(key, size))(jax.random.split(jax.random.key(1), 4000)))
    quarter = 4 * np.argsort(orders, axis=1) // size  # the quarter of each sample
    expected = np.bincount(4 * np.arange(size) // size, minlength=4) / size * 4000
    for sample in (0, size // 2, size - 1):
        counts = np.bincount(quarter[:, sample], minlength=4)
        assert stats.chisquare(counts, expected).pvalue > 1e-3


def test_neighbors_are_separated():
    """Minibatches are independent of the index: pairs of neighbors are in the same half with probability 1/2."""
    orders = np.asarray(jax.vmap(lambda key: shuffle(key, 512))(jax.random.split(jax.random.key(2), 1000)))
    half = np.argsort(orders, axis=1) >= 256
    together = (half[:, 1:] == half[:, :-1]).mean()
    assert together == pytest.approx(255 / 511, abs=4e-3)  # 511,000 pairs


def test_keys_give_other_orders():
    orders = {tuple(np.asarray(shuffle(jax.random.key(k), 16)).tolist()) for k in range(100)}
    assert len(orders) == 100
