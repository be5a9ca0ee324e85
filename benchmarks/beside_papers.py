"""Draws the learning curves of docs/results on MAMuJoCo with the ends of the papers' curves, at 10 million steps.

    python benchmarks/beside_papers.py half_cheetah_2x3 ant_4x2

writes docs/results/TASK/papers.png. The papers' numbers were read by eye from the figures of HARL's authors, to about a
hundred, and are of an older version of the robots.
"""

from __future__ import annotations

import argparse
import csv

import numpy as np
from kept_runs import RESULTS
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from hajax.viewing.curve import style

PAPERS_STEPS = 10_000_000
# In thousands.
PAPERS = {
    "ant_4x2": {"happo": 5.9, "mappo": 5.9, "hatrpo": 5.0, "haa2c": 5.7, "hatd3": 5.9, "haddpg": 4.5},
    "half_cheetah_2x3": {"happo": 7.0, "mappo": 6.8, "hatrpo": 5.4, "haa2c": 4.3, "hatd3": 8.8, "haddpg": 8.2},
}


def curves(task: str, name: str) -> dict[int, np.ndarray]:
    """`[evaluations, 2]` steps and returns by seed."""
    with (RESULTS / task / name / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        seed: np.array(
            [[float(row["step"]), float(row["eval_return_mean"])] for row in rows if int(row["seed"]) == seed]
        )
        for seed in sorted({int(row["seed"]) for row in rows})
    }


def draw(task: str) -> None:
    """Every seed's curve, their mean, and the ends of the papers' curves as hollow marks of the same color."""
    names = sorted(path.parent.name for path in (RESULTS / task).glob("*/summary.json"))
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    for index, name in enumerate(names):
        seeds, look = list(curves(task, name).values()), style(index) | {"marker": ""}
        for points in seeds:
            axes.plot(*points.T, color=look["color"], linewidth=0.7, alpha=0.45)
        steps = seeds[0][:, 0]
        axes.plot(steps, np.mean([points[:, 1] for points in seeds], 0), **look, label=f"{name}, {len(seeds)} seeds")
        if name in PAPERS[task]:
            marker = style(index)["marker"]
            axes.plot(
                [PAPERS_STEPS],
                [1000 * PAPERS[task][name]],
                marker,
                color=look["color"],
                mfc="none",
                ms=9,
                clip_on=False,
                label=f"{name} in its paper",
            )
    axes.set(xlim=(0, PAPERS_STEPS), ylim=(min(0, axes.get_ylim()[0]), None))
    axes.set(xlabel="environment steps per seed", ylabel="evaluation return")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_title(f"mamujoco/{task}", loc="left", size=11)
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(RESULTS / task / "papers.png", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+", choices=sorted(PAPERS))
    for task in parser.parse_args().tasks:
        draw(task)


if __name__ == "__main__":
    main()
