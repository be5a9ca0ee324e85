"""Trains with guards of the compound ratio, on teams of 2 to 16 agents: the evidence for the default guard.

    python benchmarks/guards.py --list
    python benchmarks/guards.py --only happo_8 --only hatrpo_8
    python benchmarks/guards.py                    all trainings that are missing in the report

A training is a command, kept in runs/guards (the name of the report), where it is resumed if it was interrupted. The
report has every seed's last return and its average over the training, and medians over evaluations of the diagnostics
of the last agent of the order. Several of these processes may run concurrently, each with `--only` of its own and its
own `--output`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from kept_runs import RESULTS
from mamujoco_runs import CLIPPED
from reports import list_or_fill, with_last

GUARDS = ("none", "truncate", "clip", "normalize")
CENTERED = "truncate_centered"  # the default guard, with the mean of the advantage kept
SHORT = ["total_steps=150_000", "num_seeds=3", "eval.episodes=200", "eval_interval=30_000"]
HAPPO = ["algo=happo", "preset=harl/mpe", *SHORT]
# Ten times the preset's radius, hajax's and HARL's default: steps with which a compound ratio does run away.
HATRPO = ["algo=hatrpo", "preset=harl/mpe_hatrpo", "algo.kl_radius=0.01", *SHORT]
ANT = ["algo=happo", "env=mamujoco/ant_8x1", "env.physics=brax-spring", "preset=harl/ant_4x2", *CLIPPED]
ANT += ["total_steps=300_000", "num_seeds=3", "eval.episodes=20", "eval_interval=60_000"]


def spread(agents: int) -> list[str]:
    return ["env=mpe/simple_spread", f"env.num_agents={agents}"]


TRAININGS = {
    "hatrpo_8": [*HATRPO, *spread(8)],
    "happo_8": [*HAPPO, *spread(8)],
    "happo_ant_8x1": ANT,
    "hatrpo_8_preset": [*HATRPO, *spread(8), "algo.kl_radius=0.001"],
    "hatrpo_4": [*HATRPO, *spread(4)],
    "happo_4": [*HAPPO, *spread(4)],
    "hatrpo_2": [*HATRPO, *spread(2)],
    "happo_2": [*HAPPO, *spread(2)],
    "happo_16": [*HAPPO, *spread(16)],
}


def trainings() -> dict[str, list[str]]:
    """The settings of every training, by TEAM GUARD."""
    return {
        f"{name} {guard}": with_last(*settings, *changes)
        for name, settings in TRAININGS.items()
        for guard, changes in {
            **{guard: [f"algo.guard={guard}"] for guard in GUARDS},
            CENTERED: ["algo.guard=truncate", "algo.center_advantage=true"],
        }.items()
    }


COLUMNS = ("training", "guard", "last return by seed", "mean", "average over the training")
COLUMNS += ("effective samples: median, least", "largest ratio, median", "weights changed")
HEADER = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|"


def row(name: str, training: dict[str, Any]) -> str:
    """The diagnostics are those of the last agent of the order."""
    team, guard = name.split(" ")
    last, average = training["last"], np.mean(training["average"])
    samples = f"{training['effective_samples']:.2f}, {training['effective_samples_least']:.2f}"
    return (
        f"| `{team}` | `{guard}` | {', '.join(f'{x:.1f}' for x in last)} | {np.mean(last):.1f} | {average:.1f} | "
        f"{samples} | {training['compound_ratio_max']:.1f} | {training['guarded']:.1%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="show the trainings with their settings")
    parser.add_argument("--table", action="store_true", help="print the table of docs/results/guards.md")
    parser.add_argument("--only", choices=list(TRAININGS), action="append")
    parser.add_argument("--output", type=Path, default=RESULTS / "guards.json")
    arguments = parser.parse_args()
    chosen = {
        name: settings
        for name, settings in trainings().items()
        if not arguments.only or name.split(" ")[0] in arguments.only
    }
    if arguments.table:
        made = json.loads(arguments.output.read_text(encoding="utf-8"))["trainings"]
        print("\n".join([HEADER, *(row(name, made[name]) for name in chosen if name in made)]))
    else:
        list_or_fill(arguments, chosen)


if __name__ == "__main__":
    main()
