"""`hajax train`: one run, or with `-m` a Hydra sweep of runs."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig

from hajax.cli import config
from hajax.cli.errors import Refusal, refusing
from hajax.cli.interrupt import raise_if_set, stop_on_interrupt
from hajax.cli.resume import settings_to_resume
from hajax.cli.settings import TrainSettings, as_dict, describe, validate

FAILED = 1
EXIT_CODES = {"finished": 0, "interrupted": 130, "diverged": FAILED}

USAGE = """\
usage: hajax train [-m] [NAME=VALUE ...]

  hajax train algo=happo env=mpe/simple_spread num_seeds=8 out_dir=DIR
  hajax train preset=harl/mpe algo.clip=0.1 env.num_agents=5
  hajax train out_dir=DIR resume=true                          (go on with an interrupted run, bit for bit)
  hajax train -m algo=happo,mappo,ippo seed=0,1 out_dir=DIR    (a sweep: one run after another, each in a directory
                                                               of its own under DIR)
options:
  -m, --multirun    sweep over comma-separated values; Hydra's launchers and sweepers apply
  --print-config    print the composed settings and stop
  -h, --help        this text
"""


def train(arguments: Sequence[str]) -> int:
    """Carries out `hajax train ARGUMENTS`; returns the exit code, 130 if a run was interrupted."""
    # Or JAX's runtime warns of every program that it loads from the compilation cache.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    flags = {"-h", "--help", "-m", "--multirun", "--print-config"}
    given = flags.intersection(arguments)
    overrides = [config.quoted(text) for text in arguments if text not in flags]
    if given & {"-h", "--help"}:
        print(help_text())
        return 0
    parsed = config.parse(overrides)
    if given & {"-m", "--multirun"}:
        return sweep(overrides)
    for override in parsed:
        if override.is_sweep_override():
            raise Refusal(f"{override.input_line} is a sweep; allowed: one value, or -m to run them all")
    settings = settings_to_resume(validate(config.compose(overrides)), overrides)
    if "--print-config" in given:
        print(yaml.safe_dump(as_dict(settings), sort_keys=False, allow_unicode=True), end="")
        return 0
    return EXIT_CODES[run_once(settings)["status"]]


def run_once(settings: TrainSettings) -> dict[str, Any]:
    """One run from checked settings: refuses what can't work, then trains and reports; returns the summary."""
    with stop_on_interrupt() as stop:
        # JAX is slow to import, and none of what was refused so far needs it.
        from hajax.cli.film import check_drawing
        from hajax.cli.loggers import check_loggers
        from hajax.cli.programs import build, use_compilation_cache
        from hajax.cli.report import print_start, print_summary
        from hajax.cli.run_directory import claim, default_directory, finished_summary, last_checkpoint, lock
        from hajax.cli.runner import run
        from hajax.cli.scenes import prefer_headless_rendering
        from hajax.cli.schedule import make_schedule

        raise_if_set(stop)
        use_compilation_cache(settings.compilation_cache)
        if settings.render is not False:
            prefer_headless_rendering()
        team = build(settings)
        drawn = settings.render is True or (settings.render == "auto" and team.env.draw is not None)
        with refusing():
            check_loggers(settings.logger)  # not with the other settings: a run is loaded where it isn't logged
            if drawn:
                check_drawing(team.env)
        raise_if_set(stop)
        schedule = make_schedule(
            settings.total_steps,
            team.loop.steps_per_iteration,
            settings.eval_interval,
            settings.checkpoint.interval,
            team.loop.warmup_steps,
        )
        if settings.resume:
            path = Path(settings.out_dir or "").expanduser()
        else:
            path = claim(settings.out_dir, default_directory(settings.env["name"], settings.algo["name"]))
        with lock(path):
            with refusing():
                checkpoint = last_checkpoint(path, team.loop.warmup_steps) if settings.resume else None
            print_start(settings, schedule, path, checkpoint, team)
            summary = None
            if checkpoint is not None and checkpoint.step == schedule.total_steps:
                summary = finished_summary(path, schedule.total_steps)  # nothing is left to do, nor to compile
            if summary is None:
                summary = run(settings, team, schedule, path, checkpoint, stop)
    print_summary(summary, path)
    if drawn and summary["status"] == "finished":
        from hajax.cli.render import render

        render([str(path)])
    return summary


