"""Does the order of updates matter, and more with more agents? The study of docs/results/orders.md.

    python benchmarks/orders.py --list
    python benchmarks/orders.py happo_8 hatrpo_8     these teams, every order
    python benchmarks/orders.py                      all trainings that are missing in docs/results/orders.json
    python benchmarks/orders.py --tables             the tables of the page, from the report

A training is a command, kept in runs/orders (the name of the report), where it is resumed if it was interrupted.
Several of these processes may run concurrently, each with teams of its own and its own `--output`; `--merge FILE ...`
puts their reports together.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from kept_runs import RESULTS
from reports import list_or_fill, with_last
from scipy.stats import mannwhitneyu

from hajax.training.statistics import (
    bootstrap_interval,
    interquartile_mean,
    probability_of_improvement,
)

OUTPUT = RESULTS / "orders.json"
ORDERS = ("random", "semi_greedy", "simultaneous")
BUDGET = ["total_steps=300_000", "eval.episodes=200", "eval_interval=60_000", "algo.guard=truncate"]
ALGORITHMS = {
    "happo": ["algo=happo", "preset=harl/mpe"],
    "hatrpo": ["algo=hatrpo", "preset=harl/mpe_hatrpo", "algo.kl_radius=0.01"],
}
SMAX = {"happo": ["algo=happo", "preset=hajax/smax"], "hatrpo": ["algo=hatrpo", "preset=hajax/smax_hatrpo"]}
SIZES = (8, 4, 2, 16)


def spread(agents: int) -> list[str]:
    return [*BUDGET, "env=mpe/simple_spread", f"env.num_agents={agents}", f"num_seeds={5 if agents == 16 else 10}"]


def trainings() -> dict[str, list[str]]:
    """The settings of every training, by TEAM ORDER."""
    listed = {}
    for agents in SIZES:
        for algo, settings in ALGORITHMS.items():
            for order in ORDERS:
                listed[f"{algo}_{agents} {order}"] = with_last(*settings, *spread(agents), f"algo.order={order}")
        if agents in (4, 8):
            listed[f"happo_{agents} a2po"] = with_last(
                "algo=a2po", "preset=harl/mpe", *spread(agents), "algo.guard=interval"
            )
        if agents == 8:
            listed["hatrpo_8 unguarded"] = with_last(*listed["hatrpo_8 random"], "algo.guard=none")
    for algo, settings in SMAX.items():
        for order in ORDERS:
            where = ["env=smax/2s3z", "num_seeds=3", f"algo.order={order}"]
            listed[f"{algo}_2s3z {order}"] = with_last(*settings, *BUDGET, *where)
    return listed


def compared(first: dict[str, Any], second: dict[str, Any], what: str) -> str:
    """The probability that a seed of the first is better than one of the second, with its interval."""
    probability, interval = probability_of_improvement(first[what], second[what])
    low, high = interval or (np.nan, np.nan)
    p = mannwhitneyu(first[what], second[what]).pvalue
    return f"{probability:.2f} [{low:.2f}, {high:.2f}], p = {p:.3f}"


def summarized(training: dict[str, Any], what: str) -> str:
    low, high = bootstrap_interval(training[what]) or (np.nan, np.nan)
    return f"{interquartile_mean(training[what]):.1f} [{low:.1f}, {high:.1f}]"


def tables(report: dict[str, Any]) -> str:
    """The tables of the page: interquartile means with intervals, and probabilities of improvement."""
    made = report["trainings"]
    rows = []
    for what, title in (("last", "last evaluation"), ("average", "average over the training")):
        rows += [
            f"| {title} | seeds | random | semi-greedy | simultaneous | A2PO or unguarded |",
            "|---|---|---|---|---|---|",
        ]
        chances = [f"| {title}, probability of improvement | random over simultaneous | semi-greedy over random |"]
        chances += ["|---|---|---|"]
        for team in dict.fromkeys(name.split(" ")[0] for name in trainings()):
            every = {name.split(" ")[1]: made[name] for name in made if name.split(" ")[0] == team}
            if not set(ORDERS) <= set(every):
                continue
            cells = [summarized(every[order], what) for order in ORDERS]
            other = [summarized(every[order], what) for order in every if order not in ORDERS]
            rows.append(f"| `{team}` | {len(every['random'][what])} | {' | '.join(cells)} | {', '.join(other)} |")
            pairs = [("random", "simultaneous"), ("semi_greedy", "random")]
            chances.append(f"| `{team}` | {' | '.join(compared(every[a], every[b], what) for a, b in pairs)} |")
        rows += ["", *chances, ""]
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("teams", nargs="*", help="such as happo_8; all that are missing otherwise")
    parser.add_argument("--list", action="store_true", help="show the trainings with their settings")
    parser.add_argument("--tables", action="store_true", help="print the tables of the page")
    parser.add_argument("--merge", nargs="+", type=Path, metavar="FILE", help="reports to add to the output")
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    listed = trainings()
    if unknown := set(arguments.teams) - {name.split(" ")[0] for name in listed}:
        raise SystemExit(f"{', '.join(sorted(unknown))}: no such team; see --list")
    chosen = {name: x for name, x in listed.items() if not arguments.teams or name.split(" ")[0] in arguments.teams}
    if arguments.merge:
        reports = [json.loads(path.read_text(encoding="utf-8")) for path in arguments.merge]
        merged = {name: training for report in reports for name, training in report["trainings"].items()}
        ordered = {
            "versions": reports[0]["versions"],
            "trainings": {name: merged[name] for name in listed if name in merged},
        }
        arguments.output.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")
    elif arguments.tables:
        print(tables(json.loads(arguments.output.read_text(encoding="utf-8"))))
    else:
        list_or_fill(arguments, chosen)


if __name__ == "__main__":
    main()
