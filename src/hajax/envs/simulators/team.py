"""A simulator of PettingZoo or Gymnasium as a team: its specification, and rows of numbers that hold its timesteps.

Worker processes import this file, so it does not import JAX.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from hajax.spaces import ActionSpace, Box, Discrete, MultiDiscrete, as_space
from hajax.spec import AgentSpec, EnvSpec, RewardKind

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


class Column(NamedTuple):
    """Where a field of a timestep is in a row, and its shape."""

    place: slice
    shape: tuple[int, ...]


class Layout(NamedTuple):
    """A team as rows `[W]`: what the next action depends on, the same of the final step, then the rest."""

    spec: EnvSpec
    metrics: tuple[str, ...]
    columns: dict[str, Column]
    shown: slice  # `observation`, `state`, `action_mask`, `active`
    final: slice
    width: int
    joint_reward: bool = False  # whether all agents get one reward, which counts once

    def fields(self, rows: Any) -> dict[str, Any]:
        """The fields of rows `[…, W]`; views of an array of NumPy."""
        return {
            name: rows[..., column.place].reshape((*rows.shape[:-1], *column.shape))
            for name, column in self.columns.items()
        }


def make_layout(spec: EnvSpec, metrics: tuple[str, ...]) -> Layout:
    """The layout of rows. A row has no state that is made from observations, and no masks that are always true."""
    shapes: dict[str, tuple[int, ...]] = {"observation": (spec.num_agents, spec.observation_size)}
    shapes |= {} if spec.state_from_observations else {"state": spec.state_shape}
    shapes |= {MASK: spec.action_layout.choices.shape} if spec.masks_actions else {}
    shapes |= {"active": (spec.num_agents,)}
    size = sum(math.prod(shape) for shape in shapes.values())
    shapes |= {f"final.{name}": shape for name, shape in shapes.items()}
    shapes |= {"reward": (spec.num_agents,), "terminated": (), "truncated": ()}
    shapes |= {f"metrics.{name}": () for name in metrics}
    columns, start = {}, 0
    for name, shape in shapes.items():
        columns[name] = Column(slice(start, start + math.prod(shape)), shape)
        start += math.prod(shape)
    return Layout(spec, metrics, columns, slice(0, size), slice(size, 2 * size), start)


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


def describe(
    name: str,
    env: Any,
    *,
    reward: RewardKind = "team",
    joint_reward: bool = False,
    state: str = "environment",
    max_steps: int | None = None,
    metrics: tuple[str, ...] = (),
) -> Layout:
    """The specification of a parallel environment, read from its spaces and from one reset, as the layout of its rows.

    Raises:
        ValueError: it has no agents, or a space that is not supported.
        SimulatorError: its `reset` is not that of PettingZoo or Gymnasium.
    """
    ids = list(env.possible_agents)
    if not ids:
        raise ValueError(f"possible_agents of {name} is empty; allowed: at least one agent")
    _, infos = _unpacked(name, "reset", _reset(name, env, 0), 2)
    if not env.agents:
        raise ValueError(f"agents of {name} is empty after reset; allowed: at least one agent")
    spaces = [_own_space(env.observation_space(agent)) for agent in ids]
    agents = []
    for agent, space in zip(ids, spaces, strict=True):
        try:
            agents.append(AgentSpec(str(agent), observed_shape(space), action_space(env.action_space(agent))))
        except (ValueError, NotImplementedError) as error:
            raise ValueError(f"{name}, agent {agent}: {error}") from None
    masked = any(MASK in (infos.get(agent) or {}) or _has_mask(env.observation_space(agent)) for agent in ids)
    own = None if state == "observations" else _state(env)
    width = sum(agent.observation_size for agent in agents) if own is None else own.size
    own_limit = None if _takes_turns(env) else step_limit(env)  # whose cycles are of as many steps as there are agents
    limit = own_limit if max_steps is None else max_steps
    spec = EnvSpec(name, tuple(agents), width, limit, reward, masks_actions=masked, state_from_observations=own is None)
    return make_layout(spec, metrics)._replace(joint_reward=joint_reward)


def observed_shape(space: Any) -> tuple[int, ...]:
    """An agent's observation: a Box as it is; a choice as one 1 among zeros, and composite spaces flat."""
    from gymnasium.spaces.utils import flatdim

    return tuple(space.shape) if _is_box(space) else (flatdim(space),)


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


def episode_seed(seed: int, episode: int) -> int:
    """The seed of the simulator's `reset` for an episode, counted from 0, after a reset with `seed`."""
    return int(np.random.SeedSequence((seed, episode)).generate_state(1)[0]) >> 1  # some take no more than 31 bits


