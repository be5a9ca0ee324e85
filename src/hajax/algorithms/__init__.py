"""The registry of algorithms. Each algorithm has one file.

| name | algorithm | paper |
|---|---|---|
| `happo` | heterogeneous-agent PPO | https://arxiv.org/abs/2109.11251 |
| `hatrpo` | heterogeneous-agent TRPO | https://arxiv.org/abs/2109.11251 |
| `a2po` | agent-by-agent policy optimization | https://arxiv.org/abs/2302.06205 |
| `haa2c` | heterogeneous-agent A2C | https://arxiv.org/abs/2208.01682 |
| `mappo` | multi-agent PPO, shared or unshared | https://arxiv.org/abs/2103.01955 |
| `ippo` | independent PPO, shared or unshared | https://arxiv.org/abs/2011.09533 |
| `maa2c` | multi-agent A2C, shared or unshared | https://arxiv.org/abs/2006.07869 |
| `haddpg` | heterogeneous-agent DDPG | https://arxiv.org/abs/2208.01682 |
| `maddpg` | multi-agent DDPG, one critic or one per agent | https://arxiv.org/abs/1706.02275 |
| `hatd3` | heterogeneous-agent TD3 | https://arxiv.org/abs/2304.09870 |
| `matd3` | multi-agent TD3, one pair of critics or one per agent | https://arxiv.org/abs/1910.01465 |
| `had3qn` | heterogeneous-agent dueling double Q-learning | https://arxiv.org/abs/1511.06581 |
| `mad3qn` | dueling double Q-learning with a joint critic | https://arxiv.org/abs/1511.06581 |
| `id3qn` | independent dueling double Q-learning | https://arxiv.org/abs/1511.08779 |
| `hasac` | heterogeneous-agent soft actor-critic | https://arxiv.org/abs/2306.10715 |
| `masac` | multi-agent soft actor-critic | https://arxiv.org/abs/1812.05905 |
| `maac` | multi-actor-attention-critic | https://arxiv.org/abs/1810.02912 |
| `mamd` | multi-agent mirror descent | https://arxiv.org/abs/2102.10616 |
| `mamt` | multi-agent mirror descent with trust-region decomposition | https://arxiv.org/abs/2102.10616 |
| `lola` | learning with opponent-learning awareness | https://arxiv.org/abs/1709.04326 |
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from hajax.places import first_line, import_function, is_place, summary
from hajax.validation import check_known, check_settings

if TYPE_CHECKING:
    from hajax.core.algorithm import Algorithm

# The function of each algorithm. It is called as `function(spec, settings, hyperparameters, *, actor, critic)`; its
# signature has the default settings and hyperparameters.
_BUILT_IN: dict[str, str] = {
    "happo": "hajax.algorithms.happo:happo",
    "hatrpo": "hajax.algorithms.hatrpo:hatrpo",
    "haa2c": "hajax.algorithms.haa2c:haa2c",
    "a2po": "hajax.algorithms.a2po:a2po",
    "mappo": "hajax.algorithms.mappo:mappo",
    "ippo": "hajax.algorithms.ippo:ippo",
    "maa2c": "hajax.algorithms.maa2c:maa2c",
    "haddpg": "hajax.algorithms.haddpg:haddpg",
    "maddpg": "hajax.algorithms.maddpg:maddpg",
    "hatd3": "hajax.algorithms.hatd3:hatd3",
    "matd3": "hajax.algorithms.matd3:matd3",
    "had3qn": "hajax.algorithms.had3qn:had3qn",
    "mad3qn": "hajax.algorithms.mad3qn:mad3qn",
    "id3qn": "hajax.algorithms.id3qn:id3qn",
    "hasac": "hajax.algorithms.hasac:hasac",
    "masac": "hajax.algorithms.masac:masac",
    "maac": "hajax.algorithms.maac:maac",
    "mamd": "hajax.algorithms.mamd:mamd",
    "mamt": "hajax.algorithms.mamt:mamt",
    "lola": "hajax.algorithms.lola:lola",
}
# Templates: algorithms whose parts are chosen by name.
_TEMPLATES: dict[str, str] = {
    "haml": "hajax.algorithms.templates:Haml",
    "mehaml": "hajax.algorithms.templates:Mehaml",
}


class Entry(NamedTuple):
    """An algorithm's function, and the default settings and hyperparameters in its signature."""

    function: Callable[..., Algorithm]
    settings: Any
    hyperparameters: Any

    @property
    def reward(self) -> str:
        """The last kind of reward that the default settings allow: `individual` for independent learners."""
        return getattr(self.settings, "rewards", ("team",))[-1]


_registered: dict[str, Entry] = {}


def list_algorithms() -> tuple[str, ...]:
    """The names of algorithms that `make_algorithm` accepts, without the templates."""
    return (*_BUILT_IN, *_registered)


