"""Groups of runs for curves, their labels, and their interquartile means."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hajax.runs.errors import flat
from hajax.runs.files import RunCurve
from hajax.training.statistics import interquartile_mean, stratified_bootstrap_interval

# Settings of the seeds and of the execution, which do not define the method.
NOT_THE_METHOD = (
    "seed", "num_seeds", "preset", "out_dir", "resume", "render", "checkpoint", "logger", "progress",
    "compilation_cache", "on_non_finite", "devices", "shard", "distributed", "vmap", "draws", "pbt",
)  # fmt: skip
# Options of an environment that change the training, but not the returns that are compared.
NOT_THE_TASK = ("name", "reward", "state")
# A label names up to this many settings; beyond that, enough of them to distinguish the groups.
MOST_IN_LABEL = 3

LINE_COLUMNS = ("env", "label", "num_seeds", "by", "x", "iqm", "ci95_low", "ci95_high")

Track = tuple[np.ndarray, np.ndarray]  # x [K], returns [K]; or [K, S], those of S seeds


class Line(NamedTuple):
    """A group of seeds against steps or seconds, at K points."""

    label: str
    seeds: list[Track]
    x: np.ndarray  # [K]
    iqm: np.ndarray  # [K]
    low: np.ndarray  # [K], NaN for a single seed
    high: np.ndarray  # [K]


class Panel(NamedTuple):
    """The lines of one task."""

    title: str
    by_steps: list[Line]
    by_seconds: list[Line]


class Group(NamedTuple):
    """Runs of one method on one task; their seeds are pooled."""

    task: str
    label: str
    runs: list[RunCurve]


def group_runs(runs: Sequence[RunCurve]) -> list[Group]:
    """Groups runs by task (the environment with its options) and by method (all other settings except seeds).

    A run that repeats a seed of its group is the same training and not another sample, so it gets a separate group,
    named by its directory.
    """
    grouped: dict[Hashable, list[list[RunCurve]]] = {}
    for run in runs:
        same = grouped.setdefault(_identity(run), [])
        fitting = [group for group in same if not {seed for other in group for seed in other.seeds} & set(run.seeds)]
        if fitting:
            fitting[0].append(run)
        else:
            same.append([run])
    groups = list(itertools.chain(*grouped.values()))
    firsts = [group[0] for group in groups]
    tasks = tell_apart([run.settings["env"]["name"] for run in firsts], [task_settings(run) for run in firsts])
    labels = [""] * len(groups)
    for task in dict.fromkeys(tasks):
        members = [i for i, other in enumerate(tasks) if other == task]
        for i, label in zip(members, method_labels([firsts[i] for i in members]), strict=True):
            labels[i] = label
    return [Group(*group) for group in zip(tasks, labels, groups, strict=True)]


def method_labels(runs: Sequence[RunCurve]) -> list[str]:
    """Labels of the methods of these runs on one task: the algorithm, and the settings that distinguish it."""
    settings = [method_settings(run) for run in runs]
    repeated = [settings.count(own) > 1 for own in settings]
    for run, own, is_repeated in zip(runs, settings, repeated, strict=True):
        if is_repeated:
            own["run"] = str(run.path)
    return tell_apart([run.settings["algo"]["name"] for run in runs], settings)


def task_settings(run: RunCurve) -> dict[str, Any]:
    """The options of the run's environment that define the task."""
    return {f"env.{key}": value for key, value in run.settings["env"].items() if key not in NOT_THE_TASK}


def method_settings(run: RunCurve) -> dict[str, Any]:
    """Every setting, flat, that is neither the task nor the choice of seeds."""
    settings = {key: value for key, value in run.settings.items() if key not in (*NOT_THE_METHOD, "env")}
    env = {key: value for key, value in run.settings["env"].items() if key in NOT_THE_TASK and key != "name"}
    if env.get("reward") == settings["algo"].get("reward"):  # the environment follows the algorithm
        env.pop("reward", None)
    # Stochastic evaluations only add columns.
    return {key: value for key, value in flat(settings | {"env": env}).items() if key != "eval.stochastic"}


