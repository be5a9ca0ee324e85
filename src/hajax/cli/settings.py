"""The settings of `hajax train`, typed: what each one is, may be, and does. Validation and help come from here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hajax.cli.errors import Refusal, unknown_key


def _setting(default: Any, kind: str, doc: str, low: int | None = None, high: int | None = None) -> Any:
    return dataclasses.field(default=default, metadata={"kind": kind, "doc": doc, "low": low, "high": high})


@dataclasses.dataclass(frozen=True)
class EvalSettings:
    """How policies are evaluated."""

    episodes: int = _setting(100, "int", "episodes per evaluation and seed", low=1)
    max_steps: int | None = _setting(
        None, "int?", "steps after which an episode is cut; null: the environment's limit", 1
    )
    stochastic: bool = _setting(False, "bool", "also evaluate with sampled actions (columns eval_stochastic_*)")


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """A training run. `algo` and `env` are a name and its options, checked by `make_algorithm` and `make_env`."""

    algo: dict[str, Any]
    env: dict[str, Any]
    eval: EvalSettings
    preset: str | None = _setting(None, "str?", "a tuned schedule from a paper or code base")
    seed: int = _setting(0, "int", "the first seed; seed k of the run is seed + k", low=0, high=2**31 - 1)
    num_seeds: int = _setting(4, "int", "independent seeds, trained together by vmap", low=1)
    total_steps: int = _setting(1_000_000, "int", "environment steps per seed, rounded up to whole iterations", low=1)
    num_envs: int = _setting(20, "int", "parallel environments per seed", low=1)
    rollout_length: int = _setting(200, "int", "steps in each environment between updates", low=1)
    eval_interval: int | None = _setting(
        None, "int?", "environment steps between evaluations; null: about 20 in all", 1
    )
    lr_decay: bool = _setting(False, "bool", "let learning rates fall linearly to 0 over the run")
    out_dir: str | None = _setting(None, "str?", "the run directory; null: runs/<env>_<algo>_<time>")
    compilation_cache: bool | str = _setting(
        True, "bool|str", "keep compiled programs: true (in the user's cache), false, or a directory"
    )
    progress: bool = _setting(True, "bool", "show progress while training")


KINDS = {
    "int": "a whole number",
    "bool": "true or false",
    "bool|str": "true, false or a directory",
    "str": "text",
}


def validate(config: Mapping[str, Any]) -> TrainSettings:
    """The settings in a composed configuration; `Refusal` names the first field that is unknown or wrong."""
    algo, env = _mapping("algo", config), _mapping("env", config)
    fields = {f.name: f for f in dataclasses.fields(TrainSettings)}
    _refuse_unknown("", config, fields)
    evaluation = _mapping("eval", config)
    eval_fields = {f.name: f for f in dataclasses.fields(EvalSettings)}
    _refuse_unknown("eval.", evaluation, eval_fields)
    values = {
        name: checked(name, config[name], **_bounds(f)) for name, f in fields.items() if name in config and f.metadata
    }
    evals = {
        name: checked(f"eval.{name}", evaluation[name], **_bounds(f))
        for name, f in eval_fields.items()
        if name in evaluation
    }
    settings = TrainSettings(algo=algo, env=env, eval=EvalSettings(**evals), **values)
    if settings.seed + settings.num_seeds > 2**31:
        raise Refusal(
            f"seed={settings.seed}; allowed: at most {2**31 - settings.num_seeds} with num_seeds={settings.num_seeds}"
        )
    return settings


def checked(name: str, value: Any, kind: str, low: float | None = None, high: float | None = None) -> Any:
    """`value` as the kind says (an integral float is a whole number), or a `Refusal` naming field, value, allowed."""
    base = kind.removesuffix("?")
    if value is None and kind.endswith("?"):
        return None
    if base == "int" and isinstance(value, float) and value.is_integer():
        value = int(value)
    if base == "str" and type(value) is int:  # a directory called 42
        value = str(value)
    is_bool = isinstance(value, bool)
    fits = {
        "int": isinstance(value, int) and not is_bool,
        "bool": is_bool,
        "bool|str": is_bool or (isinstance(value, str) and value != ""),
        "str": isinstance(value, str) and value != "",
    }[base]
    above = low is None or (fits and value >= low)
    below = high is None or (fits and value <= high)
    if fits and above and below:
        return value
    bounds = (f" >= {low}" if low is not None else "") + (f" and <= {high}" if high is not None else "")
    raise Refusal(f"{name}={_shown(value)}; allowed: {KINDS[base]}{bounds}{' or null' if kind.endswith('?') else ''}")


def describe() -> list[tuple[str, str, str]]:
    """`(name, default, what it does)` of every setting, for help."""
    rows = [(f.name, f.default, f.metadata["doc"]) for f in dataclasses.fields(TrainSettings) if f.metadata]
    rows += [(f"eval.{f.name}", f.default, f.metadata["doc"]) for f in dataclasses.fields(EvalSettings)]
    return [(name, _shown(default), doc) for name, default, doc in rows]


def _shown(value: Any) -> str:
    """As the user would write it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


def _bounds(field: dataclasses.Field) -> dict[str, Any]:
    return {name: field.metadata[name] for name in ("kind", "low", "high")}


def _mapping(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    value = config.get(name)
    if not isinstance(value, Mapping):
        raise Refusal(f"{name}={_shown(value)}; allowed: a group of settings, such as {name}.… in `hajax train --help`")
    return dict(value)


def _refuse_unknown(prefix: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for key, value in given.items():
        if key not in known:
            raise Refusal(unknown_key(f"{prefix}{key}", _shown(value), [f"{prefix}{name}" for name in known]))
