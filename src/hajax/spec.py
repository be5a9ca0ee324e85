"""What agents and environments look like: spaces, specifications, padding tables, the timestep.

Shape legend, used in every docstring of the library: `T` time, `E` environments, `N` agents, `G` parameter groups,
`K` members of a group, `B` batch, `O` padded observation width, `D` action components, `C` padded choices of a
discrete component, `S` state width.

Agents that differ are padded to common widths. The tables that say what is padding are NumPy constants, so that a
compiled program contains only what the team needs.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

RewardKind = Literal["team", "individual"]


@dataclasses.dataclass(frozen=True)
class Discrete:
    """One choice among `n`: a single discrete component."""

    n: int

    def __post_init__(self):
        if self.n < 1:
            raise ValueError(f"Discrete.n is {self.n}; it must be at least 1")

    @property
    def num_components(self) -> int:
        return 1

    @property
    def choices(self) -> tuple[int, ...]:
        """The number of choices of each discrete component."""
        return (self.n,)


@dataclasses.dataclass(frozen=True)
class MultiDiscrete:
    """One choice among `nvec[d]` for every component d, all at once."""

    nvec: tuple[int, ...]

    def __post_init__(self):
        object.__setattr__(self, "nvec", tuple(int(n) for n in self.nvec))
        if not self.nvec or min(self.nvec) < 1:
            raise ValueError(f"MultiDiscrete.nvec is {self.nvec}; it needs at least one entry, each at least 1")

    @property
    def num_components(self) -> int:
        return len(self.nvec)

    @property
    def choices(self) -> tuple[int, ...]:
        """The number of choices of each discrete component."""
        return self.nvec


@dataclasses.dataclass(frozen=True)
class Box:
    """A real vector with bounds per dimension; a dimension may be unbounded (±inf on both sides)."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self):
        object.__setattr__(self, "low", tuple(float(x) for x in self.low))
        object.__setattr__(self, "high", tuple(float(x) for x in self.high))
        if not self.low or len(self.low) != len(self.high):
            raise ValueError(f"Box.low has {len(self.low)} entries and Box.high {len(self.high)}; they must match, ≥ 1")
        for low, high in zip(self.low, self.high, strict=True):
            if not low < high or math.isinf(low) != math.isinf(high):
                raise ValueError(f"Box bounds [{low}, {high}] must have low < high, both finite or both infinite")

    @property
    def num_components(self) -> int:
        return len(self.low)

    @property
    def choices(self) -> tuple[int, ...]:
        """Empty: no component is discrete."""
        return ()


ActionSpace = Discrete | MultiDiscrete | Box


@dataclasses.dataclass(frozen=True)
class AgentSpec:
    """One agent: its name, the natural shape of its observation (flattened in timesteps), its action space."""

    name: str
    observation_shape: tuple[int, ...]
    action_space: ActionSpace

    @property
    def observation_size(self) -> int:
        return math.prod(self.observation_shape)


class ActionLayout(NamedTuple):
    """Which of the padded action components and choices exist; arrays `[…, D]` and `[…, D, C]`.

    A component that is not discrete keeps choice 0, so that its categorical is a point mass and never NaN.
    A Box action is `center + scale · u` with `u` the policy's Gaussian variable (scale 1 where unbounded).
    """

    discrete: Any  # bool [..., D]
    continuous: Any  # bool [..., D]
    choices: Any  # bool [..., D, C]
    center: Any  # [..., D]
    scale: Any  # [..., D]
    bounded: Any = None  # bool [..., D]: continuous and with bounds, which squashed policies keep


