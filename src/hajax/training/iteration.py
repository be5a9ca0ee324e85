"""The interface of training loops: pure functions `init` and `iterate`, and the state that they pass on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_batching import sequential_vmap

from hajax.envs.base import BatchedEnvironment
from hajax.training.evaluation import RETURN_OF
from hajax.training.rollout import Actors

# The names of episode statistics that hajax reports in training or evaluation. Environments may not use them.
RESERVED_METRICS = frozenset(
    ("episodes", "episode_return", "episode_length", "finished", "return", "length", "return_mean", "return_std")
)


class TrainState(NamedTuple):
    """The state of a training, on which the next iteration depends."""

    algorithm: Any  # the learner state
    actors: Actors
    key: jax.Array
    replay: Any = ()  # a `Replay`, if the algorithm is off-policy


class Loop(NamedTuple):
    """`init(key, hyperparameters=None) -> TrainState` and `iterate(train_state) -> (train_state, metrics)`.

    Both are pure functions that may be jitted and vmapped (over keys and hyperparameters). `metrics` is a dictionary of
    scalars and of diagnostics per group, agent or critic, small enough to stack over iterations. `init` takes
    `warmup_steps` environment steps. `iterate` takes `steps_per_iteration` environment steps and calls `update`
    `updates_per_iteration` times.

    `restart(key, train_state) -> train_state` begins new episodes in all environments, as for simulators that cannot
    repeat those under way, which count as truncated.
    """

    init: Callable[..., TrainState]
    iterate: Callable[[TrainState], tuple[TrainState, dict[str, jax.Array]]]
    restart: Callable[[jax.Array, TrainState], TrainState]
    steps_per_iteration: int
    updates_per_iteration: int = 1
    warmup_steps: int = 0
    replay_bytes: int = 0  # the size of the replay in device memory
    rows_per_iteration: int = 0  # the largest number of replay rows per environment
    rollouts_per_iteration: int = 1  # with updates between them

    def iterations(self, total_steps: int) -> int:
        """The least number of iterations with which a training takes `total_steps` steps, including the warm-up.

        Raises:
          ValueError: the warm-up alone takes as many steps, or a counter of the program would overflow.
        """
        if total_steps <= self.warmup_steps:
            raise ValueError(f"total_steps={total_steps}; allowed: more than the {self.warmup_steps} of the warm-up")
        iterations = -((self.warmup_steps - total_steps) // self.steps_per_iteration)
        # Counters: iterations, updates, and replay rows, of which each step of the warm-up takes at most two.
        counted = max(self.updates_per_iteration, self.rows_per_iteration, 1)
        most = (jnp.iinfo(jnp.result_type(int)).max - 2 * self.warmup_steps) // counted
        if iterations > most:
            raise ValueError(
                f"total_steps={total_steps}; allowed: at most {self.warmup_steps + most * self.steps_per_iteration}, "
                "which a program counts to (more with JAX_ENABLE_X64=1, or with a larger num_envs)"
            )
        return iterations


def sequential_on_cpu(update: Callable) -> Callable:
    """`update`, except that on a CPU `vmap` evaluates it sequentially over its axis instead of batching it.

    The activations of one seed fit into a CPU's cache, those of eight seeds do not: batched, the same arithmetic takes
    1.7 times as long. Accelerators are faster with the batch. The returned function does not support reverse-mode
    differentiation; to differentiate through an update, compose `rollout` and `algo.update` directly.
    """
    return sequential_vmap(update) if jax.default_backend() == "cpu" else update


def check_metrics(env: BatchedEnvironment) -> None:
    """Raises ValueError if a metric of the environment has a name that hajax uses."""
    _, opening = jax.eval_shape(env.reset, jax.random.split(jax.random.key(0), 1))
    for name in opening.metrics:
        if name in RESERVED_METRICS or name.startswith(("stochastic_", RETURN_OF)):
            raise ValueError(f"metrics={name!r} of {env.spec.name} is a name that hajax uses; allowed: any other")
