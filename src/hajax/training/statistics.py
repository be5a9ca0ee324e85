"""Statistics over seeds: interquartile means, performance profiles and probabilities of improvement, with intervals.

Agarwal et al., *Deep Reinforcement Learning at the Edge of the Statistical Precipice* (NeurIPS 2021),
https://arxiv.org/abs/2108.13264, recommend these over the mean and standard deviation of a few seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

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
    tasks = _checked(scores)
    if any(task.size < 2 for task in tasks):
        return None
    generator = np.random.default_rng(0)
    drawn = [task[generator.integers(task.size, size=(resamples, task.size))] for task in tasks]
    low, high = _interval(interquartile_mean(np.concatenate(drawn, axis=1)), confidence)
    return float(low), float(high)


def performance_profile(
    scores: Sequence[ArrayLike], thresholds: ArrayLike, *, confidence: float = 0.95, resamples: int = 10_000
) -> tuple[np.ndarray, np.ndarray | None]:
    """The share of runs with a score above τ, averaged over tasks, for every τ, with its percentile bootstrap interval.

    It is the run-score distribution of Agarwal et al. (2021, Section 4.2). The resampling is that of
    `stratified_bootstrap_interval`, with the same resamples at every threshold. The scores of different tasks must be
    on the same scale.

    Args:
        scores: for every task, the scores `[num_runs]` of its runs; tasks may have different numbers of runs.
        thresholds: the thresholds `[T]`.
        confidence: the share of resamples inside the interval.
        resamples: the number of resamples.

    Returns:
        The shares `[T]`, and the ends `[2, T]` of their intervals, or `None` if a task has a single run. They are NaN
        if a score is.

    Raises:
        ValueError: there is no task, a task has no runs, or its scores are not one number per run.
    """
    tasks = _checked(scores)
    pooled = np.concatenate(tasks)[:, None]
    above = np.where(np.isnan(pooled), np.nan, pooled > np.asarray(thresholds, float))
    weights = np.concatenate([np.full(task.size, 1 / (len(tasks) * task.size)) for task in tasks])
    if any(task.size < 2 for task in tasks):
        return weights @ above, None
    generator = np.random.default_rng(0)
    counts = np.concatenate([_counts(generator, task.size, resamples) for task in tasks], axis=1)
    return weights @ above, _interval((counts * weights) @ above, confidence)


def probability_of_improvement(
    first: ArrayLike | Sequence[ArrayLike],
    second: ArrayLike | Sequence[ArrayLike],
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
) -> tuple[float, tuple[float, float] | None]:
    """P(X > Y) + ½ P(X = Y) of a run X of `first` and a run Y of `second`, and its percentile bootstrap interval.

    The share of pairs of runs on one task in which the first is better, averaged over tasks (Agarwal et al., 2021,
    Section 4.3). A resample draws from the runs of both on every task, with replacement. The resampling is seeded. The
    interval is `None` if one has a single run on a task. Of few runs it is too narrow: of equal scores with 3, 5 and 10
    runs each on one task, 20%, 10% and 5% of the intervals do not contain ½.

    Args:
        first, second: the scores `[num_runs]` of both, which may have different numbers of runs; or those of every
            task, in the same order. The scores of different tasks need not be on the same scale.
        confidence: the share of resamples inside the interval.
        resamples: the number of resamples.

    Raises:
        ValueError: the two have different numbers of tasks, one has no runs on a task, or its scores are not one number
            per run.
    """
    xs, ys = (_checked(_by_task(scores)) for scores in (first, second))
    if len(xs) != len(ys):
        raise ValueError(f"first has the scores of {len(xs)} tasks, second of {len(ys)}; allowed: as many")
    better = [_better(x, y) for x, y in zip(xs, ys, strict=True)]
    probability = float(np.mean([pairs.mean() for pairs in better]))
    if any(min(pairs.shape) < 2 for pairs in better):
        return probability, None
    generator = np.random.default_rng(0)
    shares = np.zeros(resamples)
    for pairs in better:
        rows, columns = (_counts(generator, size, resamples) for size in pairs.shape)
        shares += ((rows @ pairs) * columns).sum(1) / (pairs.size * len(better))
    low, high = _interval(shares, confidence)
    return probability, (float(low), float(high))


def _by_task(scores: ArrayLike | Sequence[ArrayLike]) -> Sequence[ArrayLike]:
    """The scores of every task; numbers are those of one task."""
    listed = list(scores) if isinstance(scores, Iterable) else [scores]
    return [np.array(listed)] if all(np.ndim(task) == 0 for task in listed) else listed


def _checked(scores: Sequence[ArrayLike]) -> list[np.ndarray]:
    """The scores of every task, one per run."""
    tasks = [np.asarray(task, float) for task in scores]
    if not tasks:
        raise ValueError("scores=[]; allowed: the scores of one task or more")
    for task in tasks:
        if task.ndim != 1 or task.size == 0:
            raise ValueError(f"scores has shape {task.shape}; allowed: one score per seed")
    return tasks


def _better(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """For every pair `[num_x, num_y]` of runs, 1 if the first is better, ½ if they are equal, 0 otherwise."""
    x, y = np.broadcast_arrays(x[:, None], y)
    return np.where(np.isnan(x) | np.isnan(y), np.nan, (x > y) + (x == y) / 2)


def _counts(generator: np.random.Generator, num_runs: int, resamples: int) -> np.ndarray:
    """How often each run is in each resample, `[resamples, num_runs]`."""
    drawn = generator.integers(num_runs, size=(resamples, num_runs))
    cells = (drawn + num_runs * np.arange(resamples)[:, None]).ravel()
    return np.bincount(cells, minlength=resamples * num_runs).reshape(resamples, num_runs).astype(float)


def _interval(resampled: np.ndarray, confidence: float) -> np.ndarray:
    """The quantiles `[2, …]` over resamples `[resamples, …]` between which the share `confidence` of them is."""
    tail = (1 - confidence) / 2
    return np.quantile(resampled, [tail, 1 - tail], axis=0)
