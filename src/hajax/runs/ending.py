"""What the host has of a run, and what it writes at its end: its summary, and a run directory per point of a grid."""

from __future__ import annotations

import dataclasses
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from hajax.runs import hosts
from hajax.runs.clock import Clock
from hajax.runs.directory import RunDirectory, summarize_returns, versions
from hajax.runs.errors import RunError
from hajax.runs.files import evaluated_metrics
from hajax.runs.grid import Values, point_names
from hajax.runs.health import Failure
from hajax.runs.loggers import Logger
from hajax.runs.marl_eval import write_marl_eval
from hajax.runs.programs import Programs
from hajax.runs.progress import TrainingProgress
from hajax.runs.schedule import Schedule
from hajax.runs.settings import PopulationSettings, TrainSettings
from hajax.runs.tables import Row, write_json
from hajax.runs.team import Team
from hajax.runs.trials import RunState, Trials
from hajax.sharding import gathered
from hajax.training.checkpoints import CheckpointError, list_checkpoints, save_checkpoint
from hajax.training.evaluation import RETURN_OF

# What the summaries of the points say in that of their grid.
OF_POINT = ("status", "eval_return", "eval_metrics", "eval_stochastic_return", "non_finite")


class Run(NamedTuple):
    """The host's data of a run."""

    settings: TrainSettings
    team: Team
    schedule: Schedule
    directory: RunDirectory
    clock: Clock
    trials: Trials
    grid: Sequence[Values]  # the points of `vmap`
    bar: TrainingProgress
    loggers: list[tuple[int | None, Logger]]  # with the point of the grid that each logs
    mesh: Mesh | None  # of several devices
    agree: Callable[[int], int]  # with the other processes


class Outcome(NamedTuple):
    """Where a run stops."""

    iterations: int
    failures: list[Failure]
    diverged: bool  # whether it stopped because of the failures
    run_state: RunState


def summarize(this: Run, programs: Programs, outcome: Outcome, point: int | None = None) -> dict[str, Any]:
    """The contents of `summary.json`, of a run or of a point of its grid.

    Returns are those of the last evaluation, NaN for a seed that failed.
    """
    settings, schedule, directory = this.settings, this.schedule, this.directory
    steps = schedule.step(outcome.iterations)
    evaluated_at = directory.timing.rows[-1]["step"] if directory.timing.rows else None
    first = (point or 0) * settings.num_seeds
    failed = [failure for failure in outcome.failures if 0 <= failure.trial - first < settings.num_seeds]
    stopped_early = outcome.iterations < schedule.iterations and not outcome.diverged
    rows = [row for row in rows_of(this, directory.metrics.rows, point) if row["step"] == evaluated_at]

    def results(column: str) -> dict[str, Any]:
        found = {row["seed"]: row[column] for row in rows}
        return summarize_returns(np.array([found.get(seed, np.nan) for seed in settings.seeds]))

    summary: dict[str, Any] = {
        "algo": settings.algo["name"],
        "env": settings.env["name"],
        "preset": settings.preset,
        "status": "interrupted" if stopped_early else "diverged" if failed else "finished",
        "total_steps": steps,
        "num_seeds": settings.num_seeds,
        "seeds": list(settings.seeds),
        "eval_step": evaluated_at,
        "eval_episodes": settings.eval.episodes,
        "eval_return": results("eval_return_mean"),
    }
    summary["eval_metrics"] = {
        name: results(column)
        for name, column in evaluated_metrics(directory.metrics.columns).items()
        if name != "return" and not name.startswith(RETURN_OF)  # those are in metrics.csv
    }
    if settings.eval.stochastic:
        summary["eval_stochastic_return"] = results("eval_stochastic_return_mean")
    if failed:
        summary["non_finite"] = [
            {
                "seed": this.trials.labels[failure.trial]["seed"],
                "iteration": failure.iteration,
                "quantity": failure.quantity,
                "step": schedule.step(failure.iteration),
            }
            for failure in failed
        ]
        began = min(entry["step"] for entry in summary["non_finite"])
        good = [saved for saved in list_checkpoints(directory.checkpoints) if saved < began]
        summary["last_good_checkpoint"] = good[-1] if good else None
    device, trained = jax.devices()[0], (steps - schedule.warmup_steps) * settings.num_trials
    return summary | {
        # Environment steps of all trials per second of training: no compilation, no warm-up, no evaluation.
        "steps_per_second": round(trained / this.clock.training, 1) if this.clock.training else None,
        "compile_seconds": round(programs.compile_seconds, 3),
        **this.clock.seconds(),
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": 1 if this.mesh is None else this.mesh.size,
            **({"processes": jax.process_count()} if jax.process_count() > 1 else {}),
        },
        "versions": versions(),
    }


