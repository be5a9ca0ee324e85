"""A simulator of PettingZoo or Gymnasium as a team: its specification, and rows of numbers that hold its timesteps.

Worker processes import this file, so it does not import JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from hajax.envs.simulators.interface import (
    MASK,
    SimulatorError,
    action_space,
    as_parallel,
    flattened,
    has_mask,
    is_box,
    native_action,
    observed_shape,
    own_space,
    own_state,
    picture_of,
    reset_with,
    step_limit,
    takes_turns,
    unpacked,
)
from hajax.envs.simulators.rows import Layout, make_layout
from hajax.spaces import ActionSpace
from hajax.spec import AgentSpec, EnvSpec, RewardKind


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
    _, infos = unpacked(name, "reset", reset_with(name, env, 0), 2)
    if not env.agents:
        raise ValueError(f"agents of {name} is empty after reset; allowed: at least one agent")
    spaces = [own_space(env.observation_space(agent)) for agent in ids]
    agents = []
    for agent, space in zip(ids, spaces, strict=True):
        try:
            agents.append(AgentSpec(str(agent), observed_shape(space), action_space(env.action_space(agent))))
        except (ValueError, NotImplementedError) as error:
            raise ValueError(f"{name}, agent {agent}: {error}") from None
    masked = any(MASK in (infos.get(agent) or {}) or has_mask(env.observation_space(agent)) for agent in ids)
    own = None if state == "observations" else own_state(env)
    width = sum(agent.observation_size for agent in agents) if own is None else own.size
    own_limit = None if takes_turns(env) else step_limit(env)  # whose cycles are of as many steps as there are agents
    limit = own_limit if max_steps is None else max_steps
    spec = EnvSpec(name, tuple(agents), width, limit, reward, masks_actions=masked, state_from_observations=own is None)
    return make_layout(spec, metrics)._replace(joint_reward=joint_reward)


def episode_seed(seed: int, episode: int) -> int:
    """The seed of the simulator's `reset` for an episode, counted from 0, after a reset with `seed`."""
    return int(np.random.SeedSequence((seed, episode)).generate_state(1)[0]) >> 1  # some take no more than 31 bits


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
        self.masked = [has_mask(space) for space in self.spaces]
        self.own_spaces = [own_space(space) for space in self.spaces]
        self.boxes = [is_box(space) for space in self.own_spaces]
        self.turns = takes_turns(self.env)
        self.active: list[Any] = []
        self.seed, self.episode, self.steps = 0, 0, 0
        self.bounds = self._bounds()
        self.warnings: list[str] = []

    def reset(self, seed: int, episode: int = 0) -> None:
        """Begins the first of the episodes that follow from `seed`, or a later one."""
        self.seed, self.episode = seed, episode
        for name in ("reward", "terminated", "truncated", *(f"metrics.{name}" for name in self.layout.metrics)):
            self.fields[name][...] = 0
        self._begin()
        self.row[self.layout.final] = self.row[self.layout.shown]

    def step(self, action: np.ndarray) -> None:
        """Takes one step with the joint action `[N, D]`; the active agents act."""
        if not np.isfinite(action).all():  # the run stops for what is not finite in the algorithm, with its name
            action = np.nan_to_num(action)
        actions = {agent: self.native[i](action[i]) for i, agent in enumerate(self.ids) if agent in self.active}
        observations, rewards, ended, cut, infos = unpacked(self.name, "step", self.env.step(actions), 5)
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
        result = reset_with(self.name, self.env, episode_seed(self.seed, self.episode))
        self.episode += 1
        observations, infos = unpacked(self.name, "reset", result, 2)
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
            # The episode has terminated: nothing bootstraps from its state, and some simulators no longer have one.
            fields[f"{prefix}state"][:] = 0
        elif not self.spec.state_from_observations:
            state = np.ravel(np.asarray(self.env.state(), float))
            if state.size != self.spec.state_size:
                raise self._error(f"state has {state.size} entries", str(self.spec.state_size))
            fields[f"{prefix}state"][:] = state

    def _flat(self, i: int, agent: Any, value: Any) -> np.ndarray:
        try:
            flat = np.asarray(value if self.boxes[i] else flattened(self.own_spaces[i], value)).ravel()
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