def picture_of(name: str, env: Any) -> np.ndarray:
    """What the environment renders, `[height, width, 3]` bytes; a large picture without some rows and columns."""
    picture = env.render()
    if not isinstance(picture, np.ndarray) or picture.ndim != 3:
        kind = type(picture).__name__
        raise SimulatorError(f"{name}: render returned {kind}; allowed: an array [height, width, 3]")
    stride = max(1, *(math.ceil(size / most) for size, most in zip(picture.shape, PICTURE, strict=False)))
    return picture[::stride, ::stride, :3].astype(np.uint8)


class Simulator:
    """A simulator that writes its timesteps to a row `[W]`; the step that ends an episode also begins the next."""

    def __init__(self, make: Callable[[], Any], layout: Layout, row: np.ndarray):
        self.layout, self.row = layout, row
        self.spec = layout.spec
        self.name = self.spec.name
        self.fields = layout.fields(row)
        self.env = as_parallel(self.name, make())
        self.ids = list(self.env.possible_agents)
        names = tuple(map(str, self.ids))
        if names != tuple(agent.name for agent in self.spec.agents):
            raise SimulatorError(f"agents of {self.name} are {names}; allowed: the same in every copy and episode")
        self.action_spaces = [self.env.action_space(agent) for agent in self.ids]
        self.spaces = [self.env.observation_space(agent) for agent in self.ids]
        self.native = [
            native_action(space, agent.action_space)
            for space, agent in zip(self.action_spaces, self.spec.agents, strict=True)
        ]
        self.masked = [_has_mask(space) for space in self.spaces]
        self.own_spaces = [_own_space(space) for space in self.spaces]
        self.boxes = [_is_box(space) for space in self.own_spaces]
        self.turns = _takes_turns(self.env)
        self.active: list[Any] = []
        self.seed, self.episode, self.steps = 0, 0, 0
        self.bounds = self._bounds()
        self.warnings: list[str] = []

    def reset(self, seed: int) -> None:
        """Begins the first of the episodes that follow from `seed`."""
        self.seed, self.episode = seed, 0
        for name in ("reward", "terminated", "truncated", *(f"metrics.{name}" for name in self.layout.metrics)):
            self.fields[name][...] = 0
        self._begin()
        self.row[self.layout.final] = self.row[self.layout.shown]

    def step(self, action: np.ndarray) -> None:
        """Takes one step with the joint action `[N, D]`; the active agents act."""
        if not np.isfinite(action).all():  # the run stops for what is not finite in the algorithm, with its name
            action = np.nan_to_num(action)
        actions = {agent: self.native[i](action[i]) for i, agent in enumerate(self.ids) if agent in self.active}
        observations, rewards, ended, cut, infos = _unpacked(self.name, "step", self.env.step(actions), 5)
        self.steps += 1
        for agent in actions:
            for field, values in (("rewards", rewards), ("terminations", ended), ("truncations", cut)):
                if agent not in values:
                    raise self._error(f"{field} lacks {agent}", "every agent that acted")
        self.fields["reward"][:] = self._joint(rewards) if self.layout.joint_reward else self._own(rewards)
        alive = [agent for agent in self.env.agents if not (ended.get(agent) or cut.get(agent))]
        out_of_time = bool(alive) and self.spec.max_steps is not None and self.steps >= self.spec.max_steps
        done = not alive or out_of_time
        left_over = alive or [agent for agent in self.ids if cut.get(agent) and not ended.get(agent)]
        self.fields["terminated"][...] = done and not left_over
        self.fields["truncated"][...] = done and bool(left_over)
        for name in self.layout.metrics:
            self.fields[f"metrics.{name}"][...] = self._metric(name, infos, done)
        self._show("final.", observations, infos, self._to_act(alive) if alive else left_over)
        if not np.isfinite(self.row).all():
            raise self._not_finite()
        if done:
            self._begin()
        else:
            self.row[self.layout.shown] = self.row[self.layout.final]

    def frame(self) -> np.ndarray:
        """The picture of the simulator now."""
        return picture_of(self.name, self.env)

    def close(self) -> None:
        self.env.close()

    def _begin(self) -> None:
        self.steps = 0
        result = _reset(self.name, self.env, episode_seed(self.seed, self.episode))
        self.episode += 1
        observations, infos = _unpacked(self.name, "reset", result, 2)
        if not self.env.agents:
            raise self._error("agents is empty after reset", "at least one")
        for i, agent in enumerate(self.ids):
            for field, old, new in (
                ("observation_space", self.spaces[i], self.env.observation_space(agent)),
                ("action_space", self.action_spaces[i], self.env.action_space(agent)),
            ):
                if new is not old and new != old:
                    raise self._error(f"{field} of {agent} changed from {old} to {new}", "the same in every episode")
        self._show("", observations, infos, self._to_act(list(self.env.agents)))
        if not np.isfinite(self.row[self.layout.shown]).all():
            raise self._not_finite()

    def _own(self, rewards: Mapping) -> list[float]:
        return [rewards.get(agent, 0) for agent in self.ids]

    def _joint(self, rewards: Mapping) -> float:
        """Every agent's share of the one reward."""
        given = [rewards[agent] for agent in self.ids if agent in rewards]
        if any(reward != given[0] for reward in given):
            raise self._error(f"rewards are {given}", "with joint_reward=True, the same reward for all agents")
        return given[0] / len(self.ids)

    def _to_act(self, alive: list[Any]) -> list[Any]:
        """Those of the agents that act next."""
        return [self.env.aec_env.agent_selection] if self.turns and alive else alive

    def _show(self, prefix: str, observations: Mapping, infos: Mapping, active: list[Any]) -> None:
        """Writes what the agents that are active observe. The fields of others are 0, and all their choices true."""
        fields = self.fields
        self.active = active
        seen, own = fields[f"{prefix}observation"], self.layout.spec.agents
        seen[:] = 0
        fields[f"{prefix}active"][:] = [agent in active for agent in self.ids]
        if self.spec.masks_actions:
            fields[f"{prefix}{MASK}"][:] = self.spec.action_layout.choices
        for i, agent in enumerate(self.ids):
            if agent not in active:
                continue
            if agent not in observations:
                raise self._error(f"observations lacks {agent}", "every agent in `agents`")
            value, mask = observations[agent], (infos.get(agent) or {}).get(MASK)
            if self.masked[i]:
                value, mask = value["observation"], value[MASK]
            flat = self._flat(i, agent, value)
            seen[i, : flat.size] = flat
            if mask is not None and self.spec.masks_actions:
                self._mask(fields[f"{prefix}{MASK}"][i], agent, own[i].action_space, mask, over=not self.env.agents)
            elif mask is not None:
                raise self._error(f"{MASK} of {agent} is new", "a mask from the first reset on, or none")
        if self.bounds is not None:
            self._check_bounds(seen, fields[f"{prefix}active"])
        if not self.spec.state_from_observations and not active:
            fields[f"{prefix}state"][:] = (
                0  # terminated: nothing bootstraps from it, and some simulators no longer have it
            )
        elif not self.spec.state_from_observations:
            state = np.ravel(np.asarray(self.env.state(), float))
            if state.size != self.spec.state_size:
                raise self._error(f"state has {state.size} entries", str(self.spec.state_size))
            fields[f"{prefix}state"][:] = state

    def _flat(self, i: int, agent: Any, value: Any) -> np.ndarray:
        try:
            flat = np.asarray(value if self.boxes[i] else _flattened(self.own_spaces[i], value)).ravel()
            size = flat.size if flat.dtype.kind in "biuf" else -1
        except Exception:
            size = -1
        if size != self.spec.agents[i].observation_size:
            kind = f"{size} entries" if size >= 0 else f"type {type(value).__name__}"
            raise self._error(f"observation of {agent} has {kind}", f"its space, {self.own_spaces[i]}")
        return flat

    def _mask(self, row: np.ndarray, agent: Any, space: ActionSpace, mask: Any, over: bool) -> None:
        """Writes the mask `[D, C]` of an agent; a mask of several components is a tuple or their concatenation.

        Where the episode is `over`, a mask without any choice means nothing.
        """
        parts = mask if isinstance(mask, tuple | list) else [mask]
        flat = np.concatenate([np.ravel(part) for part in parts]).astype(bool)
        if flat.size != sum(space.choices):
            raise self._error(f"action_mask of {agent} has {flat.size} entries", str(sum(space.choices)))
        for d, (end, n) in enumerate(zip(np.cumsum(space.choices), space.choices, strict=True)):
            if over and not flat[end - n : end].any():
                continue
            row[d, :n] = flat[end - n : end]
            if not row[d, :n].any():
                raise self._error(f"action_mask of {agent} leaves no choice", "at least one that is available")

    def _metric(self, name: str, infos: Mapping, done: bool) -> float:
        for info in infos.values():
            if isinstance(info, Mapping) and name in info:
                return float(info[name])
        if done:
            known = sorted({str(key) for info in infos.values() if isinstance(info, Mapping) for key in info})
            raise self._error(f"metrics={name}, but infos has no such entry", ", ".join(known) or "none")
        return 0.0

    def _bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The bounds of the observations, `[N, O]` each; `None` if there are none."""
        low = np.full((self.spec.num_agents, self.spec.observation_size), -np.inf, self.row.dtype)
        high = -low
        for i, space in enumerate(self.own_spaces):
            if hasattr(space, "low") and hasattr(space, "high"):
                size = self.spec.agents[i].observation_size
                low[i, :size], high[i, :size] = np.ravel(space.low), np.ravel(space.high)
        return (low, high) if np.isfinite(low).any() or np.isfinite(high).any() else None

    def _check_bounds(self, seen: np.ndarray, active: np.ndarray) -> None:
        """Warns once of an observation outside of its space, which does no harm: nothing relies on the bounds."""
        assert self.bounds is not None
        low, high = self.bounds
        outside = ((seen < low) | (seen > high)) & (active[:, None] > 0)
        if outside.any():
            i, k = np.argwhere(outside)[0]
            self.warnings.append(
                f"{self.name}: observation of {self.ids[i]} is {seen[i, k]:g} in entry {k}, outside of its space, "
                f"which allows {low[i, k]:g} to {high[i, k]:g}"
            )
            self.bounds = None

    def _not_finite(self) -> SimulatorError:
        for name, values in self.fields.items():
            bad = np.argwhere(~np.isfinite(values))
            if bad.size:
                field = name.removeprefix("final.")
                of_agent = field in ("observation", "reward")
                where = f" of {self.ids[bad[0][0]]}" if of_agent else ""
                return self._error(f"{field}{where} is {values[tuple(bad[0])]}", "finite numbers")
        raise AssertionError  # the row consists of its fields

    def _error(self, what: str, allowed: str) -> SimulatorError:
        return SimulatorError(f"{self.name}: {what} {self.when()}; allowed: {allowed}")

    def when(self) -> str:
        """The step and the episode, in words."""
        return f"at step {self.steps} of episode {self.episode}"


def _takes_turns(env: Any) -> bool:
    """Whether only the agent whose turn it is acts in a step."""
    if not hasattr(env, "aec_env"):
        return False
    from pettingzoo.utils.conversions import turn_based_aec_to_parallel_wrapper

    return isinstance(env, turn_based_aec_to_parallel_wrapper)


def _is_box(space: Any) -> bool:
    from gymnasium.spaces import Box as RealBox

    return isinstance(space, RealBox)


def _flattened(space: Any, value: Any) -> Any:
    from gymnasium.spaces.utils import flatten

    return flatten(space, value)


def _own_space(space: Any) -> Any:
    """An agent's observation space without its action mask."""
    return space["observation"] if _has_mask(space) else space


