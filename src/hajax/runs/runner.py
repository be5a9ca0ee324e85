"""One training run: compile, then alternate training, evaluation and saving, with progress, files and Ctrl-C."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from hajax.runs import hosts
from hajax.runs.clock import Clock
from hajax.runs.directory import FAULT, RunDirectory
from hajax.runs.ending import (
    Outcome,
    Run,
    kept,
    of_point,
    rows_of,
    summarize,
    summarize_grid,
    with_replay,
    write_checkpoint,
    write_points,
)
from hajax.runs.errors import RunError, SimulatorFailure, refusing, simulating
from hajax.runs.files import GRID
from hajax.runs.grid import Values, point_names
from hajax.runs.health import failures
from hajax.runs.loggers import Logger, make_loggers
from hajax.runs.marl_eval import write_marl_eval
from hajax.runs.programs import Programs, Traced, compile_programs, selection_keys, trace, with_simulators
from hajax.runs.progress import TrainingProgress
from hajax.runs.sample_watch import SampleWatch
from hajax.runs.schedule import Schedule
from hajax.runs.settings import TrainSettings, as_dict
from hajax.runs.stages import Evaluator, iterations_of, mean_return, same_iterations, slices
from hajax.runs.tables import Row, write_json
from hajax.runs.team import Team
from hajax.runs.trials import RunState, make_trials, population_of
from hajax.sharding import fetched, gathered
from hajax.training.checkpoints import Checkpoint, list_checkpoints, restore


def run(
    settings: TrainSettings,
    team: Team,
    schedule: Schedule,
    path: Path,
    checkpoint: Checkpoint | None,
    stop: threading.Event,
    mesh: Mesh | None = None,
    grid: Sequence[Values] = (),
) -> dict[str, Any]:
    """Trains from the checkpoint, or from the start, and writes the run directory at `path`; returns the summary.

    `stop` ends it early, after saving. Trials are divided among the devices of `mesh`. If these belong to several
    processes, all of them call it, and the first one writes. With a `grid` there is a trial for every point and seed,
    and each point becomes a run in a directory of its own at the end.

    Raises:
        Refusal: the checkpoint is of another run, or damaged.
    """
    trials = make_trials(team, settings.seeds, grid)
    traced = trace(team, trials, mesh)
    with refusing():
        run_state = (
            None
            if checkpoint is None
            else restore(checkpoint, saved_part(checkpoint, traced.run_state), sums="totals/")
        )
    clock = Clock() if checkpoint is None else Clock.resumed(**checkpoint.facts["seconds"])
    first, (stop, agree) = hosts.is_first(), hosts.agreement(stop)
    directory = RunDirectory(path, checkpoint, writes=first, table=GRID if grid else "metrics.csv")
    with refusing():
        loggers = open_loggers(settings, path, grid, checkpoint and checkpoint.step) if first else []
    directory.open(settings)
    summary = None
    try:
        bar = TrainingProgress(
            schedule.total_steps, settings.num_trials, settings.progress and first, warmup_steps=schedule.warmup_steps
        )
        with simulating(team.env, last=True), bar:
            this = Run(settings, team, schedule, directory, clock, trials, grid, bar, loggers, mesh, agree)
            programs, outcome = train(this, traced, run_state, stop)
        if grid:
            each = [summarize(this, programs, outcome, point) for point in range(len(grid))]
            write_points(this, outcome, each)  # before the summary, which says that nothing is left to do
            summary = summarize_grid(this, outcome, each)
        else:
            summary = summarize(this, programs, outcome)
        if first:
            write_json(path / "summary.json", summary)
    finally:
        for _, logger in loggers:
            logger.close(summary)
    if first and not grid:
        write_marl_eval(path)
    return summary


def open_loggers(
    settings: TrainSettings, path: Path, grid: Sequence[Values], resume_step: int | None
) -> list[tuple[int | None, Logger]]:
    """The loggers of a run, or those of each point of a grid in the point's directory."""
    made: list[tuple[int | None, Path, TrainSettings]] = [(None, path, settings)]
    if grid:
        named = enumerate(path / name for name in point_names(grid, settings.population))
        made = [(point, own, of_point(settings, grid[point], own)) for point, own in named]
    found = []
    for point, own, its in made:
        own.mkdir(exist_ok=True)
        loggers = make_loggers(settings.logger, own, as_dict(its), settings.seeds, resume_step)
        found += [(point, logger) for logger in loggers]
    return found


