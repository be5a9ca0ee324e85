"""Interquartile means and bootstrap intervals against hand-made values and SciPy."""

import numpy as np
import pytest
from scipy.stats import trim_mean

from hajax.training.statistics import bootstrap_interval, interquartile_mean, probability_of_improvement


@pytest.mark.parametrize("num_scores", [1, 2, 3, 4, 5, 8, 11])
def test_interquartile_mean_is_scipys_trimmed_mean(num_scores):
    scores = np.random.default_rng(num_scores).normal(size=(3, num_scores))
    np.testing.assert_allclose(interquartile_mean(scores), trim_mean(scores, 0.25, axis=-1))


def test_interquartile_mean_by_hand():
    assert interquartile_mean([100.0, 1.0, 3.0, -50.0]) == 2.0
    np.testing.assert_array_equal(interquartile_mean([[1.0, 5.0], [3.0, 7.0]], axis=0), [2.0, 6.0])


def test_a_seed_without_a_score_is_not_dropped():
    assert np.isnan(interquartile_mean([1.0, 2.0, 3.0, 4.0, np.nan]))


def test_interval_holds_the_estimate_and_is_reproducible():
    scores = np.random.default_rng(0).normal(size=10)
    low, high = bootstrap_interval(scores)
    assert low < interquartile_mean(scores) < high
    assert bootstrap_interval(scores) == (low, high)
    narrow = bootstrap_interval(scores, confidence=0.5)
    assert low < narrow[0] < narrow[1] < high


def test_interval_covers_the_true_center_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    intervals = [bootstrap_interval(rng.normal(size=20), resamples=500) for _ in range(200)]
    assert 0.85 <= np.mean([low <= 0 <= high for low, high in intervals]) <= 0.99


def test_probability_of_improvement_counts_pairs_and_ties_by_half():
    probability, (low, high) = probability_of_improvement([3.0, 1.0], [2.0, 1.0, 0.0])
    assert probability == pytest.approx((3 + 1.5) / 6)
    assert low <= probability <= high
    assert probability_of_improvement([5.0, 6.0], [1.0, 2.0]) == (1.0, (1.0, 1.0))
    rng = np.random.default_rng(0)
    equal = [probability_of_improvement(*rng.normal(size=(2, 10)), resamples=500)[1] for _ in range(200)]
    assert 0.85 <= np.mean([low <= 0.5 <= high for low, high in equal]) <= 0.99
    assert probability_of_improvement([3.0], [1.0, 2.0]) == (1.0, None)
    with pytest.raises(ValueError, match=r"scores has shape \(2, 2\); allowed: one score per seed"):
        probability_of_improvement(np.zeros((2, 2)), [1.0])


def test_one_seed_has_no_interval():
    assert bootstrap_interval([3.0]) is None
    with pytest.raises(ValueError, match="one score per seed"):
        bootstrap_interval([[1.0, 2.0]])
