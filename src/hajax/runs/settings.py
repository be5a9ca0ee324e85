"""The settings of `hajax train`: types, allowed values and meanings, from which validation and help are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from hajax.runs.errors import Refusal, refusing, shown, unknown_key
from hajax.runs.grid import EXAMPLE, Grid, check_draws, checked_grid, number_of_points
from hajax.runs.hosts import PLACE, is_place
from hajax.runs.loggers import PACKAGES, check_names
from hajax.validation import MOST, about, setting


@dataclasses.dataclass(frozen=True)
class EvalSettings:
    """Settings of evaluations."""

    episodes: int = setting(100, "episodes per evaluation and seed", low=1, high=MOST)
    max_steps: int | None = setting(
        None, "steps after which an episode is cut; null: the environment's limit", low=1, high=MOST
    )
    stochastic: bool = setting(False, "also evaluate with sampled actions (columns eval_stochastic_*)")


@dataclasses.dataclass(frozen=True)
class CheckpointSettings:
    """Settings of checkpoints."""

    interval: int | None = setting(
        None, "environment steps between checkpoints; null: one after each evaluation", low=1
    )
    keep: int = setting(3, "checkpoints kept, the newest", low=1, high=MOST)
    replay: bool = setting(True, "keep the replay in checkpoints; without it a resumed run begins with a new one")


@dataclasses.dataclass(frozen=True)
class PopulationSettings:
    """Settings of population-based training."""

    interval: int | None = setting(
        None, "environment steps after which the worst points of vmap go on from copies of the best; null: never", low=1
    )
    fraction: float = setting(0.25, "the share of the points that is replaced, at least one", low=0, high=0.5)
    factor: float = setting(1.25, "copies have their hyperparameters multiplied or divided by it", low=1)


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """A training run. `algo` and `env` are a name and its options, checked by `make_algorithm` and `make_env`."""

    algo: dict[str, Any]
    env: dict[str, Any]
    eval: EvalSettings
    checkpoint: CheckpointSettings
    pbt: PopulationSettings
    preset: str | None = setting(None, "a tuned schedule from a paper or code base")
    seed: int = setting(0, "the first seed; seed k of the run is seed + k", low=0, high=2**31 - 1)
    num_seeds: int = setting(4, "independent seeds, trained together by vmap", low=1, high=MOST)
    total_steps: int = setting(1_000_000, "environment steps per seed, rounded up to whole iterations", low=1)
    num_envs: int = setting(20, "parallel environments per seed", low=1, high=MOST)
    rollout_length: int | None = setting(
        None,
        "steps in each environment between updates; null: 200 on-policy, 50 off-policy",
        kind="int?",
        low=1,
        high=MOST,
    )
    eval_interval: int | None = setting(None, "environment steps between evaluations; null: about 20 in all", low=1)
    lr_decay: bool = setting(False, "decay learning rates linearly to 0 over the run")
    out_dir: str | None = setting(None, "the run directory; null: `runs/<env>_<algo>_<time>`")
    resume: bool | str = setting(
        False, "true: resume the run in out_dir from its last checkpoint; auto: if there is one", kind="bool|auto"
    )
    on_non_finite: str = setting(
        "stop", "the other seeds after a NaN or an infinity in one seed's losses or parameters", kind="stop|continue"
    )
    logger: tuple[str, ...] = setting(("csv",), "csv always; also tensorboard and wandb, if installed", kind="loggers")
    render: bool | str = setting(
        False, "end with episode.gif, an episode of the first seed's policy; auto: if it can be drawn", kind="bool|auto"
    )
    compilation_cache: bool | str = setting(
        True, "keep compiled programs: true (in the user's cache), false, or a directory", kind="bool|str"
    )
    progress: bool = setting(True, "show progress while training")
    devices: int | str = setting(
        "auto", "devices among which seeds and environments are divided; auto: as many as fit", kind="int|auto"
    )
    shard: str = setting(
        "auto",
        "what is divided; auto: the seeds, and each seed's environments if that fills more devices",
        kind="auto|seeds|envs",
    )
    distributed: bool | str = setting(
        False, "one run over several processes, each started with the same command", kind="distributed"
    )
    vmap: Grid | None = setting(
        None, "hyperparameters with the values to train in one program, every combination with every seed", kind="grid?"
    )
    draws: int | None = setting(
        None, "with vmap: so many random draws of the hyperparameters instead of every combination", low=1, high=MOST
    )

    @property
    def seeds(self) -> range:
        """The run's seeds."""
        return range(self.seed, self.seed + self.num_seeds)

    @property
    def population(self) -> bool:
        """Whether the points of `vmap` are a population."""
        return self.pbt.interval is not None

    @property
    def num_points(self) -> int:
        """The points of `vmap`; 1 without it."""
        return number_of_points(self.vmap, self.draws)

    @property
    def num_trials(self) -> int:
        """What a program trains: every seed, at every point of `vmap`."""
        return self.num_seeds * self.num_points


class Described(NamedTuple):
    """A setting as shown in help and docs."""

    name: str
    default: Any
    allowed: str
    meaning: str
    unit: str = ""

    @property
    def text(self) -> str:
        """The meaning, with the unit."""
        return f"{self.meaning}{f'; in {self.unit}' if self.unit else ''}"


