"""Simulators of PettingZoo and Gymnasium as environments, in worker processes."""

from __future__ import annotations

import functools
import importlib
import inspect
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from hajax.envs.simulators.interface import SimulatorError, as_parallel
from hajax.envs.simulators.team import describe
from hajax.envs.simulators.workers import Task
from hajax.spec import RewardKind
from hajax.validation import check_choice, check_flag, check_number, check_of_package, nearest

if TYPE_CHECKING:
    from hajax.envs.base import BatchedEnvironment

NOTHING: Mapping[str, Any] = MappingProxyType({})


def simulators(
    name: str,
    make: Callable[..., Any],
    *,
    kwargs: Mapping[str, Any] = NOTHING,
    reward: RewardKind = "team",
    joint_reward: bool = False,
    state: Literal["environment", "observations"] = "environment",
    max_steps: int | None = None,
    metrics: Sequence[str] = (),
    num_workers: int | None = None,
    timeout: float = 120.0,
) -> BatchedEnvironment:
    """Copies of the simulator that `make(**kwargs)` makes, in worker processes.

    Args:
        name: what messages call it.
        make: makes a simulator: a `ParallelEnv` or an `AECEnv` of PettingZoo, or an `Env` of Gymnasium, which is a team
            of one agent.
        kwargs: the simulator's own options, by name.
        reward: `"team"` gives every agent the sum of the individual rewards, `"individual"` its own.
        joint_reward: the simulator gives all agents one reward, the team's. It counts once; each agent's own is its
            equal share.
        state: the critic's state: `"environment"` for what the simulator's `state()` returns, if it has one;
            otherwise, and with `"observations"`, the agents' observations end to end.
        max_steps: steps after which an episode is truncated; by default the simulator's own limit, if it says so.
        metrics: entries of the simulator's infos at the end of an episode, which are reported beside its return.
        num_workers: worker processes; by default one per core. With 0 the program itself steps the simulators.
        timeout: seconds after which a worker that does not answer is started again.

    Raises:
        ValueError: an option has a value that is not allowed, or the simulator's spaces are not supported.
    """
    from hajax.envs.callbacks import cores
    from hajax.envs.simulators.bridge import on_host  # JAX, which workers do without

    check_choice("reward", reward, ("team", "individual"))
    check_flag("joint_reward", joint_reward)
    check_choice("state", state, ("environment", "observations"))
    if max_steps is not None:
        check_number("max_steps", max_steps, 1, whole=True)
    if num_workers is None:
        num_workers = cores()
    check_number("num_workers", num_workers, 0, whole=True)
    check_number("timeout", timeout, 0, open_low=True)
    if isinstance(metrics, str) or not all(isinstance(metric, str) for metric in metrics):
        raise ValueError(f"metrics={metrics!r}; allowed: a list of names")
    if not isinstance(kwargs, Mapping):
        raise ValueError(f"kwargs={kwargs!r}; allowed: options by their names")
    made = functools.partial(make, **kwargs)
    try:
        env = as_parallel(name, made())
    except TypeError as error:
        raise ValueError(f"kwargs={dict(kwargs)!r} of {name}: {error}") from error
    try:
        layout = describe(
            name,
            env,
            reward=reward,
            joint_reward=joint_reward,
            state=state,
            max_steps=max_steps,
            metrics=tuple(metrics),
        )
    except SimulatorError as error:
        raise ValueError(str(error)) from error
    finally:
        env.close()
    draws = "rgb_array" in (getattr(env, "metadata", None) or {}).get("render_modes", ())
    return on_host(Task(made, layout, num_workers, timeout, draws))


def named(name: str) -> Callable[..., BatchedEnvironment]:
    """The factory of a simulator of a package: `pettingzoo/NAME`, `mpe2/NAME` or `gymnasium/ID`."""
    factory = functools.partial(simulators, name, functools.partial(make_named, name))
    factory.__doc__ = simulators.__doc__
    return factory


def make_named(name: str, **kwargs: Any) -> Any:
    """The simulator of that name.

    Raises:
        ValueError: there is none, or what it needs is not installed.
    """
    package, _, own = name.partition("/")
    if find_spec(package) is None:
        raise ValueError(f"env={name} needs {package}, which is not installed; pip install 'hajax[simulators]'")
    if package == "gymnasium":
        import gymnasium

        try:
            return gymnasium.make(own, **kwargs)
        except gymnasium.error.UnregisteredEnv as error:
            close = nearest(own, gymnasium.registry)
            hint = f"; did you mean {' or '.join(f'gymnasium/{found}' for found in close)}?" if close else ""
            raise ValueError(f"env={name}: {error}{hint}") from error
        except gymnasium.error.Error as error:
            raise ValueError(f"env={name}: {error}") from error
    modules = modules_of(package)
    check_of_package(package, own, sorted(modules))
    try:
        module = importlib.import_module(modules[own])
    except ImportError as error:
        if not isinstance(error, ModuleNotFoundError):
            raise ValueError(f"env={name}: {error}") from error
        group = modules[own].split(".")[1]
        extra = f"; pip install '{package}[{group}]'" if modules[own].count(".") > 1 else ""
        raise ValueError(f"env={name} needs {error.name}, which is not installed{extra}") from error
    make = module.parallel_env if hasattr(module, "parallel_env") else module.env
    return make(**kwargs)


def modules_of(package: str) -> dict[str, str]:
    """The modules of simulators in a package, such as `multiwalker_v9`: `pettingzoo.sisl.multiwalker_v9`."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    root = Path(spec.submodule_search_locations[0])
    files = [file for pattern in ("*_v*.py", "*/*_v*.py") for file in root.glob(pattern)]
    return {file.stem: ".".join((package, *file.relative_to(root).with_suffix("").parts)) for file in files}


def copies(name: str, simulator: Any) -> Callable[[], Any]:
    """A function that makes copies of one simulator.

    Raises:
        TypeError: it is no simulator, or cannot be copied.
    """
    if not simulates(simulator):
        raise TypeError(
            f"name={simulator!r} is {type(simulator).__name__}; allowed: the name of an environment, a simulator of "
            "PettingZoo or Gymnasium, or a function that makes one"
        )
    import cloudpickle

    try:
        return functools.partial(pickle.loads, cloudpickle.dumps(simulator))
    except Exception as error:
        raise TypeError(f"{name} cannot be copied ({error}); allowed: a function that makes such simulators") from error


def simulates(thing: Any) -> bool:
    """Whether it looks like an environment of PettingZoo or Gymnasium, or a vector of them."""
    spaces = hasattr(thing, "observation_space") and hasattr(thing, "action_space")
    return spaces and callable(getattr(thing, "reset", None)) and callable(getattr(thing, "step", None))


def likely_makes(factory: Callable[..., Any]) -> bool:
    """Whether a function may make simulators: it, or a name in its module, is of a simulator."""
    module = sys.modules.get(getattr(factory, "__module__", None) or "")
    return any(_is_of_simulators(value) for value in [factory, *(vars(module).values() if module else ())])


def _is_of_simulators(value: Any) -> bool:
    """Whether a value in a module is of Gymnasium or PettingZoo, or a class with their interface."""
    home = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
    if isinstance(home, str) and home.partition(".")[0] in ("gymnasium", "pettingzoo"):
        return True
    return isinstance(value, type) and hasattr(value, "observation_space") and hasattr(value, "action_space")
