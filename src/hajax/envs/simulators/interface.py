"""PettingZoo's and Gymnasium's interfaces: one form of both, their spaces, and what their functions return.

Worker processes import this file, so it does not import JAX.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hajax.spaces import ActionSpace, Box, Discrete, MultiDiscrete, as_space

os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # many simulators draw with pygame, which greets

# Where a wrapper keeps what it wraps.
INNER = ("unwrapped", "env", "aec_env", "par_env", "single_agent_env")
MASK = "action_mask"
PICTURE = (540, 720)  # the largest height and width of a picture that a film shows


class SimulatorError(RuntimeError):
    """A simulator that broke its interface or raised an error, or a worker process that failed; one line.

    `details` is the traceback in the worker process, if there is one.
    """

    def __init__(self, message: str, details: str = ""):
        super().__init__(" ".join(message.split()))
        self.details = details


class OneAgent:
    """A Gymnasium environment as PettingZoo's parallel one, with a single agent."""

    possible_agents = ("agent",)

    def __init__(self, env: Any):
        self.env = env
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> Any:
        return self.env.observation_space

    def action_space(self, agent: str) -> Any:
        return self.env.action_space

    def reset(self, seed: int | None = None) -> Any:
        result = self.env.reset(seed=seed)
        self.agents = ["agent"]
        if not isinstance(result, tuple) or len(result) != 2:
            return result
        return tuple({"agent": part} for part in result)

    def step(self, actions: Mapping[str, Any]) -> Any:
        result = self.env.step(actions["agent"])
        if not isinstance(result, tuple) or len(result) != 5:
            return result
        self.agents = [] if result[2] or result[3] else ["agent"]
        return tuple({"agent": part} for part in result)

    @property
    def metadata(self) -> Any:
        return self.env.metadata

    def render(self) -> Any:
        return self.env.render()

    def close(self) -> None:
        self.env.close()


def as_parallel(name: str, env: Any) -> Any:
    """The environment with PettingZoo's parallel interface.

    Environments whose agents act one after another are converted by PettingZoo: in cycles if they allow it, else the
    agent whose turn it is acts alone.

    Raises:
        ValueError: `env` is no single environment of PettingZoo or Gymnasium.
    """
    if not hasattr(env, "observation_space") or hasattr(env, "single_observation_space"):
        kind = "a vector of environments" if hasattr(env, "single_observation_space") else type(env).__name__
        raise ValueError(
            f"{name} makes {kind}; allowed: a ParallelEnv or AECEnv of PettingZoo, an Env of Gymnasium, or an "
            "Environment of hajax"
        )
    if hasattr(env, "agent_iter"):
        from pettingzoo.utils import aec_to_parallel, turn_based_aec_to_parallel

        in_cycles = (getattr(env, "metadata", None) or {}).get("is_parallelizable", False)
        return aec_to_parallel(env) if in_cycles else turn_based_aec_to_parallel(env)
    if hasattr(env, "possible_agents"):
        return env
    if callable(env.observation_space):
        raise ValueError(f"{name} has no `possible_agents`; allowed: the names of all agents, as in PettingZoo 1.24")
    return OneAgent(env)


def observed_shape(space: Any) -> tuple[int, ...]:
    """An agent's observation: a Box as it is; a choice as one 1 among zeros, and composite spaces flat."""
    from gymnasium.spaces.utils import flatdim

    return tuple(space.shape) if is_box(space) else (flatdim(space),)


def action_space(space: Any) -> ActionSpace:
    """The action space, with choices that are numbered from 0; `native_action` adds the first."""
    from gymnasium.spaces import Discrete as Choice
    from gymnasium.spaces import MultiDiscrete as Choices

    if isinstance(space, Choice):
        return Discrete(int(space.n))
    return MultiDiscrete(tuple(np.ravel(space.nvec))) if isinstance(space, Choices) else as_space(space)


