"""What a run says on the screen: what it is about to do, and its results."""

from __future__ import annotations

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
    console.print(
        f"{settings.algo['name']} on {settings.env['name']}, {settings.num_seeds} seeds: {schedule.iterations:,} "
        f"iterations of {schedule.steps_per_iteration:,} environment steps each, results in {path}"
    )
    if schedule.total_steps != settings.total_steps:
        console.print(
            f"total_steps={settings.total_steps:,} is rounded up to whole iterations: {schedule.total_steps:,}"
        )
    console.print("compiling (kept for the next run) …" if settings.compilation_cache else "compiling …")


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
        caption=f"returns of {summary['eval_episodes']} episodes per seed, deterministic policy",
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
