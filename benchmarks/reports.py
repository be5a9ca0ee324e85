"""Trainings whose results are kept as one report, for guards.py and orders.py."""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from kept_runs import ROOT, train


def with_last(*settings: str) -> list[str]:
    """The settings, each once with its last value."""
    last = dict(setting.split("=", 1) for setting in settings)
    return [f"{name}={value}" for name, value in last.items()]


def measured(directory: Path) -> dict[str, Any]:
    """What is reported of a finished training: every seed's returns at the evaluations, and the compound ratio.

    The diagnostics of the ratio are those of the last agent of the order: medians over evaluations and seeds, and the
    least of the effective sample sizes.
    """
    with (directory / "metrics.csv").open(encoding="utf-8", newline="") as file:
        lines = [line for line in csv.DictReader(file) if int(line["step"]) > 0]
    seeds = sorted({int(line["seed"]) for line in lines})
    of_seed = [[line for line in lines if int(line["seed"]) == seed] for seed in seeds]
    returns = [[round(float(line["eval_return_mean"]), 2) for line in rows] for rows in of_seed]
    report = {
        "last": [values[-1] for values in returns],
        "average": [round(float(np.mean(values)), 2) for values in returns],
        "steps": [int(line["step"]) for line in of_seed[0]],
        "returns": returns,
    }
    if "eval_win" in lines[0]:
        report["wins"] = [round(float(rows[-1]["eval_win"]), 4) for rows in of_seed]
    positions = sum(name.startswith("train_effective_samples_") for name in lines[0])
    if not positions:  # simultaneous updates have no compound ratio
        return report

    def last_agent(name: str, summary: Any) -> float:
        return round(float(summary([float(line[f"train_{name}_{positions}"]) for line in lines])), 4)

    return report | {
        "effective_samples": last_agent("effective_samples", np.median),
        "effective_samples_least": last_agent("effective_samples", np.min),
        "compound_ratio_max": last_agent("compound_ratio_max", np.median),
        "guarded": last_agent("guarded", np.median),
    }


def fill(output: Path, commands: Mapping[str, list[str]]) -> None:
    """Makes the trainings that are missing in the report, one after another, in runs/(the report's name)."""
    report: dict[str, Any] = {"versions": {name: version(name) for name in ("jax", "jaxlib")}, "trainings": {}}
    if output.exists():
        report = json.loads(output.read_text(encoding="utf-8"))
    for name, settings in commands.items():
        if name in report["trainings"]:
            if report["trainings"][name]["command"] != settings:
                raise SystemExit(f"{name} of {output} was made by another command; remove it there to make it again")
            continue
        directory = ROOT / "runs" / output.stem / name.replace(" ", "_")
        train(settings, directory)
        report["trainings"][name] = {"command": settings} | measured(directory)
        print(f"{name}: {report['trainings'][name]['last']}", flush=True)
        output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def list_or_fill(arguments: argparse.Namespace, commands: Mapping[str, list[str]]) -> None:
    """With `--list` shows the trainings, otherwise makes those that are missing in `--output`."""
    if not arguments.list:
        fill(arguments.output, commands)
        return
    for name, settings in commands.items():
        print(f"{name}: {' '.join(settings)}")
