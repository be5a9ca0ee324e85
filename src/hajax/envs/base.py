"""The interface of environments, and functions for adapters: timesteps, padding, automatic reset, the critic's state.

An adapter defines `reset` and `step` functions without automatic reset, makes its timesteps with `timestep`, and
returns an `Environment`. `hajax.make_env` adds the rest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast

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


# The fields of a timestep that hold truth values and real numbers. Other types are converted if that is lossless.
TRUTHS = ("action_mask", "active", "terminated", "truncated", "first")
REALS = ("observation", "state", "reward")


Either = TypeVar("Either", Environment, BatchedEnvironment)


def conform(env: Either) -> Either:
    """The environment, checked against its specification, with timesteps of consistent types.

    `reset` and `step` are traced but not run. Truth values given as numbers (0 is false) and real numbers given as
    integers, such as the bytes of an image, are converted. The timestep of `reset` has `first` set, and zeros for the
    metrics of `step` and for a missing reward.

    Raises:
        ValueError: a function does not return a state and a timestep, a field of a timestep does not have the shape or
            type of the specification, `step` has no reward, a metric is not a scalar, or `step` changes the type or
            shape of an array in the state.
    """
    spec, key = env.spec, jax.random.key(0)
    action = jnp.zeros((spec.num_agents, spec.num_components))
    batch: tuple[int, ...] = ()
    if isinstance(env, BatchedEnvironment):
        batch = (2,)
        key, action = jax.random.split(key, batch), jnp.stack([action] * 2)
    state, opening = _traced("reset", env, key)
    next_state, following = _traced("step", env, key, state, action)
    if getattr(opening, "reward", None) is None:
        opening = opening._replace(reward=jnp.zeros((*batch, spec.num_agents)))
    _check_timestep("reset", spec, opening, batch)
    _check_timestep("step", spec, following, batch)
    before: dict[Any, Any] = dict(jax.tree_util.tree_leaves_with_path(state))
    after: dict[Any, Any] = dict(jax.tree_util.tree_leaves_with_path(next_state))
    for path in [*before, *after]:
        one, two = before.get(path), after.get(path)
        if one is None or two is None or (one.shape, one.dtype) != (two.shape, two.dtype):
            name = jax.tree_util.keystr(path, simple=True, separator="/") or "the state"
            raise ValueError(
                f"{name} in the state of {spec.name} is {_described(one)} after reset and {_described(two)} after "
                "step; allowed: the same type and shape"
            )

    def reset(key):
        state, shown = env.reset(key)
        first: jax.Array = jnp.ones(jnp.shape(shown.terminated), bool)
        reward = jnp.zeros((*first.shape, spec.num_agents)) if shown.reward is None else shown.reward
        action = jnp.zeros((*first.shape, spec.num_agents, spec.num_components))
        following = jax.eval_shape(env.step, key, state, action)[1].metrics  # traced here, for the current precision
        metrics = {name: jnp.zeros(x.shape, x.dtype) for name, x in following.items()}
        return state, _converted(shown._replace(reward=reward, first=first, metrics=metrics))

    def step(key, state, action):
        state, shown = env.step(key, state, action)
        return state, _converted(shown)

    return env._replace(reset=reset, step=step)


def _traced(function: str, env: Environment | BatchedEnvironment, *arguments: Any) -> tuple[Any, Timestep]:
    """The state and the timestep that `reset` or `step` returns, as shapes and dtypes."""
    result: Any = jax.eval_shape(getattr(env, function), *arguments)
    if not isinstance(result, tuple) or len(result) != 2 or not isinstance(result[1], Timestep):
        parts = [type(x).__name__ for x in result] if isinstance(result, tuple) else [type(result).__name__]
        raise ValueError(f"{function} of {env.spec.name} returns {', '.join(parts)}; allowed: (state, Timestep)")
    return result


def _check_timestep(function: str, spec: EnvSpec, shown: Timestep, batch: tuple[int, ...]) -> None:
    shapes: dict[str, tuple[int, ...]] = {
        "observation": (spec.num_agents, spec.observation_size),
        "state": spec.state_shape,
        "action_mask": spec.action_layout.choices.shape,
        **dict.fromkeys(("active", "reward"), (spec.num_agents,)),
        **dict.fromkeys(("terminated", "truncated", "first"), ()),
    }
    fields = [(name, name, getattr(shown, name)) for name in shapes]
    fields += [(f"final.{name}", name, getattr(shown.final, name)) for name in FinalStep._fields]
    metrics: Any = shown.metrics
    if not isinstance(metrics, dict):
        kind = type(metrics).__name__
        raise ValueError(f"metrics of {spec.name} is {kind} in {function}; allowed: a dictionary")
    fields += [(f"metrics[{name!r}]", "metrics", value) for name, value in metrics.items()]
    for title, name, found in fields:
        if found is None:
            needed = "reward=[N], each agent's own, or joint_reward=, the team's" if name == "reward" else "an array"
            raise ValueError(f"{title} of {spec.name} is missing in {function}; allowed: {needed}")
        shape = (*batch, *shapes.get(name, ()))
        if not hasattr(found, "shape") or found.shape != shape:
            has = f"shape {found.shape}" if hasattr(found, "shape") else f"type {type(found).__name__}"
            says = "a scalar" if name == "metrics" and not batch else f"{shape}, as its EnvSpec says"
            raise ValueError(f"{title} of {spec.name} has {has} in {function}; allowed: {says}")
        if not any(jnp.issubdtype(found.dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating)):
            kind = "truth values" if name in TRUTHS else "real numbers"
            raise ValueError(f"{title} of {spec.name} has type {found.dtype} in {function}; allowed: {kind}")


def _converted(shown: Timestep) -> Timestep:
    """The timestep with fields converted to truth values and real numbers."""

    def convert(name, value):
        value = jnp.asarray(value)
        if name in TRUTHS:
            return value.astype(bool)
        return value if jnp.issubdtype(value.dtype, jnp.floating) else value.astype(float)

    fields = {name: convert(name, getattr(shown, name)) for name in (*TRUTHS, *REALS)}
    final = FinalStep(**{name: convert(name, getattr(shown.final, name)) for name in FinalStep._fields})
    metrics = {name: convert("metrics", value) for name, value in shown.metrics.items()}
    return shown._replace(**fields, final=final, metrics=metrics)


def _described(leaf: Any) -> str:
    return "nothing" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"


def auto_reset(env: Environment) -> Environment:
    """The environment with automatic reset: the step that ends an episode also starts the next one.

    The timestep then holds the first observation of the new episode, with `first` set, and `reward`, `terminated`,
    `truncated`, `metrics` and `final` of the episode that ended. An environment with automatic reset is returned
    unchanged.

    Raises:
        ValueError: the environment does not conform to its specification; see `conform`.
    """
    if env.resets:
        return env
    env = conform(env)

    def step(key, state, action):
        step_key, reset_key = jax.random.split(key)
        next_state, last = env.step(step_key, state, action)
        reset_state, opening = env.reset(reset_key)
        done = last.terminated | last.truncated
        next_state = jax.tree.map(lambda a, b: jnp.where(done, a, b), reset_state, next_state)

        def choose(field):
            return jnp.where(done, getattr(opening, field), getattr(last, field))

        shown = {name: choose(name) for name in ("observation", "state", "action_mask", "active")}
        return next_state, last._replace(**shown, first=done)

    return env._replace(step=step, resets=True)


def batched(env: Environment | BatchedEnvironment) -> BatchedEnvironment:
    """A batch of the environment: by `vmap` of `auto_reset`, or the environment itself if it owns its batch.

    Raises:
        ValueError: the environment does not conform to its specification; see `conform`.
    """
    if isinstance(env, BatchedEnvironment):
        return conform(env)
    one = auto_reset(env)
    return BatchedEnvironment(env.spec, jax.vmap(one.reset), jax.vmap(one.step), env.observe, env.viewer)


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
