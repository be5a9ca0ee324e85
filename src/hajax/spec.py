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
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import numpy as np

from hajax.validation import MOST, check_choice, check_flag, check_number, check_numbers

RewardKind = Literal["team", "individual"]


@dataclasses.dataclass(frozen=True)
class Discrete:
    """One choice among `n`: a single discrete component."""

    n: int

    def __post_init__(self):
        check_number("Discrete.n", self.n, 1, MOST, whole=True)
        object.__setattr__(self, "n", int(self.n))

    @property
    def num_components(self) -> int:
        return 1

    @property
    def choices(self) -> tuple[int, ...]:
        """The number of choices of each discrete component."""
        return (self.n,)


@dataclasses.dataclass(frozen=True)
class MultiDiscrete:
    """One choice among `nvec[d]` for every component d, all at once. An array of several axes is flattened."""

    nvec: tuple[int, ...]

    def __post_init__(self):
        flat = _flat(self.nvec)
        try:
            check_numbers("MultiDiscrete.nvec", flat, 1, whole=True)
        except ValueError as error:
            raise ValueError(
                f"MultiDiscrete.nvec={self.nvec!r}; allowed: a list of whole numbers >= 1, one per component"
            ) from error
        object.__setattr__(self, "nvec", tuple(int(n) for n in flat))

    @property
    def num_components(self) -> int:
        return len(self.nvec)

    @property
    def choices(self) -> tuple[int, ...]:
        """The number of choices of each discrete component."""
        return self.nvec


# A bound of at least this size is no bound: other libraries write ±3.4e38, the largest float32, where they have none.
NO_BOUND = 1e30


@dataclasses.dataclass(frozen=True, init=False)
class Box:
    """A real vector with bounds per dimension: `Box(low, high)`, or `Box(low, high, shape)` with the same for all.

    Bounds are numbers or arrays, which are flattened; `Box(-1, 1)` has one dimension. A dimension may be unbounded, on
    one side or on both: ±inf, or any bound of 1e30 and more. Policies treat a dimension without both bounds as
    unbounded, and the environment clips their actions at the bound that there is.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def __init__(self, low: Any, high: Any, shape: Any = None):
        size = None if shape is None else math.prod(checked_shape("Box.shape", shape))
        bounds = [_flat(low), _flat(high)]
        size = max(map(len, bounds)) if size is None else size
        for name, given, flat in zip(("low", "high"), (low, high), bounds, strict=True):
            if len(flat) not in (1, size) or not size or not all(_is_real(x) for x in flat):
                raise ValueError(f"Box.{name}={given!r}; allowed: a number, or one for each of {size} dimensions")
            values = [float(x) for x in flat] * (size if len(flat) == 1 else 1)
            values = [math.copysign(math.inf, x) if abs(x) >= NO_BOUND else x for x in values]
            object.__setattr__(self, name, tuple(values))
        for d, (one, other) in enumerate(zip(self.low, self.high, strict=True)):
            if not other - one > 1 / NO_BOUND:
                raise ValueError(f"Box.low={one} and Box.high={other} in dimension {d}; allowed: low < high")

    @property
    def num_components(self) -> int:
        return len(self.low)

    @property
    def choices(self) -> tuple[int, ...]:
        """Empty: no component is discrete."""
        return ()


ActionSpace = Discrete | MultiDiscrete | Box


def as_space(space: Any) -> ActionSpace:
    """`space` itself if it is one of the three, or the one that another library's stands for.

    Recognized by their attributes, as Gymnasium, gymnax, jaxmarl and Jumanji have them: Discrete (`n`, `num_values`),
    MultiDiscrete (`nvec`), MultiBinary (a choice of two per entry) and Box (`low`, `high`). Arrays are flattened.

    Raises:
        ValueError: nothing of the kind, choices that do not begin at 0, or a Box of whole numbers.
    """
    if isinstance(space, ActionSpace):
        return space
    kind = type(space).__name__
    start = getattr(space, "start", 0)
    if not callable(start) and np.any(np.asarray(start) != 0):
        raise ValueError(f"action_space={space!r} begins at {start}; allowed: choices that are numbered from 0")
    for name in ("nvec", "num_values", "num_categories", "n"):
        count = getattr(space, name, None)
        if count is None or callable(count):
            continue
        if kind == "MultiBinary":
            return MultiDiscrete((2,) * int(np.prod(count)))
        return MultiDiscrete(count) if name == "nvec" or np.ndim(count) else Discrete(count)
    for low, high in (("low", "high"), ("minimum", "maximum")):
        if hasattr(space, low) and hasattr(space, high):
            dtype = getattr(space, "dtype", None)
            if dtype is not None and not np.issubdtype(np.dtype(dtype), np.floating):
                raise ValueError(
                    f"action_space={space!r} holds {np.dtype(dtype)}; allowed: a Box of real numbers, or Discrete"
                )
            return Box(getattr(space, low), getattr(space, high), getattr(space, "shape", None))
    raise ValueError(f"action_space={space!r}; allowed: Discrete(n), MultiDiscrete(nvec), Box(low, high)")


def checked_shape(name: str, shape: Any) -> tuple[int, ...]:
    """`shape` as a tuple of whole numbers; a number is the length of a vector.

    Raises:
        ValueError: it is something else, or a length is negative.
    """
    lengths = list(shape) if isinstance(shape, Sequence | np.ndarray) and np.ndim(shape) == 1 else [shape]
    try:
        for length in lengths:
            check_number(name, length, 0, MOST, whole=True)
    except ValueError as error:
        raise ValueError(f"{name}={shape!r}; allowed: whole numbers >= 0, such as 4 or (4,) or (8, 8, 3)") from error
    return tuple(int(length) for length in lengths)


def _flat(values: Any) -> list[Any]:
    """The entries of a number or an array, in order; what is neither as it is."""
    try:
        return np.ravel(np.asarray(values)).tolist()
    except ValueError:  # lists of different lengths
        return [values]


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


@dataclasses.dataclass(frozen=True)
class AgentSpec:
    """One agent: its name, the natural shape of its observation (flattened in timesteps), its action space.

    `observation_shape` may be the length of a vector, and 0 for an agent that observes nothing. The spaces of other
    libraries are converted; see `as_space`.

    Raises:
        ValueError: a field is of another kind.
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
    """Which of the padded action components and choices exist; arrays `[…, D]` and `[…, D, C]`.

    A component that is not discrete keeps choice 0, so that its categorical is a point mass and never NaN.
    A Box action is `center + scale · u` with `u` the policy's Gaussian variable (scale 1 where unbounded).
    """

    discrete: Any  # bool [..., D]
    continuous: Any  # bool [..., D]
    choices: Any  # bool [..., D, C]
    center: Any  # [..., D]
    scale: Any  # [..., D]
    bounded: Any = None  # bool [..., D]: continuous and with both bounds, which squashed policies keep


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
