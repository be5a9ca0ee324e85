"""Observations and states in units of their running statistics, around any off-policy algorithm."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hajax.core.algorithm import Algorithm
from hajax.core.batches import OffPolicyBatch
from hajax.core.groups import Groups
from hajax.core.inactive import ignoring_inactive
from hajax.core.normalization import RunningMoments, init_moments, normalize_moments, update_moments
from hajax.spec import Timestep


class ObservationMoments(NamedTuple):
    """Moments of what agents that share parameters observe, and of the state that critics see."""

    observation: RunningMoments  # [G, O]
    state: RunningMoments  # [S], all states alike


def with_running_moments(algorithm: Algorithm, groups: Groups) -> Algorithm:
    """The algorithm with inputs (x − mean) / std, clipped to ±10, if its settings say `normalize_observations`.

    Either way, what is shown of inactive agents takes no part in it (`ignoring_inactive`).

    An update first takes its minibatches into the statistics, whose every draw from the replay counts alike (active
    agents' observations only), and then sees observations and states, and where they led, by them. The replay itself
    keeps what the environment showed, so that old and new transitions are always read in the same units. In the rollout
    between the warm-up and the first update there are no statistics yet, and policies see observations as they are.
    """
    algorithm = ignoring_inactive(algorithm)
    if not algorithm.settings.normalize_observations:
        return algorithm
    spec = algorithm.spec

    def observed(moments: RunningMoments, observation: jax.Array) -> jax.Array:
        """`[…, N, O]` of all agents, each by its group's."""
        axis = observation.ndim - 2
        return groups.scatter(jax.vmap(normalize_moments)(moments, groups.gather(observation, axis)), axis)

    def init(key: jax.Array, hyperparameters: Any = None) -> Any:
        own = jax.vmap(lambda _: init_moments(spec.observation_size))(jnp.arange(groups.num_groups))
        moments = ObservationMoments(own, init_moments(spec.state_shape[-1]))
        return algorithm.init(key, hyperparameters)._replace(moments=moments)

    def act(key: jax.Array, state: Any, timestep: Timestep, memory: Any, deterministic: bool = False):
        timestep = timestep._replace(observation=observed(state.moments.observation, timestep.observation))
        return algorithm.act(key, state, timestep, memory, deterministic)

    def update(key: jax.Array, state: Any, batch: OffPolicyBatch) -> tuple[Any, dict[str, jax.Array]]:
        seen = groups.gather(batch.observation, batch.observation.ndim - 2)
        active = groups.gather(batch.active, batch.active.ndim - 1)
        active &= jnp.asarray(groups.member_mask).reshape(*groups.members.shape, *[1] * (active.ndim - 2))
        moments = ObservationMoments(
            jax.vmap(update_moments)(state.moments.observation, seen, active),
            update_moments(state.moments.state, batch.state, jnp.ones(batch.state.shape[:-1])),
        )
        batch = batch._replace(
            observation=observed(moments.observation, batch.observation),
            final_observation=observed(moments.observation, batch.final_observation),
            state=normalize_moments(moments.state, batch.state),
            final_state=normalize_moments(moments.state, batch.final_state),
        )
        return algorithm.update(key, state._replace(moments=moments), batch)

    # What is shown of inactive agents stays out of the statistics too.
    return ignoring_inactive(algorithm._replace(init=init, act=act, update=update))