def summarize_grid(this: Run, outcome: Outcome, each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The contents of a grid's `summary.json`, from those of its points: what they share, and the results of each.

    Points that diverged are among the results: the grid itself has finished. Hyperparameters are those at the start. Of
    a population, `best` has for each seed the point with the highest return, with its hyperparameters at the end.
    """
    names = point_names(this.grid, this.settings.population)
    results = [
        {"run": name, "hyperparameters": _for_json(values)} | {key: own[key] for key in OF_POINT if key in own}
        for name, values, own in zip(names, this.grid, each, strict=True)
    ]
    shared = {key: value for key, value in each[0].items() if key not in (*OF_POINT, "last_good_checkpoint")}
    status = "interrupted" if outcome.iterations < this.schedule.iterations else "finished"
    head = ("algo", "env", "preset")
    summary = {key: shared.pop(key) for key in head} | {"status": status} | shared | {"points": results}
    if this.settings.population:
        summary["best"] = [_best(this, seed, names, summary["eval_step"]) for seed in this.settings.seeds]
    return summary


def _best(this: Run, seed: int, names: Sequence[str], step: int | None) -> dict[str, Any]:
    """The run, the return and the hyperparameters of the best point of a seed; without a run if none is left."""
    rows = [row for row in this.directory.metrics.rows if (row["step"], row["seed"]) == (step, seed)]
    rows = [row for row in rows if math.isfinite(row["eval_return_mean"])]
    if not rows:
        return {"seed": seed, "run": None, "eval_return": math.nan, "hyperparameters": {}}
    row = max(rows, key=lambda row: row["eval_return_mean"])
    values = _for_json({name: row[name] for name in this.grid[0]})
    run = names[row["point"]]
    return {"seed": seed, "run": run, "eval_return": row["eval_return_mean"], "hyperparameters": values}


def _for_json(values: Values) -> dict[str, float | str]:
    """Hyperparameters for JSON, which has no infinities: they are text."""
    return {name: value if math.isfinite(value) else str(value) for name, value in values.items()}


def write_points(this: Run, outcome: Outcome, each: Sequence[Mapping[str, Any]]) -> None:
    """Writes each point of a grid as a run of its own, which `hajax plot`, `evaluate` and `resume=true` take.

    `each` has the summaries of the points. They replace those of an earlier ending. Times in the files are equal
    shares of those of the grid.
    """
    run_state, seeds = gathered(kept(this, outcome.run_state), keep=this.directory.writes), this.settings.num_seeds
    if not hosts.is_first():
        return
    seconds = _share(this.clock.seconds(), len(this.grid))
    shares = [_share(row, len(this.grid)) for row in this.directory.timing.rows]
    for point, name in enumerate(point_names(this.grid, this.settings.population)):
        settings = of_point(this.settings, this.grid[point], this.directory.path / name)
        directory = RunDirectory(path := this.directory.path / name)
        directory.open(settings)
        directory.metrics.append(rows_of(this, this.directory.metrics.rows, point))
        directory.timing.append(shares)
        its = jax.tree.map(lambda x, k=point * seeds: x[k : k + seeds], run_state)
        shutil.rmtree(directory.checkpoints, ignore_errors=True)
        write_checkpoint(this, directory, its, this.schedule.step(outcome.iterations), seconds)
        # The last good checkpoint is in the grid's directory.
        own = {key: value for key, value in each[point].items() if key != "last_good_checkpoint"}
        write_json(path / "summary.json", own | seconds)
        write_marl_eval(path)


def of_point(settings: TrainSettings, values: Values, path: Path) -> TrainSettings:
    """The settings of the run that a point of a grid is."""
    return dataclasses.replace(
        settings,
        algo=settings.algo | values,
        vmap=None,
        draws=None,
        pbt=PopulationSettings(),
        on_non_finite="continue",
        devices="auto",
        shard="auto",
        out_dir=str(path),
    )


def rows_of(this: Run, rows: Sequence[Row], point: int | None) -> list[Row]:
    """The rows of a point of the grid, as those of a run of its own; all rows without a point."""
    if point is None:
        return list(rows)
    named = ("point", "parent", *this.grid[point])
    return [{key: row[key] for key in row if key not in named} for row in rows if row["point"] == point]


def write_checkpoint(
    this: Run, directory: RunDirectory, run_state: RunState, step: int, seconds: Mapping[str, float]
) -> None:
    """Writes the checkpoint of `step` into a run directory, with what it takes to go on from there."""
    timing = directory.timing.rows
    evaluated = timing[-1]["step"] if timing else -1
    facts = {"rows": len(directory.metrics.rows), "evaluated": evaluated, "seconds": dict(seconds)}
    if this.team.loop.replay_bytes and not this.settings.checkpoint.replay:
        facts["replay"] = False
    try:
        save_checkpoint(directory.checkpoints, step, run_state, facts, keep=this.settings.checkpoint.keep)
    except CheckpointError as error:
        raise RunError(f"the checkpoint of step {step:,} was not saved: {error}") from error


def kept(this: Run, run_state: RunState) -> RunState:
    """The part of a state that checkpoints hold."""
    leave_out = this.team.loop.replay_bytes and not this.settings.checkpoint.replay
    return with_replay(run_state, None) if leave_out else run_state


def with_replay(run_state: RunState, replay: Any) -> RunState:
    """The state with another replay; `None` leaves it out."""
    return run_state._replace(train=run_state.train._replace(replay=replay))


def _share(row: Mapping[str, Any], parts: int) -> Row:
    """Seconds divided by the number of `parts`; the step is that of the whole."""
    return {key: value if key == "step" else round(value / parts, 3) for key, value in row.items()}
