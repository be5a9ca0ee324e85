"""Hydra's nodes, made from the dataclasses of settings and the signatures of environments."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import OmegaConf

from hajax.algorithms import Entry, find_algorithm, find_template, list_algorithms, list_templates
from hajax.algorithms import is_registered as is_registered_algorithm
from hajax.envs import env_options, has_env, list_envs
from hajax.envs import is_registered as is_registered_env
from hajax.places import is_place
from hajax.runs.errors import Refusal, refusing, shown
from hajax.runs.settings import run_fields
from hajax.validation import about

MISSING = "???"  # OmegaConf's


def options(group: str) -> list[str]:
    """The names of the algorithms, including templates, or of the environments."""
    return sorted([*list_algorithms(), *list_templates()] if group == "algo" else list_envs())


def has_node(group: str, name: str) -> bool:
    """Whether an algorithm or environment of that name may exist; the name may be `module:function`."""
    return is_place(name) or name in options(group) or (group == "env" and has_env(name))


def is_ours(group: str, name: str) -> bool:
    """Whether the library has an algorithm or an environment of that name."""
    return name in options(group) and not (is_registered_algorithm if group == "algo" else is_registered_env)(name)


def run_node() -> dict[str, Any]:
    """The settings of a run with their defaults."""
    node: dict[str, Any] = {}
    for name, (owner, field) in run_fields().items():
        section, _, last = name.rpartition(".")
        (node.setdefault(section, {}) if section else node)[last] = _plain(getattr(owner, field))
    return node


def algorithm_node(name: str) -> dict[str, Any]:
    """The algorithm's settings with their defaults, and the kind of `reward` that it learns from.

    The settings of a template depend on its parts: they are `???` here, and `complete` fills them in.
    """
    template = find_template(name)
    entry = find_algorithm(name)
    usual = {"name": name, "reward": entry.reward}
    if template is None:
        return usual | _settings(entry)
    names = parts_of(name)
    every = itertools.product(*(choices_of(name, part) for part in names))
    brought = [_settings(find_algorithm(name, **dict(zip(names, parts, strict=True)))) for parts in every]
    return usual | _values(template()) | {key: MISSING for own in brought for key in own}


def parts_of(name: str) -> list[str]:
    """The settings that select a template's parts, such as `drift`; none for other algorithms."""
    template = find_template(name)
    return [] if template is None else [field.name for field in dataclasses.fields(template)]


def choices_of(name: str, part: str) -> tuple[Any, ...]:
    """The choices of a template's part."""
    return about(find_template(name), part).choices or (False, True)


def complete(algo: Mapping[str, Any]) -> dict[str, Any]:
    """The algorithm's settings, with the defaults of the settings of a template's parts.

    Raises `Refusal` for a given setting that these parts do not have.
    """
    name = algo.get("name", "")
    if not parts_of(name):
        return dict(algo)
    parts = {part: algo[part] for part in parts_of(name) if part in algo}
    with refusing(typed={part: (f"algo.{part}", value) for part, value in parts.items()}):
        entry = find_algorithm(name, **parts)
    offered = _settings(entry)
    completed = {}
    for key, value in algo.items():
        if key in offered:
            completed[key] = offered[key] if value == MISSING else value
        elif key in parts or key in ("name", "reward"):
            completed[key] = value
        elif value != MISSING:
            chosen = ", ".join(f"algo.{part}={shown(choice)}" for part, choice in parts.items())
            with_it = " or ".join(
                f"algo.{part}={shown(choice)}"
                for part in parts
                for choice in choices_of(name, part)
                if key in _settings(find_algorithm(name, **parts | {part: choice}))
            )
            raise Refusal(f"algo.{key}={shown(value)}: {name} has no {key} with {chosen}; allowed with {with_it}")
    return completed


def environment_node(name: str) -> dict[str, Any]:
    """The environment's options with their defaults; the reward is of the kind that the algorithm uses."""
    own = {key: MISSING if value is ... else _plain(value) for key, value in env_options(name).items()}
    own = {key: value for key, value in own.items() if _fits_yaml(value)}  # the factory keeps its other defaults
    return {"name": name} | own | ({"reward": "${algo.reward}"} if "reward" in own else {})


NODES: dict[str, Callable[[str], dict[str, Any]]] = {"algo": algorithm_node, "env": environment_node}


class Nodes(ConfigSource):
    """Provides the nodes to Hydra like files: `settings`, `algo/NAME` and `env/NAME`.

    A node is made on demand, because algorithms and environments take seconds to import.
    """

    @staticmethod
    def scheme() -> str:
        return "hajax"

    def available(self) -> bool:
        return True

    def is_group(self, config_path: str) -> bool:
        group, _, rest = config_path.strip("/").partition("/")
        return group in NODES and (not rest or any(name.startswith(f"{rest}/") for name in options(group)))

    def is_config(self, config_path: str) -> bool:
        group, _, name = config_path.strip("/").removesuffix(".yaml").partition("/")
        return has_node(group, name) if name and group in NODES else group == "settings" and not name

    def load_config(self, config_path: str) -> ConfigResult:
        group, _, name = config_path.strip("/").removesuffix(".yaml").partition("/")
        if name:
            with refusing((ValueError, TypeError)):
                node = NODES[group](name)
        else:
            node = run_node()
        config = OmegaConf.create(node)
        for part, value in node.items():
            if value == {}:  # any options may be added, such as env.kwargs.NAME=VALUE
                OmegaConf.set_struct(config[part], False)
        return ConfigResult(self.provider, f"{self.scheme()}://", config, {"package": None})

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        group, _, folder = config_path.strip("/").partition("/")
        start = f"{folder}/" if folder else ""
        names = [name.removeprefix(start) for name in options(group) if name.startswith(start)]
        kept = [
            name for name in names if results_filter is None or ("/" in name) == (results_filter is ObjectType.GROUP)
        ]
        return sorted({name.partition("/")[0] for name in kept})


Plugins.instance().register(Nodes)


def _settings(entry: Entry) -> dict[str, Any]:
    """An algorithm's settings and hyperparameters with their defaults."""
    return _values(entry.settings) | _values(entry.hyperparameters)


def _values(settings: Any) -> dict[str, Any]:
    return {field.name: _plain(getattr(settings, field.name)) for field in dataclasses.fields(settings)}


def _plain(value: Any) -> Any:
    """The value with lists instead of tuples and plain dictionaries, as in YAML."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple) else value


def _fits_yaml(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_fits_yaml(entry) for entry in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _fits_yaml(entry) for key, entry in value.items())
    return value is None or isinstance(value, str | int | float | bool)