def tell_apart(names: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The names; where some are equal, with the settings in which they differ."""
    labels = list(names)
    for name in dict.fromkeys(names):
        members = [i for i, other in enumerate(names) if other == name]
        keys, left_out = _telling([settings[i] for i in members])
        for i in members:
            parts = [f"{key.removeprefix('algo.').removeprefix('env.')}={_shown(settings[i], key)}" for key in keys]
            more = [f"(and {left_out} more)"] if left_out else []
            labels[i] = " ".join([name, *parts, *more])
    return labels


def _telling(settings: Sequence[Mapping[str, Any]]) -> tuple[list[str], int]:
    """The settings that differ, or, of many, enough to distinguish all; and the number of settings left out."""
    columns = {key: [_shown(s, key) for s in settings] for key in dict.fromkeys(itertools.chain(*settings))}
    differing = {key: column for key, column in columns.items() if len(set(column)) > 1}
    if len(differing) <= MOST_IN_LABEL:
        return list(differing), 0
    chosen: list[str] = []
    wanted = len(set(zip(*differing.values(), strict=True)))

    def parts(keys: Iterable[str]) -> int:
        return len(set(zip(*(differing[key] for key in keys), strict=True)))

    while not chosen or parts(chosen) < wanted:
        chosen.append(max(differing, key=lambda key: parts([*chosen, key])))
    return chosen, len(differing) - len(chosen)


def make_panels(groups: Sequence[Group]) -> list[Panel]:
    """A panel per task, in the order of their first runs, with a line per group."""
    panels = []
    for task in dict.fromkeys(group.task for group in groups):
        members = [group for group in groups if group.task == task]
        panels.append(Panel(task, [steps_line(group) for group in members], [seconds_line(group) for group in members]))
    return panels


def steps_line(group: Group) -> Line:
    """The group against environment steps, at the steps at which every run of it was evaluated."""
    steps = group.runs[0].steps
    for run in group.runs[1:]:
        steps = np.intersect1d(steps, run.steps)
    returns = np.concatenate([run.returns[np.isin(run.steps, steps)] for run in group.runs], axis=1)
    seeds = [(run.steps, column) for run in group.runs for column in run.returns.T]
    return summarize_seeds(group.label, seeds, steps, returns)


def seconds_line(group: Group) -> Line:
    """The group against wall time, up to the shortest run.

    Runs are evaluated at different times, so they are interpolated. The seeds of one run are trained together and have
    the same times.
    """
    tracks = []
    for run in group.runs:
        timed = np.isfinite(run.seconds)
        tracks.append((run.seconds[timed], run.returns[timed]))
    seeds = [(seconds, column) for seconds, returns in tracks for column in returns.T]
    return summarize_seeds(group.label, seeds, *interpolated(tracks))


def interpolated(tracks: Sequence[Track]) -> Track:
    """Returns `[K_i, S_i]` of several runs at the points at which any was evaluated and that all reach, side by side.

    Between two evaluations of a run its returns are interpolated linearly.
    """
    if any(not len(x) for x, _ in tracks):
        points = np.zeros(0)
    else:
        start, end = max(x[0] for x, _ in tracks), min(x[-1] for x, _ in tracks)
        points = np.unique(np.concatenate([x for x, _ in tracks]))
        points = points[(points >= start) & (points <= end)]
    columns = [np.interp(points, x, y) if len(x) else points for x, returns in tracks for y in returns.T]
    return points, np.array(columns).T.reshape(len(points), len(columns))


def summarize_seeds(
    label: str, seeds: list[Track], x: np.ndarray, returns: np.ndarray, first_of_tasks: Sequence[int] = ()
) -> Line:
    """The interquartile mean over seeds of `returns` `[K, S]`, with the 95% stratified bootstrap interval.

    `first_of_tasks` are the seeds with which the second and later tasks begin; by default all are of one task. Where a
    seed has no return (it diverged), there is no mean.
    """
    intervals = [stratified_bootstrap_interval(np.split(row, first_of_tasks)) or (np.nan, np.nan) for row in returns]
    low, high = np.array(intervals).reshape(-1, 2).T
    return Line(label, seeds, x, interquartile_mean(returns), low, high)


def line_rows(panels: Sequence[Panel]) -> list[dict[str, Any]]:
    """A row per point of a mean; the thin lines of the seeds are in the runs' `metrics.csv`."""
    return [
        {"env": panel.title, "label": line.label, "num_seeds": len(line.seeds), "by": by}
        | dict(zip(("x", "iqm", "ci95_low", "ci95_high"), row, strict=True))
        for panel in panels
        for by, lines in (("step", panel.by_steps), ("wall_seconds", panel.by_seconds))
        for line in lines
        for row in zip(line.x.tolist(), line.iqm.tolist(), line.low.tolist(), line.high.tolist(), strict=True)
    ]


def _identity(run: RunCurve) -> Hashable:
    settings = {"env": run.settings["env"]["name"]} | task_settings(run) | method_settings(run)
    return tuple(sorted((key, repr(value)) for key, value in settings.items()))


def _shown(settings: Mapping[str, Any], key: str) -> str:
    """The setting as on the command line."""
    return _typed(settings.get(key, "unset"))


def _typed(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return "[" + ",".join(map(_typed, value)) + "]" if isinstance(value, list) else str(value)
