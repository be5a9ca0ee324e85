"""The algorithms: one file each; this is their registry.

| name | algorithm | paper |
|---|---|---|
| `happo` | heterogeneous-agent PPO | https://arxiv.org/abs/2109.11251 |
| `mappo` | multi-agent PPO, shared or unshared | https://arxiv.org/abs/2103.01955 |
| `ippo` | independent PPO, shared or unshared | https://arxiv.org/abs/2011.09533 |
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

from hajax.core.algorithm import Algorithm
from hajax.spec import EnvSpec
from hajax.validation import check_known, check_settings

# One line per algorithm. `module:function`; the module also holds the algorithm's default settings, `DEFAULTS`, and
# its `Hyperparameters`.
ALGORITHMS: dict[str, str] = {
    "happo": "hajax.algorithms.happo:happo",
    "mappo": "hajax.algorithms.mappo:mappo",
    "ippo": "hajax.algorithms.ippo:ippo",
}


def list_algorithms() -> tuple[str, ...]:
    """The names that `make_algorithm` takes."""
    return tuple(ALGORITHMS)


def register_algorithm(name: str, location: str) -> None:
    """Adds `"module:function"` under `name`; the module must also hold `DEFAULTS` and `Hyperparameters`."""
    if name in ALGORITHMS:
        raise ValueError(f"algorithm {name!r} is registered already, as {ALGORITHMS[name]}; allowed: a new name")
    ALGORITHMS[name] = location


def make_algorithm(name: str, env_or_spec: Any, *, actor: Any = None, critic: Any = None, **settings: Any) -> Algorithm:
    """The algorithm called `name` for an environment or its specification.

    Args:
      name: one of `list_algorithms()`.
      env_or_spec: an `Environment` or an `EnvSpec`.
      actor, critic: flax modules to use as torsos instead of the MLP, called as `module(x, mask)`.
      settings: any field of the algorithm's `Settings` or `Hyperparameters`, such as `epochs=3` or `actor_lr=1e-3`.

    Raises:
      ValueError: unknown name or setting (with the nearest ones), a value out of range, agents that cannot share
        parameters, or a reward of the wrong kind.
    """
    check_known("algorithm", name, ALGORITHMS)
    spec: EnvSpec = getattr(env_or_spec, "spec", env_or_spec)
    module_name, function = ALGORITHMS[name].split(":")
    module = importlib.import_module(module_name)
    static = [field.name for field in dataclasses.fields(module.DEFAULTS)]
    check_settings(name, settings, [*static, *module.Hyperparameters._fields])
    chosen = dataclasses.replace(module.DEFAULTS, **{k: v for k, v in settings.items() if k in static})
    numbers = module.Hyperparameters(**{k: v for k, v in settings.items() if k not in static})
    return getattr(module, function)(spec, chosen, numbers, actor=actor, critic=critic)
