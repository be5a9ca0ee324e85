"""What a run leaves behind: `config.yaml`, `metrics.csv`, `timing.csv`, `summary.json`, `curve.png`, `checkpoints/`.

`metrics.csv` holds nothing that depends on the machine's speed, so that the same run gives the same file, byte for
byte, however often it was interrupted; `timing.csv` holds the seconds.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import yaml

from hajax import __version__
from hajax.cli.errors import Refusal
from hajax.cli.settings import TrainSettings, as_dict
from hajax.training.checkpoints import Checkpoint, list_checkpoints, read_checkpoint, remove_unfinished
from hajax.training.statistics import bootstrap_interval, interquartile_mean

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "jaxmarl")


Row = dict[str, Any]


class Table:
    """A CSV file that grows by rows. Every state of it on the disk is whole rows, but perhaps for the last."""

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[Row] = []
        self.columns: list[str] = []

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds rows; a column that is new in them joins, and is empty in the rows before."""
        self.rows.extend(dict(row) for row in rows)
        columns = list(dict.fromkeys([*self.columns, *(name for row in rows for name in row)]))
        if columns == self.columns:
            with open(self.path, "a", newline="", encoding="utf-8") as file:
                self._writer(file).writerows(map(_cells, rows))
                _flush(file)
        else:
            self.columns = columns
            self.write()

    def read(self, keep: Callable[[int], bool]) -> None:
        """Reads back what was written, without the steps that are not to be kept and a last row half written."""
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True)
            reader = csv.DictReader(line for line in lines if line.endswith("\n"))
            self.columns = list(reader.fieldnames or ())
            self.rows = [row for row in map(_values, reader) if keep(row["step"])]

    def write(self) -> None:
        """Writes all rows anew."""
        if not self.columns:
            return
        with replacing(self.path) as file:
            writer = self._writer(file)
            writer.writeheader()
            writer.writerows(map(_cells, self.rows))

    def _writer(self, file: TextIO) -> csv.DictWriter:
        return csv.DictWriter(file, self.columns, restval="", lineterminator="\n")


class RunDirectory:
    """A run's files, written as the run goes on, so that an interrupted run keeps what it has."""

    def __init__(self, path: Path, resumed: Checkpoint | None = None):
        """Reads what there is at `path` for a run that goes on from `resumed`; nothing for one that starts.

        Raises:
            Refusal: rows that were there when the checkpoint was saved are missing.
        """
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics, self.timing = Table(path / "metrics.csv"), Table(path / "timing.csv")
        if resumed is not None:
            self.timing.read(lambda step: step <= resumed.step)
            complete = {row["step"] for row in self.timing.rows}
            self.metrics.read(complete.__contains__)
            if len(self.metrics.rows) < resumed.facts["rows"]:
                raise Refusal(
                    f"{self.metrics.path} has {len(self.metrics.rows)} rows up to step {resumed.step}; "
                    f"allowed: the {resumed.facts['rows']} that were there when {resumed.path} was saved"
                )

    def open(self, settings: TrainSettings) -> None:
        """Writes the settings, and drops what a run that goes on had written after its checkpoint."""
        remove_unfinished(self.checkpoints)
        self.metrics.write()
        self.timing.write()
        with replacing(self.path / "config.yaml") as file:
            config = as_dict(dataclasses.replace(settings, out_dir=str(self.path), resume=False))
            yaml.safe_dump(config, file, sort_keys=False, allow_unicode=True)

    def evaluated(self, step: int) -> bool:
        """Whether the results of that step's evaluation are there."""
        return any(row["step"] == step for row in self.timing.rows)

    def append(self, rows: Sequence[Row], seconds: Row) -> None:
        """Adds an evaluation's rows, one per seed, and when it was."""
        self.metrics.append(rows)
        self.timing.append([seconds])  # last, for it says that the evaluation is there


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file of JSON; numbers that are not finite become `null`."""
    with replacing(path) as file:
        file.write(json.dumps(_finite(content), indent=2) + "\n")


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A file that takes the place of `path` when it is complete, and not before."""
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "w", newline="", encoding="utf-8") as file:
        yield file
        _flush(file)
    os.replace(partial, path)


def _flush(file: TextIO) -> None:
    """To the disk: a checkpoint, which is flushed too, must never be ahead of the rows before it."""
    file.flush()
    os.fsync(file.fileno())


def claim(out_dir: str | None, default: Path) -> Path:
    """Creates the run directory and returns it; `Refusal` if it holds a run already or can't be made."""
    path = Path(out_dir).expanduser() if out_dir is not None else default
    for name in ("config.yaml", "metrics.csv", "summary.json"):
        if (path / name).exists():
            raise Refusal(
                f"out_dir={path} already holds a run ({name}); allowed: a new or an empty directory, "
                "or resume=true to go on with that run"
            )
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal(
            f"out_dir={path} can't be created ({error.strerror}); allowed: a new or an empty directory"
        ) from error
    if not os.access(path, os.W_OK):
        raise Refusal(f"out_dir={path} can't be written to; allowed: a new or an empty directory")
    return path


def last_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint to go on from; `None` for a run that was killed before it had trained.

    Raises:
        CheckpointError: the last checkpoint is missing, damaged or of a newer format.
    """
    timing = Table(path / "timing.csv")
    timing.read(lambda step: step > 0)
    if not timing.rows and not list_checkpoints(path / "checkpoints"):
        return None
    return read_checkpoint(path / "checkpoints")


def finished_summary(path: Path, total_steps: int) -> dict[str, Any] | None:
    """The summary of a run that has done all its steps already."""
    try:
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if summary.get("total_steps") == total_steps else None


def default_directory(*parts: str) -> Path:
    """`runs/<parts>_<time>`, with a number appended if that exists."""
    stem = "_".join([*(part.replace("/", "-") for part in parts), datetime.now().strftime("%Y%m%d-%H%M%S")])
    path, number = Path("runs") / stem, 1
    while path.exists():
        number += 1
        path = Path("runs") / f"{stem}_{number}"
    return path


def summarise_returns(returns: np.ndarray) -> dict[str, Any]:
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
    """What the run was computed with."""
    return {"hajax": __version__, "python": sys.version.split()[0], **{name: version(name) for name in PACKAGES}}


def _cells(row: Mapping[str, Any]) -> Row:
    """CSV has no NaN: a mean over no episodes is an empty cell."""
    return {name: "" if isinstance(x, float) and math.isnan(x) else x for name, x in row.items()}


def _values(row: Mapping[str, str]) -> Row:
    """The numbers of a row as it was read; `repr` and `float` are each other's inverse."""
    return {name: int(x) if name in ("step", "seed") else float(x or "nan") for name, x in row.items()}


def _finite(value: Any) -> Any:
    """JSON has neither NaN nor infinities; they become `null`."""
    if isinstance(value, Mapping):
        return {name: _finite(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
