"""The registry of algorithms, which have one file each.

| name | algorithm | paper |
|---|---|---|
| `happo` | heterogeneous-agent PPO | https://arxiv.org/abs/2109.11251 |
| `hatrpo` | heterogeneous-agent TRPO | https://arxiv.org/abs/2109.11251 |
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
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

from hajax.core.algorithm import Algorithm
from hajax.spec import EnvSpec
from hajax.validation import check_known, check_settings

# One line per algorithm: where its function is. It is called as `function(spec, settings, hyperparameters, *, actor,
# critic)`; its module also holds the defaults of both, `DEFAULTS` and `Hyperparameters`.
_BUILT_IN: dict[str, str] = {
    "happo": "hajax.algorithms.happo:happo",
    "hatrpo": "hajax.algorithms.hatrpo:hatrpo",
    "haa2c": "hajax.algorithms.haa2c:haa2c",
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
}


class Entry(NamedTuple):
    """A registered algorithm: its function, default static settings, and the class of its hyperparameters."""

    function: Callable[..., Algorithm]
    defaults: Any
    hyperparameters: Any


_registered: dict[str, Entry] = {}


def list_algorithms() -> tuple[str, ...]:
    """The names that `make_algorithm` takes."""
    return (*_BUILT_IN, *_registered)


def register_algorithm(name: str, function: Callable[..., Algorithm], *, defaults: Any, hyperparameters: Any) -> None:
    """Lets `make_algorithm(name, env, **settings)` build `function(spec, settings, hyperparameters, actor=, critic=)`.

    Args:
      name: the new name. A registered name may be registered again.
      function: returns an `Algorithm`.
      defaults: its default static settings, an instance of a frozen dataclass.
      hyperparameters: the class of its hyperparameters (`core.settings.Hyperparameters` or one derived from it).

    Raises:
      ValueError: `name` belongs to an algorithm of the library.
      TypeError: `function` cannot be called, or `defaults` is not a dataclass instance.
    """
    if name in _BUILT_IN:
        raise ValueError(f"name={name!r} is an algorithm of the library; allowed: any name but {', '.join(_BUILT_IN)}")
    if not callable(function) or not dataclasses.is_dataclass(defaults) or isinstance(defaults, type):
        raise TypeError(f"function={function!r}, defaults={defaults!r}; allowed: a function and a dataclass instance")
    _registered[name] = Entry(function, defaults, hyperparameters)


def _find(name: str) -> Entry:
    check_known("algorithm", name, list_algorithms())
    if name in _registered:
        return _registered[name]
    module_name, function = _BUILT_IN[name].split(":")
    module = importlib.import_module(module_name)
    return Entry(getattr(module, function), module.DEFAULTS, module.Hyperparameters)


def make_algorithm(name: str, env_or_spec: Any, *, actor: Any = None, critic: Any = None, **settings: Any) -> Algorithm:
    """The algorithm called `name` for an environment or its specification.

    Args:
      name: one of `list_algorithms()`.
      env_or_spec: an `Environment` or an `EnvSpec`.
      actor, critic: flax modules to use as torsos instead of the MLP (see `hajax.haml`).
      settings: any field of the algorithm's `Settings` or `Hyperparameters`, such as `epochs=3` or `actor_lr=1e-3`.

    Raises:
      ValueError: unknown name or setting (with the nearest ones), a value out of range, agents that cannot share
        parameters, or a reward of the wrong kind.
    """
    entry = _find(name)
    spec: EnvSpec = getattr(env_or_spec, "spec", env_or_spec)
    if not isinstance(spec, EnvSpec):
        raise ValueError(f"env_or_spec={env_or_spec!r}; allowed: what make_env returns, or an EnvSpec")
    static = [field.name for field in dataclasses.fields(entry.defaults)]
    traced = [field.name for field in dataclasses.fields(entry.hyperparameters)]
    check_settings(name, settings, [*static, *traced])
    chosen = dataclasses.replace(entry.defaults, **{k: v for k, v in settings.items() if k in static})
    hyperparameters = entry.hyperparameters(**{k: v for k, v in settings.items() if k not in static})
    return entry.function(spec, chosen, hyperparameters, actor=actor, critic=critic)
