"""The Hydra configuration of the command line: groups, composition, and errors of one line.

Presets are files in conf/; the settings that they change are the nodes of `nodes.py`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import hajax
from hajax.algorithms import describe_algorithm
from hajax.envs import FAMILIES, describe_env
from hajax.runs import nodes
from hajax.runs.errors import Refusal, one_of, unknown_key
from hajax.runs.settings import checked_setting, run_fields

CONFIG_NAME = "train"
GROUPS = ("algo", "env", "preset")
FITS = "fits"  # in presets: the algorithms and environments that the preset is for
VERSION_BASE = "1.3"


def conf_dir() -> Path:
    """conf/ in the installed package (`hajax/conf`), or next to `src/` in a checkout."""
    package = Path(hajax.__file__).resolve().parent
    for candidate in (package / "conf", package.parents[1] / "conf"):
        if (candidate / f"{CONFIG_NAME}.yaml").is_file():
            return candidate
    raise Refusal(f"conf/{CONFIG_NAME}.yaml is missing from {package}; reinstall hajax")


def options(group: str) -> list[str]:
    """The options of a group, such as `mpe/simple_spread` of `env`."""
    if group != "preset":
        return nodes.options(group)
    root = conf_dir() / group
    return sorted(path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.yaml"))


def environments_elsewhere() -> dict[str, str]:
    """The forms of the names of environments that are not in the library, and what these are."""
    found = {f"{package}/NAME": f"an environment of {package}, by the name that it has there" for package in FAMILIES}
    return found | {"module:function": "your own environment or simulator"}


def description(group: str, option: str) -> str:
    """The first line of a docstring, or the comment with which a preset begins."""
    if group != "preset":
        return describe_algorithm(option) if group == "algo" else describe_env(option)
    lines = (conf_dir() / group / f"{option}.yaml").read_text(encoding="utf-8").splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("# "), lines)
    return " ".join(line[2:].strip() for line in comment if not line.startswith("# @package"))


def quoted(override: str) -> str:
    """An override with a directory's name quoted for Hydra's grammar; other overrides unchanged."""
    name, equals, value = override.partition("=")
    plain_value = value in ("", "null", "true", "false") or value[0] in "'\"" or "${" in value
    if name not in ("out_dir", "compilation_cache") or not equals or plain_value:
        return override
    # In quotes a backslash is literal, unless a quote or the end follows.
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", value).replace("'", "\\'")
    return f"{name}='{escaped}'"


def parse(overrides: Sequence[str]) -> list[Override]:
    """Parsed overrides; `Refusal` for anything else, such as an unknown flag."""
    for text in overrides:
        if text.startswith("-"):
            hint = f" did you mean {text.lstrip('-')}=…?" if text.startswith("--") else ""
            flags = "-m, --multirun, --print-config, --help"
            raise Refusal(f"{text} is not a flag of `hajax train`;{hint} allowed: {flags}")
        if "=" not in text and not text.startswith("~"):
            raise Refusal(f"{text} is not an override; allowed: name=value, such as num_seeds=8")
    with refusing_errors(overrides):
        parsed = list(OverridesParser.create().parse_overrides(list(overrides)))
    for override in parsed:
        group, value = override.key_or_group, override.value()
        one_name = isinstance(value, str) or (value is None and group == "preset")
        if group in GROUPS and not override.is_sweep_override() and not one_name:
            raise Refusal(_unknown(group, override.get_value_element_as_str()))
    return parsed


def compose(overrides: Sequence[str]) -> dict[str, Any]:
    """The resolved configuration as plain dictionaries and lists."""
    check_names_and_values(overrides)
    with refusing_errors(overrides), hydra.initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        return plain(hydra.compose(CONFIG_NAME, overrides=for_hydra(overrides)))


def launcher(overrides: Sequence[str]) -> dict[str, Any]:
    """The settings of the launcher of a sweep, with its class as `_target_`."""
    own = [
        text for text in overrides if text.split("=")[0].lstrip("+").startswith(("hydra/launcher", "hydra.launcher"))
    ]
    with refusing_errors(overrides), hydra.initialize_config_dir(str(conf_dir()), version_base=VERSION_BASE):
        composed = hydra.compose(CONFIG_NAME, overrides=own, return_hydra_config=True)
    found = OmegaConf.to_container(composed.hydra.launcher)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def for_hydra(overrides: Sequence[str]) -> list[str]:
    """The overrides without `preset=null`, the default, which Hydra only knows as a group that is absent."""
    return [text for text in overrides if text.replace(" ", "") != "preset=null"]


def check_names_and_values(overrides: Sequence[str]) -> None:
    """Checks what can be checked before algorithms are imported: names, and the settings of the run."""
    own = run_fields()
    for override in parse(overrides):
        group, value = override.key_or_group, override.value()
        if override.is_sweep_override():
            continue
        if isinstance(value, str) and group in GROUPS and not _offers(group, value):
            raise Refusal(_unknown(group, value))
        if group in own and override.type is OverrideType.CHANGE and "${" not in str(value):
            checked_setting(group, value)


def _offers(group: str, name: str) -> bool:
    return name in options(group) if group == "preset" else nodes.has_node(group, name)


def plain(config: DictConfig) -> dict[str, Any]:
    """A resolved copy as plain dictionaries and lists; `Refusal` if the preset is for something else."""
    with refusing_errors(()):
        container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    settings = {str(key): value for key, value in container.items() if key != "hydra"}
    if isinstance(settings["algo"], dict):
        settings["algo"] = nodes.complete(settings["algo"])
    for key, value in flat(settings):
        if value == nodes.MISSING:
            raise Refusal(f"{key} is missing and has no default; allowed: {key}=VALUE")
    check_fit(settings, settings.pop(FITS, None) or {})
    return settings


def check_fit(settings: Mapping[str, Any], fits: Mapping[str, Sequence[str]]) -> None:
    """Raises `Refusal` unless the preset is for the algorithm and the environment.

    `fits` has the names and patterns of each. Algorithms and environments outside the library are not checked.
    """
    for group, patterns in fits.items():
        name = settings[group]["name"]
        if nodes.is_ours(group, name) and not any(fnmatchcase(name, pattern) for pattern in patterns):
            meant = " and ".join(f"{key}={' or '.join(names)}" for key, names in fits.items())
            raise Refusal(f"preset={settings['preset']} with {group}={name}; allowed: {meant}, which it is for")


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The path `a.b.c` and the value of every entry of nested dictionaries."""
    for key, value in config.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")


