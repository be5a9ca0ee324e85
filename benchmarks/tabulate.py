"""Prints a Markdown table of finished runs with every seed.

python benchmarks/tabulate.py docs/results/spread/*
python benchmarks/tabulate.py --metric win docs/results/3m/*
python benchmarks/tabulate.py --metric win --all docs/results/3m/*
python benchmarks/tabulate.py --transfer docs/results/spread_discrete/*
python benchmarks/tabulate.py --ratios docs/results/3s5z/happo docs/results/3s5z_guarded/happo
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np

HEADER = "| run | steps per seed | {} by seed | mean | interquartile mean, 95% interval |\n|---|---|---|---|---|"

AVERAGES = "| run | {} by seed, average over the training | mean |\n|---|---|---|"

RATIOS = (
    "| run | mean of M: median, greatest | M of the agent updated last: median of the greatest | its effective "
    "samples: median, least | its weights changed |\n|---|---|---|---|---|"
)

TRANSFERS = "| run | hajax | elsewhere | difference | by seed | intervals with 0 |\n|---|---|---|---|---|---|"


def row(directory: Path, metric: str) -> str:
    """One run: its directory's name, and the returns, or another metric, of its last evaluation."""
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    metrics = {"return": summary["eval_return"]} | summary.get("eval_metrics", {})
    if metric not in metrics:
        raise SystemExit(f"metric={metric} of {directory}; allowed: {', '.join(metrics)}")
    values = metrics[metric]
    digits = 1 if metric == "return" else 3
    seeds = ", ".join(f"{value:.{digits}f}" for value in values["per_seed"])
    interval = f"{values['iqm']:.{digits}f}"
    if values["ci95"] is not None:  # of more than one seed
        low, high = values["ci95"]
        interval += f" [{low:.{digits}f}, {high:.{digits}f}]"
    return f"| `{directory.name}` | {summary['total_steps']:,} | {seeds} | {values['mean']:.{digits}f} | {interval} |"


def average_row(directory: Path, metric: str, since: int = 0) -> str:
    """One run: the average over its evaluations from `since` steps on, a measure of its speed of learning.

    The first evaluation is left out: it is of untrained policies, at the start or after an off-policy warm-up.
    """
    with (directory / "metrics.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    start = min(int(line["step"]) for line in lines)
    lines = [line for line in lines if int(line["step"]) > start and int(line["step"]) >= since]
    if not lines:
        raise SystemExit(
            f"since={since}, but {directory} ends before; allowed: at most the steps of its last evaluation"
        )
    column = "eval_return_mean" if metric == "return" else f"eval_{metric}"
    if column not in lines[0]:
        raise SystemExit(f"metric={metric} of {directory}: no column {column} in metrics.csv")
    averages = [
        np.mean([float(line[column]) for line in lines if line["seed"] == seed])
        for seed in sorted({line["seed"] for line in lines}, key=int)
    ]
    digits = 1 if metric == "return" else 3
    seeds = ", ".join(f"{value:.{digits}f}" for value in averages)
    return f"| `{directory.name}` | {seeds} | {np.mean(averages):.{digits}f} |"


def ratio_row(directory: Path) -> str:
    """One run's compound ratio M, over the evaluations of all seeds; nothing where an older run did not record it.

    M is the ratio itself, not the weight that a guard makes of it, and its mean is after the last agent's update.
    """
    with (directory / "metrics.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    last = max((int(name.rpartition("_")[2]) for name in lines[0] if name.startswith("train_guarded_")), default=0)

    def values(column: str) -> np.ndarray:
        return np.array([float(line[column]) for line in lines if line[column]])

    mean = values("train_compound_ratio")
    cells = [f"{np.median(mean):,.2f}, {mean.max():,.2f}", "", "", ""]
    if last:
        samples = values(f"train_effective_samples_{last}")
        cells[1] = f"{np.median(values(f'train_compound_ratio_max_{last}')):,.1f}"
        cells[2:] = f"{np.median(samples):.2f}, {samples.min():.2f}", f"{values(f'train_guarded_{last}').mean():.1%}"
    return f"| `{'/'.join(directory.parts[-2:])}` | {' | '.join(cells)} |"


def transfer_row(directory: Path) -> str:
    """One run's returns in hajax and elsewhere, from `transfer.json`, and the number of intervals that contain 0."""
    (played,) = json.loads((directory / "transfer.json").read_text(encoding="utf-8"))["runs"]
    every, seeds = played["all"], played["seeds"].values()
    low, high = every["interval"]
    apart = ", ".join(f"{seed['difference']:+.2f}" for seed in seeds)
    contain = f"{sum(seed['contains_zero'] for seed in seeds)} of {len(seeds)}"
    difference = f"{every['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"
    there = every[played.get("elsewhere", "mpe2")]
    return f"| `{directory.name}` | {every['hajax']:.2f} | {there:.2f} | {difference} | {apart} | {contain} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--metric", default="return", help="length, or one of the environment's own, such as win")
    parser.add_argument("--all", action="store_true", help="averages over evaluations instead of the last")
    parser.add_argument("--since", type=int, default=0, metavar="STEPS", help="with --all, from so many steps on")
    parser.add_argument("--transfer", action="store_true", help="returns elsewhere, from transfer.json")
    parser.add_argument("--ratios", action="store_true", help="the compound ratio of sequential updates")
    arguments = parser.parse_args()
    arguments.runs = [path for path in arguments.runs if path.is_dir()]  # pictures may be beside them
    if arguments.ratios:
        print("\n".join([RATIOS, *map(ratio_row, arguments.runs)]))
        return
    if arguments.transfer:
        print("\n".join([TRANSFERS, *map(transfer_row, arguments.runs)]))
        return
    print((AVERAGES if arguments.all else HEADER).format(arguments.metric))
    for directory in arguments.runs:
        average = (directory, arguments.metric, arguments.since)
        print(average_row(*average) if arguments.all else row(directory, arguments.metric))


if __name__ == "__main__":
    main()
