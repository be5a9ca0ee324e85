"""What environments are made of, and the registry of their names.

An environment of the library is one file and one line in the table `_BUILT_IN`; `register_env` adds one from outside
the library. See `docs/adding-an-environment.md`.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from hajax.envs.mamujoco import NAMES as SHARED_ROBOTS
from hajax.envs.mamujoco import SEGMENTED
from hajax.envs.mamujoco import describe as describe_robot
from hajax.envs.smax_scenarios import SCENARIOS
from hajax.places import arguments, first_line, import_function, is_place, summary
from hajax.validation import About, check_choice, check_known, check_settings

if TYPE_CHECKING:
    from hajax.envs.base import BatchedEnvironment as BatchedEnvironment
    from hajax.envs.base import Environment as Environment
    from hajax.envs.base import Viewer as Viewer
    from hajax.envs.base import clip_action as clip_action
    from hajax.envs.base import pad_observations as pad_observations
    from hajax.envs.base import timestep as timestep
    from hajax.envs.batching import auto_reset as auto_reset

Factory = Callable[..., Any]

# The interface, and the modules that define it. They import JAX, and so are imported on first use.
_INTERFACE = {
    **dict.fromkeys(("BatchedEnvironment", "Environment", "Viewer"), "hajax.envs.base"),
    **dict.fromkeys(("clip_action", "pad_observations", "timestep"), "hajax.envs.base"),
    "auto_reset": "hajax.envs.batching",
}
__all__ = [*_INTERFACE, "env_options", "has_env", "list_envs", "make_env", "register_env"]


def __getattr__(name: str) -> Any:
    if name not in _INTERFACE:
        raise AttributeError(f"module 'hajax.envs' has no attribute {name!r}")
    return getattr(importlib.import_module(_INTERFACE[name]), name)


_BUILT_IN: dict[str, str] = {
    f"{family}/{name}": f"hajax.envs.{module}:{name}"
    for family, module, names in (
        ("mpe", "mpe", ("simple_spread", "simple_reference", "simple_speaker_listener")),
        ("mpe", "spread_3", ("spread_3_sep", "spread_3_mix", "spread_3_ful")),
        ("mpe", "rover_tower", ("rover_tower",)),
        ("games", "games", ("matrix", "trap_of_homogeneity", "trap_of_heterogeneity", "hasac_matrix", "gaussian")),
        ("games", "iterated_games", ("iterated_prisoners_dilemma", "matching_pennies")),
        ("games", "memory", ("memory",)),
        ("games", "regulator", ("linear_quadratic",)),
        ("sisl", "pursuit", ("pursuit",)),
    )
    for name in names
}
_BUILT_IN |= {
    **{f"mamujoco/{name}": f"hajax.envs.mamujoco:{name}" for name in SHARED_ROBOTS},
    **{f"smax/{scenario}": f"hajax.envs.smax:{scenario}" for scenario in SCENARIOS},
}
_SIMULATORS, _NAMED = "hajax.envs.simulators:simulators", "hajax.envs.simulators:named"
_registered: dict[str, str | Factory] = {}
# Those whose factories are made from a table.
_DESCRIPTIONS = {
    **{f"mamujoco/{name}": describe_robot(name) for name in SHARED_ROBOTS},
    **{f"smax/{scenario}": f"StarCraft-like: {text}" for scenario, text in SCENARIOS.items()},
}
# Other packages, whose environments are looked up there, and what makes their factories: `jaxmarl/overcooked`, and the
# simulators `pettingzoo/multiwalker_v9` and `gymnasium/CartPole-v1`.
FAMILIES = dict.fromkeys(("gymnasium", "mpe2", "pettingzoo"), _NAMED)
FAMILIES |= {package: f"hajax.envs.from_{package}:named" for package in ("jaxmarl", "jumanji")}
# The option that every environment has.
_STATES = ("environment", "observations")
_STATE = About("the critic's state: the environment's own, or the agents' observations end to end", choices=_STATES)


def list_envs() -> tuple[str, ...]:
    """The sorted names of built-in and registered environments."""
    return tuple(sorted({**_BUILT_IN, **_registered}))


def has_env(name: str) -> bool:
    """Whether `make_env` may accept the name: also a simulator, `"module:function"`, or a robot of many segments."""
    return name in list_envs() or ":" in name or _segmented(name) is not None or _family(name) is not None


def is_registered(name: str) -> bool:
    """Whether `register_env` added it."""
    return name in _registered


def register_env(name: str, factory: str | Factory) -> None:
    """Lets `make_env(name, **options)` build the environment `factory(**options)`.

    Args:
        name: the new name, such as `"workshop/assembly"`. A registered name may be registered again.
        factory: a function that returns an `Environment` without automatic reset, or its location
            `"module:function"`, imported when it is first needed. Its keyword parameters are the options.

    Raises:
        ValueError: `name` belongs to an environment of the library.
        TypeError: `factory` is neither a function nor `"module:function"`.
    """
    if name in _BUILT_IN:
        raise ValueError(
            f"name={name!r} is an environment of the library; allowed: any name except {', '.join(_BUILT_IN)}"
        )
    if not callable(factory) and not is_place(factory):
        raise TypeError(f"factory={factory!r} of {name!r}; allowed: a function, or a string 'module:function'")
    _registered[name] = factory


def make_env(name: str | Callable[..., Any] | Any, **options: Any) -> Environment | BatchedEnvironment:
    """The environment of that name, with automatic reset: an `Environment`, or a `BatchedEnvironment`.

        make_env("mpe/simple_spread", num_agents=5)
        make_env("pettingzoo/multiwalker_v9", kwargs={"n_walkers": 2}, num_workers=4)
        make_env(lambda: my_simulators.Harbor(ships=3), reward="individual")

    Args:
        name: one of `list_envs()`; a simulator of PettingZoo, mpe2 or Gymnasium, such as `"pettingzoo/multiwalker_v9"`
            or `"gymnasium/CartPole-v1"`; or a function, or its location `"module:function"`, that makes an
            `Environment` or a simulator; or one simulator, which is copied.
        options: the options of the environment, documented in its factory; those of a simulator in
            `hajax.envs.simulators.simulators`, beside those of the function. Every environment also takes `state`, the
            critic's state: `"observations"` for the agents' concatenated unpadded observations, `"environment"` for
            the environment's (the default, unless the factory has a `state` option with another default).

    Raises:
        ValueError: an unknown name or option, a missing option, or a value that is not allowed.
        TypeError: the factory did not return an environment.
    """
    from hajax.envs.base import BatchedEnvironment, Environment
    from hajax.envs.batching import conform  # JAX

    factory = _find(name) if isinstance(name, str) else name
    name = _label(name)
    if not callable(factory):
        simulators = importlib.import_module("hajax.envs.simulators")
        return conform(simulators.simulators(name, simulators.copies(name, factory), **options))
    parameters = inspect.signature(factory).parameters
    foreign, given = _may_simulate(name, factory), parameters.get("kwargs")
    if foreign and (given is None or given.kind == given.VAR_KEYWORD):
        options = {**options.pop("kwargs", {}), **options}
    reserved = ("state", *(_simulator_options() if foreign else ()))
    _check_options(name, options, [*parameters.values()], also=reserved)
    takes_any = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
    own = {key: value for key, value in options.items() if key in parameters or (takes_any and key not in reserved)}
    others = {key: value for key, value in options.items() if key not in own}
    env = factory(**own)
    if isinstance(env, Environment | BatchedEnvironment):
        named = {key: others.pop(key) for key in [*others] if takes_any and key != "state"}
        if named:  # it is no simulator, and has these options itself
            env = factory(**own, **named)
        return _in_jax(name, env, others)
    if foreign:
        simulators = importlib.import_module("hajax.envs.simulators")
        if simulators.simulates(env):
            env.close()
            return conform(simulators.simulators(name, functools.partial(factory, **own), **others))
    raise TypeError(
        f"the factory of {name!r} returned {type(env).__name__}; it must return an Environment, or a simulator of "
        "PettingZoo or Gymnasium"
    )


def _in_jax(name: str, env: Environment | BatchedEnvironment, others: dict[str, Any]) -> Any:
    """An environment in JAX with the options that its factory does not have."""
    from hajax.envs.base import BatchedEnvironment, state_from_observations
    from hajax.envs.batching import auto_reset, conform  # JAX

    for key, value in others.items():
        usual = env.spec.reward if key == "reward" else _simulator_options().get(key)
        if key != "state" and (tuple(value) if isinstance(usual, tuple) else value) != usual:
            raise ValueError(f"{key}={value!r} of {name}, which is no simulator; allowed: {usual!r}")
    state = others.get("state", "environment")
    check_choice("state", state, _STATES)
    if isinstance(env, BatchedEnvironment):
        if state == "observations":
            raise ValueError(f"state='observations' of {name}, which steps a batch; allowed: environment")
        return conform(env)
    env = auto_reset(env)
    return state_from_observations(env) if state == "observations" else env


def env_options(name: str) -> dict[str, Any]:
    """The options of that environment with their defaults; `...` for an option without a default."""
    factory = _find(name)
    named = [
        p for p in inspect.signature(factory).parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    also = _simulator_options() if _likely_simulates(name, factory) else {}
    return {"state": "environment"} | also | {p.name: ... if p.default is p.empty else p.default for p in named}


def describe_env(name: str) -> str:
    """One line about the environment: the first of its factory's docstring. Imports nothing of the library's."""
    if name in _DESCRIPTIONS:
        return _DESCRIPTIONS[name]
    factory = {**_BUILT_IN, **_registered}[name]
    return summary(factory) if isinstance(factory, str) else first_line(inspect.getdoc(factory))


def describe_options(name: str) -> dict[str, About]:
    """What the options of that environment mean and may be, by its factory's docstring and annotations."""
    factory = _find(name)
    said, parameters = arguments(factory.__doc__), {**inspect.signature(factory).parameters}
    if _likely_simulates(name, factory):
        simulators = import_function("environment", _SIMULATORS)
        said, parameters = (
            arguments(simulators.__doc__) | said,
            {**inspect.signature(simulators).parameters, **parameters},
        )
    found = {}
    for option in env_options(name):
        if option in parameters:
            kind, choices = _annotated(factory, parameters[option].annotation)
            found[option] = About(said.get(option, ""), kind=kind, choices=choices)
        else:
            found[option] = _STATE
    return found


