"""Statistics over seeds: the interquartile mean and its bootstrap interval.

Agarwal et al., *Deep Reinforcement Learning at the Edge of the Statistical Precipice* (NeurIPS 2021),
https://arxiv.org/abs/2108.13264, for why these and not the mean of a few seeds with a standard deviation.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def interquartile_mean(scores: ArrayLike, axis: int = -1) -> np.ndarray:
    """The mean without the lowest and the highest quarter along `axis`.

    ⌊n/4⌋ scores are dropped at either end, so up to three scores it is the plain mean. A NaN score gives NaN.
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

    `None` for a single seed, which says nothing about how seeds differ. The resampling is seeded: the same scores
    give the same interval.
    """
    values = np.asarray(scores, float)
    if values.ndim != 1:
        raise ValueError(f"scores has shape {values.shape}; allowed: one score per seed")
    if values.size < 2:
        return None
    draws = np.random.default_rng(0).integers(values.size, size=(resamples, values.size))
    tail = (1 - confidence) / 2
    low, high = np.quantile(interquartile_mean(values[draws]), [tail, 1 - tail])
    return float(low), float(high)
