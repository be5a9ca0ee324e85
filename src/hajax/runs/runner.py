"""One training run: compile, then alternate training, evaluation and saving, with progress, files and Ctrl-C."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from hajax.runs import hosts
from hajax.runs.clock import Clock
from hajax.runs.directory import FAULT, RunDirectory, summarize_returns, versions
from hajax.runs.errors import RunError, SimulatorFailure, refusing, simulating
from hajax.runs.files import evaluated_metrics
from hajax.runs.health import Failure, failures
from hajax.runs.loggers import Logger, make_loggers
from hajax.runs.marl_eval import write_marl_eval
from hajax.runs.programs import (
    Programs,
    RunState,
    Team,
    Traced,
    compile_programs,
    hyperparameters,
    seed_keys,
    trace,
    with_simulators,
)
from hajax.runs.progress import TrainingProgress
from hajax.runs.sample_watch import SampleWatch
from hajax.runs.schedule import Schedule
from hajax.runs.settings import TrainSettings, as_dict
from hajax.runs.stages import Evaluator, iterations_of, mean_return, same_iterations, slices
from hajax.runs.tables import write_json
from hajax.sharding import gathered
from hajax.training.checkpoints import Checkpoint, CheckpointError, list_checkpoints, restore, save_checkpoint
from hajax.training.evaluation import RETURN_OF


class Run(NamedTuple):
    """The host's data of a run."""

    settings: TrainSettings
    team: Team
    schedule: Schedule
    directory: RunDirectory
    clock: Clock
    keys: jax.Array  # [num_seeds]
    bar: TrainingProgress
    loggers: list[Logger]
    mesh: Mesh | None  # of several devices
    agree: Callable[[int], int]  # with the other processes


class Outcome(NamedTuple):
    """The state of a run when it stops."""

    iterations: int
    failures: list[Failure]
    diverged: bool  # whether it stopped because of the failures