def _annotated(factory: Factory, annotation: Any) -> tuple[str, tuple[str, ...]]:
    """The kind of value that an annotation means, and the choices that it leaves; empty where it does not say."""
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, getattr(getattr(factory, "func", factory), "__globals__", {}))
        except NameError:  # imported for its type only
            return "", ()
    if get_origin(annotation) is Literal:
        return "str", get_args(annotation)
    return {bool: "bool"}.get(annotation, ""), ()


def _family(name: Any) -> str | None:
    """What makes the factory of a name such as `pettingzoo/multiwalker_v9` of another package."""
    return FAMILIES.get(name.partition("/")[0]) if isinstance(name, str) and name.partition("/")[2] else None


def _may_simulate(name: str, factory: Factory) -> bool:
    """Whether the factory is not the library's, nor annotated as one of environments in JAX: it may make simulators."""
    if name in _BUILT_IN or _family(name) or _segmented(name):
        return False
    annotation = inspect.signature(factory).return_annotation
    return not re.search(r"\b(Batched)?Environment\b", getattr(annotation, "__name__", str(annotation)))


def _likely_simulates(name: str, factory: Factory) -> bool:
    """Whether the shell offers the options of simulators: the factory, or a name in its module, is of a simulator."""
    if not _may_simulate(name, factory):
        return False
    return importlib.import_module("hajax.envs.simulators").likely_makes(factory)


