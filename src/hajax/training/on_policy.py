"""The on-policy loop: a rollout, then one update on it."""

from __future__ import annotations

from typing import Any

import jax

from hajax.core.algorithm import Algorithm
from hajax.envs.base import BatchedEnvironment, Environment
from hajax.training.iteration import Loop, TrainState, check_metrics, sequential_on_cpu
from hajax.training.rollout import playable, report_episodes, rollout, start


def make_on_policy_loop(
    env: Environment | BatchedEnvironment, algo: Algorithm, *, num_envs: int, rollout_length: int
) -> Loop:
    """A loop of rollouts of `rollout_length` steps in `num_envs` environments, with one update after each.

    Raises:
      ValueError: minibatches or chunks do not divide the rollout, the algorithm was made for another team, or a metric
        of the environment has a name that hajax uses.
    """
    envs, update = playable(env, algo), sequential_on_cpu(algo.update)
    check_metrics(envs)
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
        return TrainState(algo.init(algo_key, hyperparameters), start(envs, algo, env_key, num_envs), key)

    def iterate(train_state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
        key, rollout_key, update_key = jax.random.split(train_state.key, 3)
        actors, batch = rollout(envs, algo, rollout_key, train_state.algorithm, train_state.actors, rollout_length)
        algo_state, info = update(update_key, train_state.algorithm, batch)
        episodes, metrics = report_episodes(actors.episodes)
        return TrainState(algo_state, actors._replace(episodes=episodes), key), metrics | info

    def restart(key: jax.Array, train_state: TrainState) -> TrainState:
        return train_state._replace(actors=start(envs, algo, key, num_envs))

    return Loop(init, iterate, restart, num_envs * rollout_length)
