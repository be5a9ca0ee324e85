"""The evaluations of a training in a session, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hajax.runs.programs import RunState, Team, check_finished
from hajax.runs.progress import TrainingProgress
from hajax.runs.runner import evaluation_rows
from hajax.runs.sample_watch import SampleWatch
from hajax.runs.schedule import Schedule
from hajax.runs.totals import means, no_totals

ALWAYS = ("eval_return_mean", "eval_return_std", "eval_length")  # columns, even before the first evaluation


class Evaluations:
    """The evaluations of a training."""

    def __init__(
        self,
        team: Team,
        seeds: Sequence[int],
        schedule: Schedule,
        bar: TrainingProgress,
        before: Mapping[str, np.ndarray],
        to_the_end: bool,
    ):
        self.team, self.seeds, self.schedule, self.bar = team, seeds, schedule, bar
        self.before, self.to_the_end = before, to_the_end
        self.rows: list[dict[str, Any]] = []
        self.watch = SampleWatch()

    def has(self, iterations: int) -> bool:
        """Whether there is an evaluation after so many iterations."""
        steps = [*self.before.get("step", ()), *(row["step"] for row in self.rows)]
        return self.schedule.step(iterations) in steps

    def evaluated(self, iterations: int, results: dict[str, Any], run_state: RunState, failed: set[int]) -> RunState:
        """Takes the results of an evaluation; returns the state with new sums of training metrics."""
        for arrays in results.values():
            finished = arrays.pop("finished")
            if self.to_the_end and not failed:
                check_finished(self.team.env.spec, finished)
        step = self.schedule.step(iterations)
        trained = means(run_state.totals, self.team.episode_metrics) if iterations else {}
        self.watch.warn(trained, step)
        rows = evaluation_rows(self.seeds, step, results, trained)
        self.rows += (healthy := [row for row in rows if row["seed"] not in failed])
        if healthy:
            self.bar.evaluated(float(np.mean([row["eval_return_mean"] for row in healthy])))
        return run_state._replace(totals=no_totals(tuple(run_state.totals.metrics), (len(self.seeds),)))

    def metrics(self) -> dict[str, np.ndarray]:
        """`step` `[K]`, and every other column as `[num_seeds, K]`, NaN where it has no value."""
        found = {(row["step"], row["seed"]): row for row in self.rows}
        steps = sorted({step for step, _ in found})
        names = list(dict.fromkeys([*ALWAYS, *self.before, *(name for row in self.rows for name in row)]))
        columns = {"step": np.array([*self.before.get("step", ()), *steps], int)}
        for name in names:
            if name not in ("step", "seed"):
                now = [[found.get((step, seed), {}).get(name, np.nan) for step in steps] for seed in self.seeds]
                until = self.before.get(name, np.full((len(self.seeds), len(self.before.get("step", ()))), np.nan))
                columns[name] = np.concatenate([until, np.reshape(now, (len(self.seeds), len(steps)))], axis=1)
        return columns
