"""The settings of `hajax train`, typed: what each one is, may be, and does. Validation and help come from here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from hajax.runs.errors import Refusal, refusing, shown, unknown_key
from hajax.runs.loggers import PACKAGES, check_names
from hajax.validation import MOST


def _setting(default: Any, kind: str, doc: str, low: int | None = None, high: int | None = None) -> Any:
    return dataclasses.field(default=default, metadata={"kind": kind, "doc": doc, "low": low, "high": high})


@dataclasses.dataclass(frozen=True)
class EvalSettings:
    """How policies are evaluated."""

    episodes: int = _setting(100, "int", "episodes per evaluation and seed", low=1, high=MOST)
    max_steps: int | None = _setting(
        None, "int?", "steps after which an episode is cut; null: the environment's limit", 1, MOST
    )
    stochastic: bool = _setting(False, "bool", "also evaluate with sampled actions (columns eval_stochastic_*)")


@dataclasses.dataclass(frozen=True)
class CheckpointSettings:
    """When checkpoints are written, and how many stay."""

    interval: int | None = _setting(
        None, "int?", "environment steps between checkpoints; null: one after each evaluation", low=1
    )
    keep: int = _setting(3, "int", "checkpoints kept, the newest", low=1, high=MOST)
    replay: bool = _setting(
        True, "bool", "keep the replay in checkpoints; without it a resumed run begins with a new one"
    )


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """A training run. `algo` and `env` are a name and its options, checked by `make_algorithm` and `make_env`."""

    algo: dict[str, Any]
    env: dict[str, Any]
    eval: EvalSettings
    checkpoint: CheckpointSettings
    preset: str | None = _setting(None, "str?", "a tuned schedule from a paper or code base")
    seed: int = _setting(0, "int", "the first seed; seed k of the run is seed + k", low=0, high=2**31 - 1)
    num_seeds: int = _setting(4, "int", "independent seeds, trained together by vmap", low=1, high=MOST)
    total_steps: int = _setting(1_000_000, "int", "environment steps per seed, rounded up to whole iterations", low=1)
    num_envs: int = _setting(20, "int", "parallel environments per seed", low=1, high=MOST)
    rollout_length: int | None = _setting(
        None, "int?", "steps in each environment between updates; null: 200, of off-policy algorithms 50", 1, MOST
    )
    eval_interval: int | None = _setting(
        None, "int?", "environment steps between evaluations; null: about 20 in all", 1
    )
    lr_decay: bool = _setting(False, "bool", "let learning rates fall linearly to 0 over the run")
    out_dir: str | None = _setting(None, "str?", "the run directory; null: runs/<env>_<algo>_<time>")
    resume: bool | str = _setting(
        False, "bool|auto", "true: go on with the run in out_dir from its last checkpoint; auto: if there is one"
    )
    on_non_finite: str = _setting(
        "stop", "stop|continue", "what a NaN or an infinity in one seed's losses or parameters does to the others"
    )
    logger: tuple[str, ...] = _setting(("csv",), "loggers", "csv always; also tensorboard and wandb, if installed")
    render: bool | str = _setting(
        False, "bool|auto", "end with episode.gif, an episode of the first seed's policy; auto: if it can be drawn"
    )
    compilation_cache: bool | str = _setting(
        True, "bool|str", "keep compiled programs: true (in the user's cache), false, or a directory"
    )
    progress: bool = _setting(True, "bool", "show progress while training")


# kind -> what it accepts, what to say of it
KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "int": (lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "str": (lambda value: isinstance(value, str) and value != "", "text"),
    "bool|str": (lambda value: isinstance(value, bool | str) and value != "", "true, false or a directory"),
    "bool|auto": (lambda value: isinstance(value, bool) or value == "auto", "true, false or auto"),
    "stop|continue": (lambda value: value in ("stop", "continue"), "stop or continue"),
    "loggers": (lambda value: isinstance(value, tuple), f"a list of {', '.join(PACKAGES)}"),
}
SECTIONS: dict[str, type] = {"eval": EvalSettings, "checkpoint": CheckpointSettings}


def validate(config: dict[str, Any]) -> TrainSettings:
    """The settings in a composed configuration; `Refusal` names the first field that is unknown or wrong."""
    algo, env = _mapping("algo", config), _mapping("env", config)
    fields = {f.name: f for f in dataclasses.fields(TrainSettings)}
    _refuse_unknown("", config, fields)
    sections = {name: _section(name, kind, _mapping(name, {name: {}} | config)) for name, kind in SECTIONS.items()}
    values = {
        name: checked(name, config[name], **_bounds(f)) for name, f in fields.items() if name in config and f.metadata
    }
    settings = TrainSettings(algo=algo, env=env, **sections, **values)
    if settings.seed + settings.num_seeds > 2**31:
        raise Refusal(
            f"seed={settings.seed}; allowed: at most {2**31 - settings.num_seeds} with num_seeds={settings.num_seeds}"
        )
    return settings


def _section(prefix: str, kind: type, given: Mapping[str, Any]) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    _refuse_unknown(f"{prefix}.", given, fields)
    return kind(**{name: checked(f"{prefix}.{name}", value, **_bounds(fields[name])) for name, value in given.items()})


def checked(name: str, value: Any, kind: str, low: float | None = None, high: float | None = None) -> Any:
    """`value` as the kind says (an integral float is a whole number), or a `Refusal` naming field, value, allowed."""
    base = kind.removesuffix("?")
    if value is None and kind.endswith("?"):
        return None
    if base == "int" and isinstance(value, float) and value.is_integer():
        value = int(value)
    if base == "str" and type(value) is int:  # a directory called 42
        value = str(value)
    if base == "loggers" and isinstance(value, str | list):
        with refusing():
            value = check_names([value] if isinstance(value, str) else value)
    accepts, allowed = KINDS[base]
    if accepts(value) and (low is None or value >= low) and (high is None or value <= high):
        return value
    told = high is not None and (high != MOST or (accepts(value) and value > high))
    bounds = (f" >= {low}" if low is not None else "") + (f" and <= {high}" if told else "")
    raise Refusal(f"{name}={shown(value)}; allowed: {allowed}{bounds}{' or null' if kind.endswith('?') else ''}")


def describe() -> list[tuple[str, str, str]]:
    """`(name, default, what it does)` of every setting, for help."""
    rows = [(f.name, f.default, f.metadata["doc"]) for f in dataclasses.fields(TrainSettings) if f.metadata]
    for section, kind in SECTIONS.items():
        rows += [(f"{section}.{f.name}", f.default, f.metadata["doc"]) for f in dataclasses.fields(kind)]
    return [(name, shown(default), doc) for name, default, doc in rows]


def as_dict(settings: TrainSettings) -> dict[str, Any]:
    """Plain dictionaries and lists, as `config.yaml` holds them and `validate` takes them."""
    return dataclasses.asdict(settings) | {"logger": list(settings.logger)}


def _bounds(field: dataclasses.Field) -> dict[str, Any]:
    return {name: field.metadata[name] for name in ("kind", "low", "high")}


def _mapping(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    value = config.get(name)
    if not isinstance(value, Mapping):
        raise Refusal(f"{name}={shown(value)}; allowed: a group of settings, such as {name}.… in `hajax train --help`")
    return dict(value)


def _refuse_unknown(prefix: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for key, value in given.items():
        if key not in known:
            raise Refusal(unknown_key(f"{prefix}{key}", shown(value), [f"{prefix}{name}" for name in known]))