def train(this: Run, traced: Traced, run_state: RunState | None, stop: threading.Event) -> tuple[Programs, Outcome]:
    """Trains, evaluates and saves as scheduled until the end, until `stop` is set, or until a seed diverges.

    Seeds of a grid do not end the others.
    """
    settings, schedule, directory, keys = this.settings, this.schedule, this.directory, this.trials.keys
    population = population_of(settings, this.team)
    programs = compile_programs(this.team, this.trials, traced, this.mesh, population)
    if run_state is not None and this.team.env.host is not None and run_state.train.replay is not None:
        # After a fault its episodes would lead to it again.
        fault = directory.past_fault(schedule.step(iterations_of(run_state)))
        run_state = with_simulators(this.team, keys, run_state, repeat=not fault)
    if run_state is None or run_state.train.replay is None:
        # A new replay has other random steps than the first one.
        done = 0 if run_state is None else iterations_of(run_state)
        its = jax.vmap(jax.random.fold_in, (0, None))(keys, done) if done else keys
        fresh = programs.init(its, this.trials.hyperparameters)
        run_state = fresh if run_state is None else with_episodes(run_state, fresh)
    whole_episodes = settings.eval.max_steps is None
    evaluator = Evaluator(this.team, programs, schedule, this.trials, whole_episodes, SampleWatch(hosts.is_first()))
    done, failed, diverged = iterations_of(run_state), [], False
    for target in schedule.pauses(done):
        run_state = advance(this, programs, run_state, target, stop)
        done = iterations_of(run_state)
        failed = failures(run_state.health, programs.quantities)
        diverged = bool(failed) and stops_at_failure(this)
        step = schedule.step(done)
        together = not diverged or same_iterations(run_state)
        if (diverged or done in schedule.evaluate_after) and together and not directory.evaluated(step):
            its_turn = done in schedule.select_after
            run_state = evaluate(this, evaluator, run_state, {failure.trial for failure in failed}, its_turn)
            failed = failures(run_state.health, programs.quantities)  # a selection replaces them
        if not diverged and (stop.is_set() or done in schedule.save_after):
            save(this, run_state, step)
        if diverged or stop.is_set():
            break
    return programs, Outcome(done, failed, diverged, run_state)


def advance(this: Run, programs: Programs, run_state: RunState, target: int, stop: threading.Event) -> RunState:
    """Trains up to `target` iterations, `stop`, or a failure that ends the run."""
    with saving_at_fault(this, lambda: run_state):
        for after, seconds in slices(programs, run_state, target, stop, stops_at_failure(this), this.agree):
            run_state = after
            this.clock.training += seconds
            this.bar.advance(this.schedule.step(iterations_of(run_state)), this.clock.training)
    return run_state


def stops_at_failure(this: Run) -> bool:
    """Whether a seed that diverges ends the run; in a grid it may be one of its questions which ones do."""
    return this.settings.on_non_finite == "stop" and not this.grid


def evaluate(this: Run, evaluator: Evaluator, run_state: RunState, failed: set[int], selects: bool = False) -> RunState:
    """Evaluates, writes a row per trial that has not failed, and resets the training metrics.

    If it `selects`, the trials of a population go on from those that are selected.
    """
    began, step = time.perf_counter(), this.schedule.step(iterations_of(run_state))
    with saving_at_fault(this, lambda: run_state):
        rows, run_state = evaluator.evaluate(run_state, failed)
    if this.settings.population:
        for row in rows:
            row["parent"] = row["point"]
    if selects:
        run_state = selected(this, evaluator.programs, run_state, rows, step)
    this.clock.evaluation += time.perf_counter() - began
    this.directory.append(rows, {"step": step, **this.clock.seconds()})
    for point, logger in this.loggers:
        logger.log(rows_of(this, rows, point))
    if rows:
        this.bar.evaluated(mean_return(rows))
    return run_state


def selected(this: Run, programs: Programs, run_state: RunState, rows: list[Row], step: int) -> RunState:
    """The population after a selection by the returns in these rows, whose parents are those from now on."""
    index = {(label["point"], label["seed"]): k for k, label in enumerate(this.trials.labels)}
    of_row = [index[row["point"], row["seed"]] for row in rows]
    scores = np.full(len(index), np.nan)
    scores[of_row] = [row["eval_return_mean"] for row in rows]
    assert programs.select is not None
    keys = selection_keys(this.trials.keys, step)
    run_state, parents = programs.select(keys, run_state, jnp.asarray(scores, float))
    found = fetched(parents)
    for row, k in zip(rows, of_row, strict=True):
        row["parent"] = int(found[k])
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
    run_state = gathered(kept(this, run_state), keep=this.directory.writes)
    if this.directory.writes:
        write_checkpoint(this, this.directory, run_state, step, this.clock.seconds())


def with_episodes(run_state: RunState, fresh: RunState) -> RunState:
    """The learned parts of `run_state`, with the replay and the environments of `fresh`."""
    return run_state._replace(train=run_state.train._replace(replay=fresh.train.replay, actors=fresh.train.actors))


def saved_part(checkpoint: Checkpoint, run_state: RunState) -> RunState:
    """The part of a run's state that the checkpoint holds."""
    return run_state if checkpoint.facts.get("replay", True) else with_replay(run_state, None)
