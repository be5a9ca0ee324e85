"""`hajax train`: one run, or with `-m` a Hydra sweep of runs."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from hajax.cli.sweep import sweep
from hajax.runs import config, hosts, nodes
from hajax.runs.errors import Refusal, flat, refusing, shown, user_path
from hajax.runs.interrupt import raise_if_set, stop_on_interrupt
from hajax.runs.resume import settings_to_resume, without_options_of_run
from hajax.runs.settings import Described, TrainSettings, as_dict, describe, validate

EXIT_CODES = {"finished": 0, "interrupted": 130, "diverged": 1}
# Settings of a run of its own, which a sweep does not take, with the value that turns them off.
ALONE = {"distributed": False, "vmap": None}

USAGE = """\
usage: hajax train [-m] [NAME=VALUE ...]

  hajax train algo=happo env=mpe/simple_spread num_seeds=8 out_dir=DIR
  hajax train preset=harl/mpe algo.clip=0.1 env.num_agents=5
  hajax train out_dir=DIR resume=true
      resumes an interrupted run, bit for bit
  hajax train vmap='{actor_lr: [1e-4, 5e-4], clip: [0.1, 0.2]}'
      every combination in one program, then a table and a plot
  hajax train -m algo=happo,mappo,ippo seed=0,4 out_dir=DIR
      a sweep: one run after another, each in its own directory under DIR; then
      a table and curves

options:
  -m, --multirun    sweep over comma-separated values; Hydra's launchers and
                    sweepers apply
  --print-config    print the composed settings and stop
  -h, --help        this text; with algo=NAME, env=NAME or preset=NAME every
                    setting of theirs\
