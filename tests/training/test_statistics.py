"""Interquartile means, profiles, probabilities of improvement and intervals: by hand, with SciPy, and rliable's."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import trim_mean

from hajax.training.statistics import (
    bootstrap_interval,
    interquartile_mean,
    performance_profile,
    probability_of_improvement,
    stratified_bootstrap_interval,
)

RLIABLE = json.loads((Path(__file__).parents[1] / "rliable_numbers.json").read_text(encoding="utf-8"))


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
        probability_of_improvement(np.zeros((1, 2, 2)), [1.0])
    with pytest.raises(ValueError, match="first has the scores of 2 tasks, second of 1; allowed: as many"):
        probability_of_improvement(np.zeros((2, 2)), [1.0])
    with pytest.raises(ValueError, match="allowed: one score per seed"):
        probability_of_improvement([], [1.0])


def test_probability_of_improvement_is_the_average_over_tasks_of_any_size_and_scale():
    """Not the share of all pairs: a task with many runs weighs as much as one with few."""
    first = [[3.0, 1.0], [100.0, 300.0, 500.0, 700.0]]
    second = [[2.0, 1.0, 0.0], [200.0, 400.0]]
    probability, (low, high) = probability_of_improvement(first, second)
    assert probability == pytest.approx((4.5 / 6 + 5 / 8) / 2)
    assert low < probability < high
    assert probability_of_improvement(second, first)[0] == pytest.approx(1 - probability)
    assert probability_of_improvement([first[0]], [second[0]]) == probability_of_improvement(first[0], second[0])
    assert probability_of_improvement([[1.0, 2.0], [9.0, 9.0]], [[3.0, 4.0], [8.0, 8.0]]) == (0.5, (0.5, 0.5))
    assert probability_of_improvement([[1.0, 2.0], [9.0]], [[3.0, 4.0], [8.0, 8.0]])[1] is None
    assert np.isnan(probability_of_improvement([[1.0, np.nan], [2.0, 3.0]], [[0.0, 1.0], [1.0, 2.0]])[0])
    assert probability_of_improvement([-np.inf, 1.0], [-np.inf, 0.0])[0] == pytest.approx((0.5 + 0 + 1 + 1) / 4)


def test_probability_of_improvement_is_resampled_within_every_task():
    """Of two runs each there are 2² · 2² equally likely resamples of both on a task, and 16 of the second task."""
    first, second = [[1.0, 3.0], [1.0, 2.0]], [[2.0, 4.0], [0.0, 1.5]]
    drawn = [
        [np.mean(np.heaviside(np.subtract.outer(x, y), 0.5)) for x, y in itertools.product(*resamples)]
        for resamples in zip(
            *([list(itertools.product(task, repeat=2)) for task in scores] for scores in (first, second)), strict=True
        )
    ]
    exact = np.add.outer(*drawn).ravel() / 2
    assert len(exact) == 256
    probability, (low, high) = probability_of_improvement(first, second, confidence=0.8, resamples=50_000)
    assert probability == pytest.approx(np.mean(exact))
    assert (low, high) == pytest.approx(tuple(np.quantile(exact, [0.1, 0.9])))


def test_performance_profile_by_hand():
    scores = [[0.0, 1.0], [0.5, 0.5, 1.0, 0.2]]
    shares, (low, high) = performance_profile(scores, [-1.0, 0.0, 0.2, 0.5, 0.75, 1.0])
    # Above, and not at, the threshold; every task counts as much.
    np.testing.assert_allclose(shares, (np.array([2, 1, 1, 1, 1, 0]) / 2 + np.array([4, 4, 3, 1, 1, 0]) / 4) / 2)
    assert (low[[0, -1]].tolist(), high[[0, -1]].tolist()) == ([1, 0], [1, 0])
    assert np.all(low <= shares)
    assert np.all(shares <= high)
    assert np.all(np.diff(low) <= 0)
    # Of the first task's two runs 0, 1 or 2 are above 0 in a resample; all of the second's are.
    assert (low[1], high[1]) == pytest.approx((1 / 2, 1))
    assert performance_profile([[1.0, 2.0], [3.0]], [2.0])[1] is None
    assert np.isnan(performance_profile([[1.0, np.nan]], [0.0])[0]).all()
    with pytest.raises(ValueError, match=r"scores=\[\]; allowed: the scores of one task or more"):
        performance_profile([], [0.0])


def test_performance_profile_is_resampled_within_every_task():
    """Runs that agree within every task leave nothing to resample; pooled they would."""
    scores = [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]
    shares, interval = performance_profile(scores, [0.5])
    assert (shares[0], *interval[:, 0]) == (0.5, 0.5, 0.5)
    low, high = performance_profile([np.concatenate(scores)], [0.5])[1]
    assert low < 0.5 < high


def agrees(interval, theirs, resamples):
    """Whether two bootstrap intervals from different random numbers agree.

    The end of a 95% interval from B resamples of a normal distribution with deviation s has a standard error of
    sqrt(0.025 · 0.975 / B) / 0.0584 · s, and the interval is 3.92 s wide. Five standard errors of a difference are
    allowed: 2.2% of the width for 50,000 resamples and 4.8% for 10,000.
    """
    width = theirs[1] - theirs[0]
    error = np.sqrt(2 * 0.025 * 0.975 / resamples) / 0.0584 / 3.92 * width
    return bool(np.all(np.abs(np.subtract(interval, theirs)) <= 5 * error))


class TestAgainstRliable:
    """rliable's numbers for the same scores, of three algorithms on four tasks (`tests/rliable_numbers.py`)."""

    @pytest.mark.parametrize("name", RLIABLE["scores"])
    def test_interquartile_mean(self, name):
        scores, theirs = RLIABLE["scores"][name], RLIABLE["iqm"][name]
        assert interquartile_mean(np.concatenate(scores)) == pytest.approx(theirs["estimate"][0], abs=1e-12)
        resamples, expected = RLIABLE["resamples"]["iqm"], np.ravel(theirs["interval"])
        assert agrees(stratified_bootstrap_interval(scores, resamples=resamples), expected, resamples)
        pooled = bootstrap_interval(np.concatenate(scores), resamples=resamples)
        assert not agrees(pooled, expected, resamples)  # without strata

    @pytest.mark.parametrize("name", RLIABLE["scores"])
    def test_performance_profile(self, name):
        """The ends of intervals are whole numbers of runs; they may be one run apart where two are about as likely."""
        scores, theirs = RLIABLE["scores"][name], RLIABLE["profile"][name]
        shares, interval = performance_profile(scores, RLIABLE["thresholds"])
        np.testing.assert_allclose(shares, theirs["estimate"], atol=1e-12)
        apart = np.abs(interval - theirs["interval"]) * sum(map(len, scores))
        assert apart.max() <= 1 + 1e-9
        assert np.mean(apart > 1e-9) <= 0.1

    @pytest.mark.parametrize("pair", RLIABLE["improvement"])
    def test_probability_of_improvement(self, pair):
        theirs, resamples = RLIABLE["improvement"][pair], RLIABLE["resamples"]["improvement"]
        first, second = (RLIABLE["scores"][name] for name in pair.split(","))
        probability, interval = probability_of_improvement(first, second, resamples=resamples)
        assert probability == pytest.approx(theirs["estimate"][0], abs=1e-12)
        assert agrees(interval, np.ravel(theirs["interval"]), resamples)


def test_one_seed_has_no_interval():
    assert bootstrap_interval([3.0]) is None
    with pytest.raises(ValueError, match="one score per seed"):
        bootstrap_interval([[1.0, 2.0]])
