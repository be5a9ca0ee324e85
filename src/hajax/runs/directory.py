"""The files of a run: `config.yaml`, `metrics.csv`, `timing.csv`, `summary.json`, `curve.png`, `checkpoints/`.

`metrics.csv` does not depend on the machine's speed: the same run gives the same bytes, however often it was
interrupted. `timing.csv` holds the seconds.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import yaml

from hajax import __version__
from hajax.runs.errors import Refusal, user_path
from hajax.runs.settings import TrainSettings, as_dict
from hajax.runs.tables import Row, Table, replacing
from hajax.training.checkpoints import Checkpoint, list_checkpoints, read_checkpoint, remove_unfinished
from hajax.training.statistics import bootstrap_interval, interquartile_mean

FAULT = "simulator_error.txt"  # the traceback of a simulator's fault that ended the run
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "jaxmarl")


class RunDirectory:
    """A run's files, written during the run, so that an interrupted run keeps its results so far."""

    def __init__(
        self, path: Path, resumed: Checkpoint | None = None, *, writes: bool = True, table: str = "metrics.csv"
    ):
        """Reads the files at `path` if the run continues from `resumed`; nothing if it is new.

        Without `writes` the rows are only kept in memory. `table` is the name of the file of evaluations.

        Raises:
            Refusal: rows that were there when the checkpoint was saved are missing.
        """
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.writes = writes
        self.metrics, self.timing = Table(path / table, writes), Table(path / "timing.csv", writes)
        if resumed is not None:
            # Not by the checkpoint's step: an evaluation at that step may have come after it, and is repeated.
            self.timing.read(lambda step: step <= resumed.facts["evaluated"])
            complete = {row["step"] for row in self.timing.rows}
            self.metrics.read(complete.__contains__)
            if len(self.metrics.rows) != resumed.facts["rows"]:
                raise Refusal(
                    f"{self.metrics.path} has {len(self.metrics.rows)} rows up to step {resumed.step}; "
                    f"allowed: the {resumed.facts['rows']} that were there when {resumed.path} was saved"
                )

    def open(self, settings: TrainSettings) -> None:
        """Writes the settings, and drops the rows that a resumed run had written after its checkpoint."""
        if not self.writes:
            return
        remove_unfinished(self.checkpoints)
        (self.path / "summary.json").unlink(missing_ok=True)  # it describes the end of the earlier session
        self.metrics.write()
        self.timing.write()
        with replacing(self.path / "config.yaml") as file:
            config = as_dict(dataclasses.replace(settings, out_dir=str(self.path), resume=False, distributed=False))
            yaml.safe_dump(config, file, sort_keys=False, allow_unicode=True)

    def past_fault(self, step: int) -> bool:
        """Whether a simulator's fault ended the run; its traceback is kept under the name of the step."""
        file = self.path / FAULT
        if found := file.exists():
            file.replace(file.with_stem(f"{file.stem}_{step}"))
        return found

    def evaluated(self, step: int) -> bool:
        """Whether the results of the evaluation at that step are written."""
        return any(row["step"] == step for row in self.timing.rows)

    def append(self, rows: Sequence[Row], seconds: Row) -> None:
        """Adds the rows of an evaluation, one per seed, and its time."""
        self.metrics.append(rows)
        self.timing.append([seconds])  # last, because it marks the evaluation as complete


@contextmanager
def claim(out_dir: str | None, default: Sequence[str], *, resume: bool) -> Iterator[Path]:
    """The run's directory, locked by this process while the context lasts.

    It is created unless a run is resumed in it. Without `out_dir` it is a new directory in `runs`, named by `default`.

    Raises:
        Refusal: it can't be created, already holds a run, or is in use by another process.
    """
    if out_dir is None:
        path = new_directory(*default)
    else:
        path = user_path(out_dir)
        try:
            if not resume:
                _refuse_run(path)
                path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refusal(
                f"out_dir={path} can't be created ({error.strerror}); allowed: a new or an empty directory"
            ) from error
        if not os.access(path, os.W_OK):
            raise Refusal(f"out_dir={path} can't be written to; allowed: a new or an empty directory")
    with lock(path):
        if not resume:
            _refuse_run(path)  # another process may have written one meanwhile
        yield path


