"""`hajax plot`: learning curves and comparisons of runs, as a picture and as numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hajax.cli.arguments import Option, parse_arguments
from hajax.runs.errors import Refusal, one_of, user_path
from hajax.runs.files import find_runs, owners_of, read_run
from hajax.runs.tables import write_table

if TYPE_CHECKING:
    from hajax.viewing.groups import Group

SUFFIXES = (".png", ".pdf", ".svg")
SIDES = ("steps", "time", "both")
KINDS = ("curves", "agents", "profiles", "improvement", "efficiency")
WITH_SEEDS = ("curves", "agents", "efficiency")
OPTIONS = {
    "--kind": Option("str", "curves"),
    "--output": Option("str?", None),
    "--metric": Option("str?", None),
    "--labels": Option("str?", None),
    "--title": Option("str?", None),
    "--x": Option("str?", None),
    "--no-seeds": Option("flag", False),
}
USAGE = """\
usage: hajax plot DIR [DIR ...] [--kind KIND] [--metric NAME]
                  [--labels NAME,NAME...] [--title TEXT]
                  [--x steps|time|both] [--no-seeds] [--output FILE]

  hajax plot runs/spread             (writes runs/spread/plot.png and plot.csv)
  hajax plot runs/happo runs/mappo --output compare.pdf
  hajax plot runs/3m --metric win    (plot_win.png and plot_win.csv)
  hajax plot runs/3m runs/2s3z --kind profiles     (plot_profiles.png and .csv)
  hajax plot runs/mamt --kind agents --metric train_radius

A DIR is a run directory or a folder of them, such as a sweep. Runs that differ
only in their seeds are pooled.

kinds:
  curves           a panel per environment. A curve is the interquartile mean
                   over seeds with its 95% stratified bootstrap interval, at the
                   evaluations that all its seeds have. Wall time counts from
                   the first evaluation, after compilation. By wall time, seeds
                   are interpolated between their evaluations, up to the
                   shortest run.
  agents           a panel per algorithm and environment with a curve per agent,
                   or pair of agents, of a --metric that metrics.csv has of
                   each, in columns NAME_of_AGENT, such as train_entropy
  profiles         for every score τ, the share of an algorithm's seeds, over
                   all environments, whose final score is above τ
  improvement      for every pair of algorithms, the probability that a seed of
                   the one has a higher final score than one of the other (of
                   equal scores half), averaged over environments
  efficiency       the interquartile mean over the seeds of all environments
                   against environment steps, as far as all of them go; seeds
                   are interpolated between their evaluations

The last three compare algorithms that have runs on every environment, with 95%
bootstrap intervals whose strata are the environments. A final score is that of
the evaluation where the shortest run on the environment ends; a seed without
one, which diverged before, is below all others, and ends the curve of its
algorithm in efficiency. Higher is better. Of several environments, scores in
profiles and efficiency are scaled per environment: 0 and 1 are the lowest and
the highest evaluation of the runs. Scores that are all between 0 and 1, such as
win rates, are left as they are.

options:
  --kind KIND      curves (the default), agents, profiles, improvement or
                   efficiency
  --metric NAME    what to plot instead of the return: length, a metric of the
                   environment, such as win, or a column of training in
                   metrics.csv, such as train_effective_samples_3
  --labels NAMES   names of the algorithms (or agents), separated by commas, in
                   the order of the legend
  --title TEXT     the title instead of the environment's name; of curves, with
                   runs on one environment
  --x SIDE         of curves: against environment steps, against wall time, or
                   both next to each other (both)
  --no-seeds       of curves, agents and efficiency: without the thin lines of
                   single seeds
  --output FILE    the picture: .png, .pdf or .svg; the numbers are written next
                   to it, with the suffix .csv. Default: plot.png
                   (plot_KIND.png, plot_NAME.png, plot_KIND_NAME.png) in DIR, or
                   in the working directory if there are several
  -h, --help       this text
