"""Rollouts in batches of environments, and statistics of their episodes."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax import lax

from hajax.core.algorithm import Algorithm
from hajax.core.batches import OnPolicyBatch
from hajax.envs.base import BatchedEnvironment, Environment, OverlappedStep
from hajax.envs.batching import batched
from hajax.sharding import divided
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
    return divided(Actors(env_state, timestep, algo.initial_memory((num_envs,)), episodes))


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
    """`length` steps of every environment with sampled actions: the new `Actors`, and a batch `[T, E, …]`.

    With simulators in worker processes, half of the environments are stepped while the actions of the other half are
    computed, if that is faster. The actions of the halves are sampled with separate keys in any case, so that results
    do not depend on it.
    """
    num_envs = actors.timestep.first.shape[0]
    in_halves = envs.host is not None and num_envs % 2 == 0
    keys = jax.random.split(key, 2 * length if in_halves else length)
    if in_halves and isinstance(envs.step, OverlappedStep) and envs.step.is_faster(num_envs):
        return _overlapping(envs, envs.step, algo, keys, state, actors)
    initial_memory = actors.memory

    def step(actors: Actors, key):
        act_key, env_key = (key, key[0]) if in_halves else jax.random.split(key)
        seen = actors.timestep
        if in_halves:
            halves = _halves((seen, actors.memory))
            acted = [algo.act(k, state, *half) for k, half in zip(act_key, halves, strict=True)]
            action, extras, memory = _whole(*acted)
        else:
            action, extras, memory = algo.act(act_key, state, seen, actors.memory)
        env_state, timestep = envs.step(jax.random.split(env_key, num_envs), actors.env_state, action)
        episodes = count_episodes(envs.spec, actors.episodes, timestep)
        return divided(Actors(env_state, timestep, memory, episodes)), _row(seen, action, extras.log_prob, timestep)

    actors, batch = lax.scan(step, actors, keys.reshape(length, 2) if in_halves else keys)
    return actors, batch._replace(memory=initial_memory)


def _row(seen: Timestep, action: jax.Array, log_prob: jax.Array, following: Timestep) -> OnPolicyBatch:
    """The row of a batch: what was seen, the action, and what followed."""
    return OnPolicyBatch(
        observation=seen.observation,
        state=seen.state,
        action_mask=seen.action_mask,
        active=seen.active,
        first=seen.first,
        action=action,
        log_prob=log_prob,
        reward=following.reward,
        terminated=following.terminated,
        truncated=following.truncated,
        final_observation=following.final.observation,
        final_state=following.final.state,
        final_active=following.final.active,
        memory=(),
    )


def _overlapping(
    envs: BatchedEnvironment, env_step: OverlappedStep, algo: Algorithm, keys: jax.Array, state: Any, actors: Actors
) -> tuple[Actors, OnPolicyBatch]:
    """A rollout with keys `[2T]`: 2T steps of alternating halves, of which each begins, and ends the one before it."""

    def step(carry: tuple[Actors, Actors], x):
        mine, other = carry
        key, under_way = x
        seen = mine.timestep
        action, extras, memory = algo.act(key, state, seen, mine.memory)
        env_state, other_state, timestep = env_step.exchange(mine.env_state, action, other.env_state)
        new, old = (timestep, count_episodes(envs.spec, other.episodes, timestep)), (other.timestep, other.episodes)
        shown, episodes = jax.tree.map(lambda x, y: jnp.where(under_way, x, y), new, old)
        other = Actors(other_state, shown, other.memory, episodes)
        return (other, mine._replace(env_state=env_state, memory=memory)), (seen, action, extras.log_prob, timestep)

    inputs = keys, jnp.arange(len(keys)) > 0
    # Two at a time, after which the halves have changed places twice: XLA copies a carry whose parts change places.
    (one, two), (seen, action, log_prob, timesteps) = lax.scan(step, _halves(actors), inputs, unroll=2)
    env_state, last = env_step.end(two.env_state)
    two = Actors(env_state, last, two.memory, count_episodes(envs.spec, two.episodes, last))
    # Step k begins what step k + 1 ends.
    following = jax.tree.map(lambda x, last: jnp.concatenate([x[1:], last[None]]), timesteps, last)
    rows = _row(seen, action, log_prob, following)  # [2T, E / 2, …]
    batch = jax.tree.map(lambda x: x.reshape(-1, 2 * x.shape[1], *x.shape[2:]), rows)
    return _whole(one, two), batch._replace(memory=actors.memory)


def _halves(tree: Any) -> tuple[Any, Any]:
    """The first and the second half of arrays `[E, …]`; scalars, which are sums, go to the first."""
    one = jax.tree.map(lambda x: x[: len(x) // 2] if x.ndim else x, tree)
    return one, jax.tree.map(lambda x: x[len(x) // 2 :] if x.ndim else jnp.zeros_like(x), tree)


def _whole(one: Any, two: Any) -> Any:
    """The inverse of `_halves`."""
    return jax.tree.map(lambda x, y: jnp.concatenate([x, y]) if x.ndim else x + y, one, two)
