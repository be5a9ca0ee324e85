"""Scores of several algorithms on several environments: final scores, and what is computed from them for pictures.

The pictures are those of Agarwal et al., *Deep Reinforcement Learning at the Edge of the Statistical Precipice*
(NeurIPS 2021), https://arxiv.org/abs/2108.13264.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hajax.runs.errors import Refusal
from hajax.runs.files import RunCurve
from hajax.training.statistics import performance_profile, probability_of_improvement
from hajax.viewing.groups import Group, Panel, interpolated, summarize_seeds

# A run's evaluation counts as being at so many steps if it is at most this share of them away. Runs whose iterations
# have different numbers of steps end at slightly different steps.
NEAR = 0.05
# A refusal names up to this many algorithms without runs.
MOST_MISSING = 3

Methods = dict[str, list[Group]]  # the groups of every algorithm by its label, one per task, in the same order of tasks
Scores = dict[str, list[np.ndarray]]  # by label and task, [num_seeds]


class Ending(NamedTuple):
    """Where the final scores of a task are: where the shortest of its runs ends."""

    task: str
    steps: int
    shortest: Path
    longest: int  # the steps of the longest run
    without: int  # the number of seeds without a score there


class Scale(NamedTuple):
    """The scores of a task that become 0 and 1."""

    low: float
    high: float

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        return (scores - self.low) / ((self.high - self.low) or 1.0)  # 0 if all are equal


UNSCALED = Scale(0.0, 1.0)


class Profile(NamedTuple):
    """The share of an algorithm's seeds whose score is above a threshold, from each threshold to the next."""

    label: str
    num_seeds: int
    thresholds: np.ndarray  # [T], ascending
    share: np.ndarray  # [T]
    low: np.ndarray  # [T], NaN if a task has a single seed
    high: np.ndarray  # [T]


class Improvement(NamedTuple):
    """The probability that a seed of the first algorithm is better than one of the second."""

    first: str
    second: str
    num_seeds: tuple[int, int]
    probability: float
    low: float  # NaN if one has a single seed on a task
    high: float


def complete(kind: str, groups: Sequence[Group]) -> Methods:
    """The groups by algorithm; `Refusal` if an algorithm has no runs on an environment."""
    tasks = list(dict.fromkeys(group.task for group in groups))
    labels = list(dict.fromkeys(group.label for group in groups))
    found = {(group.label, group.task): group for group in groups}
    missing = [f"{label} on {task}" for label in labels for task in tasks if (label, task) not in found]
    if missing:
        more = f" and {len(missing) - MOST_MISSING} more" if len(missing) > MOST_MISSING else ""
        raise Refusal(
            f"--kind={kind} without a run of {', '.join(missing[:MOST_MISSING])}{more}; allowed: directories with runs "
            "of every algorithm on every environment"
        )
    return {label: [found[label, task] for task in tasks] for label in labels}


def final_scores(kind: str, methods: Methods) -> tuple[Scores, list[Ending]]:
    """The scores of all seeds at the end of the shortest run of their task; a seed without a score there has -inf.

    Raises:
        Refusal: a run has no evaluation near those steps, or no seed has a score there.
    """
    scores: Scores = {label: [] for label in methods}
    endings = []
    for groups in zip(*methods.values(), strict=True):
        runs = [run for group in groups for run in group.runs]
        shortest = min(runs, key=lambda run: run.steps[-1])
        steps, longest = int(shortest.steps[-1]), max(int(run.steps[-1]) for run in runs)
        ending = Ending(groups[0].task, steps, shortest.path, longest, 0)
        for label, group in zip(methods, groups, strict=True):
            found = np.concatenate([score_at(kind, run, ending) for run in group.runs])
            scores[label].append(np.where(np.isnan(found), -np.inf, found))
            ending = ending._replace(without=ending.without + int(np.isnan(found).sum()))
        endings.append(ending)
        if not np.isfinite(np.concatenate([own[-1] for own in scores.values()])).any():
            raise Refusal(
                f"--kind={kind}, but no seed has a score on {groups[0].task} at {steps:,} steps; allowed: runs with one"
            )
    return scores, endings


