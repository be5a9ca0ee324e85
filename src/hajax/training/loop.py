"""The training loop as pure functions: `init`, `iterate` (one rollout, one update), and whole trainings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import lax
from jax.custom_batching import sequential_vmap

from hajax.core.algorithm import Algorithm
from hajax.envs.base import Environment
from hajax.training.rollout import Actors, playable, report_episodes, rollout, start
from hajax.validation import check_number

# What hajax reports of episodes itself, in training or in evaluation.
RESERVED_METRICS = frozenset(
    ("episodes", "episode_return", "episode_length", "return", "length", "return_mean", "return_std")
)


class TrainState(NamedTuple):
    """Everything that the next iteration depends on."""

    algorithm: Any  # the algorithm's own state
    actors: Actors
    key: jax.Array


class Loop(NamedTuple):
    """`init(key, hyperparameters=None) -> TrainState` and `iterate(train_state) -> (train_state, metrics)`.

    Both are pure, jit and vmap (over keys, and over hyperparameters). `metrics` is a dictionary of scalars and of
    `[G]` diagnostics per parameter group, small enough to stack over iterations. One call of `iterate` takes
    `steps_per_iteration` environment steps.
    """

    init: Callable[..., TrainState]
    iterate: Callable[[TrainState], tuple[TrainState, dict[str, jax.Array]]]
    steps_per_iteration: int


def in_turn_on_cpu(update: Callable) -> Callable:
    """`update`, but on a CPU `vmap` runs it over its axis in turn instead of at once.

    One seed's activations fit a CPU's cache and eight seeds' do not; batched, the same arithmetic takes 1.7 times as
    long there. An accelerator wants the batch. Reverse-mode differentiation does not go through a function treated so:
    who needs it composes `rollout` and `algo.update` directly.
    """
    return sequential_vmap(update) if jax.default_backend() == "cpu" else update


def make_loop(env: Environment, algo: Algorithm, *, num_envs: int, rollout_length: int) -> Loop:
    """The on-policy loop: a rollout of `rollout_length` steps in `num_envs` environments, then one update.

    Raises ValueError for sizes that are not positive, minibatches or chunks that do not divide the rollout, an
    algorithm made for another team, or an environment whose metrics have names that are taken.
    """
    check_number("num_envs", num_envs, 1, whole=True)
    check_number("rollout_length", rollout_length, 1, whole=True)
    env, update = playable(env, algo), in_turn_on_cpu(algo.update)
    _, opening = jax.eval_shape(env.reset, jax.random.key(0))
    for name in opening.metrics:
        if name in RESERVED_METRICS or name.startswith("stochastic_"):
            raise ValueError(f"metrics={name!r} of {env.spec.name} is a name of hajax's own; allowed: any other")
    chunk = getattr(algo.settings, "sample_length", 1)
    if rollout_length % chunk:
        raise ValueError(
            f"chunk_length={chunk} does not divide rollout_length={rollout_length}; "
            f"allowed: a divisor of {rollout_length}"
        )
    samples = num_envs * rollout_length // chunk
    minibatches = getattr(algo.settings, "minibatches", 1)
    if samples % minibatches:
        product = "num_envs × rollout_length" + (f" / {chunk}" if chunk > 1 else "")
        raise ValueError(
            f"minibatches={minibatches} does not divide {product} = {samples}; allowed: a divisor of {samples}"
        )

    def init(key: jax.Array, hyperparameters: Any = None) -> TrainState:
        algo_key, env_key, key = jax.random.split(key, 3)
        return TrainState(algo.init(algo_key, hyperparameters), start(env, algo, env_key, num_envs), key)

    def iterate(train_state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
        key, rollout_key, update_key = jax.random.split(train_state.key, 3)
        actors, batch = rollout(env, algo, rollout_key, train_state.algorithm, train_state.actors, rollout_length)
        algo_state, info = update(update_key, train_state.algorithm, batch)
        episodes, metrics = report_episodes(actors.episodes)
        return TrainState(algo_state, actors._replace(episodes=episodes), key), metrics | info

    return Loop(init, iterate, num_envs * rollout_length)


def make_train(
    env: Environment,
    algo: Algorithm,
    *,
    total_steps: int,
    num_envs: int = 20,
    rollout_length: int = 200,
    lr_decay: bool = False,
) -> Callable[..., tuple[Any, dict[str, jax.Array]]]:
    """A whole training as one pure function, `train(key, hyperparameters=None) -> (state, metrics)`.

    `jax.jit(jax.vmap(train))(jax.random.split(key, 8))` trains eight seeds at once. `state` is the algorithm's state
    (for `algo.act`, or an evaluator); `metrics` are those of every iteration, stacked. `total_steps` counts
    environment steps and is rounded up to whole iterations of `num_envs · rollout_length`. With `lr_decay` the learning
    rates fall linearly to 0 over the run.
    """
    check_number("total_steps", total_steps, 1, whole=True)
    loop = make_loop(env, algo, num_envs=num_envs, rollout_length=rollout_length)
    iterations = math.ceil(total_steps / loop.steps_per_iteration)

    def train(key: jax.Array, hyperparameters: Any = None) -> tuple[Any, dict[str, jax.Array]]:
        hyperparameters = algo.hyperparameters if hyperparameters is None else hyperparameters
        if lr_decay:
            hyperparameters = hyperparameters.replace(decay_updates=iterations)

        def step(train_state, _):
            return loop.iterate(train_state)

        train_state, metrics = lax.scan(step, loop.init(key, hyperparameters), None, iterations)
        return train_state.algorithm, metrics

    return train
