"""The time that a run takes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field


@dataclass
class Clock:
    """Seconds since the run began, over all its sessions, and the seconds of training and of evaluation."""

    began: float = field(default_factory=time.perf_counter)
    training: float = 0.0
    evaluation: float = 0.0

    def elapsed(self) -> float:
        return time.perf_counter() - self.began

    def seconds(self) -> dict[str, float]:
        return {
            "wall_seconds": round(self.elapsed(), 3),
            "train_seconds": round(self.training, 3),
            "eval_seconds": round(self.evaluation, 3),
        }

    @classmethod
    def resumed(cls, wall_seconds: float, train_seconds: float, eval_seconds: float) -> Clock:
        return cls(time.perf_counter() - wall_seconds, train_seconds, eval_seconds)