@contextmanager
def refusing_errors(overrides: Iterable[str]) -> Iterator[None]:
    """Turns Hydra's and OmegaConf's errors into a `Refusal`."""
    try:
        yield
    except OverrideParseException as error:
        raise Refusal(f"{error.override} is not an override; allowed: name=value, such as num_seeds=8") from error
    except MissingConfigException as error:
        raise Refusal(_missing_option(error)) from error
    except ConfigCompositionException as error:
        raise Refusal(_composition_error(error, list(overrides))) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise Refusal(_first_line(error)) from error


def _unknown(group: str, value: Any) -> str:
    own = "" if group == "preset" else ", or module:function of your own"
    return one_of(group, value, options(group)) + own


def _missing_option(error: MissingConfigException) -> str:
    group, _, value = (error.missing_cfg_file or "").partition("/")
    if group in GROUPS:
        return _unknown(group, value)
    group, _, value = (error.missing_cfg_file or "").rpartition("/")
    if group not in ("hydra/launcher", "hydra/sweeper") or not error.options:
        return _first_line(error)
    more = "" if {"joblib", "optuna"} & set(error.options) else "; others come with `pip install 'hajax[sweeps]'`"
    return one_of(group, value, list(error.options)) + more


def _composition_error(error: ConfigCompositionException, overrides: list[str]) -> str:
    key = getattr(error.__cause__, "full_key", None)
    named = re.search(r"Could not override '([^']+)'", str(error))
    if named and (key or "not in struct" in str(error)):
        key = named.group(1)
        value = next((text.partition("=")[2] for text in overrides if text.partition("=")[0] == key), "")
        name = next((text.partition("=")[2] for text in overrides if text.startswith("algo=")), "")
        parts = [f"algo.{part}" for part in nodes.parts_of(name)]
        kept = [text for text in overrides if text.partition("=")[0] in (*GROUPS, *parts)]
        section = key.rpartition(".")[0]  # whose settings come first
        known = sorted((name for name, _ in flat(compose(kept))), key=lambda name: (not name.startswith(section), name))
        return unknown_key(key, value, list(dict.fromkeys([*GROUPS, *known])))
    return _first_line(error)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
