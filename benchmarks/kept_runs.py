"""The command line of scripts that make the runs of docs/results: mpe.py, smax_runs.py and mamujoco_runs.py."""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
# The last file marks a run as done.
KEPT = ("config.yaml", "metrics.csv", "timing.csv", "curve.png", "transfer.json", "summary.json")


def unguarded(settings: list[str]) -> list[str]:
    """The settings of a run from before guards: HAPPO, HATRPO and HAA2C had the compound ratio as it is."""
    sequential = {"algo=happo", "algo=hatrpo", "algo=haa2c"}
    return [*settings, "algo.guard=none"] if sequential & set(settings) else settings


def train(settings: list[str], directory: Path) -> None:
    """Trains in `directory`, or resumes."""
    command = [sys.executable, "-m", "hajax", "train", *settings, f"out_dir={directory}", "resume=auto"]
    subprocess.run(command, check=True)


def make(name: str, settings: list[str], directory: Path, episodes: int, draw: int) -> None:
    """Trains in `directory`, evaluates elsewhere if `episodes` > 0, and copies the kept files to docs/results."""
    train(settings, directory)
    if episodes:
        transfer = [sys.executable, ROOT / "benchmarks" / "transfer.py", directory, "--episodes", str(episodes)]
        subprocess.run([*transfer, "--draw", str(draw), "--output", directory / "transfer.json"], check=True)
    (RESULTS / name).mkdir(parents=True, exist_ok=True)
    for file in KEPT:
        if file == "transfer.json" and not episodes:
            continue
        shutil.copy(directory / file, RESULTS / name / file)
        if file == "config.yaml":
            config = RESULTS / name / file
            text = config.read_text(encoding="utf-8")
            text = re.sub(r"^out_dir: .*$", f"out_dir: docs/results/{name}", text, flags=re.M)
            config.write_text(re.sub(r"^resume: auto$", "resume: false", text, flags=re.M), encoding="utf-8")


def main(what: str, folder: str, runs: Mapping[str, list[str]], episodes: Mapping[str, int], draw: int = 0) -> None:
    """Makes the named runs, or all missing ones.

    Args:
        what: the script's docstring.
        folder: the runs train in runs/`folder`.
        runs: the settings of every run, by `TASK/NAME`.
        episodes: the episodes per seed elsewhere, for the runs that are evaluated there.
        draw: which episodes these are, see transfer.py.
    """
    parser = argparse.ArgumentParser(description=what.splitlines()[0])
    parser.add_argument("names", nargs="*", help="TASK/NAME; all that are missing otherwise")
    parser.add_argument("--list", action="store_true", help="show all runs with their settings")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in runs]:
        raise SystemExit(f"{', '.join(unknown)}: no such run; allowed: {', '.join(runs)}")
    for name in arguments.names or runs:
        done = (RESULTS / name / "summary.json").exists()
        if arguments.list:
            print(f"{'done' if done else 'to do'}  {name}: {' '.join(runs[name])}")
        elif not done or arguments.names:
            directory = ROOT / "runs" / folder / name
            begun = directory.with_name(f"{directory.name}.begun")
            begun.parent.mkdir(parents=True, exist_ok=True)
            try:
                begun.mkdir()
            except FileExistsError:
                print(f"{name}: another process has it; remove {begun} if none does")
                continue
            try:
                make(name, runs[name], directory, episodes.get(name, 0), draw)
            finally:
                begun.rmdir()
