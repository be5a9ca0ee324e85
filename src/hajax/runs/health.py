"""Detection of NaN and infinity during a training: the first quantity of each seed, and its iteration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hajax.sharding import fetched
from hajax.spec import EnvSpec
from hajax.training.rollout import Actors


class Health(NamedTuple):
    """The health of one seed, a part of the compiled loop's state."""

    iterations: jax.Array  # int []: iterations done
    failed_at: jax.Array  # int []: the first iteration, from 1, after which a quantity was non-finite; 0 if none
    quantity: jax.Array  # int []: the index of the first such quantity


class Failure(NamedTuple):
    """A trial's first non-finite quantity."""

    trial: int  # its index
    iteration: int
    quantity: str


def healthy(shape: tuple[int, ...] = ()) -> Health:
    """The health before the first iteration. Each zero is allocated separately, because buffers are donated."""
    return Health(jnp.zeros(shape, int), jnp.zeros(shape, int), jnp.zeros(shape, int))


def quantities(algorithm_state: Any, metrics: Mapping[str, jax.Array], undefined: tuple[str, ...]) -> dict[str, Any]:
    """What must be finite after an iteration: losses and other diagnostics, then the algorithm's state.

    `undefined` names metrics that may be NaN (means over no episodes). Hyperparameters may be infinite.
    """
    found = {name: value for name, value in metrics.items() if name not in undefined}
    for path, leaf in jax.tree_util.tree_leaves_with_path(algorithm_state):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if not name.startswith("hyperparameters") and jnp.issubdtype(leaf.dtype, jnp.inexact):
            found[name] = leaf
    return found


def from_environment(spec: EnvSpec, actors: Actors, metrics: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The last observations of the environment, and the returns of episodes under way and of those that have ended.

    If the policy that chose the actions was finite, they are the cause of a non-finite update and not its effect. The
    critic's state is left out, because not every algorithm uses it.
    """
    timestep = actors.timestep
    ended = jnp.where(metrics["episodes"] > 0, metrics["episode_return"], 0)
    observations = {
        f"the environment's observation of {agent.name}": timestep.observation[..., k, :]
        for k, agent in enumerate(spec.agents)
    }
    return observations | {
        "the environment's reward": actors.episodes.running_return.sum() + ended,
    }


def watch(health: Health, found: Mapping[str, jax.Array]) -> Health:
    """The health after one more iteration, with these quantities."""
    bad = jnp.stack([~jnp.isfinite(value).all() for value in found.values()])
    iterations = health.iterations + 1
    newly = (health.failed_at == 0) & bad.any()
    return Health(
        iterations,
        jnp.where(newly, iterations, health.failed_at),
        jnp.where(newly, jnp.argmax(bad).astype(health.quantity.dtype), health.quantity),
    )


def failures(health: Health, names: tuple[str, ...]) -> list[Failure]:
    """The failed trials in a `health` with a leading axis of trials."""
    _, failed_at, quantity = fetched(health)
    return [
        Failure(k, int(iteration), names[int(quantity[k])]) for k, iteration in enumerate(failed_at) if iteration > 0
    ]