# kind -> (accepts a value, allowed values in words)
KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "int": (lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"),
    "float": (lambda value: isinstance(value, int | float) and not isinstance(value, bool), "a number"),
    "bool": (lambda value: isinstance(value, bool), "true or false"),
    "str": (lambda value: isinstance(value, str) and value != "", "text"),
    "bool|str": (lambda value: isinstance(value, bool | str) and value != "", "true, false or a directory"),
    "bool|auto": (lambda value: isinstance(value, bool) or value == "auto", "true, false or auto"),
    "int|auto": (
        lambda value: value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1),
        "a whole number >= 1, or auto",
    ),
    "auto|seeds|envs": (lambda value: value in ("auto", "seeds", "envs"), "auto, seeds or envs"),
    "distributed": (lambda value: value is False or value == "auto" or is_place(value), f"false, auto or {PLACE}"),
    "stop|continue": (lambda value: value in ("stop", "continue"), "stop or continue"),
    "loggers": (lambda value: isinstance(value, tuple), f"a list of {', '.join(PACKAGES)}"),
    "grid": (lambda value: isinstance(value, dict), f"hyperparameters, such as {EXAMPLE}"),
}
SECTIONS: dict[str, type] = {"eval": EvalSettings, "checkpoint": CheckpointSettings, "pbt": PopulationSettings}


def validate(config: dict[str, Any]) -> TrainSettings:
    """The settings in a composed configuration; `Refusal` names the first field that is unknown or wrong."""
    algo, env = _mapping("algo", config), _mapping("env", config)
    fields = {f.name: f for f in dataclasses.fields(TrainSettings)}
    _refuse_unknown("", config, fields)
    sections = {name: _section(name, kind, _mapping(name, {name: {}} | config)) for name, kind in SECTIONS.items()}
    values = {name: checked_setting(name, config[name]) for name in run_fields() if name in config}
    settings = TrainSettings(algo=algo, env=env, **sections, **values)
    with refusing():
        check_draws(settings.vmap, settings.draws)
    if settings.population and settings.num_points < 2:
        raise Refusal(
            f"pbt.interval={settings.pbt.interval} with vmap={shown(settings.vmap)}; allowed: 2 points or more"
        )
    if settings.seed + settings.num_seeds > 2**31:
        raise Refusal(
            f"seed={settings.seed}; allowed: at most {2**31 - settings.num_seeds} with num_seeds={settings.num_seeds}"
        )
    return settings


def _section(prefix: str, kind: type, given: Mapping[str, Any]) -> Any:
    fields = {f.name: f for f in dataclasses.fields(kind)}
    _refuse_unknown(f"{prefix}.", given, fields)
    return kind(**{name: checked_setting(f"{prefix}.{name}", value) for name, value in given.items()})


def run_fields() -> dict[str, tuple[type, str]]:
    """The dataclass and the field of each setting of a run, by the typed name, such as `eval.episodes`."""
    return {
        f"{section}.{field.name}".removeprefix("."): (owner, field.name)
        for section, owner in {"": TrainSettings, **SECTIONS}.items()
        for field in dataclasses.fields(owner)
        if field.metadata  # the groups and the sections have none
    }


def checked_setting(name: str, value: Any) -> Any:
    """`checked` with the declared kind and range of the setting, such as `eval.episodes`."""
    said = about(*run_fields()[name])
    return checked(name, value, said.kind, said.low, said.high)


def checked(name: str, value: Any, kind: str, low: float | None = None, high: float | None = None) -> Any:
    """`value` of that kind (an integral float is a whole number); `Refusal` with field, value and allowed values."""
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
    if base == "grid":
        with refusing():
            value = checked_grid(value)
    accepts, _ = KINDS[base]
    if accepts(value) and (low is None or value >= low) and (high is None or value <= high):
        return value
    beyond = accepts(value) and high is not None and value > high
    raise Refusal(f"{name}={shown(value)}; allowed: {_range(kind, low, high, beyond)}")


def _range(kind: str, low: float | None, high: float | None, beyond: bool) -> str:
    """The allowed values in words; the greatest count is mentioned only if a number was `beyond` the bounds."""
    told = high is not None and (high != MOST or beyond)
    bounds = (f" >= {low}" if low is not None else "") + (f" and <= {high}" if told else "")
    return f"{KINDS[kind.removesuffix('?')][1]}{bounds}{' or null' if kind.endswith('?') else ''}"


def describe() -> list[Described]:
    """Every setting of a run, for help and docs."""
    rows = []
    for name, (owner, field) in run_fields().items():
        said = about(owner, field)
        allowed = _range(said.kind, said.low, said.high, beyond=False)
        rows.append(Described(name, getattr(owner, field), allowed, said.meaning, said.unit))
    return rows


def as_dict(settings: TrainSettings) -> dict[str, Any]:
    """The settings as plain dictionaries and lists, as in `config.yaml` and for `validate`."""
    return dataclasses.asdict(settings) | {"logger": list(settings.logger)}


def _mapping(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    value = config.get(name)
    if not isinstance(value, Mapping):
        raise Refusal(f"{name}={shown(value)}; allowed: a group of settings, such as {name}.… in `hajax train --help`")
    return dict(value)


def _refuse_unknown(prefix: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for key, value in given.items():
        if key not in known:
            raise Refusal(unknown_key(f"{prefix}{key}", shown(value), [f"{prefix}{name}" for name in known]))
