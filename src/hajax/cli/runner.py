"""One training run: compile, then train and evaluate in turn, with progress, files and a clean Ctrl-C."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hajax.cli.curve import draw_curve
from hajax.cli.programs import (
    Programs,
    Team,
    Totals,
    compile_programs,
    evaluation_keys,
    hyperparameters,
    means,
    seed_keys,
)
from hajax.cli.progress import TrainingProgress
from hajax.cli.run_directory import RunDirectory, summarise_returns, versions
from hajax.cli.schedule import Schedule
from hajax.cli.settings import TrainSettings

# How long the host lets the device work between looks at Ctrl-C and the progress bar.
SLICE_SECONDS = 1.0


@dataclass
class Clock:
    """Seconds since the run began, and those of them spent in training and in evaluation."""

    began: float = field(default_factory=time.perf_counter)
    training: float = 0.0
    evaluation: float = 0.0

    def elapsed(self) -> float:
        return time.perf_counter() - self.began


class Run(NamedTuple):
    """What a run needs on the host."""

    settings: TrainSettings
    team: Team
    schedule: Schedule
    directory: RunDirectory
    clock: Clock


def run(settings: TrainSettings, team: Team, schedule: Schedule, path: Path, stop: threading.Event) -> dict[str, Any]:
    """Trains, writes the run directory at `path`, and returns the summary. `stop` ends it early, in good order."""
    this = Run(settings, team, schedule, RunDirectory(path, settings), Clock())
    keys = seed_keys(settings.seed, settings.num_seeds)
    with TrainingProgress(schedule.total_steps, settings.num_seeds, settings.progress) as bar:
        programs = compile_programs(team, keys)
        iterations = train(this, programs, keys, bar, stop)
    summary = summarise(this, programs, iterations)
    draw_curve(path / "curve.png", this.directory.rows, f"{summary['algo']} on {summary['env']}")
    summary["wall_seconds"] = round(this.clock.elapsed(), 3)
    this.directory.write_summary(summary)
    return summary


def train(this: Run, programs: Programs, keys: jax.Array, bar: TrainingProgress, stop: threading.Event) -> int:
    """Trains and evaluates as scheduled until the end or until `stop` is set; returns the iterations done."""
    schedule, clock = this.schedule, this.clock
    train_state, totals = programs.init(keys, hyperparameters(this.team)), programs.no_totals()
    done, iterations = 0, 1
    for target in schedule.evaluate_after:
        while done < target and not stop.is_set():
            iterations = min(iterations, target - done)
            began = time.perf_counter()
            train_state, totals = jax.block_until_ready(programs.advance(train_state, totals, jnp.asarray(iterations)))
            seconds = time.perf_counter() - began
            clock.training += seconds
            done += iterations
            bar.advance(done * schedule.steps_per_iteration, clock.training)
            iterations = max(1, int(SLICE_SECONDS * iterations / seconds))
        evaluate(this, programs, keys, done, train_state.algorithm, totals, bar)
        totals = programs.no_totals()
        if stop.is_set():
            break
    return done


def evaluate(
    this: Run,
    programs: Programs,
    keys: jax.Array,
    done: int,
    algorithm_state: Any,
    totals: Totals,
    bar: TrainingProgress,
) -> None:
    """Evaluates after `done` iterations and writes a row per seed."""
    began = time.perf_counter()
    step = done * this.schedule.steps_per_iteration
    results = jax.device_get(programs.evaluate(evaluation_keys(keys, step), algorithm_state))
    this.clock.evaluation += time.perf_counter() - began
    training_means = means(totals, this.team.episode_metrics) if done else {}
    this.directory.append(evaluation_rows(this.settings, step, this.clock.elapsed(), results, training_means))
    bar.evaluated(float(results["eval_"]["episode_return"].mean()))


def evaluation_rows(
    settings: TrainSettings,
    step: int,
    wall_seconds: float,
    results: dict[str, dict[str, np.ndarray]],
    training_means: dict[str, np.ndarray],
) -> list[dict[str, Any]]:
    """One row of `metrics.csv` per seed, from evaluation results `[num_seeds, num_episodes]` and training means."""
    rows = []
    for k in range(settings.num_seeds):
        row: dict[str, Any] = {"step": step, "seed": settings.seed + k, "wall_seconds": round(wall_seconds, 3)}
        for prefix, arrays in results.items():
            row[f"{prefix}return_mean"] = float(arrays["episode_return"][k].mean())
            row[f"{prefix}return_std"] = float(arrays["episode_return"][k].std())
            row[f"{prefix}length"] = float(arrays["episode_length"][k].mean())
            others = [name for name in arrays if name not in ("episode_return", "episode_length")]
            row |= {f"{prefix}{name}": float(arrays[name][k].mean()) for name in others}
        row |= {f"train_{name}": float(value[k]) for name, value in training_means.items()}
        rows.append(row)
    return rows


def summarise(this: Run, programs: Programs, iterations: int) -> dict[str, Any]:
    """The contents of `summary.json`; returns are those of the last evaluation."""
    settings, schedule, clock = this.settings, this.schedule, this.clock
    steps = iterations * schedule.steps_per_iteration
    last = this.directory.rows[-settings.num_seeds :]
    summary: dict[str, Any] = {
        "algo": settings.algo["name"],
        "env": settings.env["name"],
        "preset": settings.preset,
        "status": "finished" if iterations == schedule.iterations else "interrupted",
        "total_steps": steps,
        "num_seeds": settings.num_seeds,
        "seeds": [settings.seed + k for k in range(settings.num_seeds)],
        "eval_episodes": settings.eval.episodes,
        "eval_return": summarise_returns(np.array([row["eval_return_mean"] for row in last])),
    }
    if settings.eval.stochastic:
        stochastic = np.array([row["eval_stochastic_return_mean"] for row in last])
        summary["eval_stochastic_return"] = summarise_returns(stochastic)
    device = jax.devices()[0]
    return summary | {
        # Environment steps of all seeds per second of training: no compilation, no evaluation.
        "steps_per_second": round(steps * settings.num_seeds / clock.training, 1) if clock.training else None,
        "compile_seconds": round(programs.compile_seconds, 3),
        "train_seconds": round(clock.training, 3),
        "eval_seconds": round(clock.evaluation, 3),
        "wall_seconds": round(clock.elapsed(), 3),
        "device": {"platform": device.platform, "kind": device.device_kind, "count": jax.device_count()},
        "versions": versions(),
    }
