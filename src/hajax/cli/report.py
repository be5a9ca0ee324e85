"""What a run prints: its plan, and its results."""

from __future__ import annotations

import math
import os
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from rich.table import Table

from hajax.runs.console import console
from hajax.runs.machine import slow_jax
from hajax.runs.memory import SAVING, SELECTING, memory_warning, shown_bytes
from hajax.runs.schedule import Schedule
from hajax.runs.settings import TrainSettings
from hajax.runs.team import Team
from hajax.training.checkpoints import Checkpoint


def print_start(
    settings: TrainSettings,
    schedule: Schedule,
    path: Path,
    checkpoint: Checkpoint | None,
    team: Team,
    mesh: Mesh | None = None,
) -> None:
    """Prints the run, its length and directory, and whether the length was rounded or the run is resumed.

    Warnings about the memory of the replay, or about a resumed run without one, are printed even without progress.
    """
    if (slow := slow_jax()) is not None:
        print(f"hajax train: warning: {slow}", file=sys.stderr)
    replay_bytes = team.loop.replay_bytes
    if replay_bytes:
        buffer_size = team.algorithm.settings.buffer_size
        on_cpu = jax.default_backend() == "cpu"  # elsewhere the copy for a checkpoint is in host memory
        twice = SAVING if settings.checkpoint.replay and on_cpu else SELECTING if settings.population else ""
        # Devices have memories of their own. Between programs each has all environments of its seeds.
        apart = 1 if mesh is None or on_cpu else mesh.shape["seeds"]
        warning = memory_warning(
            replay_bytes, settings.num_seeds, buffer_size, points=settings.num_points, twice=twice, devices=apart
        )
        if warning is not None:
            print(f"hajax train: warning: {warning}", file=sys.stderr)
    if checkpoint is not None and not checkpoint.facts.get("replay", True):
        print(
            f"hajax train: warning: the checkpoint at {checkpoint.step:,} steps was saved without the replay "
            f"(checkpoint.replay=false): the run continues with a new one, of {schedule.warmup_steps:,} random steps "
            "in new episodes, and its results differ from those of an uninterrupted run",
            file=sys.stderr,
        )
    if not settings.progress:
        return
    screen = console(stderr=True)
    seeds = "1 seed" if settings.num_seeds == 1 else f"{settings.num_seeds} seeds"
    seeds += "" if settings.vmap is None else f" of {settings.num_points} points"
    seeds += "" if mesh is None else f" on {mesh.size} devices"
    length = f"{schedule.iterations:,} iterations of {schedule.steps_per_iteration:,} environment steps each"
    screen.print(
        f"{settings.algo['name']} on {settings.env['name']}, {seeds}: {length}, results in {path}", soft_wrap=True
    )
    if replay_bytes:
        screen.print(
            f"replay: {buffer_size:,} observations, {shown_bytes(replay_bytes)} for each seed"
            f"{', and in every checkpoint' if settings.checkpoint.replay else ''}; "
            f"{schedule.warmup_steps:,} steps with random actions come first"
        )
    physics = settings.env.get("physics")
    if settings.env["name"].startswith("mamujoco/") and physics != "mujoco":
        screen.print(
            f"env.physics={physics} is compiled with the program, which takes minutes on a CPU unless it is cached; "
            "env.physics=mujoco is not",
            soft_wrap=True,
        )
    if checkpoint is not None:
        screen.print(f"resuming from the checkpoint at {checkpoint.step:,} steps")
    if schedule.total_steps != settings.total_steps:
        screen.print(
            f"total_steps={settings.total_steps:,} is rounded up to whole iterations: {schedule.total_steps:,}"
        )
    if not screen.is_terminal:
        screen.print("compiling" + (", or loading compiled programs" if settings.compilation_cache else ""))


@contextmanager
def printing_warnings() -> Iterator[None]:
    """Prints the library's warnings as the command line's, a line each, once."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for warning in {str(warning.message): warning for warning in caught}.values():
        if issubclass(warning.category, UserWarning) and f"{os.sep}hajax{os.sep}" in warning.filename:
            print(f"hajax train: warning: {warning.message}", file=sys.stderr)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def print_summary(summary: Mapping[str, Any], path: Path) -> None:
    """Prints the results as a table on standard output."""
    screen = console()
    screen.print(results_table(summary))
    if summary["status"] == "interrupted":
        screen.print(f"interrupted after {summary['total_steps']:,} steps, and saved; resume with:")
        screen.print(f"  hajax train {shlex.quote(f'out_dir={path}')} resume=true", soft_wrap=True)
    screen.print(f"run directory: {path}", soft_wrap=True)
    for failure in summary.get("non_finite", ()):
        print(describe_failure(failure, summary), file=sys.stderr)


def describe_failure(failure: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """One line on a seed that diverged."""
    good = summary["last_good_checkpoint"]
    line = (
        f"hajax train: seed {failure['seed']} diverged: {failure['quantity']} is not finite since iteration "
        f"{failure['iteration']} (step {failure['step']:,}); last good checkpoint: "
        f"{'none' if good is None else f'step {good:,}'}"
    )
    if summary["total_steps"] == failure["step"] and len(summary["non_finite"]) < summary["num_seeds"]:
        evaluated = "the other seeds were evaluated, and " if summary["eval_step"] == failure["step"] else ""
        line += f"; {evaluated}resume=true on_non_finite=continue continues the others' training"
    return line


def results_table(summary: Mapping[str, Any]) -> Table:
    """Returns per seed and over seeds, speed and time."""
    returns = summary["eval_return"]
    table = Table(
        title=f"{summary['algo']} on {summary['env']}, {summary['eval_step'] or 0:,} steps per seed",
        caption=f"{summary['eval_episodes']} episodes per seed, deterministic",
        show_header=False,
    )
    table.add_column(justify="left")
    table.add_column(justify="right")
    for seed, value in zip(summary["seeds"], returns["per_seed"], strict=True):
        table.add_row(f"return, seed {seed}", shown_return(value))
    table.add_section()
    table.add_row("mean", shown_return(returns["mean"]))
    if returns["ci95"] is not None:
        low, high = returns["ci95"]
        table.add_row("interquartile mean", shown_return(returns["iqm"]))
        table.add_row("95% interval of it", shown_interval(low, high))
    for name, values in summary["eval_metrics"].items():
        table.add_row(f"{name}, mean", shown_return(values["mean"]))
    table.add_section()
    if summary["steps_per_second"] is not None:
        table.add_row("environment steps/s, all seeds", f"{summary['steps_per_second']:,.0f}")
    table.add_row("compilation", f"{summary['compile_seconds']:.1f} s")
    table.add_row("wall time", f"{summary['wall_seconds']:.1f} s")
    return table


def shown_interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None or math.isnan(low) else f"{low:.2f} to {high:.2f}"


def shown_return(value: float | None) -> str:
    return "diverged" if value is None or math.isnan(value) else f"{value:.2f}"