def native_action(space: Any, own: ActionSpace) -> Callable[[np.ndarray], Any]:
    """A function that makes an element of the simulator's own space of an action `[D]`; Box components are clipped."""
    size = own.num_components
    if isinstance(own, Box):
        low, high = np.array(own.low), np.array(own.high)
        return lambda action: np.minimum(np.maximum(action[:size], low), high).astype(space.dtype).reshape(space.shape)
    start = getattr(space, "start", 0)
    if isinstance(own, Discrete):
        first = int(start)
        return lambda action: round(float(action[0])) + first
    return lambda action: (
        np.rint(action[:size]).astype(space.dtype).reshape(space.shape) + np.asarray(start, space.dtype)
    )


def step_limit(env: Any) -> int | None:
    """The number of steps after which the environment truncates an episode, if it says so; wrappers are looked into."""
    seen: list[Any] = []
    found = [env]
    while found and len(seen) < 20:
        one = found.pop(0)
        seen.append(one)
        registered = getattr(one, "spec", None)
        for value in (
            getattr(one, "max_cycles", None),
            getattr(registered, "max_episode_steps", None),
            getattr(one, "_max_episode_steps", None),
        ):
            if isinstance(value, int | np.integer) and value > 0:
                return int(value)
        inner = [getattr(one, name, None) for name in INNER]
        found += [part for part in inner if part is not None and not any(part is other for other in seen)]
    return None


def picture_of(name: str, env: Any) -> np.ndarray:
    """What the environment renders, `[height, width, 3]` bytes; a large picture without some rows and columns."""
    picture = env.render()
    if not isinstance(picture, np.ndarray) or picture.ndim != 3:
        kind = type(picture).__name__
        raise SimulatorError(f"{name}: render returned {kind}; allowed: an array [height, width, 3]")
    stride = max(1, *(math.ceil(size / most) for size, most in zip(picture.shape, PICTURE, strict=False)))
    return picture[::stride, ::stride, :3].astype(np.uint8)


def takes_turns(env: Any) -> bool:
    """Whether only the agent whose turn it is acts in a step."""
    if not hasattr(env, "aec_env"):
        return False
    from pettingzoo.utils.conversions import turn_based_aec_to_parallel_wrapper

    return isinstance(env, turn_based_aec_to_parallel_wrapper)


def is_box(space: Any) -> bool:
    from gymnasium.spaces import Box as RealBox

    return isinstance(space, RealBox)


def flattened(space: Any, value: Any) -> Any:
    from gymnasium.spaces.utils import flatten

    return flatten(space, value)


def own_space(space: Any) -> Any:
    """An agent's observation space without its action mask."""
    return space["observation"] if has_mask(space) else space


def has_mask(space: Any) -> bool:
    from gymnasium.spaces import Dict

    if not isinstance(space, Dict) or MASK not in space.spaces:
        return False
    if set(space.spaces) != {"observation", MASK}:
        raise ValueError(f"observation_space={space}; allowed: {MASK} beside `observation` alone, or in the infos")
    return True


def own_state(env: Any) -> np.ndarray | None:
    """The simulator's own state for a critic, `[S]`, if it has one."""
    if not callable(getattr(getattr(env, "unwrapped", env), "state", None)):
        return None
    try:
        return np.ravel(np.asarray(env.state(), float))
    except NotImplementedError:
        return None


def reset_with(name: str, env: Any, seed: int) -> Any:
    try:
        return env.reset(seed=seed)
    except TypeError as error:
        if "seed" not in str(error):
            raise
        raise SimulatorError(f"{name}: {error}; allowed: reset(seed=…), as in Gymnasium 0.26 and later") from error


def unpacked(name: str, function: str, result: Any, parts: int) -> Any:
    """What `reset` or `step` returned: `parts` dictionaries by agent."""
    size = len(result) if isinstance(result, tuple) else None
    if size == parts and all(isinstance(part, Mapping) for part in result):
        return result
    has = f"{size} values" if size is not None and size != parts else type(result).__name__
    if size == parts:
        has = ", ".join(type(part).__name__ for part in result)
    meant = "(observations, infos)" if parts == 2 else "(observations, rewards, terminations, truncations, infos)"
    raise SimulatorError(f"{name}: {function} returned {has}; allowed: {meant}, as in Gymnasium 0.26 and later")
