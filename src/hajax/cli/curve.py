"""The learning curve of one run: every seed as a thin line, their interquartile mean, its bootstrap interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hajax.training.statistics import bootstrap_interval, interquartile_mean

# Okabe and Ito's blue and vermilion: they differ in lightness too, for readers who don't see their hues.
MAIN, SEED = "#0072B2", "#D55E00"


def draw_curve(path: Path, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    """Writes the evaluation returns in `rows` as a picture, without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    steps, returns = returns_by_step(rows)
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for index, seed_returns in enumerate(returns.T):
        label = "each seed" if index == 0 else None
        axes.plot(steps, seed_returns, color=SEED, linewidth=0.8, alpha=0.6, label=label)
    if returns.shape[1] > 1:
        intervals = np.array([bootstrap_interval(row, resamples=2000) for row in returns])
        axes.fill_between(
            steps, intervals[:, 0], intervals[:, 1], color=MAIN, alpha=0.18, linewidth=0, label="95% interval"
        )
        axes.plot(steps, interquartile_mean(returns), color=MAIN, linewidth=2.2, label="interquartile mean")
    axes.set(xlabel="environment steps per seed", ylabel="evaluation return", title=title)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)


def returns_by_step(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Steps `[K]` and returns `[K, num_seeds]` of K evaluations; NaN where a seed was not evaluated."""
    by_step: dict[int, dict[int, float]] = {}
    for row in rows:
        by_step.setdefault(row["step"], {})[row["seed"]] = row["eval_return_mean"]
    steps = sorted(by_step)
    seeds = sorted({row["seed"] for row in rows})
    return np.array(steps), np.array([[by_step[step].get(seed, np.nan) for seed in seeds] for step in steps])
