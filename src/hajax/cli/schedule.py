"""When a run evaluates: whole iterations, spread evenly over the run."""

from __future__ import annotations

import math
from typing import NamedTuple

EVALUATIONS = 20


class Schedule(NamedTuple):
    """A run in iterations of the training loop; counts are per seed."""

    iterations: int
    steps_per_iteration: int
    evaluate_after: tuple[int, ...]  # iterations done at each evaluation; starts with 0 and ends with `iterations`

    @property
    def total_steps(self) -> int:
        return self.iterations * self.steps_per_iteration


def make_schedule(total_steps: int, steps_per_iteration: int, eval_interval: int | None) -> Schedule:
    """Rounds `total_steps` up to whole iterations, and evaluations to the nearest iteration.

    There is an evaluation before the first iteration and one after the last, and between them one every
    `eval_interval` steps, or about 20 in all.
    """
    iterations = math.ceil(total_steps / steps_per_iteration)
    if eval_interval is None:
        intervals = min(EVALUATIONS, iterations)
        evaluate_after = [round(i * iterations / intervals) for i in range(intervals + 1)]
    else:
        every = max(1, round(eval_interval / steps_per_iteration))
        evaluate_after = [*range(0, iterations, every), iterations]
    return Schedule(iterations, steps_per_iteration, tuple(evaluate_after))
