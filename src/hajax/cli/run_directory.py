"""What a run leaves behind: `config.yaml`, `metrics.csv`, `summary.json`, `curve.png`."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hajax import __version__
from hajax.cli.errors import Refusal
from hajax.cli.settings import TrainSettings
from hajax.training.statistics import bootstrap_interval, interquartile_mean

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "jaxmarl")


class RunDirectory:
    """A run's files, written as the run goes on, so that an interrupted run keeps what it has."""

    def __init__(self, path: Path, settings: TrainSettings):
        self.path = path
        self.rows: list[dict[str, Any]] = []
        self._columns: list[str] = []
        config = dataclasses.asdict(dataclasses.replace(settings, out_dir=str(path)))
        text = yaml.safe_dump(config, sort_keys=False, allow_unicode=True)
        (path / "config.yaml").write_text(text, encoding="utf-8")

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds rows to `metrics.csv` and flushes them; columns are those of the first rows' union, later ones join."""
        self.rows.extend(dict(row) for row in rows)
        columns = list(dict.fromkeys([*self._columns, *(name for row in rows for name in row)]))
        if columns != self._columns:
            self._columns = columns
            self._write("w", self.rows, header=True)
        else:
            self._write("a", rows, header=False)

    def _write(self, mode: str, rows: Sequence[Mapping[str, Any]], header: bool) -> None:
        with open(self.path / "metrics.csv", mode, newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns, restval="", lineterminator="\n")
            if header:
                writer.writeheader()
            writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Writes `summary.json` in one step, so that no reader sees half of it."""
        partial = self.path / "summary.json.partial"
        partial.write_text(json.dumps(_finite(summary), indent=2) + "\n", encoding="utf-8")
        os.replace(partial, self.path / "summary.json")


def claim(out_dir: str | None, default: Path) -> Path:
    """Creates the run directory and returns it; `Refusal` if it holds a run already or can't be made."""
    path = Path(out_dir).expanduser() if out_dir is not None else default
    for name in ("config.yaml", "metrics.csv", "summary.json"):
        if (path / name).exists():
            raise Refusal(f"out_dir={path} already holds a run ({name}); allowed: a new or an empty directory")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Refusal(
            f"out_dir={path} can't be created ({error.strerror}); allowed: a new or an empty directory"
        ) from error
    if not os.access(path, os.W_OK):
        raise Refusal(f"out_dir={path} can't be written to; allowed: a new or an empty directory")
    return path


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


def _cell(value: Any) -> Any:
    """CSV has no NaN: a mean over no episodes is an empty cell."""
    return "" if isinstance(value, float) and math.isnan(value) else value


def _finite(value: Any) -> Any:
    """JSON has neither NaN nor infinities; they become `null`."""
    if isinstance(value, Mapping):
        return {name: _finite(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