"""


def train(arguments: Sequence[str]) -> int:
    """Runs `hajax train ARGUMENTS` and returns the exit code, 130 if a run was interrupted."""
    flags = {"-h", "--help", "-m", "--multirun", "--print-config"}
    given = flags.intersection(arguments)
    overrides = [config.quoted(text) for text in arguments if text not in flags]
    if given & {"-h", "--help"}:
        parsed = config.parse(overrides)
        print(help_text([str(override.input_line) for override in parsed if not override.is_sweep_override()]))
        return 0
    parsed = config.parse(overrides)
    if given & {"-m", "--multirun"}:
        if "--print-config" in given:
            raise Refusal("--print-config with -m; allowed: the settings of one run, without -m")
        for override in parsed:
            if ALONE.get(override.get_key_element().lstrip("+"), override.value()) != override.value():
                raise Refusal(f"{override.input_line} with -m; allowed: a run of its own, without -m")
        return sweep(overrides, lambda settings, task: run_once(settings_to_resume(settings, task)))
    for override in parsed:
        if override.is_sweep_override():
            raise Refusal(f"{override.input_line} is a sweep; allowed: one value, or -m to run them all")
    others = without_options_of_run(overrides)
    settings = settings_to_resume(validate(config.compose(others)), others)
    if "--print-config" in given:
        print(yaml.safe_dump(as_dict(settings), sort_keys=False, allow_unicode=True), end="")
        return 0
    return EXIT_CODES[run_once(settings)["status"]]


def run_once(settings: TrainSettings) -> dict[str, Any]:
    """One run from checked settings: further checks, training and report; returns the summary."""
    with stop_on_interrupt() as stop, hosts.together(settings.distributed):
        # JAX is slow to import, and not needed for the checks so far.
        from hajax.cli.grid_report import report_grid
        from hajax.cli.report import print_start, print_summary, printing_warnings
        from hajax.runs.devices import make_mesh, provide_devices
        from hajax.runs.directory import finished_summary
        from hajax.runs.files import read_run
        from hajax.runs.loggers import check_loggers
        from hajax.runs.machine import check_device, use_compilation_cache
        from hajax.runs.runner import run
        from hajax.runs.schedule import make_schedule
        from hajax.runs.team import build, decided
        from hajax.runs.trials import check_points
        from hajax.viewing.curve import draw_curve
        from hajax.viewing.film import check_drawing
        from hajax.viewing.scenes import prefer_headless_rendering

        if not hosts.joined():  # several processes stop together, after the first slice
            raise_if_set(stop)
        provide_devices(settings)
        check_device()
        hosts.check_same(flat(as_dict(settings)))
        use_compilation_cache(settings.compilation_cache)
        if settings.render is not False:
            prefer_headless_rendering()
        settings = decided(settings)
        with printing_warnings():
            team = build(settings)
            grid = check_points(settings, team)
        first = hosts.is_first()
        mesh = make_mesh(settings, team.env)
        if grid and settings.render is True:
            raise Refusal("render=true with vmap; allowed: false, and `hajax render` of a point's directory afterwards")
        wanted = settings.render is True or (settings.render == "auto" and team.env.viewer is not None)
        drawn = first and wanted and not grid
        with refusing():
            check_loggers(settings.logger)  # not with the other settings: a run may be loaded without its loggers
            if drawn:
                check_drawing(team.env)
        if not hosts.joined():
            raise_if_set(stop)
        schedule = make_schedule(
            settings.total_steps,
            team.loop.steps_per_iteration,
            settings.eval_interval,
            settings.checkpoint.interval,
            team.loop.warmup_steps,
            settings.pbt.interval,
        )
        if settings.population and not schedule.select_after:
            given = f"pbt.interval={settings.pbt.interval} with total_steps={settings.total_steps}"
            raise Refusal(f"{given}; allowed: less, so that something is selected before the end")
        default = (settings.env["name"], settings.algo["name"])
        with begun(settings, default, team.loop.warmup_steps) as (path, checkpoint):
            if first:
                print_start(settings, schedule, path, checkpoint, team, mesh)
            summary = None
            if checkpoint is not None and checkpoint.step == schedule.total_steps:
                summary = finished_summary(path, schedule.total_steps)  # nothing is left to do or to compile
            if summary is None:
                summary = run(settings, team, schedule, path, checkpoint, stop, mesh, grid)
                if first and not grid:
                    draw_curve(path / "curve.png", read_run(path))
    if first:
        (report_grid if grid else print_summary)(summary, path)
    if drawn and summary["status"] == "finished":
        from hajax.cli.render import render

        render([str(path)])
    return summary


@contextmanager
def begun(settings: TrainSettings, default: Sequence[str], warmup_steps: int) -> Iterator[tuple[Path, Any]]:
    """The run's directory, and the checkpoint from which it goes on, if there is one; the same for all its processes.

    The first process claims the directory. What it refuses ends all of them.
    """
    from hajax.runs.directory import claim, last_checkpoint
    from hajax.training.checkpoints import read_checkpoint

    if not hosts.is_first():
        path, step = user_path(settings.out_dir or "."), hosts.from_first(-1)
        if step == hosts.REFUSED:
            raise Refusal("the first process has refused the run; see its error")
        with refusing():
            checkpoint = read_checkpoint(path / "checkpoints", step) if step >= 0 else None
        yield path, checkpoint
        return
    with ExitStack() as stack:
        try:
            path = stack.enter_context(claim(settings.out_dir, default, resume=bool(settings.resume)))
            with refusing():
                checkpoint = last_checkpoint(path, warmup_steps) if settings.resume else None
        except Refusal:
            hosts.from_first(hosts.REFUSED)
            raise
        hosts.from_first(-1 if checkpoint is None else checkpoint.step)
        yield path, checkpoint


def help_text(overrides: Sequence[str] = ()) -> str:
    """Usage and every setting of a run; then the options of the groups, or with overrides the selected settings.

    With overrides, values are those that the run would have.
    """
    parts = {"settings of a run": describe()}
    if overrides:
        parts |= _of_groups(values := config.compose(overrides))
        composed = dict(config.flat(values))
        parts = {
            name: [row._replace(default=composed.get(row.name, row.default)) for row in rows]
            for name, rows in parts.items()
        }
    else:
        parts["groups, which have their own settings"] = [
            Described(group, "NAME", "", ", ".join(config.options(group))) for group in config.GROUPS
        ]
    return "\n\n".join([USAGE, *(f"{name}:\n{_listed(rows)}" for name, rows in parts.items())])


def _of_groups(settings: Mapping[str, Any]) -> dict[str, list[Described]]:
    """The settings of the run's algorithm and environment, by their names."""
    from hajax.runs.reference import algorithm_rows, environment_rows  # imports JAX

    algo, env = settings["algo"], settings["env"]["name"]
    parts = {part: algo[part] for part in nodes.parts_of(algo["name"])}
    rows = {f"settings of {algo['name']}": algorithm_rows(algo["name"], **parts)}
    return rows | {f"options of {env}": environment_rows(env)}


def _listed(rows: Sequence[Described]) -> str:
    """A paragraph for each setting: value, meaning and allowed values."""
    named = [(f"  {row.name}={shown(row.default)}", row) for row in rows]
    indent = min(max(len(name) for name, _ in named), 40) + 2
    wrap = textwrap.TextWrapper(
        max(shutil.get_terminal_size().columns, 80), subsequent_indent=" " * indent, break_on_hyphens=False
    )
    lines = []
    for name, row in named:
        allowed = f" [{row.allowed}]" if row.allowed else ""
        lines.append(wrap.fill(f"{name:<{indent}}{row.text}{allowed}"))
    return "\n".join(lines)
