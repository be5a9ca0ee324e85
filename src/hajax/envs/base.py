"""The interface of environments, and functions for adapters: timesteps, padding, the critic's state.

An adapter defines `reset` and `step` functions without automatic reset, makes its timesteps with `timestep`, and
returns an `Environment`. `hajax.make_env` adds the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp

from hajax.spec import EnvSpec, FinalStep, Timestep

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Scene(NamedTuple):
    """The input of MuJoCo's renderer and brax's viewer: a model, and the positions of its joints in a state."""

    model: Any  # mujoco.MjModel
    qpos: Callable[[Any], Any]  # the environment's state -> [nq]
    seconds: float  # the duration of a step
    size: float  # the size of the moving bodies, in meters
    flat: bool  # whether they move in a horizontal plane, which is shown from above


class Viewer(NamedTuple):
    """Draws pictures of an environment, outside compiled code.

    `draw(axes, state, action, timestep)` draws one step on empty Matplotlib axes: the environment's state *before* the
    step, the joint action `[N, D]` taken in it, and the timestep that followed, whose `reward`, `terminated`,
    `truncated`, `metrics` and `final` belong to this step. (The state after the last step of an episode is not
    available, because an automatic reset has replaced it.) All are of one environment, without batch axes, and hold
    NumPy arrays.

    `scene` describes the environment to a three-dimensional renderer, if its states are those of a MuJoCo model.
    """

    draw: Callable[[Axes, Any, Any, Timestep], None]
    scene: Scene | None = None


class Counted(NamedTuple):
    """The state of another library's environment, and the number of steps so far in the episode."""

    inner: Any
    step: jax.Array  # int []


class Reset(Protocol):
    """Begins an episode; in a `BatchedEnvironment`, one in each of E environments."""

    def __call__(self, key: jax.Array, /) -> tuple[Any, Timestep]:
        """The environment state, any tree of arrays, and the first timestep, for a key (keys `[E]`)."""


class Step(Protocol):
    """Takes one step; in a `BatchedEnvironment`, one in each of E environments."""

    def __call__(self, key: jax.Array, state: Any, action: jax.Array, /) -> tuple[Any, Timestep]:
        """The next environment state and the timestep that follows.

        Args:
          key: a key (keys `[E]`).
          state: what `reset` or the last step returned.
          action: the joint action `[N, D]` (`[E, N, D]`). A discrete component holds the index of a choice. A Box
            component may be outside its bounds; the environment clips it.
        """


@dataclasses.dataclass(frozen=True)
class OverlappedStep:
    """The step of a `BatchedEnvironment` that can also begin before the step of other environments has ended.

    A wrapper that replaces `step` thus removes the overlap too.

    `exchange(state, action, other) -> (state, other, timestep)` begins the step of the environments of `state` `[E]`
    with actions `[E, N, D]`, then ends the step of as many others, whose timestep it returns. If no step of theirs is
    under way, that is their last one. `end(state) -> (state, timestep)` ends the step of these environments.
    """

    step: Step
    exchange: Callable[[Any, jax.Array, Any], tuple[Any, Any, Timestep]]
    end: Callable[[Any], tuple[Any, Timestep]]
    is_faster: Callable[[int], bool]  # whether halves of so many environments that overlap are faster than the whole

    def __call__(self, key: jax.Array, state: Any, action: jax.Array, /) -> tuple[Any, Timestep]:
        return self.step(key, state, action)


class Environment(NamedTuple):
    """One environment as pure functions of keys and states. `batched` makes a batch of it.

    `observe(whole) -> observations [N, O]`, if not `None`, computes the agents' observations from the whole state `[S]`
    of another implementation of the environment.
    """

    spec: EnvSpec
    reset: Reset
    step: Step
    resets: bool = False  # whether `step` resets automatically, see `auto_reset`
    observe: Callable[[jax.Array], jax.Array] | None = None
    viewer: Viewer | None = None

    @property
    def host(self) -> None:
        """No simulators; see `BatchedEnvironment`."""
        return None


class Host(Protocol):
    """The simulators behind a batch of environments, whose states can be used once."""

    fault: Any  # the error that ended the last program, if a simulator caused it; its `details` are a traceback

    def with_frames(self) -> BatchedEnvironment:
        """The environment with a picture in every state, which its viewer draws."""

    def resumed(self, state: Any, timestep: Timestep) -> Any:
        """The states of an ended program in new simulators; `None` if these do not lead to the same timesteps."""

    def close(self) -> None:
        """Ends all processes."""


