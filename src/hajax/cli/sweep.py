"""`hajax train -m`: a run for every combination of the swept values, each in its own directory."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import math
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from hajax.runs import config
from hajax.runs.errors import BESIDE, Refusal, RunError, machine_limit, shown, user_path
from hajax.runs.settings import TrainSettings, validate

# The longest value, and the longest name of a directory, in characters. File systems allow 255 bytes.
LONGEST_VALUE, LONGEST_NAME = 40, 120
# Settings of Optuna's sweeper.
DIRECTION, SEARCHED = "hydra.sweeper.direction", ("hydra.sweeper.params", "hydra.sweeper.custom_search_space")


class Swept(NamedTuple):
    """A swept setting: its name in the names of directories, and the names of its values there."""

    short: str
    names: dict[str, str]  # of the listed values, by the values as typed


def sweep(overrides: Sequence[str], run_once: Callable[[TrainSettings, Sequence[str]], Mapping[str, Any]]) -> int:
    """Runs every combination of the swept values through Hydra's sweeper and launcher; returns 1 if a run failed."""
    import hydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from hajax.cli.sweep_report import report_sweep
    from hajax.runs.directory import new_directory

    overrides = searching(overrides)
    first = check_combinations(overrides)
    out_dir = new_directory("sweep") if first.out_dir is None else user_path(first.out_dir)
    added = [config.quoted(f"out_dir={out_dir}")]
    swept = swept_settings(overrides)
    names, ended = expected_names(overrides, swept), None

    def job(composed: DictConfig) -> float:
        return run_job(composed, swept, run_once, numbered=names is None)

    run_sweep = hydra.main(str(config.conf_dir()), config.CONFIG_NAME, config.VERSION_BASE)(job)
    with (
        sharing_cores(overrides, names),
        as_command_line(["hajax train", "--multirun", *config.for_hydra(overrides), *added]),
        config.refusing_errors(overrides),
    ):
        try:
            run_sweep()
        except (Refusal, HydraException, OmegaConfBaseException):
            raise
        except Exception as failure:  # a launcher's: `run_job` catches those of runs
            ended = f"{type(failure).__name__}: {str(failure).strip().splitlines()[0] if str(failure).strip() else ''}"
    again = None
    if names is not None:  # another search draws other values
        kept = (text for text in overrides if not text.startswith(("out_dir=", "resume=")))
        again = shlex.join(["hajax", "train", "-m", *kept, f"out_dir={out_dir}", "resume=auto"])
    unsuccessful = report_sweep(out_dir, names, again)
    if ended is not None:
        print(f"hajax train: the launcher ended the sweep ({ended})", file=sys.stderr)
    return 1 if unsuccessful or ended else 0


def searching(overrides: Sequence[str]) -> list[str]:
    """The overrides, with which Optuna maximizes unless it is told otherwise: returns are better if they are larger."""
    given = {override.get_key_element().lstrip("+"): override for override in config.parse(overrides)}
    if "hydra/sweeper" not in given or given["hydra/sweeper"].value() != "optuna":
        return list(overrides)
    if not any(key.startswith(SEARCHED) or override.is_sweep_override() for key, override in given.items()):
        raise Refusal(
            "hydra/sweeper=optuna with nothing to search; allowed: with a range or a choice, as "
            "'algo.actor_lr=tag(log, interval(1e-5, 1e-2))'"
        )
    return [*overrides, *([] if DIRECTION in given else [f"{DIRECTION}=maximize"])]


def check_combinations(overrides: Sequence[str]) -> TrainSettings:
    """Checks every value of a sweep before any run, each with the first of the others; returns the first settings."""
    choices = []
    for override in config.parse(overrides):
        key = override.get_key_element()
        if override.is_sweep_override() and override.is_discrete_sweep():
            choices.append([f"{key}={value}" for value in override.sweep_string_iterator()])
        elif not override.is_sweep_override():
            choices.append([override.input_line or ""])
    first = [values[0] for values in choices]
    settings = validate(config.compose(first))
    for position, values in enumerate(choices):
        for value in values[1:]:
            validate(config.compose([*first[:position], value, *first[position + 1 :]]))
    return settings


def swept_settings(overrides: Sequence[str]) -> dict[str, Swept]:
    """The settings that the overrides sweep, by their names as typed."""
    # As in Hydra, the last value of a setting counts, at the place of the first.
    given = {override.get_key_element(): override for override in config.parse(overrides)}
    sweeps = {key.lstrip("+~"): override for key, override in given.items() if override.is_sweep_override()}
    last = [key.rpartition(".")[2] for key in sweeps]
    found = {}
    for (key, override), short in zip(sweeps.items(), last, strict=True):
        names: dict[str, str] = {}
        for text in override.sweep_string_iterator() if override.is_discrete_sweep() else ():
            name = value_name(key, text)
            taken = {other.lower() for other in names.values()}  # some file systems ignore case
            names[text] = f"{name}-{_digest(text)}" if name.lower() in taken else name
        found[key] = Swept(short if last.count(short) == 1 else key, names)
    return found


def value_name(key: str, text: str) -> str:
    """A value as part of a directory's name, without characters special to a shell: `[8,16]` is `8-16`."""
    value = config.parse([f"{key}={text}"])[0].value()
    name = text if isinstance(value, int | float) and not isinstance(value, bool) else _plain(value)
    return name if len(name) <= LONGEST_VALUE else f"{name[:LONGEST_VALUE]}-{_digest(text)}"


