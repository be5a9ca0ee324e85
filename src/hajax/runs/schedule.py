"""The iterations after which a run evaluates and saves, spread evenly over the run."""

from __future__ import annotations

from typing import NamedTuple

EVALUATIONS = 20


class Schedule(NamedTuple):
    """A run in iterations of the training loop; counts are per seed."""

    iterations: int
    steps_per_iteration: int
    warmup_steps: int  # taken before the first iteration
    evaluate_after: tuple[int, ...]  # iterations done at each evaluation; starts with 0 and ends with `iterations`
    save_after: tuple[int, ...]  # iterations done at each checkpoint; likewise
    select_after: tuple[int, ...] = ()  # iterations done at each selection of a population, after an evaluation

    @property
    def total_steps(self) -> int:
        return self.step(self.iterations)

    def step(self, iterations: int) -> int:
        """The environment steps after so many iterations."""
        return self.warmup_steps + iterations * self.steps_per_iteration

    def pauses(self, done: int) -> list[int]:
        """The iterations from `done` on after which the run evaluates or saves."""
        return sorted(i for i in {*self.evaluate_after, *self.save_after} if i >= done)


def make_schedule(
    total_steps: int,
    steps_per_iteration: int,
    eval_interval: int | None,
    checkpoint_interval: int | None = None,
    warmup_steps: int = 0,
    select_interval: int | None = None,
) -> Schedule:
    """Rounds `total_steps` up to whole iterations, evaluations and checkpoints to the nearest iteration.

    There is an evaluation before the first iteration and one after the last, and between them one every
    `eval_interval` steps, or about 20 in all. Checkpoints are likewise every `checkpoint_interval` steps, or after
    every evaluation. A population is selected every `select_interval` steps, but not at the start nor at the end, and
    evaluated before.
    """
    iterations = -((warmup_steps - total_steps) // steps_per_iteration)  # rounded up

    def every(interval: int) -> list[int]:
        return [*range(0, iterations, max(1, round(interval / steps_per_iteration))), iterations]

    if eval_interval is None:
        intervals = min(EVALUATIONS, iterations)
        evaluate_after = [round(i * iterations / intervals) for i in range(intervals + 1)]
    else:
        evaluate_after = every(eval_interval)
    select_after = [] if select_interval is None else every(select_interval)[1:-1]
    evaluate_after = sorted({*evaluate_after, *select_after})
    save_after = evaluate_after if checkpoint_interval is None else every(checkpoint_interval)
    return Schedule(
        iterations, steps_per_iteration, warmup_steps, tuple(evaluate_after), tuple(save_after), tuple(select_after)
    )