class BatchedEnvironment(NamedTuple):
    """A batch of E environments with automatic reset, as training and evaluation step it.

    Its timesteps `[E, …]` are like those of `auto_reset`. An adapter that owns batching and resets, such as a simulator
    whose reset is expensive, returns this instead of an `Environment`. Its states may be any tree. It must accept any
    E, and is vmapped over seeds.
    """

    spec: EnvSpec
    reset: Reset
    step: Step
    observe: Callable[[jax.Array], jax.Array] | None = None
    viewer: Viewer | None = None  # of one environment; the states must have a leading batch axis
    host: Host | None = None  # the simulators behind it, if there are any


def timestep(
    spec: EnvSpec,
    observation: jax.Array,
    state: jax.Array,
    *,
    reward: jax.Array | None = None,
    joint_reward: jax.Array | None = None,
    terminated: jax.Array | bool = False,
    truncated: jax.Array | bool = False,
    first: bool = False,
    action_mask: jax.Array | None = None,
    active: jax.Array | None = None,
    metrics: dict[str, jax.Array] | None = None,
) -> Timestep:
    """A `Timestep` with defaults: every agent is active, and all its choices are available.

    `reward` holds individual rewards `[N]`; with `spec.reward == "team"` every agent receives their sum. An environment
    with a reward for the whole team passes the scalar `joint_reward` instead, which is the team reward; an individual
    reward is then an equal share of it. A timestep of `reset` has no reward.
    """
    if joint_reward is not None:
        joint_reward = jnp.asarray(joint_reward)
        share = joint_reward if spec.reward == "team" else joint_reward / spec.num_agents
        reward = jnp.broadcast_to(share, (spec.num_agents,))
    elif reward is not None:
        reward = jnp.asarray(reward)
        if spec.reward == "team":
            reward = jnp.broadcast_to(reward.sum(), reward.shape)
    elif first is True:
        reward = jnp.zeros(spec.num_agents)
    if action_mask is None:
        action_mask = jnp.asarray(spec.action_layout.choices)
    if active is None:
        active = jnp.ones(spec.num_agents, bool)
    final = FinalStep(observation, state, action_mask, active)
    return Timestep(
        observation=observation,
        state=state,
        action_mask=action_mask,
        active=active,
        reward=cast(jax.Array, reward),  # None if it is missing; `conform` then raises an error
        terminated=jnp.asarray(terminated),
        truncated=jnp.asarray(truncated),
        first=jnp.asarray(first),
        final=final,
        metrics={} if metrics is None else metrics,
    )


def pad_observations(spec: EnvSpec, observations: list[jax.Array]) -> jax.Array:
    """Stacks the agents' observations into `[N, O]`, flattened and padded with zeros.

    Raises:
        ValueError: an observation does not have as many entries as its `AgentSpec` says.
    """
    flat = [jnp.ravel(observation) for observation in observations]
    for agent, observation in zip(spec.agents, flat, strict=True):
        if observation.size != agent.observation_size:
            raise ValueError(
                f"observation of {agent.name} has {observation.size} entries; allowed: {agent.observation_size}, "
                f"as its AgentSpec in {spec.name} says"
            )
    return jnp.stack([jnp.pad(x, (0, spec.observation_size - x.size)) for x in flat])


def concatenate_observations(spec: EnvSpec, observation: jax.Array) -> jax.Array:
    """The concatenation of all agents' observations without padding, `[…, N, O] -> […, ΣOᵢ]`."""
    flat = observation.reshape(*observation.shape[:-2], spec.num_agents * spec.observation_size)
    own = spec.observation_mask.ravel()
    return flat if own.all() else flat[..., own]


def clip_action(spec: EnvSpec, action: jax.Array) -> jax.Array:
    """Actions `[…, N, D]` with Box components clipped to their bounds."""
    if not spec.has_continuous:
        return action
    low, high = spec.action_bounds
    return jnp.clip(action, low.astype(action.dtype), high.astype(action.dtype))


def state_from_observations(env: Environment) -> Environment:
    """The environment with the concatenated observations as the critic's state, with zeros for inactive agents."""
    width = sum(agent.observation_size for agent in env.spec.agents)
    spec = dataclasses.replace(env.spec, state_size=width, state_per_agent=False, state_from_observations=True)

    def joined(observation: jax.Array, active: jax.Array) -> jax.Array:
        return concatenate_observations(spec, jnp.where(active[:, None], observation, 0))

    def replace(ts: Timestep) -> Timestep:
        final = ts.final._replace(state=joined(ts.final.observation, ts.final.active))
        return ts._replace(state=joined(ts.observation, ts.active), final=final)

    def reset(key):
        state, ts = env.reset(key)
        return state, replace(ts)

    def step(key, state, action):
        state, ts = env.step(key, state, action)
        return state, replace(ts)

    return env._replace(spec=spec, reset=reset, step=step)
