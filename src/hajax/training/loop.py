"""Training loops for every kind of algorithm, and whole trainings as one pure function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from hajax.core.algorithm import Algorithm
from hajax.envs.base import BatchedEnvironment, Environment
from hajax.training.iteration import Loop
from hajax.training.off_policy import make_off_policy_loop
from hajax.training.on_policy import make_on_policy_loop
from hajax.validation import check_number

# Steps in each environment between updates, as in HARL.
ROLLOUT_LENGTHS = {"on_policy": 200, "off_policy": 50}


def make_loop(
    env: Environment | BatchedEnvironment, algo: Algorithm, *, num_envs: int, rollout_length: int | None = None
) -> Loop:
    """The loop for the algorithm's kind, `rollout_length` steps in each of `num_envs` environments per iteration.

    On-policy algorithms make one update of these steps; off-policy ones store them, and make as many updates on what is
    stored as `updates_per_step` says. If `rollout_length` is `None` it is 200 and 50.

    Raises ValueError for sizes that are not positive or do not go together, an algorithm made for another team, or an
    environment whose metrics have names that are taken.
    """
    if rollout_length is None:
        rollout_length = ROLLOUT_LENGTHS[algo.kind]
    check_number("num_envs", num_envs, 1, whole=True)
    check_number("rollout_length", rollout_length, 1, whole=True)
    make = make_on_policy_loop if algo.kind == "on_policy" else make_off_policy_loop
    return make(env, algo, num_envs=num_envs, rollout_length=rollout_length)


def make_train(
    env: Environment | BatchedEnvironment,
    algo: Algorithm,
    *,
    total_steps: int,
    num_envs: int = 20,
    rollout_length: int | None = None,
    lr_decay: bool = False,
) -> Callable[..., tuple[Any, dict[str, jax.Array]]]:
    """A whole training as one pure function, `train(key, hyperparameters=None) -> (state, metrics)`.

    `jax.jit(jax.vmap(train))(jax.random.split(key, 8))` trains eight seeds at once. `state` is the algorithm's state
    (for `algo.act`, or an evaluator); `metrics` are those of every iteration, stacked. `total_steps` counts
    environment steps, those of a warm-up too, and is rounded up to whole iterations of `num_envs · rollout_length` (see
    `make_loop`). With `lr_decay` the learning rates fall linearly to 0 over the run.
    """
    check_number("total_steps", total_steps, 1, whole=True)
    loop = make_loop(env, algo, num_envs=num_envs, rollout_length=rollout_length)
    iterations = loop.iterations(total_steps)

    def train(key: jax.Array, hyperparameters: Any = None) -> tuple[Any, dict[str, jax.Array]]:
        hyperparameters = algo.hyperparameters if hyperparameters is None else hyperparameters
        if lr_decay:
            hyperparameters = hyperparameters.replace(decay_updates=iterations * loop.updates_per_iteration)

        def step(train_state, _):
            return loop.iterate(train_state)

        train_state, metrics = lax.scan(step, loop.init(key, hyperparameters), None, iterations)
        return train_state.algorithm, metrics

    return train
