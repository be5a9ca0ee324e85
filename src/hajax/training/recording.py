"""Recordings of episodes for rendering: all states, actions and timesteps of one episode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hajax.core.algorithm import Algorithm
from hajax.envs.base import BatchedEnvironment, Environment
from hajax.spec import Timestep
from hajax.training.evaluation import step_limit
from hajax.training.rollout import playable, team_reward


class Episode(NamedTuple):
    """One episode over time. Steps beyond `length` belong to later episodes."""

    state: Any  # [T, …], the environment's internal state before each step
    action: jax.Array  # [T, N, D], the actions taken in this state
    timestep: Timestep  # [T, …], the timesteps that followed
    reward: jax.Array  # [T], the team reward; 0 after the episode, so that the sum is the return
    length: jax.Array  # int []


def record_episode(
    env: Environment | BatchedEnvironment, algo: Algorithm, *, deterministic: bool = True, max_steps: int | None = None
) -> Callable[[jax.Array, Any], Episode]:
    """A function `record(key, state) -> Episode` that records the first episode after a reset.

    `state` is the learner state. The episode equals that of `make_evaluate` with one episode, the same options and the
    same key. `record` may be jitted, and vmapped over keys.

    Args:
      env: the environment.
      algo: the algorithm.
      deterministic: take the most likely actions instead of samples.
      max_steps: the largest number of steps, by default the environment's limit.

    Raises:
      ValueError: the environment has no step limit and `max_steps` is `None`, or the agents differ from those that the
        algorithm was made for.
    """
    envs = playable(env, algo, evaluation=True)
    limit = step_limit(envs.spec, max_steps)

    def only(tree: Any) -> Any:
        return jax.tree.map(lambda x: x[0], tree)

    def record(key: jax.Array, state: Any) -> Episode:
        reset_key, step_key = jax.random.split(key)
        env_state, timestep = envs.reset(jax.random.split(reset_key, 1))

        def step(carry, t):
            env_state, timestep, memory, running = carry
            act_key, env_key = jax.random.split(jax.random.fold_in(step_key, t))  # as in an evaluation
            action, _, memory = algo.act(act_key, state, timestep, memory, deterministic)
            next_env_state, following = envs.step(jax.random.split(env_key, 1), env_state, action)
            shown = only(following)
            reward = jnp.where(running, team_reward(envs.spec, shown.reward), 0)
            row = (only(env_state), action[0], shown, reward, running)
            running = running & ~(shown.terminated | shown.truncated)
            return (next_env_state, following, memory, running), row

        carry = (env_state, timestep, algo.initial_memory((1,)), jnp.array(True))
        _, (states, actions, timesteps, rewards, own) = lax.scan(step, carry, jnp.arange(limit))
        return Episode(states, actions, timesteps, rewards, own.sum())

    return record