def score_at(kind: str, run: RunCurve, ending: Ending) -> np.ndarray:
    """The scores `[num_seeds]` of the run's evaluation nearest to the ending; `Refusal` if it is not near."""
    distance = np.abs(run.steps - ending.steps)
    nearest = int(distance.argmin())
    if distance[nearest] > NEAR * ending.steps:
        raise Refusal(
            f"--kind={kind} compares scores on {ending.task} at {ending.steps:,} steps, where {ending.shortest} ends, "
            f"but {run.path} has no evaluation within {NEAR:.0%} of them; allowed: runs of about the same length"
        )
    return run.returns[nearest]


def task_scales(methods: Methods) -> list[Scale]:
    """The lowest and the highest evaluation of every task; 0 and 1, which change nothing, if scores are comparable.

    They are if there is one task, or if all of them are between 0 and 1 already, as win rates are.
    """
    tasks = [
        np.concatenate([_evaluations(group) for group in groups]) for groups in zip(*methods.values(), strict=True)
    ]
    finite = [task[np.isfinite(task)] for task in tasks]
    every = np.concatenate(finite)
    if len(tasks) == 1 or not every.size or (every.min() >= 0 and every.max() <= 1):
        return [UNSCALED] * len(tasks)
    return [Scale(float(task.min()), float(task.max())) if task.size else UNSCALED for task in finite]


def profiles(scores: Mapping[str, Sequence[np.ndarray]], scales: Sequence[Scale]) -> list[Profile]:
    """The performance profile of every algorithm, at all scores of all of them and beyond both ends."""
    scaled = {
        label: [scale(task) for scale, task in zip(scales, tasks, strict=True)] for label, tasks in scores.items()
    }
    every = np.concatenate([task for tasks in scaled.values() for task in tasks])
    every = np.unique(every[np.isfinite(every)])
    margin = 0.05 * (np.ptp(every) or 1.0)
    thresholds = np.array([every[0] - margin, *every, every[-1] + margin])
    found = []
    for label, tasks in scaled.items():
        share, interval = performance_profile(tasks, thresholds)
        low, high = np.full((2, len(thresholds)), np.nan) if interval is None else interval
        found.append(Profile(label, sum(map(len, tasks)), thresholds, share, low, high))
    return found


def improvements(scores: Mapping[str, Sequence[np.ndarray]]) -> list[Improvement]:
    """The probabilities of improvement of every pair of algorithms, the one that is named first over the other."""
    found = []
    for (first, x), (second, y) in itertools.combinations(scores.items(), 2):
        probability, interval = probability_of_improvement(x, y)
        sizes = (sum(map(len, x)), sum(map(len, y)))
        found.append(Improvement(first, second, sizes, probability, *(interval or (np.nan, np.nan))))
    return found


def efficiency(methods: Methods, title: str) -> tuple[Panel, list[Scale]]:
    """The interquartile mean over the seeds of all tasks against environment steps, a line per algorithm.

    The mean is at the steps at which any run of the algorithm was evaluated and that all of them reach; seeds are
    interpolated between their evaluations.
    """
    scales = task_scales(methods)
    lines = []
    for label, groups in methods.items():
        tracks = [
            (run.steps, scale(run.returns)) for scale, group in zip(scales, groups, strict=True) for run in group.runs
        ]
        sizes = [sum(run.returns.shape[1] for run in group.runs) for group in groups]
        seeds = [(steps, column) for steps, returns in tracks for column in returns.T]
        steps, returns = interpolated(tracks)
        lines.append(summarize_seeds(label, seeds, steps, returns, np.cumsum(sizes)[:-1].tolist()))
    return Panel(title, lines, []), scales


def _evaluations(group: Group) -> np.ndarray:
    """Every evaluation of every seed of the group."""
    return np.concatenate([run.returns.ravel() for run in group.runs])