def run_name(task: Sequence[str], swept: Mapping[str, Swept]) -> str:
    """The name of the run with these overrides, `key=value` each: its swept values, `algo=happo,hidden_sizes=8-16`."""
    parts = []
    for override in task:
        key, _, text = override.partition("=")
        if (setting := swept.get(key.lstrip("+~"))) is not None:
            parts.append(f"{setting.short}={setting.names.get(text) or value_name(key.lstrip('+~'), text)}")
    name = ",".join(parts)
    return name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}-{_digest(name)}"


def expected_names(overrides: Sequence[str], swept: Mapping[str, Swept]) -> set[str] | None:
    """The names of all runs, if all values are listed; `None` if a sweeper draws some, or is another than Hydra's."""
    parsed = config.parse(overrides)
    if any(override.get_key_element().startswith(("hydra/sweeper", "hydra.sweeper")) for override in parsed):
        return None
    if not swept:
        return {"job=0"}
    if not all(override.is_discrete_sweep() for override in parsed if override.is_sweep_override()):
        return None
    tasks = itertools.product(*([f"{key}={text}" for text in setting.names] for key, setting in swept.items()))
    return {run_name(task, swept) for task in tasks}


def run_job(
    job: DictConfig,
    swept: Mapping[str, Swept],
    run_once: Callable[[TrainSettings, Sequence[str]], Mapping[str, Any]],
    numbered: bool = False,
) -> float:
    """One run of a sweep, in the directory named by its swept values; returns its score.

    The score is the mean return over the seeds at the end. Without one it is the worst that a sweeper could be told.

    A run that could not start or crashed writes `error.txt` into its directory, or `NAME.error.txt` beside it if a run
    was there, which is left as it is. Jobs may be other processes, whose errors are found by these files.

    Args:
        job: the settings as composed.
        swept: the swept settings.
        run_once: trains.
        numbered: whether the name begins with the number of the job, since drawn values may be drawn again.
    """
    from hydra.core.hydra_config import HydraConfig

    hydra_job = HydraConfig.get()
    composed, task = config.plain(job), list(hydra_job.overrides.task)
    number, values = f"job={hydra_job.job.num}", run_name(task, swept)
    name = ",".join(filter(None, [number, values])) if numbered or not values else values
    path = Path(composed["out_dir"]) / name
    error, was_there = path / "error.txt", (path / "config.yaml").exists()
    beside = path.with_name(f"{name}{BESIDE}")
    # Of Optuna; other sweepers have no direction. It takes infinite values, but no NaN.
    worst = math.inf if "minimize" in str(hydra_job.sweeper.get("direction", "")).lower() else -math.inf
    try:
        for file in (error, beside):
            with contextlib.suppress(NotADirectoryError):
                file.unlink(missing_ok=True)
        summary = run_once(validate(composed | {"out_dir": str(path)}), task)
        if summary["status"] == "interrupted":
            raise KeyboardInterrupt
    except KeyboardInterrupt:  # also before the run's start
        requeue(composed["resume"])
        raise
    except Exception as failure:
        known = str(failure) if isinstance(failure, Refusal | RunError) else machine_limit(failure)
        reason = known or f"{type(failure).__name__}: {failure}"
        print(f"hajax train: {name}: {reason}", file=sys.stderr)
        details = "" if known else f"\n{traceback.format_exc()}"
        with contextlib.suppress(OSError):
            if (was_there and isinstance(failure, Refusal)) or (path.exists() and not path.is_dir()):
                error = beside
            error.parent.mkdir(parents=True, exist_ok=True)
            error.write_text(f"{reason}\n{details}", encoding="utf-8")
        return worst
    mean = summary["eval_return"]["mean"]
    return worst if mean is None or not math.isfinite(mean) else mean


def requeue(resume: bool | str) -> None:
    """In a job of submitit: ends it, saved as it is, and queues it anew; elsewhere does nothing.

    submitit does that when its own signal comes. A run handles that signal, and others, by saving and stopping.
    """
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return
    if resume is False:
        print("hajax train: the job is not queued anew: resume=auto, which it needs, was not given", file=sys.stderr)
        return
    import submitit

    signal.raise_signal(submitit.JobEnvironment._usr_sig())  # handled by submitit again, now that the run is over


@contextlib.contextmanager
def sharing_cores(overrides: Sequence[str], names: Collection[str] | None) -> Iterator[None]:
    """While it lasts, the processes of a launcher on this machine take an equal share of its cores each.

    XLA has as many threads as `NPROC` says, by default one for each core.
    """
    from hajax.runs.devices import cores

    launcher = config.launcher(overrides)
    kind, all_cores = launcher["_target_"].rpartition(".")[2], cores()
    if kind == "JoblibLauncher":  # -1 is one for each core, -2 one less, …
        at_once = launcher["n_jobs"] if launcher["n_jobs"] > 0 else max(1, all_cores + 1 + launcher["n_jobs"])
    else:
        at_once = all_cores if kind == "LocalLauncher" else 1
    at_once = min(at_once, all_cores if names is None else len(names))
    if at_once == 1 or "NPROC" in os.environ:
        yield
        return
    os.environ["NPROC"] = str(max(1, all_cores // at_once))
    try:
        yield
    finally:
        del os.environ["NPROC"]


@contextlib.contextmanager
def as_command_line(argv: list[str]) -> Iterator[None]:
    """Sets `sys.argv`, which `hydra.main` reads; with full errors it raises instead of printing and exiting."""
    old_argv, old_errors = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = argv, "1"
    try:
        yield
    finally:
        sys.argv = old_argv
        if old_errors is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = old_errors


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "-".join(f"{_plain(key)}={_plain(entry)}" for key, entry in value.items()) or "empty"
    if isinstance(value, list | tuple):
        return "-".join(map(_plain, value)) or "empty"
    text = re.sub(r"[/:]", "-", shown(value))
    return re.sub(r"[^\w.+-]", "_", text, flags=re.ASCII) or "empty"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:6]
