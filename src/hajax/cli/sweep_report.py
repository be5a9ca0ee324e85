"""What a sweep ends with: a table per environment, curves, and the runs that failed."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from hajax.cli.report import shown_interval, shown_return
from hajax.runs.console import console
from hajax.runs.errors import BESIDE, Refusal
from hajax.runs.files import read_run
from hajax.runs.tables import write_table
from hajax.training.statistics import bootstrap_interval, interquartile_mean
from hajax.viewing.curve import draw_panels
from hajax.viewing.groups import LINE_COLUMNS, Group, group_runs, line_rows, make_panels

COLUMNS = ("env", "label", "num_seeds", "step", "iqm", "ci95_low", "ci95_high", "wall_seconds", "runs")
# More curves than these are not drawn, because they could not be told apart.
MOST_CURVES = 40


def report_sweep(path: Path, names: Collection[str] | None = None, again: str | None = None) -> list[str]:
    """Prints a table per environment and the runs that failed, and writes `summary.csv`, `plot.png` and `plot.csv`.

    A line of a table is an algorithm, with the settings that distinguish it, and pools the seeds of its runs. If no run
    has results, nothing is written.

    Args:
        path: the directory of the sweep. In it are the errors of its runs, as `run_job` writes them. Results in the
            directory of a run with an error are not shown, because they may be of an earlier run.
        names: the runs of the sweep, `None` for all in the directory.
        again: the command that makes the missing runs.

    Returns:
        The names of the runs that failed.
    """

    def own(name: str) -> bool:
        return names is None or name in names

    errors = {file.parent.name: file for file in sorted(path.glob("*/error.txt"))}
    errors |= {file.name.removesuffix(BESIDE): file for file in sorted(path.glob(f"*{BESIDE}"))}
    reasons = {name: file.read_text("utf-8").split("\n", 1)[0] for name, file in errors.items() if own(name)}
    begun = {file.parent.name for file in path.glob("*/config.yaml") if own(file.parent.name)} | set(names or ())
    summaries, curves = {}, []
    for file in sorted(path.glob("*/summary.json")):
        if not own(file.parent.name) or file.parent.name in errors:
            continue
        summary = json.loads(file.read_text("utf-8"))
        if summary["status"] == "interrupted":
            reasons[file.parent.name] = "interrupted"
            continue
        try:
            curves.append(read_run(file.parent))
        except Refusal as refusal:
            reasons[file.parent.name] = str(refusal)
            continue
        summaries[file.parent] = summary
        if summary["status"] == "diverged":
            reasons[file.parent.name] = "diverged"
    found = {run.name for run in summaries} | set(reasons)
    reasons |= dict.fromkeys(begun - found, "no results, and no error: its process ended, or it did not start")
    groups = group_runs(curves)
    rows = [_row(group, [summaries[run.path] for run in group.runs]) for group in groups]
    _print_tables(path, rows)
    screen = console()
    if reasons:
        every = {run.name for run in summaries} | set(reasons)
        screen.print(f"{len(reasons)} of {len(every)} runs failed:")
        for name, reason in sorted(reasons.items()):
            screen.print(f"  {name}: {reason}", soft_wrap=True)
        if again is not None:
            screen.print(f"make them again with:\n  {again}", soft_wrap=True, markup=False)
    if groups:
        write_table(path / "summary.csv", COLUMNS, rows)
        screen.print(f"table: {path / 'summary.csv'}", soft_wrap=True)
        _draw(path, groups)
    return sorted(reasons)


def _row(group: Group, summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The results of a group at the last evaluation of its runs, as in the runs' own tables; NaN if a seed diverged."""
    returns = [value for summary in summaries for value in summary["eval_return"]["per_seed"]]
    scores = np.array([math.nan if value is None else value for value in returns])
    low, high = bootstrap_interval(scores) or (math.nan, math.nan)
    iqm, wall_seconds = float(interquartile_mean(scores)), sum(summary["wall_seconds"] for summary in summaries)
    steps = {summary["eval_step"] for summary in summaries}
    shown_steps = "/".join(map(str, sorted(step for step in steps if step is not None)))
    runs = "; ".join(run.path.name for run in group.runs)
    row = (group.task, group.label, len(scores), shown_steps, iqm, low, high, round(wall_seconds, 3), runs)
    return dict(zip(COLUMNS, row, strict=True))


def _print_tables(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table per environment, the best return first."""
    screen = console()
    if rows:
        screen.print(f"runs in {path}, seeds pooled:", soft_wrap=True)
    for env in dict.fromkeys(row["env"] for row in rows):
        table = Table(title=env, title_justify="left")
        table.add_column("algorithm", overflow="fold")
        for column in ("seeds", "interquartile\nmean", "95% interval", "wall time"):
            table.add_column(column, justify="right", no_wrap=True)
        members = [row for row in rows if row["env"] == env]
        for row in sorted(members, key=lambda row: (math.isnan(row["iqm"]), -row["iqm"])):
            table.add_row(
                row["label"],
                str(row["num_seeds"]),
                shown_return(row["iqm"]),
                shown_interval(row["ci95_low"], row["ci95_high"]),
                shown_seconds(row["wall_seconds"]),
            )
        screen.print(table)


def _draw(path: Path, groups: Sequence[Group]) -> None:
    """Writes the curves of `hajax plot`, a row per environment."""
    screen = console()
    if len(groups) > MOST_CURVES:
        limit = f"allowed: up to {MOST_CURVES}, as `hajax plot DIR ...` draws of some of the runs"
        screen.print(f"curves: not drawn, because there would be {len(groups)}; {limit}", soft_wrap=True)
        return
    panels = make_panels(groups)
    write_table(path / "plot.csv", LINE_COLUMNS, line_rows(panels))
    draw_panels(path / "plot.png", panels)
    screen.print(f"curves: {path / 'plot.png'}\nnumbers: {path / 'plot.csv'}", soft_wrap=True)


def shown_seconds(seconds: float) -> str:
    """A duration in the unit that suits it."""
    for unit, length in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"
