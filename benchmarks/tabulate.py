"""Prints a Markdown table of finished runs, every seed shown.

python benchmarks/tabulate.py docs/results/spread/*
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

HEADER = "| run | steps per seed | return by seed | mean | interquartile mean, 95% interval |\n|---|---|---|---|---|"


def row(directory: Path) -> str:
    """One run: its directory's name, and the returns of its last evaluation."""
    summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    returns = summary["eval_return"]
    seeds = ", ".join(f"{value:.1f}" for value in returns["per_seed"])
    low, high = returns["ci95"]
    interval = f"{returns['iqm']:.1f} [{low:.1f}, {high:.1f}]"
    return f"| `{directory.name}` | {summary['total_steps']:,} | {seeds} | {returns['mean']:.1f} | {interval} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    print(HEADER)
    for directory in parser.parse_args().runs:
        print(row(directory))


if __name__ == "__main__":
    main()
