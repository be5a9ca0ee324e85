"""Specifications of agents and environments, padding tables, and the timestep.

Shape legend, used in every docstring of the library: `T` time, `E` environments, `N` agents, `G` parameter groups,
`K` members of a group, `B` batch, `O` padded observation width, `D` action components, `C` padded choices of a
discrete component, `S` state width.

Agents that differ are padded to common widths. The padding tables are NumPy constants, so that a compiled program
contains only what the team needs.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np

from hajax.spaces import ActionSpace, Box, Discrete, MultiDiscrete, as_space, checked_shape
from hajax.validation import MOST, check_choice, check_flag, check_number

if TYPE_CHECKING:
    import jax

__all__ = [
    "ActionLayout",
    "ActionSpace",
    "AgentSpec",
    "Box",
    "Discrete",
    "EnvSpec",
    "FinalStep",
    "MultiDiscrete",
    "RewardKind",
    "Timestep",
]

RewardKind = Literal["team", "individual"]


@dataclasses.dataclass(frozen=True)
class AgentSpec:
    """One agent: its name, the natural shape of its observation (flattened in timesteps), and its action space.

    `observation_shape` may be the length of a vector, or 0 for an agent without observation. Spaces of other libraries
    are converted; see `as_space`.

    Raises:
        ValueError: a field has a wrong type or value.
    """

    name: str
    observation_shape: tuple[int, ...]
    action_space: ActionSpace

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"AgentSpec.name={self.name!r}; allowed: a text that is not empty")
        try:
            shape = checked_shape("observation_shape", self.observation_shape)
            space = as_space(self.action_space)
        except ValueError as error:
            raise ValueError(f"agent {self.name!r}: {error}") from None
        object.__setattr__(self, "observation_shape", shape)
        object.__setattr__(self, "action_space", space)

    @property
    def observation_size(self) -> int:
        return math.prod(self.observation_shape)


class ActionLayout(NamedTuple):
    """The existing ones of the padded action components and choices; arrays `[…, D]` and `[…, D, C]`.

    A component that is not discrete keeps choice 0, so that its categorical distribution is a point mass and not NaN. A
    Box action is `center + scale · u` with `u` the policy's Gaussian variable (scale 1 where unbounded).
    """

    discrete: Any  # bool [..., D]
    continuous: Any  # bool [..., D]
    choices: Any  # bool [..., D, C]
    center: Any  # [..., D]
    scale: Any  # [..., D]
    bounded: Any = None  # bool [..., D]: continuous with both bounds, which squashed policies respect


@dataclasses.dataclass(frozen=True)
class EnvSpec:
    """An environment: its agents, the width of the critic's state, the step limit, and the kind of reward.

    `reward="team"` gives every agent the sum over agents, `"individual"` each agent its own reward. `max_steps` is the
    number of steps after which an episode is truncated, `None` if there is no limit. With `state_per_agent` the critic
    has one state per agent, `[N, S]` instead of `[S]`. With `masks_actions=False` every choice is always available, and
    updates are compiled without action masks. With `state_from_observations` the state is the concatenation of the
    agents' unpadded observations, so a replay does not store it.
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
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"EnvSpec.name={self.name!r}; allowed: a text that is not empty")
        try:
            self._check()
        except ValueError as error:
            raise ValueError(f"EnvSpec of {self.name!r}: {error}") from None
        for field in ("state_size", *(["max_steps"] if self.max_steps is not None else [])):
            object.__setattr__(self, field, int(getattr(self, field)))
        object.__setattr__(self, "agents", tuple(self.agents))

    def _check(self) -> None:
        agents = self.agents
        if not isinstance(agents, Sequence) or not agents or not all(isinstance(agent, AgentSpec) for agent in agents):
            raise ValueError(f"agents={agents!r}; allowed: at least one AgentSpec")
        names = [agent.name for agent in agents]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"agents has {names.count(name)} of the name {name!r}; allowed: a name for each agent")
        check_number("state_size", self.state_size, 0, MOST, whole=True)
        if self.max_steps is not None:
            check_number("max_steps", self.max_steps, 1, MOST, whole=True)
        check_choice("reward", self.reward, get_args(RewardKind))
        for field in ("state_per_agent", "masks_actions", "state_from_observations"):
            check_flag(field, getattr(self, field))

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
        bounded = np.isfinite(low) & np.isfinite(high)
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
    """The final timestep of an episode, which an automatic reset replaces.

    Equal to the fields of the timestep if there was no reset. A truncated episode bootstraps from it, a terminated one
    does not.
    """

    observation: jax.Array  # [N, O]
    state: jax.Array  # [S], or [N, S]
    action_mask: jax.Array  # bool [N, D, C]
    active: jax.Array  # bool [N]


class Timestep(NamedTuple):
    """What `reset` and `step` return besides the state. Fields may have leading batch axes.

    `reward`, `terminated`, `truncated`, `metrics` and `final` belong to the step just taken; `observation`, `state`,
    `action_mask`, `active` and `first` to the next action (after an automatic reset, they are those of the new episode
    and `first` is true).
    """

    observation: jax.Array  # [N, O], padded with zeros
    state: jax.Array  # [S], for the critic; [N, S] with `state_per_agent`
    action_mask: jax.Array  # bool [N, D, C]: the choices available now
    active: jax.Array  # bool [N]: whether the next action counts; false for a dead agent
    reward: jax.Array  # [N]
    terminated: jax.Array  # bool []: the episode ended for good
    truncated: jax.Array  # bool []: the episode was cut by the step limit
    first: jax.Array  # bool []: this timestep opens an episode
    final: FinalStep
    metrics: dict[str, jax.Array]  # scalars, such as `win`; meaningful where the episode ends