def _simulator_options() -> dict[str, Any]:
    """The options of simulators with their defaults."""
    parameters = inspect.signature(import_function("environment", _SIMULATORS)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind == p.KEYWORD_ONLY}


def _label(name: Any) -> str:
    """What messages call the environment."""
    if isinstance(name, str):
        return name
    return getattr(name, "__qualname__", None) or type(name).__name__


def _find(name: str) -> Factory:
    known: dict[str, str | Factory] = {**_BUILT_IN, **_registered}
    if name not in known and is_place(name):
        return import_function("environment", name)
    if name not in known and isinstance(name, str) and (place := _segmented(name)):
        return import_function("environment", place)
    if name not in known and (place := _family(name)):
        return import_function("environment", place)(name)
    check_known("environment", name, list_envs())
    factory = known[name]
    return import_function("environment", factory) if isinstance(factory, str) else factory


def _segmented(name: str) -> str | None:
    """The factory's location for robots of any number of segments, such as `mamujoco/many_agent_swimmer_5x3`."""
    group, _, robot = name.partition("/")
    return f"hajax.envs.mamujoco:{robot}" if group == "mamujoco" and SEGMENTED.fullmatch(robot) else None


def _check_options(name: str, options: dict, parameters: list[inspect.Parameter], also: tuple[str, ...]) -> None:
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if not any(p.kind == p.VAR_KEYWORD for p in parameters):
        check_settings(name, options, [*(p.name for p in named), *also])
    for parameter in named:
        if parameter.default is parameter.empty and parameter.name not in options:
            raise ValueError(f"setting {parameter.name!r} of {name} is missing; it has no default")
