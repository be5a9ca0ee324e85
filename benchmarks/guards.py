"""Trains with every guard of the compound ratio, on teams of 2 to 16 agents; the evidence for the default guard.

    python benchmarks/guards.py --list
    python benchmarks/guards.py --only happo_8 --only hatrpo_8
    python benchmarks/guards.py                    all trainings that are missing in the report

A training is a command, kept in runs/guards, where it is resumed if it was interrupted. The report has every seed's
last return and its average over the training, and medians over evaluations of the diagnostics of the last agent of the
order. Several of these processes may run concurrently, each with `--only` of its own and its own `--output`.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from mamujoco_runs import CLIPPED

ROOT = Path(__file__).resolve().parents[1]
GUARDS = ("none", "truncate", "clip", "normalize")
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


def command(training: str, guard: str) -> list[str]:
    """The settings, each once."""
    settings = dict(setting.split("=", 1) for setting in [*TRAININGS[training], f"algo.guard={guard}"])
    return [f"{name}={value}" for name, value in settings.items()]


def measured(directory: Path) -> dict[str, Any]:
    """What is reported of a finished training."""
    with (directory / "metrics.csv").open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if int(line["step"]) > 0]
    seeds = sorted({int(line["seed"]) for line in lines})
    returns = {seed: [float(line["eval_return_mean"]) for line in lines if int(line["seed"]) == seed] for seed in seeds}
    positions = sum(name.startswith("train_effective_samples_") for name in lines[0])

    def column(name: str, summary: Any) -> float:
        return round(float(summary([float(line[f"train_{name}_{positions}"]) for line in lines])), 4)

    return {
        "last": [round(returns[seed][-1], 2) for seed in seeds],
        "average": [round(float(np.mean(returns[seed])), 2) for seed in seeds],
        "agents": positions,
        "effective_samples": column("effective_samples", np.median),
        "effective_samples_least": column("effective_samples", np.min),
        "compound_ratio_max": column("compound_ratio_max", np.median),
        "guarded": column("guarded", np.median),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--list", action="store_true", help="show the trainings with their settings")
    parser.add_argument("--only", choices=list(TRAININGS), action="append")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "results" / "guards.json")
    arguments = parser.parse_args()
    report = {"jax": version("jax"), "trainings": {}}
    if arguments.output.exists():
        report = json.loads(arguments.output.read_text(encoding="utf-8"))
    for training in arguments.only or TRAININGS:
        rows = report["trainings"].setdefault(training, {})
        for guard in GUARDS:
            settings = command(training, guard)
            if arguments.list:
                print(f"{'done' if guard in rows else 'to do'}  {training} {guard}: {' '.join(settings)}")
            if arguments.list or guard in rows:
                continue
            directory = ROOT / "runs" / "guards" / f"{training}_{guard}"
            train = [sys.executable, "-m", "hajax", "train", *settings, f"out_dir={directory}", "resume=auto"]
            subprocess.run(train, check=True)
            rows[guard] = {"command": settings} | measured(directory)
            print(training, guard, rows[guard], flush=True)
            arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
