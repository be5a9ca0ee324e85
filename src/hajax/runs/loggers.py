"""Loggers besides `metrics.csv`: TensorBoard and Weights & Biases, one series per seed.

Packages are imported when a logger is made, so that a run without them needs neither.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from hajax.runs.errors import flat
from hajax.validation import check_known

# The package that each logger needs; `csv` is always written by the run directory.
PACKAGES = {"csv": None, "tensorboard": "tensorboardX", "wandb": "wandb"}
WANDB_IDS = "wandb_ids.json"

Row = Mapping[str, Any]


class Logger(Protocol):
    """Takes rows during a run."""

    def log(self, rows: Sequence[Row]) -> None:
        """Logs rows, each with its `step` (environment steps) and `seed`. Only numbers other than NaN are logged."""

    def close(self, summary: Mapping[str, Any] | None) -> None:
        """Ends the series. `summary` is the run's summary, `None` if the run failed."""


def check_names(names: Any) -> tuple[str, ...]:
    """The requested loggers, `csv` first and each once; ValueError unless `names` is a list of known names."""
    if not isinstance(names, Sequence) or isinstance(names, str):
        raise ValueError(f"logger={names!r}; allowed: a list of {', '.join(PACKAGES)}")
    for name in names:
        check_known("logger", name, PACKAGES)
    return tuple(dict.fromkeys(["csv", *names]))


def check_loggers(names: Any) -> tuple[str, ...]:
    """`check_names`, and ValueError for a logger whose package is not installed. Imports nothing."""
    checked = check_names(names)
    for name in checked:
        package = PACKAGES[name]
        if package is not None and not _is_installed(package):
            raise ValueError(f"logger={name} needs {package}, which is not installed: pip install 'hajax[loggers]'")
    return checked


def make_loggers(
    names: Sequence[str],
    path: Path,
    config: Mapping[str, Any],
    seeds: Sequence[int],
    resume_step: int | None = None,
) -> list[Logger]:
    """The loggers of a run in the directory `path`, except `csv`, which the directory writes itself.

    A resumed run passes `resume_step`: rows up to and including that step are not logged again, and later ones are
    replaced. Raises ValueError as `check_loggers` does, and if W&B can't be reached.
    """
    makers: dict[str, Callable[..., Logger]] = {"tensorboard": TensorBoardLogger, "wandb": WandbLogger}
    return [makers[name](path, config, seeds, resume_step) for name in check_loggers(names) if name in makers]


class TensorBoardLogger:
    """One TensorBoard run per seed, in `tensorboard/seed_<k>`; a tag's step is in environment steps.

    The configuration is in the tab of hyperparameters, beside the return.
    Events are written immediately: tensorboardX's SummaryWriter leaves them to a thread, and a killed run loses the
    last ones.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], seeds: Sequence[int], resume_step: int | None):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2
        from tensorboardX.summary import hparams

        self._event, self._log, self._summary = event_pb2.Event, event_pb2.SessionLog, summary_pb2.Summary
        # Files are named by the second: the suffix keeps a resumed run from replacing its earlier file.
        suffix = "" if resume_step is None else f".from_{resume_step}"
        self._writers = {}
        for seed in seeds:
            directory = path / "tensorboard" / f"seed_{seed}"
            directory.mkdir(parents=True, exist_ok=True)
            self._writers[seed] = EventsWriter(str(directory / "events"), suffix)
            if resume_step is None:
                experiment, start, _ = hparams(as_hyperparameters({**config, "seed": seed}), {"eval/return_mean": None})
                for summary in (experiment, start):
                    self._write(seed, summary=summary)
            else:
                # TensorBoard hides the events of earlier files from this step on.
                begun = self._log(status=self._log.START)
                self._write(seed, step=resume_step + 1, session_log=begun)

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in series(row)]
            self._write(row["seed"], step=row["step"], summary=self._summary(value=values))

    def close(self, summary: Mapping[str, Any] | None) -> None:
        for writer in self._writers.values():
            writer.close()

    def _write(self, seed: int, **event: Any) -> None:
        self._writers[seed].write_event(self._event(wall_time=time.time(), **event))
        self._writers[seed].flush()


class WandbLogger:
    """One W&B run per seed, grouped under the run directory's name; its step is in environment steps.

    Project, entity and mode are W&B's own WANDB_PROJECT (or `hajax`), WANDB_ENTITY and WANDB_MODE. The runs' ids are
    kept in `wandb_ids.json`, so that a resumed run continues its series; W&B keeps the first of two rows with the same
    step.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], seeds: Sequence[int], resume_step: int | None):
        import wandb

        ids = _wandb_ids(path / WANDB_IDS, seeds, resume_step is not None)
        group = path.resolve().name
        self._runs: dict[int, Any] = {}
        try:
            for seed in seeds:
                self._runs[seed] = wandb.init(
                    project=os.environ.get("WANDB_PROJECT", "hajax"),
                    dir=os.environ.get("WANDB_DIR", str(path)),
                    group=group,
                    name=f"{group}_seed_{seed}",
                    id=ids[seed],
                    resume="allow",
                    config={**config, "seed": seed},
                    reinit="create_new",
                    # The terminal shows the progress bar; errors are still printed.
                    settings=wandb.Settings(console="off", silent=True),
                )
        except wandb.Error as error:
            self.close(None)
            raise ValueError(
                f"logger=wandb: {' '.join(str(error).split())}; allowed: after `wandb login` or with WANDB_MODE=offline"
            ) from error

    def log(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self._runs[row["seed"]].log(dict(series(row)), step=row["step"], commit=True)

    def close(self, summary: Mapping[str, Any] | None) -> None:
        for run in self._runs.values():
            run.summary.update({name: value for name, value in (summary or {}).items() if _is_plain(value)})
            run.finish(exit_code=1 if summary is None else 0)


def series(row: Row) -> Iterator[tuple[str, float]]:
    """The tags and values in a row: `eval_return_mean` is `eval/return_mean`; NaN is left out."""
    for name, value in row.items():
        if name in ("step", "seed") or isinstance(value, str | None) or math.isnan(value):
            continue
        section, _, rest = name.partition("_")
        yield (f"{section}/{rest}" if section in ("eval", "train") else name), float(value)


def as_hyperparameters(config: Mapping[str, Any]) -> dict[str, str | float | bool]:
    """A configuration as `{"algo.clip": 0.2, …}`; what is no finite number and not true or false is text."""

    def plain(value: Any) -> bool:
        return isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))

    return {name: value if plain(value) else json.dumps(value) for name, value in flat(config).items()}


def _is_installed(package: str) -> bool:
    """Whether Python can import it; a mere folder of that name, such as W&B's output, does not count."""
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _wandb_ids(path: Path, seeds: Sequence[int], resumed: bool) -> dict[int, str]:
    """An id per seed: those in the file at `path` if the run is resumed, else new ones, which are written to it."""
    known = json.loads(path.read_text(encoding="utf-8")) if resumed and path.exists() else {}
    ids = {seed: known.get(str(seed)) or secrets.token_hex(4) for seed in seeds}
    path.write_text(json.dumps(ids, indent=2) + "\n", encoding="utf-8")
    return ids
