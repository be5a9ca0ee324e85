"""A warning when few samples carry the updates of the last agent in the order."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np

LEAST_SHARE = 0.1


class SampleWatch:
    """Warns once, after two evaluations in a row with an effective sample size below `LEAST_SHARE` in any seed."""

    def __init__(self, warns: bool = True) -> None:
        self._before: tuple[int, float] | None = None  # the step and the share of the evaluation before, if it was low
        self._warned = not warns

    def warn(self, means: Mapping[str, np.ndarray], step: int) -> None:
        """Takes the training means `[num_seeds]` since the last evaluation."""
        columns = [name for name in means if name.startswith("effective_samples_")]
        if self._warned or not columns:
            return
        last = max(columns, key=lambda name: int(name.rpartition("_")[2]))
        share = float(np.min(means[last]))
        before, self._before = self._before, (step, share) if share < LEAST_SHARE else None
        if before is None or self._before is None:
            return
        self._warned = True
        print(
            f"hajax train: warning: train_{last} is {before[1]:.2g} at {before[0]:,} steps and {share:.2g} at {step:,},"
            f" less than {LEAST_SHARE}: few samples carry the updates of the last agent in the order, because the "
            "compound ratio varies too much; a guard (algo.guard), smaller steps or shared parameters help",
            file=sys.stderr,
        )
