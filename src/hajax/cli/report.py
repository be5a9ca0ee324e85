"""What a run says on the screen: what it is about to do, and its results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hajax.cli.schedule import Schedule
from hajax.cli.settings import TrainSettings


def print_start(settings: TrainSettings, schedule: Schedule, path: Path) -> None:
    """Names the run, its length and its directory, and says so if the length was rounded."""
    if not settings.progress:
        return
    console = Console(stderr=True, highlight=False)
    seeds = "1 seed" if settings.num_seeds == 1 else f"{settings.num_seeds} seeds"
    length = f"{schedule.iterations:,} iterations of {schedule.steps_per_iteration:,} environment steps each"
    console.print(
        f"{settings.algo['name']} on {settings.env['name']}, {seeds}: {length}, results in {path}", soft_wrap=True
    )
    if schedule.total_steps != settings.total_steps:
        console.print(
            f"total_steps={settings.total_steps:,} is rounded up to whole iterations: {schedule.total_steps:,}"
        )
    if not console.is_terminal:
        console.print("compiling; the next run finds it done" if settings.compilation_cache else "compiling")


def print_summary(summary: Mapping[str, Any], path: Path) -> None:
    """The results as a table, on standard output."""
    console = Console(highlight=False)
    console.print(results_table(summary))
    if summary["status"] == "interrupted":
        console.print(f"interrupted after {summary['total_steps']:,} steps; the results are those of that moment")
    console.print(f"run directory: {path}", soft_wrap=True)


def results_table(summary: Mapping[str, Any]) -> Table:
    """Returns per seed and over seeds, speed and time."""
    returns = summary["eval_return"]
    table = Table(
        title=f"{summary['algo']} on {summary['env']}, {summary['total_steps']:,} steps per seed",
        caption=f"{summary['eval_episodes']} episodes per seed, deterministic",
        show_header=False,
    )
    table.add_column(justify="left")
    table.add_column(justify="right")
    for seed, value in zip(summary["seeds"], returns["per_seed"], strict=True):
        table.add_row(f"return, seed {seed}", f"{value:.2f}")
    table.add_section()
    table.add_row("mean", f"{returns['mean']:.2f}")
    if returns["ci95"] is not None:
        low, high = returns["ci95"]
        table.add_row("interquartile mean", f"{returns['iqm']:.2f}")
        table.add_row("95% interval of it", f"{low:.2f} to {high:.2f}")
    table.add_section()
    if summary["steps_per_second"] is not None:
        table.add_row("environment steps/s, all seeds", f"{summary['steps_per_second']:,.0f}")
    table.add_row("compilation", f"{summary['compile_seconds']:.1f} s")
    table.add_row("wall time", f"{summary['wall_seconds']:.1f} s")
    return table


def print_sweep(path: Path) -> None:
    """One line per run of a sweep, best return first."""
    summaries = [(file.parent.name, json.loads(file.read_text("utf-8"))) for file in path.glob("*/summary.json")]
    table = Table(title=f"runs in {path}", title_justify="left")
    for column in ("run", "interquartile mean", "95% interval", "steps/s"):
        table.add_column(column, justify="left" if column == "run" else "right", overflow="fold")
    for name, summary in sorted(summaries, key=lambda item: _score(item[1]), reverse=True):
        low, high = summary["eval_return"]["ci95"] or (None, None)
        interval = "" if low is None else f"{low:.2f} to {high:.2f}"
        table.add_row(name, f"{_score(summary):.2f}", interval, f"{summary['steps_per_second'] or 0:,.0f}")
    Console(highlight=False).print(table)


def _number(value: float | None) -> float:
    """For sorting: a run that diverged, whose return `summary.json` gives as null, comes last."""
    return float("-inf") if value is None else value


def _shown(value: float | None) -> str:
    return "nan" if value is None else f"{value:.2f}"


def _score(summary: Mapping[str, Any]) -> float:
    """The interquartile mean; a run that diverged has `null` there, and comes last."""
    score = summary["eval_return"]["iqm"]
    return -math.inf if score is None else score
