"""Progress while training: a bar on a terminal or in a notebook, a line per evaluation elsewhere, or nothing."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import timedelta
from importlib.util import find_spec
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from hajax.runs.console import console as make_console


class TrainingProgress(AbstractContextManager):
    """Shows steps per seed, steps/s over all seeds, the latest return and the remaining time.

    `advance` is called between compiled slices, `evaluated` after an evaluation. Nothing is written to standard output,
    which is for results.
    """

    def __init__(
        self, total_steps: int, num_seeds: int, show: bool, console: Console | None = None, warmup_steps: int = 0
    ):
        self.warmup_steps = warmup_steps  # which do not count as training in steps/s
        self.total_steps, self.num_seeds, self.show = total_steps, num_seeds, show
        self.console = console or make_console(stderr=True)
        in_notebook = self.console.is_jupyter and find_spec("ipywidgets") is not None  # which rich's bar needs there
        if self.console.is_jupyter and not in_notebook:
            self.console = make_console(stderr=True, plain=True)
        self.animated = self.console.is_terminal or in_notebook
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[status]}", markup=False),
            TimeElapsedColumn(),
            console=self.console,
            disable=not (show and self.animated),
        )
        self.task = self.bar.add_task("compiling", total=total_steps, status="")
        self.latest_return = float("nan")
        self.steps = warmup_steps
        self.seconds = 0.0

    def __enter__(self) -> TrainingProgress:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.stop()

    def compiling(self) -> None:
        """Prints that the programs compile, where there is no bar."""
        if self.show and not self.animated:
            self.console.print("compiling", soft_wrap=True)

    def advance(self, steps: int, seconds: float) -> None:
        """Adds `steps` per seed, which took `seconds` of training."""
        self.steps, self.seconds = steps, seconds
        self.bar.update(self.task, description="training", completed=steps, status=self.status())

    def evaluated(self, mean_return: float) -> None:
        """Sets the mean return over seeds of the latest evaluation."""
        self.latest_return = mean_return
        self.bar.update(self.task, status=self.status())
        if self.show and not self.animated:
            self.console.print(f"{self.steps:,} / {self.total_steps:,} steps  {self.status()}", soft_wrap=True)

    def status(self) -> str:
        """`steps/s`, return and remaining time, in words."""
        parts = [f"return {self.latest_return:.2f}"]
        if self.seconds > 0 and self.steps > self.warmup_steps:
            rate = (self.steps - self.warmup_steps) / self.seconds
            left = (self.total_steps - self.steps) / rate
            parts = [f"{rate * self.num_seeds:,.0f} steps/s", *parts, f"ETA {timedelta(seconds=round(left))}"]
        return "  ".join(parts)
