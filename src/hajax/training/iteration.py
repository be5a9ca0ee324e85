"""What every training loop is: pure functions `init` and `iterate`, and the state that they pass on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap

from hajax.envs.base import BatchedEnvironment
from hajax.training.rollout import Actors

# What hajax reports of episodes itself, in training or in evaluation.
RESERVED_METRICS = frozenset(
    ("episodes", "episode_return", "episode_length", "finished", "return", "length", "return_mean", "return_std")
)


class TrainState(NamedTuple):
    """Everything that the next iteration depends on."""

    algorithm: Any  # the algorithm's own state
    actors: Actors
    key: jax.Array
    replay: Any = ()  # a `Replay`, if the algorithm is off-policy


class Loop(NamedTuple):
    """`init(key, hyperparameters=None) -> TrainState` and `iterate(train_state) -> (train_state, metrics)`.

    Both are pure, jit and vmap (over keys, and over hyperparameters). `metrics` is a dictionary of scalars and of
    diagnostics per group, agent or critic, small enough to stack over iterations. `init` takes `warmup_steps`
    environment steps; a call of `iterate` takes `steps_per_iteration` and calls `update` `updates_per_iteration` times.
    """

    init: Callable[..., TrainState]
    iterate: Callable[[TrainState], tuple[TrainState, dict[str, jax.Array]]]
    steps_per_iteration: int
    updates_per_iteration: int = 1
    warmup_steps: int = 0
    replay_bytes: int = 0  # what the replay takes of the device's memory
    rows_per_iteration: int = 0  # of a replay, in each environment, at most

    def iterations(self, total_steps: int) -> int:
        """The iterations after which at least `total_steps` environment steps have been taken, warm-up and all.

        Raises ValueError if the warm-up alone takes as many, or if one of the program's counters would overflow.
        """
        if total_steps <= self.warmup_steps:
            raise ValueError(f"total_steps={total_steps}; allowed: more than the {self.warmup_steps} of the warm-up")
        iterations = -((self.warmup_steps - total_steps) // self.steps_per_iteration)
        # The program counts iterations, updates and the rows of a replay, whose warm-up takes two a step at most.
        counted = max(self.updates_per_iteration, self.rows_per_iteration, 1)
        most = (jnp.iinfo(jnp.result_type(int)).max - 2 * self.warmup_steps) // counted
        if iterations > most:
            raise ValueError(
                f"total_steps={total_steps}; allowed: at most {self.warmup_steps + most * self.steps_per_iteration}, "
                "which a program counts to (more with JAX_ENABLE_X64=1, or with a larger num_envs)"
            )
        return iterations


def in_turn_on_cpu(update: Callable) -> Callable:
    """`update`, but on a CPU `vmap` runs it over its axis in turn instead of at once.

    One seed's activations fit a CPU's cache and eight seeds' do not; batched, the same arithmetic takes 1.7 times as
    long there. An accelerator wants the batch. Reverse-mode differentiation does not go through a function treated so:
    who needs it composes `rollout` and `algo.update` directly.
    """
    return sequential_vmap(update) if jax.default_backend() == "cpu" else update


def check_metrics(env: BatchedEnvironment) -> None:
    """Raises ValueError if the environment's metrics have names that are hajax's own."""
    _, opening = jax.eval_shape(env.reset, jax.random.split(jax.random.key(0), 1))
    for name in opening.metrics:
        if name in RESERVED_METRICS or name.startswith("stochastic_"):
            raise ValueError(f"metrics={name!r} of {env.spec.name} is a name of hajax's own; allowed: any other")
