"""Recording episodes for people to look at: every state, action and timestep of one episode."""

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
    """One episode over time; the first `length` steps are its own, what follows belongs to the next ones."""

    state: Any  # [T, …] the environment's own state before each step
    action: jax.Array  # [T, N, D] taken in that state
    timestep: Timestep  # [T, …] that followed
    reward: jax.Array  # [T] the team's; 0 after the episode, so that its sum is the return
    length: jax.Array  # int []


def record_episode(
    env: Environment | BatchedEnvironment, algo: Algorithm, *, deterministic: bool = True, max_steps: int | None = None
) -> Callable[[jax.Array, Any], Episode]:
    """`record(key, state) -> Episode`, the first episode after a reset, with `state` the algorithm's.

    It is the episode that `make_evaluate` with one episode and the same options sees with that key. `record` may be
    jitted, and vmapped over keys for several episodes. `deterministic` takes the policy's mode instead of a sample.
    The episode is cut after `max_steps` (default: the environment's limit).

    Raises ValueError if the environment has no step limit and `max_steps` is not given, or the agents are not those
    that the algorithm was made for.
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
