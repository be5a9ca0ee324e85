"""Rollouts in batches of environments, and statistics of their episodes."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax

from hajax.core.algorithm import Algorithm
from hajax.core.batches import OnPolicyBatch
from hajax.envs.base import BatchedEnvironment, Environment
from hajax.envs.batching import batched
from hajax.spec import EnvSpec, Timestep


class EpisodeStatistics(NamedTuple):
    """Running sums per environment `[E]`, and scalar sums over the episodes that ended since the last report."""

    running_return: jax.Array
    running_length: jax.Array
    ended: jax.Array
    ended_return: jax.Array
    ended_length: jax.Array
    ended_metrics: dict[str, jax.Array]


class Actors(NamedTuple):
    """The states of the environments, the actors' memory and the episode statistics between rollouts."""

    env_state: Any
    timestep: Timestep
    memory: Any
    episodes: EpisodeStatistics


def playable(env: Environment | BatchedEnvironment, algo: Algorithm, *, evaluation: bool = False) -> BatchedEnvironment:
    """The environment as a batch, after a check that it suits the algorithm.

    Raises:
      ValueError: its agents differ from those that the algorithm was made for, or (except for an `evaluation`) the
        critic's state, the use of action masks, or the kind of reward.
    """
    for field in ("agents",) if evaluation else ("agents", "state_size", "state_per_agent", "masks_actions", "reward"):
        has, expected = getattr(env.spec, field), getattr(algo.spec, field)
        if has != expected:
            raise ValueError(
                f"{field}={has!r} of {env.spec.name}; allowed: {expected!r}, for which {algo.name} was made"
            )
    return batched(env)


def team_reward(spec: EnvSpec, reward: jax.Array) -> jax.Array:
    """The team reward, `[…, N] -> […]`: the sum of individual rewards; any agent's reward if `reward="team"`."""
    return reward[..., 0] if spec.reward == "team" else reward.sum(-1)


def start(envs: BatchedEnvironment, algo: Algorithm, key: jax.Array, num_envs: int) -> Actors:
    """The initial `Actors`, after a reset of `num_envs` environments."""
    env_state, timestep = envs.reset(jax.random.split(key, num_envs))
    zeros = jnp.zeros(num_envs)
    metrics = {name: jnp.zeros(()) for name in timestep.metrics}
    episodes = EpisodeStatistics(zeros, zeros, jnp.zeros(()), jnp.zeros(()), jnp.zeros(()), metrics)
    return Actors(env_state, timestep, algo.initial_memory((num_envs,)), episodes)


def count_episodes(spec: EnvSpec, episodes: EpisodeStatistics, timestep: Timestep) -> EpisodeStatistics:
    """Adds one step of all environments, `[E]`, to the statistics."""
    done = timestep.terminated | timestep.truncated
    running_return = episodes.running_return + team_reward(spec, timestep.reward)
    running_length = episodes.running_length + 1
    return EpisodeStatistics(
        running_return=jnp.where(done, 0, running_return),
        running_length=jnp.where(done, 0, running_length),
        ended=episodes.ended + done.sum(),
        ended_return=episodes.ended_return + jnp.where(done, running_return, 0).sum(),
        ended_length=episodes.ended_length + jnp.where(done, running_length, 0).sum(),
        ended_metrics={
            name: episodes.ended_metrics[name] + jnp.where(done, value, 0).sum()
            for name, value in timestep.metrics.items()
        },
    )


def report_episodes(episodes: EpisodeStatistics) -> tuple[EpisodeStatistics, dict[str, jax.Array]]:
    """Statistics with sums reset to 0, and the means over the episodes that ended since the last report.

    The means are NaN if no episode ended, or 0 with `jax_debug_nans`, which raises an error for every NaN.
    """
    undefined = 0.0 if cast(Any, jax.config).jax_debug_nans else jnp.nan
    sums = {"episode_return": episodes.ended_return, "episode_length": episodes.ended_length, **episodes.ended_metrics}
    ended = episodes.ended
    mean = {
        name: jnp.where(ended > 0, value / jnp.where(ended > 0, ended, 1), undefined) for name, value in sums.items()
    }
    zero = jnp.zeros(())
    fresh = episodes._replace(
        ended=zero,
        ended_return=zero,
        ended_length=zero,
        ended_metrics=dict.fromkeys(episodes.ended_metrics, zero),
    )
    return fresh, {"episodes": episodes.ended, **mean}


def rollout(
    envs: BatchedEnvironment, algo: Algorithm, key: jax.Array, state: Any, actors: Actors, length: int
) -> tuple[Actors, OnPolicyBatch]:
    """`length` steps of every environment with sampled actions: the new `Actors`, and a batch `[T, E, …]`."""
    num_envs = actors.timestep.first.shape[0]
    initial_memory = actors.memory

    def step(actors: Actors, key):
        act_key, env_key = jax.random.split(key)
        seen = actors.timestep
        action, extras, memory = algo.act(act_key, state, seen, actors.memory)
        env_state, timestep = envs.step(jax.random.split(env_key, num_envs), actors.env_state, action)
        row = OnPolicyBatch(
            observation=seen.observation,
            state=seen.state,
            action_mask=seen.action_mask,
            active=seen.active,
            first=seen.first,
            action=action,
            log_prob=extras.log_prob,
            reward=timestep.reward,
            terminated=timestep.terminated,
            truncated=timestep.truncated,
            final_observation=timestep.final.observation,
            final_state=timestep.final.state,
            final_active=timestep.final.active,
            memory=(),
        )
        return Actors(env_state, timestep, memory, count_episodes(envs.spec, actors.episodes, timestep)), row

    actors, batch = lax.scan(step, actors, jax.random.split(key, length))
    return actors, batch._replace(memory=initial_memory)
