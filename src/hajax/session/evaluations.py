"""The evaluations of a training in a session, as arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

ALWAYS = ("eval_return_mean", "eval_return_std", "eval_length")  # columns, even before the first evaluation


class Evaluations:
    """The evaluations of a training, after those of the training that it continues."""

    def __init__(self, seeds: Sequence[int], before: Mapping[str, np.ndarray]):
        self.seeds, self.before = seeds, before
        self.rows: list[dict[str, Any]] = []

    def has(self, step: int) -> bool:
        """Whether there is an evaluation at that step."""
        return step in [*self.before.get("step", ()), *(row["step"] for row in self.rows)]

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
