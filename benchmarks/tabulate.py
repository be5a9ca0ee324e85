"""Prints a Markdown table of finished runs, every seed shown.

python benchmarks/tabulate.py docs/results/spread/*
python benchmarks/tabulate.py --metric win docs/results/3m/*
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HEADER = "| run | steps per seed | {} by seed | mean | interquartile mean, 95% interval |\n|---|---|---|---|---|"


def row(directory: Path, metric: str) -> str:
    """One run: its directory's name, and the returns, or what `metric` says, of its last evaluation."""
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    metrics = {"return": summary["eval_return"]} | summary.get("eval_metrics", {})
    if metric not in metrics:
        raise SystemExit(f"metric={metric} of {directory}; allowed: {', '.join(metrics)}")
    values = metrics[metric]
    digits = 1 if metric == "return" else 3
    seeds = ", ".join(f"{value:.{digits}f}" for value in values["per_seed"])
    low, high = values["ci95"]
    interval = f"{values['iqm']:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    return f"| `{directory.name}` | {summary['total_steps']:,} | {seeds} | {values['mean']:.{digits}f} | {interval} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--metric", default="return", help="length, or one of the environment's own, such as win")
    arguments = parser.parse_args()
    print(HEADER.format(arguments.metric))
    for directory in arguments.runs:
        print(row(directory, arguments.metric))


if __name__ == "__main__":
    main()
