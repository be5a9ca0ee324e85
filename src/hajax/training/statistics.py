"""Statistics over seeds: the interquartile mean and the probability of improvement, with bootstrap intervals.

Agarwal et al., *Deep Reinforcement Learning at the Edge of the Statistical Precipice* (NeurIPS 2021),
https://arxiv.org/abs/2108.13264, recommend these over the mean and standard deviation of a few seeds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def interquartile_mean(scores: ArrayLike, axis: int = -1) -> np.ndarray:
    """The mean without the lowest and the highest quarter along `axis`.

    ⌊n/4⌋ scores are dropped at either end, so for up to three scores it is the mean. It is NaN if any score is.
    """
    ordered = np.sort(np.moveaxis(np.asarray(scores, float), axis, -1), axis=-1)
    num_scores = ordered.shape[-1]
    cut = num_scores // 4
    mean = ordered[..., cut : num_scores - cut].mean(-1)
    return np.where(np.isnan(ordered).any(-1), np.nan, mean)


def bootstrap_interval(
    scores: ArrayLike, *, confidence: float = 0.95, resamples: int = 10_000
) -> tuple[float, float] | None:
    """The percentile bootstrap interval of the interquartile mean over seeds; `scores` is `[num_seeds]`.

    It is `None` for a single seed, which has no spread. The resampling is seeded: equal scores give equal intervals. It
    is `stratified_bootstrap_interval` with a single task.
    """
    return stratified_bootstrap_interval([scores], confidence=confidence, resamples=resamples)


def stratified_bootstrap_interval(
    scores: Sequence[ArrayLike], *, confidence: float = 0.95, resamples: int = 10_000
) -> tuple[float, float] | None:
    """The percentile bootstrap interval of the interquartile mean over the runs of several tasks, resampled per task.

    A resample draws from every task, with replacement, as many runs as the task has, so that the weights of tasks are
    constant. The interquartile mean is that of all drawn scores. The scores of different tasks must be on the same
    scale: normalize them first.

    Args:
        scores: for every task, the scores `[num_runs]` of its runs; tasks may have different numbers of runs.
        confidence: the share of resamples inside the interval.
        resamples: the number of resamples. The resampling is seeded: equal scores give equal intervals.

    Returns:
        `(low, high)`, or `None` if a task has a single run.

    Raises:
        ValueError: there is no task, a task has no runs, or its scores are not one number per run.
    """
    tasks = [np.asarray(task, float) for task in scores]
    if not tasks:
        raise ValueError("scores=[]; allowed: the scores of one task or more")
    for task in tasks:
        if task.ndim != 1 or task.size == 0:
            raise ValueError(f"scores has shape {task.shape}; allowed: one score per seed")
    if any(task.size < 2 for task in tasks):
        return None
    generator = np.random.default_rng(0)
    drawn = [task[generator.integers(task.size, size=(resamples, task.size))] for task in tasks]
    tail = (1 - confidence) / 2
    low, high = np.quantile(interquartile_mean(np.concatenate(drawn, axis=1)), [tail, 1 - tail])
    return float(low), float(high)


def probability_of_improvement(
    first: ArrayLike, second: ArrayLike, *, confidence: float = 0.95, resamples: int = 10_000
) -> tuple[float, tuple[float, float] | None]:
    """P(X > Y) + ½ P(X = Y) of a run X of `first` and a run Y of `second`, and its percentile bootstrap interval.

    The share of pairs of runs in which the first is better (Agarwal et al., 2021, Section 4.3). A resample draws from
    both with replacement. The resampling is seeded. The interval is `None` if one has a single run. Of few runs it is
    too narrow: of equal scores with 3, 5 and 10 runs each, 20%, 10% and 5% of the intervals do not contain ½.

    Args:
        first, second: the scores `[num_runs]` of both, which may have different numbers of runs.
        confidence: the share of resamples inside the interval.
        resamples: the number of resamples.

    Raises:
        ValueError: one has no runs, or its scores are not one number per run.
    """
    x, y = np.asarray(first, float), np.asarray(second, float)
    for scores in (x, y):
        if scores.ndim != 1 or scores.size == 0:
            raise ValueError(f"scores has shape {scores.shape}; allowed: one score per seed")
    better = np.heaviside(x[:, None] - y, 0.5)
    if min(x.size, y.size) < 2:
        return float(better.mean()), None
    generator = np.random.default_rng(0)
    rows, columns = (generator.integers(scores.size, size=(resamples, scores.size)) for scores in (x, y))
    shares = better[rows[:, :, None], columns[:, None, :]].mean((1, 2))
    tail = (1 - confidence) / 2
    low, high = np.quantile(shares, [tail, 1 - tail])
    return float(better.mean()), (float(low), float(high))
