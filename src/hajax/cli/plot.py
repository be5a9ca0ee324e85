"""`hajax plot`: learning curves of one or more runs, as a picture and as numbers."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hajax.cli.arguments import Option, parse_arguments
from hajax.runs.errors import Refusal, user_path
from hajax.runs.files import find_runs, read_run

if TYPE_CHECKING:
    from hajax.viewing.groups import Group, Panel

SUFFIXES = (".png", ".pdf", ".svg")
SIDES = ("steps", "time", "both")
OPTIONS = {
    "--output": Option("str?", None),
    "--metric": Option("str?", None),
    "--labels": Option("str?", None),
    "--title": Option("str?", None),
    "--x": Option("str", "both"),
    "--no-seeds": Option("flag", False),
}
COLUMNS = ("env", "label", "num_seeds", "by", "x", "iqm", "ci95_low", "ci95_high")

USAGE = """\
usage: hajax plot DIR [DIR ...] [--metric NAME] [--labels NAME,NAME...]
                  [--title TEXT] [--x steps|time|both] [--no-seeds]
                  [--output FILE]

  hajax plot runs/spread             (writes runs/spread/plot.png and plot.csv)
  hajax plot runs/happo runs/mappo --output compare.pdf
  hajax plot runs/3m --metric win    (plot_win.png and plot_win.csv)

A DIR is a run directory or a folder of them, such as a sweep. Runs that differ
only in their seeds are pooled. A curve is the interquartile mean over seeds
with its 95% stratified bootstrap interval, at the evaluations that all its
seeds have. Wall time counts from the first evaluation, after compilation. By
wall time, seeds are interpolated between their evaluations, up to the shortest
run.

options:
  --metric NAME    what to plot instead of the return: length, a metric of the
                   environment, such as win, or a column of training in
                   metrics.csv, such as train_effective_samples_3
  --labels NAMES   names of the curves, separated by commas, in the order of the
                   legend
  --title TEXT     the title instead of the environment's name, of runs on one
                   environment
  --x SIDE         against environment steps, against wall time, or both next to
                   each other (both)
  --no-seeds       without the thin lines of single seeds
  --output FILE    the picture: .png, .pdf or .svg; the numbers are written next
                   to it, with the suffix .csv. Default: plot.png
                   (plot_NAME.png) in DIR, or in the working directory if there
                   are several
  -h, --help       this text
"""


def plot(arguments: Sequence[str]) -> int:
    """Runs `hajax plot ARGUMENTS` and returns the exit code; `Refusal` before anything is written."""
    given = parse_arguments("plot", USAGE, arguments, OPTIONS, directories=None)
    if given is None:
        return 0
    directories = [user_path(name) for name in given.directories]
    metric, x = given.values["--metric"] or "return", given.values["--x"]
    if x not in SIDES:
        raise Refusal(f"--x={x}; allowed: {', '.join(SIDES)}")
    name = "plot.png" if metric == "return" else f"plot_{metric}.png"
    default = directories[0] / name if len(directories) == 1 else Path(name)
    output = default if given.values["--output"] is None else checked_output(given.values["--output"])
    runs = [read_run(path, metric) for path in find_runs(directories)]
    # These import JAX, which is not needed for errors in the arguments.
    from hajax.viewing.curve import draw_panels
    from hajax.viewing.groups import group_runs, make_panels

    panels = make_panels(labeled(group_runs(runs), given.values["--labels"], given.values["--title"]))
    if x == "time" and not any(len(line.x) for panel in panels for line in panel.by_seconds):
        raise Refusal("--x=time, but these runs have no common wall time; allowed: steps, both")
    numbers = output.with_suffix(".csv")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_numbers(numbers, panels)
        draw_panels(output, panels, metric, x, seeds=not given.values["--no-seeds"])
    except OSError as error:
        raise Refusal(
            f"{output} can't be written ({error.strerror}); allowed: --output=FILE in a directory of yours"
        ) from error
    print(f"curves: {output}\nnumbers: {numbers}")
    return 0


def labeled(groups: Sequence[Group], labels: str | None, title: str | None) -> list[Group]:
    """The groups with other labels and another title."""
    found = list(dict.fromkeys(group.label for group in groups))
    tasks = list(dict.fromkeys(group.task for group in groups))
    names = dict(zip(found, labels.split(","), strict=False)) if labels is not None else {}
    if labels is not None and (len(labels.split(",")) != len(found) or len(set(names.values())) != len(found)):
        raise Refusal(f"--labels={labels}; allowed: {len(found)} different names, for {'; '.join(found)}")
    if title is not None and len(tasks) > 1:
        raise Refusal(f"--title={title} for {len(tasks)} environments; allowed: with one, not {', '.join(tasks)}")
    return [
        group._replace(label=names.get(group.label, group.label), task=group.task if title is None else title)
        for group in groups
    ]


def checked_output(output: str) -> Path:
    """The path, if its format is supported and its CSV file would not replace a file of a run."""
    path = user_path(output)
    if path.suffix.lower() not in SUFFIXES:
        raise Refusal(f"--output={output} ends in {path.suffix or 'nothing'}; allowed: {', '.join(SUFFIXES)}")
    if path.stem in ("metrics", "timing"):
        raise Refusal(
            f"--output={output} would write its numbers to {path.stem}.csv, a file of runs; allowed: any other name"
        )
    return path


def write_numbers(path: Path, panels: Sequence[Panel]) -> None:
    """Writes a row per point of a mean; the thin lines of the seeds are in the runs' `metrics.csv`."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for panel in panels:
            for by, lines in (("step", panel.by_steps), ("wall_seconds", panel.by_seconds)):
                for line in lines:
                    for row in zip(
                        line.x.tolist(), line.iqm.tolist(), line.low.tolist(), line.high.tolist(), strict=True
                    ):
                        cells = ["" if math.isnan(value) else value for value in row]
                        writer.writerow([panel.title, line.label, len(line.seeds), by, *cells])
