"""Resuming a run: its settings, the few that may differ, and its last checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hajax.runs import config
from hajax.runs.errors import Refusal, refusing, shown, unknown_key, user_path
from hajax.runs.settings import TrainSettings, as_dict, validate

# Settings that do not affect results, and the length of the run, which may increase.
FREE = (
    "checkpoint",
    "compilation_cache",
    "devices",
    "distributed",
    "logger",
    "on_non_finite",
    "out_dir",
    "progress",
    "render",
    "resume",
    "shard",
    "total_steps",
)
MISSING = object()


def read_settings(run_dir: Path) -> TrainSettings:
    """The settings that a run was started with, from its `config.yaml`."""
    from hajax.training.checkpoints import check_format  # imports JAX, which nothing else here needs

    file = run_dir / "config.yaml"
    try:
        saved = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Refusal(f"{file} can't be read; allowed: the config.yaml that `hajax train` wrote") from error
    if not isinstance(saved, dict):
        raise Refusal(f"{file} holds no settings; allowed: the config.yaml that `hajax train` wrote")
    with refusing():  # before its settings, whose names another format may not have
        check_format(run_dir / "checkpoints")
    try:
        return validate(saved)
    except Refusal as refusal:
        raise Refusal(f"{file}: {refusal}") from refusal


def without_options_of_run(overrides: Sequence[str]) -> list[str]:
    """The overrides without those that repeat the algorithm's and environment's options of the run that they resume.

    They are options of its algorithm and environment, which the other overrides need not name.

    Raises:
        Refusal: an option has another value than in the run, or the run has no such option.
    """
    parsed = config.parse(overrides)
    given = {override.key_or_group: override.value() for override in parsed}
    directory = user_path(str(given["out_dir"])) if given.get("out_dir") else None
    if given.get("resume") not in (True, "auto") or directory is None or not (directory / "config.yaml").exists():
        return list(overrides)
    saved, kept = as_dict(read_settings(directory)), []
    for text, override in zip(overrides, parsed, strict=True):
        key, value = override.key_or_group, override.value()
        group = key.partition(".")[0]
        own = group in ("algo", "env") and "." in key and not {group, "preset"} & set(given)
        if not own or override.is_delete() or override.is_sweep_override() or "${" in str(value):
            kept.append(text)
        elif (old := look_up(saved, key)) is MISSING:
            raise Refusal(unknown_key(key, shown(value), [f"{group}.{name}" for name in saved[group]]))
        elif old != value:
            raise Refusal(_changed(directory, key, value, old))
    return kept


def settings_to_resume(settings: TrainSettings, overrides: Sequence[str]) -> TrainSettings:
    """The settings of the run in `out_dir` with the overrides that are allowed; `settings` unchanged if it is new.

    Settings that are not given keep the values that the run was started with. Given ones must equal these or be free.

    Raises:
        Refusal: `resume=true` without a run to resume, or a setting that may not change.
    """
    if settings.resume is False:
        return settings
    directory = None if settings.out_dir is None else user_path(settings.out_dir)
    if directory is None:
        raise Refusal(f"resume={shown(settings.resume)} with out_dir=null; allowed: out_dir=DIR, a run's directory")
    if not (directory / "config.yaml").exists():
        if settings.resume == "auto":
            return dataclasses.replace(settings, resume=False)
        raise Refusal(f"out_dir={directory} holds no run; allowed with resume=true: the directory of a run")
    saved = read_settings(directory)
    before, given = as_dict(saved), as_dict(settings)
    for key in given_keys(overrides):
        if key.split(".")[0] in FREE:
            continue
        old, new = look_up(before, key), look_up(given, key)
        if old != new:
            raise Refusal(_changed(directory, key, new, old))
    return dataclasses.replace(saved, **free_values(settings, saved, overrides))


def free_values(settings: TrainSettings, saved: TrainSettings, overrides: Sequence[str]) -> dict[str, Any]:
    """The values of the settings that may differ from those that the run was started with, checked."""
    given = [key for key in given_keys(overrides) if key.split(".")[0] in FREE]
    free = {name: getattr(settings, name) for name in given if "." not in name}
    parts = [name.removeprefix("checkpoint.") for name in given if name.startswith("checkpoint.")]
    changed = {part: getattr(settings.checkpoint, part) for part in parts}
    before, after = saved.total_steps, free.get("total_steps", saved.total_steps)
    if after < before:
        raise Refusal(f"total_steps={after}; allowed with resume=true: at least {before}, the run's own")
    if after > before and saved.lr_decay:
        raise Refusal(f"total_steps={after}; allowed with lr_decay=true: {before}, over which learning rates decay")
    if after > before and saved.population:
        raise Refusal(
            f"total_steps={after}; allowed with pbt.interval={saved.pbt.interval}: {before}, where nothing is selected"
        )
    checkpoint = dataclasses.replace(saved.checkpoint, **changed)
    return free | {"checkpoint": checkpoint, "resume": True, "out_dir": settings.out_dir}


def given_keys(overrides: Sequence[str]) -> list[str]:
    """The settings that overrides name; `algo=…` and `env=…` are `algo.name` and `env.name`."""
    keys = [override.key_or_group for override in config.parse(overrides)]
    return [f"{key}.name" if key in ("algo", "env") else key for key in keys]


def look_up(values: Mapping[str, Any], key: str) -> Any:
    """The entry `a.b.c` of nested dictionaries, or `MISSING`."""
    for part in key.split("."):
        if not isinstance(values, Mapping) or part not in values:
            return MISSING
        values = values[part]
    return values


def _changed(directory: Path, key: str, new: Any, old: Any) -> str:
    return (
        f"{key}={_value(new)}, but the run in {directory} was started with {key}={_value(old)}; "
        "allowed with resume=true: the same value, or another out_dir"
    )


def _value(value: Any) -> str:
    return "nothing" if value is MISSING else shown(value)