def _has_mask(space: Any) -> bool:
    from gymnasium.spaces import Dict

    if not isinstance(space, Dict) or MASK not in space.spaces:
        return False
    if set(space.spaces) != {"observation", MASK}:
        raise ValueError(f"observation_space={space}; allowed: {MASK} beside `observation` alone, or in the infos")
    return True


def _state(env: Any) -> np.ndarray | None:
    """The simulator's own state for a critic, `[S]`, if it has one."""
    if not callable(getattr(getattr(env, "unwrapped", env), "state", None)):
        return None
    try:
        return np.ravel(np.asarray(env.state(), float))
    except NotImplementedError:
        return None


def _reset(name: str, env: Any, seed: int) -> Any:
    try:
        return env.reset(seed=seed)
    except TypeError as error:
        if "seed" not in str(error):
            raise
        raise SimulatorError(f"{name}: {error}; allowed: reset(seed=…), as in Gymnasium 0.26 and later") from error


def _unpacked(name: str, function: str, result: Any, parts: int) -> Any:
    """What `reset` or `step` returned: `parts` dictionaries by agent."""
    size = len(result) if isinstance(result, tuple) else None
    if size == parts and all(isinstance(part, Mapping) for part in result):
        return result
    has = f"{size} values" if size is not None and size != parts else type(result).__name__
    if size == parts:
        has = ", ".join(type(part).__name__ for part in result)
    meant = "(observations, infos)" if parts == 2 else "(observations, rewards, terminations, truncations, infos)"
    raise SimulatorError(f"{name}: {function} returned {has}; allowed: {meant}, as in Gymnasium 0.26 and later")
