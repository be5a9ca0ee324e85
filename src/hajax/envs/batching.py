"""Environments as training steps them: checked against their specification, with automatic reset, in batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from hajax.envs.base import BatchedEnvironment, Environment, OverlappedStep
from hajax.spec import EnvSpec, FinalStep, Timestep

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

    def converting(function: Callable) -> Any:
        def convert(*arguments):
            *states, shown = function(*arguments)
            return *states, _converted(shown)

        return convert

    step: Any = env.step
    if isinstance(step, OverlappedStep):
        step = OverlappedStep(converting(step.step), converting(step.exchange), converting(step.end), step.is_faster)
    else:
        step = converting(step)
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


def auto_reset(env: Environment, reopen: Callable[[Any], tuple[Any, Timestep]] | None = None) -> Environment:
    """The environment with automatic reset: the step that ends an episode also starts the next one.

    The timestep then holds the first observation of the new episode, with `first` set, and `reward`, `terminated`,
    `truncated`, `metrics` and `final` of the episode that ended. An environment with automatic reset is returned
    unchanged.

    `reopen(state) -> (state, timestep)`, if given, returns the next episode's start instead of `reset(key)`, which
    every step computes for every environment: a start that an earlier step of the episode drew and put into the state.

    Raises:
        ValueError: the environment does not conform to its specification; see `conform`.
    """
    if env.resets:
        return env
    env = conform(env)

    def step(key, state, action):
        step_key, reset_key = jax.random.split(key)
        next_state, last = env.step(step_key, state, action)
        reset_state, opening = env.reset(reset_key) if reopen is None else reopen(next_state)
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