def sweep(overrides: Sequence[str]) -> int:
    """Runs every combination of the swept values through Hydra's sweeper and launcher."""
    import hydra

    from hajax.cli.report import print_sweep
    from hajax.cli.run_directory import default_directory

    first = check_combinations(overrides)
    fixed = [o.get_key_element().lstrip("+~") for o in config.parse(overrides) if not o.is_sweep_override()]
    names = ",".join(f"'{name}'" for name in [*fixed, "out_dir"])
    out_dir = default_directory("sweep") if first.out_dir is None else Path(first.out_dir).expanduser()
    added = [f"hydra.job.config.override_dirname.exclude_keys=[{names}]", config.quoted(f"out_dir={out_dir}")]
    failed: dict[str, str] = {}

    def job(composed: DictConfig) -> None:
        name, reason = run_job(composed)
        if reason is not None:
            failed[name] = reason

    run_sweep = hydra.main(str(config.conf_dir()), config.CONFIG_NAME, config.VERSION_BASE)(job)
    with as_command_line(["hajax train", "--multirun", *overrides, *added]), config.refusing_errors(overrides):
        run_sweep()
    return FAILED if print_sweep(out_dir, failed) else 0


def check_combinations(overrides: Sequence[str]) -> TrainSettings:
    """Checks every value of a sweep, with the others at their first, before anything runs; returns the first run's."""
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


def run_job(job: DictConfig) -> tuple[str, str | None]:
    """One run of a sweep, in the directory that its swept values name; returns the name, and why it failed if it did.

    A run that could not start or crashed also leaves `error.txt` there, for launchers whose jobs are other processes.
    """
    from hydra.core.hydra_config import HydraConfig

    hydra_job = HydraConfig.get()
    composed = config.plain(job)
    # `env=module:function` and `env=mpe/simple_spread` as a directory's name, without the escapes of Hydra's grammar.
    name = re.sub(r"[/:]", "-", hydra_job.job.override_dirname.replace("\\", "")) or f"job={hydra_job.job.num}"
    path = Path(composed["out_dir"]) / name
    error, was_there = path / "error.txt", (path / "config.yaml").exists()
    try:
        error.unlink(missing_ok=True)
        settings = validate(composed | {"out_dir": str(path)})
        status = run_once(settings_to_resume(settings, list(hydra_job.overrides.task)))["status"]
    except Exception as failure:
        reason = str(failure) if isinstance(failure, Refusal) else f"{type(failure).__name__}: {failure}"
        print(f"hajax train: {name}: {reason}", file=sys.stderr)
        details = "" if isinstance(failure, Refusal) else f"\n{traceback.format_exc()}"
        if not (was_there and isinstance(failure, Refusal)):  # a run that was there before stays as it is
            with contextlib.suppress(OSError):
                path.mkdir(parents=True, exist_ok=True)
                error.write_text(f"{reason}\n{details}", encoding="utf-8")
        return name, reason
    if status == "interrupted":
        raise KeyboardInterrupt
    return name, "diverged" if status == "diverged" else None


@contextlib.contextmanager
def as_command_line(argv: list[str]) -> Iterator[None]:
    """`hydra.main` reads `sys.argv`; with full errors it raises instead of exiting with a page of text."""
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


def help_text() -> str:
    """Usage, every setting with its default, and what the groups offer."""
    rows = describe()
    wide = max(len(f"{name}={default}") for name, default, _ in rows)
    settings = "\n".join(f"  {f'{name}={default}':<{wide}}  {doc}" for name, default, doc in rows if name != "preset")
    groups = "\n".join(f"  {group + '=':<{wide}}  {', '.join(config.options(group))}" for group in config.GROUPS)
    own = f"  {'algo.NAME=, env.NAME=':<{wide}}  their own settings, as `hajax train --print-config` shows them"
    return f"{USAGE}\ngroups:\n{groups}\n{own}\n\nsettings:\n{settings}"
