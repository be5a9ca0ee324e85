"""Evaluation: episodes of freshly reset environments, without learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from hajax.core.algorithm import Algorithm
from hajax.envs.base import BatchedEnvironment, Environment
from hajax.sharding import divided
from hajax.spec import EnvSpec
from hajax.training.rollout import playable, team_reward
from hajax.validation import check_number

RETURN_OF = "return_of_"  # before an agent's name: its own return


def step_limit(spec: EnvSpec, max_steps: int | None) -> int:
    """`max_steps`, or the environment's limit if that is `None`. Raises ValueError if there is neither or it is < 1."""
    limit = spec.max_steps if max_steps is None else max_steps
    if limit is None:
        raise ValueError(f"max_steps=None, but {spec.name} has no step limit; allowed: a whole number >= 1")
    check_number("max_steps", limit, 1, whole=True)
    return limit


def make_evaluate(
    env: Environment | BatchedEnvironment,
    algo: Algorithm,
    *,
    num_episodes: int = 100,
    deterministic: bool = True,
    max_steps: int | None = None,
) -> Callable[[jax.Array, Any], dict[str, jax.Array]]:
    """A function `evaluate(key, state) -> results` over `num_episodes` episodes, one per freshly reset environment.

    `results` is a dictionary of arrays `[num_episodes]`: `episode_return` (the undiscounted team return),
    `episode_length`, `finished`, and the environment's metrics at the end of the episode; with individual rewards also
    the undiscounted return of every agent, as `return_of_AGENT`. The evaluation ends when all episodes have ended.

    Args:
      env: the environment.
      algo: the algorithm, whose state `evaluate` takes.
      num_episodes: the number of episodes.
      deterministic: take the most likely actions instead of samples.
      max_steps: the largest number of steps, by default the environment's limit. Episodes that still run then are
        reported up to this step, and are not `finished`.

    Raises:
      ValueError: the environment has no step limit and `max_steps` is `None`, a number is not positive, or the agents
        differ from those that the algorithm was made for.
    """
    envs = playable(env, algo, evaluation=True)
    limit = step_limit(envs.spec, max_steps)
    check_number("num_episodes", num_episodes, 1, whole=True)
    individual = envs.spec.reward == "individual" and envs.spec.num_agents > 1
    of_agents = {f"{RETURN_OF}{agent.name}": i for i, agent in enumerate(envs.spec.agents) if individual}

    def evaluate(key: jax.Array, state: Any) -> dict[str, jax.Array]:
        reset_key, step_key = jax.random.split(key)
        env_state, timestep = divided(envs.reset(jax.random.split(reset_key, num_episodes)))
        names = ("episode_return", "episode_length", *of_agents, *timestep.metrics)
        results = {name: jnp.zeros(num_episodes) for name in names}

        def running_on(carry):
            t, running, *_ = carry
            return running.any() & (t < limit)

        def step(carry):
            t, running, env_state, timestep, memory, results = carry
            act_key, env_key = jax.random.split(jax.random.fold_in(step_key, t))
            action, _, memory = algo.act(act_key, state, timestep, memory, deterministic)
            env_state, timestep = divided(envs.step(jax.random.split(env_key, num_episodes), env_state, action))
            reward = team_reward(envs.spec, timestep.reward)
            results = {
                **{name: jnp.where(running, value, results[name]) for name, value in timestep.metrics.items()},
                "episode_return": results["episode_return"] + jnp.where(running, reward, 0),
                "episode_length": results["episode_length"] + running,
                **{name: results[name] + jnp.where(running, timestep.reward[:, i], 0) for name, i in of_agents.items()},
            }
            running = running & ~(timestep.terminated | timestep.truncated)
            return t + 1, running, env_state, timestep, memory, results

        running = jnp.ones(num_episodes, bool)
        carry = (0, running, env_state, timestep, algo.initial_memory((num_episodes,)), results)
        _, running, *_, results = lax.while_loop(running_on, step, carry)
        return results | {"finished": ~running}

    return evaluate
