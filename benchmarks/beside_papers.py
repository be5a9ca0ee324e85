"""Draws the learning curves of runs on MAMuJoCo with the ends of the papers' curves, at 10 million steps.

    python benchmarks/beside_papers.py docs/results/half_cheetah_2x3/happo docs/results/half_cheetah_2x3/hatd3

writes papers.png into the folder of the first run. Runs that differ only in their seeds are pooled. The papers' numbers
were read by eye from the figures of HARL's authors, to about a hundred, and are of an older version of the robots.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from hajax.runs.files import read_run
from hajax.viewing.curve import style
from hajax.viewing.groups import group_runs, steps_line

PAPERS_STEPS = 10_000_000
# In thousands.
PAPERS = {
    "mamujoco/ant_4x2": {"happo": 5.9, "mappo": 5.9, "hatrpo": 5.0, "haa2c": 5.7, "hatd3": 5.9, "haddpg": 4.5},
    "mamujoco/half_cheetah_2x3": {"happo": 7.0, "mappo": 6.8, "hatrpo": 5.4, "haa2c": 4.3, "hatd3": 8.8, "haddpg": 8.2},
}


def draw(runs: Sequence[Path]) -> None:
    """Every seed's curve, their interquartile mean, and the ends of the papers' curves as hollow marks."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    groups = group_runs([read_run(path) for path in runs])
    if len(tasks := {group.runs[0].settings["env"]["name"] for group in groups}) > 1 or not tasks <= set(PAPERS):
        raise SystemExit(f"runs of {', '.join(sorted(tasks))}; allowed: those of one of {', '.join(PAPERS)}")
    task = tasks.pop()
    for index, group in enumerate(groups):
        look, algo = style(index) | {"marker": ""}, group.runs[0].settings["algo"]["name"]
        line = steps_line(group)
        for seed in line.seeds:
            axes.plot(*seed, color=look["color"], linewidth=0.7, alpha=0.45)
        axes.plot(line.x, line.iqm, **look, label=f"{line.label}, {len(line.seeds)} seed{'s' * (len(line.seeds) > 1)}")
        if algo in PAPERS[task]:
            axes.plot(
                [PAPERS_STEPS],
                [1000 * PAPERS[task][algo]],
                style(index)["marker"],
                color=look["color"],
                mfc="none",
                ms=9,
                clip_on=False,
                label=f"{algo} in its paper",
            )
    axes.set(xlim=(0, PAPERS_STEPS), ylim=(min(0, axes.get_ylim()[0]), None))
    axes.set(xlabel="environment steps per seed", ylabel="evaluation return")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_title(task, loc="left", size=11)
    axes.grid(color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(runs[0].parent / "papers.png", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    draw([path for path in parser.parse_args().runs if path.is_dir()])


if __name__ == "__main__":
    main()