def run(
    settings: TrainSettings,
    team: Team,
    schedule: Schedule,
    path: Path,
    checkpoint: Checkpoint | None,
    stop: threading.Event,
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """Trains from the checkpoint, or from the start, and writes the run directory at `path`; returns the summary.

    `stop` ends it early, after saving. Seeds are divided among the devices of `mesh`. If these belong to several
    processes, all of them call it, and the first one writes.

    Raises:
        Refusal: the checkpoint is of another run, or damaged.
    """
    keys = seed_keys(settings.seed, settings.num_seeds)
    traced = trace(team, keys, mesh)
    with refusing():
        run_state = (
            None
            if checkpoint is None
            else restore(checkpoint, saved_part(checkpoint, traced.run_state), sums="totals/")
        )
    clock = Clock() if checkpoint is None else Clock.resumed(**checkpoint.facts["seconds"])
    first, (stop, agree) = hosts.is_first(), hosts.agreement(stop)
    directory = RunDirectory(path, checkpoint, writes=first)
    with refusing():
        of_run = as_dict(settings), settings.seeds
        loggers = make_loggers(settings.logger, path, *of_run, checkpoint and checkpoint.step) if first else []
    directory.open(settings)
    summary = None
    try:
        bar = TrainingProgress(
            schedule.total_steps, settings.num_seeds, settings.progress and first, warmup_steps=schedule.warmup_steps
        )
        with simulating(team.env, last=True), bar:
            this = Run(settings, team, schedule, directory, clock, keys, bar, loggers, mesh, agree)
            programs, outcome = train(this, traced, run_state, stop)
        summary = summarize(this, programs, outcome)
        if first:
            write_json(path / "summary.json", summary)  # before all else, because it is the most important file
    finally:
        for logger in loggers:
            logger.close(summary)
    if first:
        write_marl_eval(path)
    return summary


def train(this: Run, traced: Traced, run_state: RunState | None, stop: threading.Event) -> tuple[Programs, Outcome]:
    """Trains, evaluates and saves as scheduled until the end, until `stop` is set, or until a seed diverges."""
    settings, schedule, directory = this.settings, this.schedule, this.directory
    programs = compile_programs(this.team, this.keys, traced, this.mesh)
    if run_state is not None and this.team.env.host is not None and run_state.train.replay is not None:
        # After a fault its episodes would lead to it again.
        fault = directory.past_fault(schedule.step(iterations_of(run_state)))
        run_state = with_simulators(this.team, this.keys, run_state, repeat=not fault)
    if run_state is None or run_state.train.replay is None:
        # A new replay has other random steps than the first one.
        done = 0 if run_state is None else iterations_of(run_state)
        keys = jax.vmap(jax.random.fold_in, (0, None))(this.keys, done) if done else this.keys
        fresh = programs.init(keys, hyperparameters(this.team))
        run_state = fresh if run_state is None else with_episodes(run_state, fresh)
    whole_episodes = settings.eval.max_steps is None
    evaluator = Evaluator(
        this.team, programs, schedule, this.keys, settings.seeds, whole_episodes, SampleWatch(hosts.is_first())
    )
    done, failed, diverged = iterations_of(run_state), [], False
    for target in schedule.pauses(done):
        run_state = advance(this, programs, run_state, target, stop)
        done = iterations_of(run_state)
        failed = failures(run_state.health, programs.quantities, settings.seed)
        diverged = bool(failed) and settings.on_non_finite == "stop"
        step = schedule.step(done)
        together = not diverged or same_iterations(run_state)
        if (diverged or done in schedule.evaluate_after) and together and not directory.evaluated(step):
            run_state = evaluate(this, evaluator, run_state, {failure.seed for failure in failed})
        if not diverged and (stop.is_set() or done in schedule.save_after):
            save(this, run_state, step)
        if diverged or stop.is_set():
            break
    return programs, Outcome(done, failed, diverged)


def advance(this: Run, programs: Programs, run_state: RunState, target: int, stop: threading.Event) -> RunState:
    """Trains up to `target` iterations, `stop`, or a failure that ends the run."""
    stop_at_failure = this.settings.on_non_finite == "stop"
    with saving_at_fault(this, lambda: run_state):
        for after, seconds in slices(programs, run_state, target, stop, stop_at_failure, this.agree):
            run_state = after
            this.clock.training += seconds
            this.bar.advance(this.schedule.step(iterations_of(run_state)), this.clock.training)
    return run_state


def evaluate(this: Run, evaluator: Evaluator, run_state: RunState, failed: set[int]) -> RunState:
    """Evaluates, writes a row per seed that has not failed, and resets the training metrics."""
    began, step = time.perf_counter(), this.schedule.step(iterations_of(run_state))
    with saving_at_fault(this, lambda: run_state):
        rows, run_state = evaluator.evaluate(run_state, failed)
    this.clock.evaluation += time.perf_counter() - began
    this.directory.append(rows, {"step": step, **this.clock.seconds()})
    for logger in this.loggers:
        logger.log(rows)
    if rows:
        this.bar.evaluated(mean_return(rows))
    return run_state


@contextmanager
def saving_at_fault(this: Run, before: Callable[[], RunState]) -> Iterator[None]:
    """Saves the state before it if a simulator fails meanwhile, and raises a `RunError` that says how to go on."""
    try:
        with simulating(this.team.env):
            yield
    except SimulatorFailure as failure:
        run_state, details = before(), this.directory.path / FAULT
        step = this.schedule.step(iterations_of(run_state))
        if step not in list_checkpoints(this.directory.checkpoints):
            save(this, run_state, step)
        details.write_text(failure.details, encoding="utf-8")
        raise RunError(
            f"{failure} (stopped and saved at {step:,} steps; the traceback is in {details}; once it is mended, "
            "resume=true continues with new episodes)"
        ) from failure


def save(this: Run, run_state: RunState, step: int) -> None:
    """Writes the checkpoint of `step`."""
    metrics, timing = this.directory.metrics.rows, this.directory.timing.rows
    evaluated = timing[-1]["step"] if timing else -1
    facts = {"rows": len(metrics), "evaluated": evaluated, "seconds": this.clock.seconds()}
    if this.team.loop.replay_bytes and not this.settings.checkpoint.replay:
        run_state, facts = with_replay(run_state, None), facts | {"replay": False}
    run_state = gathered(run_state, keep=this.directory.writes)
    if not this.directory.writes:
        return
    try:
        save_checkpoint(this.directory.checkpoints, step, run_state, facts, keep=this.settings.checkpoint.keep)
    except CheckpointError as error:
        raise RunError(f"the checkpoint of step {step:,} was not saved: {error}") from error


def with_replay(run_state: RunState, replay: Any) -> RunState:
    """The state with another replay; `None` leaves it out."""
    return run_state._replace(train=run_state.train._replace(replay=replay))


def with_episodes(run_state: RunState, fresh: RunState) -> RunState:
    """The learned parts of `run_state`, with the replay and the environments of `fresh`."""
    return run_state._replace(train=run_state.train._replace(replay=fresh.train.replay, actors=fresh.train.actors))


def saved_part(checkpoint: Checkpoint, run_state: RunState) -> RunState:
    """The part of a run's state that the checkpoint holds."""
    return run_state if checkpoint.facts.get("replay", True) else with_replay(run_state, None)


def summarize(this: Run, programs: Programs, outcome: Outcome) -> dict[str, Any]:
    """The contents of `summary.json`; returns are those of the last evaluation, NaN for a seed that failed."""
    settings, schedule, clock = this.settings, this.schedule, this.clock
    steps = schedule.step(outcome.iterations)
    evaluated_at = this.directory.timing.rows[-1]["step"] if this.directory.timing.rows else None
    stopped_early = outcome.iterations < schedule.iterations and not outcome.diverged
    status = "interrupted" if stopped_early else "diverged" if outcome.failures else "finished"
    summary: dict[str, Any] = {
        "algo": settings.algo["name"],
        "env": settings.env["name"],
        "preset": settings.preset,
        "status": status,
        "total_steps": steps,
        "num_seeds": settings.num_seeds,
        "seeds": list(settings.seeds),
        "eval_step": evaluated_at,
        "eval_episodes": settings.eval.episodes,
        "eval_return": summarize_returns(_returns(this, "eval_return_mean", evaluated_at)),
    }
    summary["eval_metrics"] = {
        name: summarize_returns(_returns(this, column, evaluated_at))
        for name, column in evaluated_metrics(this.directory.metrics.columns).items()
        if name != "return" and not name.startswith(RETURN_OF)  # those are in metrics.csv
    }
    if settings.eval.stochastic:
        summary["eval_stochastic_return"] = summarize_returns(
            _returns(this, "eval_stochastic_return_mean", evaluated_at)
        )
    if outcome.failures:
        summary["non_finite"] = [
            failure._asdict() | {"step": schedule.step(failure.iteration)} for failure in outcome.failures
        ]
        first = schedule.step(min(failure.iteration for failure in outcome.failures))
        good = [saved for saved in list_checkpoints(this.directory.checkpoints) if saved < first]
        summary["last_good_checkpoint"] = good[-1] if good else None
    device, trained = jax.devices()[0], steps - schedule.warmup_steps
    return summary | {
        # Environment steps of all seeds per second of training: no compilation, no warm-up, no evaluation.
        "steps_per_second": round(trained * settings.num_seeds / clock.training, 1) if clock.training else None,
        "compile_seconds": round(programs.compile_seconds, 3),
        **clock.seconds(),
        "device": {
            "platform": device.platform,
            "kind": device.device_kind,
            "count": 1 if this.mesh is None else this.mesh.size,
            **({"processes": jax.process_count()} if jax.process_count() > 1 else {}),
        },
        "versions": versions(),
    }


def _returns(this: Run, column: str, step: int | None) -> np.ndarray:
    """`[num_seeds]` mean returns of the evaluation at `step`; NaN where a seed has none."""
    found = {row["seed"]: row[column] for row in this.directory.metrics.rows if row["step"] == step}
    return np.array([found.get(this.settings.seed + k, np.nan) for k in range(this.settings.num_seeds)])
