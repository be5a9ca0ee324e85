"""Reading run directories back: settings, evaluations and wall times of finished or running runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from hajax.runs.errors import Refusal, user_path
from hajax.runs.tables import RUN, read_rows, read_text

GRID = "grid.csv"  # the evaluations of all points of a grid


class RunCurve(NamedTuple):
    """The evaluations of one run: K steps, S seeds."""

    path: Path
    settings: dict[str, Any]  # config.yaml
    seeds: tuple[int, ...]
    steps: np.ndarray  # [K], ascending
    seconds: np.ndarray  # [K] since the first evaluation, after compilation; NaN where timing.csv has no row (yet)
    returns: np.ndarray  # [K, S], or another metric; NaN where a seed has no evaluation or no value


def run_directory(name: str | Path) -> Path:
    """The path of that name, checked to be the directory of a run."""
    path = user_path(name)
    if not (path / "config.yaml").is_file():
        raise Refusal(f"{path} holds no run (no config.yaml); allowed: a directory that `hajax train` wrote")
    if (path / GRID).is_file():
        runs = sorted(file.parent for file in path.glob("*/config.yaml"))
        such = f", such as {runs[0]}" if runs else ", which it has when it ends"
        raise Refusal(f"{path} holds the points of vmap; allowed: the run of one point{such}")
    return path


def find_runs(directories: Iterable[Path]) -> list[Path]:
    """The run directories among these or in them, each once, in the given order; `Refusal` if one holds no run."""
    found: dict[Path, Path] = {}
    for directory in directories:
        if not directory.is_dir():
            raise Refusal(f"{directory} is not a directory; allowed: {RUN}")
        runs = [file.parent for file in sorted(directory.rglob("metrics.csv"))]
        if not runs:
            raise Refusal(f"{directory} holds no run; allowed: {RUN}")
        for run in runs:
            found.setdefault(run.resolve(), run)
    return list(found.values())


def read_run(path: Path, metric: str = "return") -> RunCurve:
    """Reads one run, its returns or another metric of its evaluations, such as `win`, or of training, as `train_kl`.

    Raises:
        Refusal: a file can't be read (it is named, with the line if there is one), or has no such metric.
    """
    settings = _read_settings(path / "config.yaml")
    columns, rows = read_rows(path / "metrics.csv", ("step", "seed", "eval_return_mean"))
    if not rows:
        raise Refusal(f"{path / 'metrics.csv'} holds no evaluation yet; allowed: {RUN}")
    metrics = evaluated_metrics(columns)
    of_training = {column: column for column in columns if column.startswith("train_")}
    if metric not in metrics | of_training:
        names = f"{', '.join(metrics)}, or a column train_… of metrics.csv"
        raise Refusal(f"--metric={metric} is not a metric of {path}; allowed: {names}")
    _, timing = read_rows(path / "timing.csv", ("step", "wall_seconds"))
    return run_curve(path, settings, rows, timing, (metrics | of_training)[metric])


def owners_of(paths: Sequence[Path], metric: str) -> tuple[str, ...]:
    """The agents, groups or pairs of which `metrics.csv` of all runs has the metric one by one.

    Raises:
        Refusal: a run has no such columns, or they are of other agents than another run's.
    """
    found: dict[Path, tuple[str, ...]] = {}
    for path in paths:
        columns, _ = read_rows(path / "metrics.csv", ("step", "seed", "eval_return_mean"))
        names = [*evaluated_metrics(columns), *(column for column in columns if column.startswith("train_"))]
        found[path] = tuple(x.removeprefix(f"{metric}_of_") for x in names if x.startswith(f"{metric}_of_"))
        if not found[path]:
            known = dict.fromkeys(name.partition("_of_")[0] for name in names if "_of_" in name)
            raise Refusal(
                f"--metric={metric} with --kind=agents is no metric that {path} has of every agent; allowed: "
                f"{', '.join(known) or 'none in this run'}"
            )
        if set(found[path]) != set(found[paths[0]]):
            raise Refusal(
                f"--kind=agents with {paths[0]} and {path}, whose agents differ; allowed: runs with the same agents"
            )
    return found[paths[0]]


def evaluated_metrics(columns: Iterable[str]) -> dict[str, str]:
    """The metrics of deterministic evaluations among the columns of `metrics.csv`: name -> column."""
    found = {"return": "eval_return_mean"}
    for column in columns:
        name = column.removeprefix("eval_")
        if name != column and name not in ("return_mean", "return_std") and not name.startswith("stochastic_"):
            found[name] = column
    return found


def run_curve(
    path: Path,
    settings: dict[str, Any],
    rows: Sequence[Mapping[str, Any]],
    timing: Sequence[Mapping[str, Any]],
    column: str = "eval_return_mean",
) -> RunCurve:
    """The curve of a run from rows of its `metrics.csv` and `timing.csv`."""
    seeds = sorted({int(row["seed"]) for row in rows})
    steps = sorted({int(row["step"]) for row in rows})
    returns = np.full((len(steps), len(seeds)), math.nan)
    for row in rows:
        returns[steps.index(int(row["step"])), seeds.index(int(row["seed"]))] = row[column]
    seconds_at = {int(row["step"]): row["wall_seconds"] for row in timing}
    first = min(seconds_at.values(), default=0.0)
    seconds = np.array([seconds_at.get(step, math.nan) - first for step in steps])
    return RunCurve(path, settings, tuple(seeds), np.array(steps), seconds, returns)


def _read_settings(path: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise Refusal(f"{path}{place} is not YAML; allowed: the file that `hajax train` wrote") from error
    names = [settings.get(group, {}) for group in ("algo", "env")] if isinstance(settings, dict) else []
    if not names or not all(isinstance(group, dict) and isinstance(group.get("name"), str) for group in names):
        raise Refusal(f"{path} has no algo.name and env.name; allowed: the file that `hajax train` wrote")
    return settings