def list_templates() -> tuple[str, ...]:
    """The names of templates that `make_algorithm` accepts: their drift and neighborhood are chosen by name."""
    return tuple(_TEMPLATES)


def describe_algorithm(name: str) -> str:
    """The first line of the docstring of an algorithm or a template. Imports no module of the library."""
    if name in _registered:
        return first_line(inspect.getdoc(_registered[name].function))
    return summary(_TEMPLATES[name] if name in _TEMPLATES else _BUILT_IN[name].partition(":")[0])


def is_registered(name: str) -> bool:
    """Whether `name` was added by `register_algorithm`."""
    return name in _registered


def register_algorithm(name: str, function: Callable[..., Algorithm]) -> None:
    """Lets `make_algorithm(name, env, **settings)` build `function(spec, settings, hyperparameters, actor=, critic=)`.

    Args:
      name: the new name. A registered name may be registered again.
      function: returns an `Algorithm`. In its signature, `settings` and `hyperparameters` have defaults: an instance of
        a frozen dataclass (of `hajax.settings` or your own), and an instance of a class derived from
        `hajax.settings.BaseHyperparameters`.

    Raises:
      ValueError: `name` belongs to an algorithm of the library.
      TypeError: `function` is not callable, or its signature has no such defaults.
    """
    if name in _BUILT_IN or name in _TEMPLATES:
        known = ", ".join((*_BUILT_IN, *_TEMPLATES))
        raise ValueError(f"name={name!r} is an algorithm of the library; allowed: any name but {known}")
    _registered[name] = _read(function)


def find_template(name: str) -> Any:
    """The template's class, a dataclass whose fields are its parts; `None` if `name` is not a template."""
    return import_function("algorithm", _TEMPLATES[name]) if name in _TEMPLATES else None


def find_algorithm(name: str, **parts: Any) -> Entry:
    """The algorithm's function and defaults. `parts` are the parts of a template.

    Raises:
      ValueError: `name` is unknown, or a part has a value that is not allowed.
      TypeError: `module:function` is not the function of an algorithm.
    """
    if (template := find_template(name)) is not None:
        return _read(template(**parts).algorithm())
    if name in _registered:
        return _registered[name]
    if name not in _BUILT_IN and is_place(name):
        return _read(import_function("algorithm", name))
    check_known("algorithm", name, (*list_algorithms(), *_TEMPLATES))
    return _read(import_function("algorithm", _BUILT_IN[name]))


def _read(function: Callable[..., Algorithm]) -> Entry:
    parameters = inspect.signature(function).parameters if callable(function) else {}
    defaults = [parameters[part].default if part in parameters else None for part in ("settings", "hyperparameters")]
    if not all(dataclasses.is_dataclass(default) and not isinstance(default, type) for default in defaults):
        raise TypeError(
            f"function={getattr(function, '__name__', repr(function))}; allowed: a function (spec, settings=…, "
            "hyperparameters=…, *, actor, critic) whose two defaults are instances of dataclasses"
        )
    return Entry(function, *defaults)


def make_algorithm(name: str, env_or_spec: Any, *, actor: Any = None, critic: Any = None, **settings: Any) -> Algorithm:
    """The algorithm called `name` for an environment or its specification.

    Args:
      name: one of `list_algorithms()`, a template (`"haml"` or `"mehaml"`), or `"module:function"`, where the function
        is one that `register_algorithm` accepts.
      env_or_spec: an `Environment` or an `EnvSpec`.
      actor, critic: flax modules to use as torsos instead of the MLP (see `hajax.haml`).
      settings: any field of the algorithm's `Settings` or `Hyperparameters`, such as `epochs=3` or `actor_lr=1e-3`. For
        a template also its parts, such as `drift="kl_old_new"` and `neighborhood="kl_ball"`, and their settings.

    Raises:
      ValueError: a name or a setting is unknown (the message lists similar ones), a value is out of range, agents
        cannot share parameters, or the reward is of the wrong kind.
    """
    from hajax.spec import EnvSpec

    template = find_template(name)
    named = [] if template is None else [field.name for field in dataclasses.fields(template)]
    entry = find_algorithm(name, **{part: settings.pop(part) for part in named if part in settings})
    spec: EnvSpec = getattr(env_or_spec, "spec", env_or_spec)
    if not isinstance(spec, EnvSpec):
        raise ValueError(f"env_or_spec={env_or_spec!r}; allowed: what make_env returns, or an EnvSpec")
    static = [field.name for field in dataclasses.fields(entry.settings)]
    traced = [field.name for field in dataclasses.fields(entry.hyperparameters)]
    check_settings(name, settings, [*named, *static, *traced])
    chosen = dataclasses.replace(entry.settings, **{k: v for k, v in settings.items() if k in static})
    hyperparameters = dataclasses.replace(
        entry.hyperparameters, **{k: v for k, v in settings.items() if k not in static}
    )
    return entry.function(spec, chosen, hyperparameters, actor=actor, critic=critic)
