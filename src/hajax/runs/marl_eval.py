"""Runs in the JSON that marl-eval reads, for its plots and tables over tasks and algorithms.

The schema (https://github.com/instadeepai/marl-eval): environment, task, algorithm, run, and for every evaluation
`step_<i>` the `step_count`, seconds and a list per metric; then `absolute_metrics`. Two differences:

- A list holds one number, the mean over the evaluation's episodes. The schema also allows one number per episode.
- `absolute_metrics` are those of the last evaluation. The protocol (https://arxiv.org/abs/2209.10485) asks for the
  best policy, evaluated again over ten times as many episodes, which a run does not do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hajax.runs.errors import Refusal
from hajax.runs.tables import Table, write_json

FILE = "marl_eval.json"
# `return` as in marl-eval's own examples; other columns lose only their prefix.
SHORTER = {"return_mean": "return", "stochastic_return_mean": "stochastic_return"}
NEEDED = ("config.yaml", "metrics.csv", "timing.csv")


class Run(NamedTuple):
    """The evaluations in a run directory."""

    path: Path
    env: Mapping[str, Any]
    algo: Mapping[str, Any]
    wall_seconds: Mapping[int, float]  # by step; an evaluation that is missing here was not completed
    rows: Sequence[Mapping[str, Any]]  # of metrics.csv, one per seed and evaluation


def read_run(path: Path) -> Run:
    """Reads a run directory, finished or not; `Refusal` if it is none or holds no complete evaluation."""
    for name in NEEDED:
        if not (path / name).is_file():
            raise Refusal(f"{path} holds no {name}; allowed: the directory of a run, with {', '.join(NEEDED)}")
    config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    timing, metrics = Table(path / "timing.csv"), Table(path / "metrics.csv")
    timing.read()
    wall_seconds = {row["step"]: row["wall_seconds"] for row in timing.rows}
    metrics.read(wall_seconds.__contains__)
    if not metrics.rows:
        raise Refusal(f"{path} has no complete evaluation; allowed: a run with at least one")
    return Run(path, config["env"], config["algo"], wall_seconds, metrics.rows)


def marl_eval_json(runs: Iterable[Run]) -> dict[str, Any]:
    """The runs in marl-eval's schema: `mpe/simple_spread` is the task `simple_spread` of the environment `mpe`.

    Metrics are the columns `eval_*` that are finite in every row of a run. `elapsed_time` is in seconds since the run's
    first evaluation, so that compilation does not count.

    Raises:
        Refusal: two runs with the same environment but other options, with the same algorithm on it but other options,
            with the same seed of the same algorithm, or with different numbers of evaluations in one environment.
    """
    document: dict[str, Any] = {}
    earlier: list[Run] = []
    for run in runs:
        for other in earlier:
            _check_together(other, run)
        environment, task = _environment_and_task(run)
        algorithms = document.setdefault(environment, {}).setdefault(task, {})
        algorithms.setdefault(run.algo["name"], {}).update(_by_seed(run))
        earlier.append(run)
    return document


def write_marl_eval(path: Path) -> None:
    """Writes `marl_eval.json` into a run directory."""
    write_json(path / FILE, marl_eval_json([read_run(path)]))


def _check_together(one: Run, two: Run) -> None:
    """Raises `Refusal` if marl-eval would misinterpret the two runs."""
    both = f"{one.path} and {two.path}"
    if _environment_and_task(one)[0] == _environment_and_task(two)[0]:
        counts = len(one.wall_seconds), len(two.wall_seconds)
        if counts[0] != counts[1]:
            raise Refusal(f"{both} have {counts[0]} and {counts[1]} evaluations; allowed: as many in each")
    if one.env["name"] != two.env["name"]:
        return
    _check_same(both, "env", one.env, two.env)
    if one.algo["name"] != two.algo["name"]:
        return
    _check_same(both, "algo", one.algo, two.algo)
    common = {row["seed"] for row in one.rows} & {row["seed"] for row in two.rows}
    if common:
        raise Refusal(f"{both} both hold seed {min(common)} of {one.algo['name']}; allowed: each seed once")


def _check_same(both: str, group: str, one: Mapping[str, Any], two: Mapping[str, Any]) -> None:
    for key in {**one, **two}:
        values = one.get(key, "(default)"), two.get(key, "(default)")
        if values[0] != values[1]:
            raise Refusal(
                f"{both} differ in {group}.{key}: {values[0]}, {values[1]}; allowed: equal options of {group}"
            )


def _environment_and_task(run: Run) -> tuple[str, str]:
    environment, _, task = run.env["name"].partition("/")
    return environment, task or environment


def _by_seed(run: Run) -> dict[str, dict[str, Any]]:
    columns = [
        name for name in run.rows[0] if name.startswith("eval_") and all(math.isfinite(r[name]) for r in run.rows)
    ]
    first = min(run.wall_seconds.values())
    seeds: dict[str, dict[str, Any]] = {}
    for row in sorted(run.rows, key=lambda row: (row["seed"], row["step"])):
        steps, step = seeds.setdefault(f"seed_{row['seed']}", {}), row["step"]
        metrics = {_metric(name): [row[name]] for name in columns}
        elapsed = round(run.wall_seconds[step] - first, 3)
        steps[f"step_{len(steps)}"] = {"step_count": step, "elapsed_time": elapsed, **metrics}
    for steps in seeds.values():
        last = steps[f"step_{len(steps) - 1}"]
        # With the seconds, since marl-eval's checks require the same names everywhere.
        steps["absolute_metrics"] = {name: value for name, value in last.items() if name != "step_count"}
    return seeds


def _metric(column: str) -> str:
    name = column.removeprefix("eval_")
    return SHORTER.get(name, name)