@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """An environment: its agents, the critic's state width, the step limit, and what `reward` means.

    `reward="team"` gives every agent the sum over agents; `"individual"` gives each its own. `max_steps` is the
    number of steps after which an episode is truncated, `None` if there is no limit. With `state_per_agent` the critic
    sees a state of each agent's own, `[N, S]` instead of `[S]`. With `masks_actions=False` every choice is available at
    all times, and updates are compiled without action masks. With `state_from_observations` the state is the agents'
    unpadded observations end to end, so that a replay need not keep it.
    """

    name: str
    agents: tuple[AgentSpec, ...]
    state_size: int
    max_steps: int | None
    reward: RewardKind = "team"
    state_per_agent: bool = False
    masks_actions: bool = True
    state_from_observations: bool = False

    def __post_init__(self):
        if not self.agents:
            raise ValueError(f"EnvSpec.agents of {self.name!r} is empty; an environment has at least one agent")
        if self.reward not in ("team", "individual"):
            raise ValueError(f"reward={self.reward!r} of {self.name!r}; allowed: team, individual")

    @property
    def num_agents(self) -> int:
        return len(self.agents)

    @property
    def state_shape(self) -> tuple[int, ...]:
        """The shape of a timestep's `state`: `(S,)`, or `(N, S)` if every agent has its own."""
        return (self.num_agents, self.state_size) if self.state_per_agent else (self.state_size,)

    @functools.cached_property
    def observation_size(self) -> int:
        """O: the widest agent's observation width."""
        return max(agent.observation_size for agent in self.agents)

    @functools.cached_property
    def num_components(self) -> int:
        """D: the largest number of action components."""
        return max(agent.action_space.num_components for agent in self.agents)

    @functools.cached_property
    def num_choices(self) -> int:
        """C: the largest number of choices of a discrete component (1 if no agent has one)."""
        return max((n for agent in self.agents for n in agent.action_space.choices), default=1)

    @property
    def has_discrete(self) -> bool:
        return any(agent.action_space.choices for agent in self.agents)

    @property
    def has_continuous(self) -> bool:
        return any(isinstance(agent.action_space, Box) for agent in self.agents)

    @functools.cached_property
    def observation_mask(self) -> np.ndarray:
        """bool `[N, O]`: the entries of the padded observation that the agent has."""
        widths = np.array([agent.observation_size for agent in self.agents])
        return np.arange(self.observation_size) < widths[:, None]

    @functools.cached_property
    def action_layout(self) -> ActionLayout:
        """The padding tables of all agents' actions, `[N, D]` and `[N, D, C]`."""
        shape = (self.num_agents, self.num_components)
        discrete, continuous = np.zeros(shape, bool), np.zeros(shape, bool)
        choices = np.zeros((*shape, self.num_choices), bool)
        choices[..., 0] = True
        low, high = np.full(shape, -np.inf), np.full(shape, np.inf)
        for i, agent in enumerate(self.agents):
            space = agent.action_space
            if isinstance(space, Box):
                continuous[i, : space.num_components] = True
                low[i, : space.num_components], high[i, : space.num_components] = space.low, space.high
            else:
                discrete[i, : space.num_components] = True
                for d, n in enumerate(space.choices):
                    choices[i, d, :n] = True
        bounded = np.isfinite(low)
        finite_low, finite_high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
        center, scale = (finite_low + finite_high) / 2, (finite_high - finite_low) / 2
        return ActionLayout(discrete, continuous, choices, center, scale, bounded)

    @functools.cached_property
    def action_bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """`(low, high)`, each `[N, D]`: bounds of Box components, ±inf elsewhere."""
        low = np.full((self.num_agents, self.num_components), -np.inf)
        high = -low
        for i, agent in enumerate(self.agents):
            if isinstance(agent.action_space, Box):
                low[i, : agent.action_space.num_components] = agent.action_space.low
                high[i, : agent.action_space.num_components] = agent.action_space.high
        return low, high


class FinalStep(NamedTuple):
    """What the episode's own next step would have shown, across an automatic reset.

    Equal to the timestep's own fields when no reset happened. Truncation bootstraps from it; termination does not.
    """

    observation: jax.Array  # [N, O]
    state: jax.Array  # [S], or [N, S]
    action_mask: jax.Array  # bool [N, D, C]
    active: jax.Array  # bool [N]


class Timestep(NamedTuple):
    """What `reset` and `step` show. Fields may carry leading batch axes.

    `reward`, `terminated`, `truncated`, `metrics` and `final` belong to the step that was just taken;
    `observation`, `state`, `action_mask`, `active` and `first` to the next action (after an automatic reset, they
    are the new episode's and `first` is true).
    """

    observation: jax.Array  # [N, O], padded with zeros
    state: jax.Array  # [S], for the critic; [N, S] if the specification says `state_per_agent`
    action_mask: jax.Array  # bool [N, D, C]: the choices available now
    active: jax.Array  # bool [N]: alive, so that the next action counts
    reward: jax.Array  # [N]
    terminated: jax.Array  # bool []: the episode ended for good
    truncated: jax.Array  # bool []: the episode was cut by the step limit
    first: jax.Array  # bool []: this timestep opens an episode
    final: FinalStep
    metrics: dict[str, jax.Array]  # scalars, such as `win`; meaningful where the episode ends