"""


def plot(arguments: Sequence[str]) -> int:
    """Runs `hajax plot ARGUMENTS` and returns the exit code; `Refusal` before anything is written."""
    given = parse_arguments("plot", USAGE, arguments, OPTIONS, directories=None)
    if given is None:
        return 0
    directories = [user_path(name) for name in given.directories]
    kind, metric, x = checked_kind(given.values)
    parts = ["plot", *([] if kind == "curves" else [kind]), *([] if metric == "return" else [metric])]
    default = Path(f"{'_'.join(parts)}.png")
    default = directories[0] / default if len(directories) == 1 else default
    output = default if given.values["--output"] is None else checked_output(given.values["--output"])
    paths = find_runs(directories)
    owners = owners_of(paths, metric) if kind == "agents" else ()
    runs = [] if owners else [read_run(path, metric) for path in paths]
    # These import JAX, which is not needed for errors in the arguments.
    from hajax.viewing.comparisons import Picture, compare
    from hajax.viewing.curve import panels_figure
    from hajax.viewing.groups import LINE_COLUMNS, group_runs, line_rows, make_panels

    labels, title, seeds = given.values["--labels"], given.values["--title"], not given.values["--no-seeds"]
    groups = group_runs(runs) if not owners else of_agents(paths, metric, owners)
    if kind in ("curves", "agents"):
        panels, x = make_panels(labeled(groups, labels, title)), x if kind == "curves" else "steps"
        if x == "time" and not any(len(line.x) for panel in panels for line in panel.by_seconds):
            raise Refusal("--x=time, but these runs have no common wall time; allowed: steps, both")
        picture = Picture(panels_figure(panels, metric, x, seeds), LINE_COLUMNS, line_rows(panels), [])
    else:
        picture = compare(kind, labeled(groups, labels, None), metric, title, seeds)
    numbers = output.with_suffix(".csv")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_table(numbers, picture.columns, picture.rows)
        picture.figure.savefig(output, dpi=150)
    except OSError as error:
        raise Refusal(
            f"{output} can't be written ({error.strerror}); allowed: --output=FILE in a directory of yours"
        ) from error
    print("\n".join([f"{kind}: {output}", f"numbers: {numbers}", *picture.notes]))
    return 0


def checked_kind(values: Mapping[str, Any]) -> tuple[str, str, str]:
    """The kind, the metric and the side; `Refusal` of options that the kind doesn't have."""
    kind, metric, x = values["--kind"], values["--metric"] or "return", values["--x"] or "both"
    if kind not in KINDS:
        raise Refusal(one_of("--kind", kind, KINDS))
    if x not in SIDES:
        raise Refusal(f"--x={x}; allowed: {', '.join(SIDES)}")
    if values["--x"] is not None and kind != "curves":
        raise Refusal(f"--x={x} with --kind={kind}; allowed: with --kind=curves")
    if values["--no-seeds"] and kind not in WITH_SEEDS:
        raise Refusal(f"--no-seeds with --kind={kind}, which draws no seeds; allowed: with {', '.join(WITH_SEEDS)}")
    return kind, metric, x


def of_agents(paths: Sequence[Path], metric: str, owners: Sequence[str]) -> list[Group]:
    """A group per method, task and agent: the agents are lines in the panel of the method on the task."""
    from hajax.viewing.groups import group_runs

    by_owner = {owner: group_runs([read_run(path, f"{metric}_of_{owner}") for path in paths]) for owner in owners}
    return [
        group._replace(task=f"{group.label}, {group.task}", label=owner.replace("_to_", " to "))
        for owner, groups in by_owner.items()
        for group in groups
    ]


def labeled(groups: Sequence[Group], labels: str | None, title: str | None) -> list[Group]:
    """The groups with other labels and another title."""
    found = list(dict.fromkeys(group.label for group in groups))
    tasks = list(dict.fromkeys(group.task for group in groups))
    names = dict(zip(found, labels.split(","), strict=False)) if labels is not None else {}
    if labels is not None and (len(labels.split(",")) != len(found) or len(set(names.values())) != len(found)):
        raise Refusal(f"--labels={labels}; allowed: {len(found)} different names, for {'; '.join(found)}")
    if title is not None and len(tasks) > 1:
        raise Refusal(f"--title={title} for {len(tasks)} panels; allowed: for one, not {'; '.join(tasks)}")
    return [
        group._replace(label=names.get(group.label, group.label), task=group.task if title is None else title)
        for group in groups
    ]


def checked_output(output: str) -> Path:
    """The path, if its format is supported and its CSV file would not replace a file of a run."""
    path = user_path(output)
    if path.suffix.lower() not in SUFFIXES:
        raise Refusal(f"--output={output} ends in {path.suffix or 'nothing'}; allowed: {', '.join(SUFFIXES)}")
    if path.stem in ("metrics", "timing", "summary", "grid", "points"):
        raise Refusal(
            f"--output={output} would write its numbers to {path.stem}.csv, a file of runs; allowed: any other name"
        )
    return path
