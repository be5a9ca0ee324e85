"""What hyperparameters trained in one program end with: a table and a plot, of a grid or of a population."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from hajax.cli.report import shown_interval, shown_return
from hajax.runs.console import console
from hajax.runs.files import GRID
from hajax.runs.tables import read_rows, write_table
from hajax.training.statistics import bootstrap_interval, interquartile_mean
from hajax.viewing.grid import Result, draw_grid, draw_population

MOST_ROWS = 20  # of the printed table


def report_grid(summary: Mapping[str, Any], path: Path) -> None:
    """Prints the points of a grid or the best ones of a population, and writes `points.csv` and `grid.png`.

    A point whose seeds did not all stay finite has no interquartile mean.
    """
    screen, title = console(), f"{summary['algo']} on {summary['env']}, {summary['eval_step'] or 0:,} steps per seed"
    report = _report_population if "best" in summary else _report_points
    table, said = report(summary, path, title)
    screen.print(said, soft_wrap=True, markup=False)
    screen.print(table)
    speed = summary["steps_per_second"]
    screen.print(
        f"compilation {summary['compile_seconds']:.1f} s, wall time {summary['wall_seconds']:.1f} s"
        + ("" if speed is None else f", {speed:,.0f} environment steps/s of all points and seeds"),
        soft_wrap=True,
    )
    if summary["status"] == "interrupted":
        screen.print(f"interrupted after {summary['total_steps']:,} steps, and saved; resume with:")
        screen.print(f"  hajax train {shlex.quote(f'out_dir={path}')} resume=true", soft_wrap=True)
    screen.print(f"table: {path / 'points.csv'}\nplot: {path / 'grid.png'}", soft_wrap=True)
    screen.print(f"a run directory for each point: {path}", soft_wrap=True)


def _report_points(summary: Mapping[str, Any], path: Path, title: str) -> tuple[Table, str]:
    points = summary["points"]
    shared = {"step": summary["eval_step"], "num_seeds": summary["num_seeds"]}
    values = [{name: float(value) for name, value in point["hyperparameters"].items()} for point in points]
    rows = [own | shared | _scores(point) for own, point in zip(values, points, strict=True)]
    write_table(path / "points.csv", list(rows[0]), rows)
    scores = [(row["iqm"], row["ci95_low"], row["ci95_high"]) for row in rows]
    results = [Result(own, *score) for own, score in zip(values, scores, strict=True)]
    draw_grid(path / "grid.png", results, title)
    table = Table()
    names = list(values[0])
    for name in names:
        table.add_column(name, justify="right")
    for column in ("seeds", "interquartile\nmean", "95% interval"):
        table.add_column(column, justify="right", no_wrap=True)
    best_first = sorted(rows, key=lambda row: (math.isnan(row["iqm"]), -row["iqm"]))
    for row in best_first[:MOST_ROWS]:
        seeds = str(row["num_seeds"])
        if row["diverged_seeds"]:
            seeds = f"{row['diverged_seeds']} of {seeds} diverged"
        shown = [f"{row[name]:g}" for name in names]
        table.add_row(*shown, seeds, shown_return(row["iqm"]), shown_interval(row["ci95_low"], row["ci95_high"]))
    if len(rows) > MOST_ROWS:
        title = f"{title}, the best {MOST_ROWS} of {len(rows)} points"
    return table, title


def _scores(point: Mapping[str, Any]) -> dict[str, Any]:
    returns = point["eval_return"]
    low, high = map(_number, returns["ci95"] or (None, None))
    diverged = len(point.get("non_finite", ()))
    scores = {"iqm": _number(returns["iqm"]), "ci95_low": low, "ci95_high": high}
    return {"diverged_seeds": diverged, **scores, "run": point["run"]}


def _number(value: float | None) -> float:
    """A number of a summary, where NaN is `null`."""
    return math.nan if value is None else value


def _report_population(summary: Mapping[str, Any], path: Path, title: str) -> tuple[Table, str]:
    best = summary["best"]
    rows = [
        {"seed": entry["seed"], "step": summary["eval_step"], **entry["hyperparameters"]}
        | {"eval_return": _number(entry["eval_return"]), "run": entry["run"]}
        for entry in best
    ]
    names, said = list(summary["points"][0]["hyperparameters"]), f"{title}, the best of {len(summary['points'])} points"
    write_table(path / "points.csv", ["seed", "step", *names, "eval_return", "run"], rows)
    _, evaluations = read_rows(path / GRID, ("step", "seed", "point", "eval_return_mean"))
    draw_population(path / "grid.png", evaluations, names, title)
    table = Table()
    for column in ("seed", "return", *names, "run"):
        table.add_column(column, justify="right")
    for entry in best:
        shown = [f"{float(value):g}" for value in entry["hyperparameters"].values()]
        table.add_row(str(entry["seed"]), shown_return(entry["eval_return"]), *shown, entry["run"] or "")
    if len(best) > 1:
        scores = np.array([row["eval_return"] for row in rows])
        low, high = bootstrap_interval(scores) or (None, None)
        mean = shown_return(float(interquartile_mean(scores)))
        said = f"{said}: interquartile mean {mean}, 95% interval {shown_interval(low, high)}"
    return table, said