def _refuse_run(path: Path) -> None:
    for name in ("config.yaml", "metrics.csv", "summary.json"):
        if (path / name).exists():
            raise Refusal(
                f"out_dir={path} already holds a run ({name}); allowed: a new or an empty directory, "
                "or resume=true to continue that run"
            )


def new_directory(*parts: str) -> Path:
    """Creates `runs/<parts>_<time>`, with a number appended if that exists.

    Raises:
        Refusal: it can't be created.
    """
    stem = "_".join([*(re.sub(r"[/:]", "-", part) for part in parts), datetime.now().strftime("%Y%m%d-%H%M%S")])
    for number in itertools.count(1):
        path = Path("runs") / (stem if number == 1 else f"{stem}_{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            if not path.parent.is_dir():
                raise Refusal("out_dir=null: runs is not a directory; allowed: out_dir=DIR") from None
        except OSError as error:
            raise Refusal(f"out_dir=null: {path} can't be created ({error.strerror}); allowed: out_dir=DIR") from error
        else:
            return path
    raise AssertionError


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Locks the directory for this process. The system releases the lock when the process ends, however it ends.

    Prints a warning of one line where the file system has no locks.

    Raises:
        Refusal: another process has locked it.
    """
    file = path / ".lock"
    while True:
        try:
            opened = open(file, "w")  # noqa: SIM115
        except OSError as error:
            raise Refusal(f"out_dir={path} can't be written to ({error.strerror}); allowed: one of your own") from error
        with opened:
            try:
                _flock(opened)
            except BlockingIOError as error:
                raise Refusal(f"out_dir={path} is in use by another process; allowed: one at a time") from error
            except (OSError, ImportError) as error:
                reason = getattr(error, "strerror", None) or error
                print(
                    f"hajax train: warning: {path} can't be locked ({reason}); no other process may run there",
                    file=sys.stderr,
                )
            else:
                if not _is_file(opened, file):  # the previous owner has removed it meanwhile
                    continue
            try:
                yield
            finally:
                file.unlink(missing_ok=True)
            return


def _flock(file: TextIO) -> None:
    import fcntl  # not available on Windows

    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_file(opened: TextIO, path: Path) -> bool:
    """Whether the open file is still the one at `path`."""
    try:
        return os.path.samestat(os.fstat(opened.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def last_checkpoint(path: Path, warmup_steps: int = 0) -> Checkpoint | None:
    """The checkpoint to resume from; `None` for a run that was killed before its first iteration (after any warm-up).

    Raises:
        CheckpointError: the last checkpoint is missing, damaged or of a newer format.
    """
    timing = Table(path / "timing.csv")
    timing.read(lambda step: step > warmup_steps)
    if not timing.rows and not list_checkpoints(path / "checkpoints"):
        return None
    return read_checkpoint(path / "checkpoints")


def finished_summary(path: Path, total_steps: int) -> dict[str, Any] | None:
    """The summary of a run that has already done all its steps."""
    try:
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if summary.get("total_steps") == total_steps else None


def summarize_returns(returns: np.ndarray) -> dict[str, Any]:
    """The summary of `[num_seeds]` mean returns.

    `ci95` is the 95% bootstrap interval of the interquartile mean over seeds, `null` for a single seed.
    """
    interval = bootstrap_interval(returns)
    return {
        "mean": float(returns.mean()),
        "iqm": float(interquartile_mean(returns)),
        "ci95": None if interval is None else list(interval),
        "per_seed": [float(x) for x in returns],
    }


def versions() -> dict[str, str]:
    """The versions of hajax, Python and the packages that affect results."""
    return {"hajax": __version__, "python": sys.version.split()[0], **{name: version(name) for name in PACKAGES}}
