"""Training loops for both kinds of algorithms, and a whole training as one pure function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax import lax

from hajax.algorithms import find_algorithm, make_algorithm
from hajax.core.algorithm import Algorithm
from hajax.envs import env_options, make_env
from hajax.envs.base import BatchedEnvironment, Environment
from hajax.training.iteration import Loop
from hajax.training.off_policy import make_off_policy_loop
from hajax.training.on_policy import make_on_policy_loop
from hajax.validation import check_number

# The default number of steps of each environment per iteration, as in HARL.
ROLLOUT_LENGTHS = {"on_policy": 200, "off_policy": 50}


Env = str | Environment | BatchedEnvironment  # or its name


def make_pair(env: Env, algo: str | Algorithm) -> tuple[Environment | BatchedEnvironment, Algorithm]:
    """The environment and the algorithm, made with their default settings if they are given by name.

    As at the command line, an environment that is given by name has the kind of reward that the algorithm learns from.
    """
    if isinstance(env, str):
        wanted = find_algorithm(algo).reward if isinstance(algo, str) else algo.spec.reward
        env = make_env(env, **({"reward": wanted} if "reward" in env_options(env) else {}))
    return env, make_algorithm(algo, env) if isinstance(algo, str) else algo


def make_loop(env: Env, algo: str | Algorithm, *, num_envs: int, rollout_length: int | None = None) -> Loop:
    """The training loop of an algorithm, with `rollout_length` steps in each of `num_envs` environments per iteration.

    An on-policy algorithm makes one update on these steps. An off-policy algorithm stores them in its replay and makes
    `updates_per_step` critic steps per step of all environments. `rollout_length` is by default 200 on-policy and 50
    off-policy. `env` and `algo` may be names.

    Raises:
      ValueError: sizes are not positive or do not suit each other, the algorithm was made for another team, or a metric
        of the environment has a name that hajax uses.
    """
    env, algo = make_pair(env, algo)
    if rollout_length is None:
        rollout_length = ROLLOUT_LENGTHS[algo.kind]
    check_number("num_envs", num_envs, 1, whole=True)
    check_number("rollout_length", rollout_length, 1, whole=True)
    make = make_on_policy_loop if algo.kind == "on_policy" else make_off_policy_loop
    return make(env, algo, num_envs=num_envs, rollout_length=rollout_length)


def make_train(
    env: Env,
    algo: str | Algorithm,
    *,
    total_steps: int,
    num_envs: int = 20,
    rollout_length: int | None = None,
    lr_decay: bool = False,
) -> Callable[..., tuple[Any, dict[str, jax.Array]]]:
    """A whole training as one pure function, `train(key, hyperparameters=None) -> (state, metrics)`.

    `jax.jit(jax.vmap(train))(jax.random.split(key, 8))` trains eight seeds in one program. `state` is the learner state
    (for `algo.act` or `make_evaluate`); `metrics` are those of all iterations, stacked.

    Args:
      env: the environment, or its name.
      algo: the algorithm, or its name.
      total_steps: environment steps, including a warm-up, rounded up to whole iterations of
        `num_envs · rollout_length` steps (see `make_loop`).
      num_envs: the number of environments.
      rollout_length: steps of each environment per iteration; 200 on-policy and 50 off-policy if `None`.
      lr_decay: decay the learning rates linearly to 0 over the run.

    Raises:
      ValueError: as `make_loop`, or `total_steps` does not exceed the warm-up.
    """
    check_number("total_steps", total_steps, 1, whole=True)
    env, algo = make_pair(env, algo)
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
