"""`hajax train`: one run, or with `-m` a Hydra sweep of runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from hajax.cli.sweep import sweep
from hajax.runs import config
from hajax.runs.errors import Refusal, refusing
from hajax.runs.interrupt import raise_if_set, stop_on_interrupt
from hajax.runs.resume import settings_to_resume
from hajax.runs.settings import TrainSettings, as_dict, describe, validate

EXIT_CODES = {"finished": 0, "interrupted": 130, "diverged": 1}

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
    flags = {"-h", "--help", "-m", "--multirun", "--print-config"}
    given = flags.intersection(arguments)
    overrides = [config.quoted(text) for text in arguments if text not in flags]
    if given & {"-h", "--help"}:
        print(help_text())
        return 0
    parsed = config.parse(overrides)
    if given & {"-m", "--multirun"}:
        return sweep(overrides, lambda settings, task: run_once(settings_to_resume(settings, task)))
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
        from hajax.cli.report import print_start, print_summary, printing_warnings
        from hajax.runs.directory import claim, finished_summary, last_checkpoint
        from hajax.runs.files import read_run
        from hajax.runs.loggers import check_loggers
        from hajax.runs.machine import check_device, use_compilation_cache
        from hajax.runs.programs import build
        from hajax.runs.runner import run
        from hajax.runs.schedule import make_schedule
        from hajax.viewing.curve import draw_curve
        from hajax.viewing.film import check_drawing
        from hajax.viewing.scenes import prefer_headless_rendering

        raise_if_set(stop)
        check_device()
        use_compilation_cache(settings.compilation_cache)
        if settings.render is not False:
            prefer_headless_rendering()
        with printing_warnings():
            team = build(settings)
        drawn = settings.render is True or (settings.render == "auto" and team.env.viewer is not None)
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
        default = (settings.env["name"], settings.algo["name"])
        with claim(settings.out_dir, default, resume=bool(settings.resume)) as path:
            with refusing():
                checkpoint = last_checkpoint(path, team.loop.warmup_steps) if settings.resume else None
            print_start(settings, schedule, path, checkpoint, team)
            summary = None
            if checkpoint is not None and checkpoint.step == schedule.total_steps:
                summary = finished_summary(path, schedule.total_steps)  # nothing is left to do, nor to compile
            if summary is None:
                summary = run(settings, team, schedule, path, checkpoint, stop)
                draw_curve(path / "curve.png", read_run(path))
    print_summary(summary, path)
    if drawn and summary["status"] == "finished":
        from hajax.cli.render import render

        render([str(path)])
    return summary


def help_text() -> str:
    """Usage, every setting with its default, and what the groups offer."""
    rows = describe()
    wide = max(len(f"{name}={default}") for name, default, _ in rows)
    settings = "\n".join(f"  {f'{name}={default}':<{wide}}  {doc}" for name, default, doc in rows if name != "preset")
    groups = "\n".join(f"  {group + '=':<{wide}}  {', '.join(config.options(group))}" for group in config.GROUPS)
    own = f"  {'algo.NAME=, env.NAME=':<{wide}}  their own settings, as `hajax train --print-config` shows them"
    return f"{USAGE}\ngroups:\n{groups}\n{own}\n\nsettings:\n{settings}"
