"""Normalization of observations and states by running statistics, as a wrapper of any algorithm."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from hajax.core.algorithm import Algorithm
from hajax.core.batches import OffPolicyBatch, OnPolicyBatch
from hajax.core.groups import Groups
from hajax.core.inactive import ignoring_inactive
from hajax.core.normalization import RunningMoments, init_moments, normalize_moments, update_moments
from hajax.spec import Timestep

Batch = TypeVar("Batch", OnPolicyBatch, OffPolicyBatch)


class ObservationMoments(NamedTuple):
    """Running moments of the observations per parameter group, and of the critic's state."""

    observation: RunningMoments  # [G, O], of active agents
    state: RunningMoments  # [S]; over all active agents if there is a state per agent


def in_units_of(moments: ObservationMoments | None, groups: Groups, observation: jax.Array) -> jax.Array:
    """Observations `[…, N, O]`, normalized by the moments of each agent's group; unchanged if `moments` is `None`."""
    if moments is None:
        return observation
    axis = observation.ndim - 2
    return groups.scatter(jax.vmap(normalize_moments)(moments.observation, groups.gather(observation, axis)), axis)


def with_running_moments(algorithm: Algorithm, groups: Groups, *, update_first: bool) -> Algorithm:
    """The algorithm with inputs (x − mean) / std, clipped to ±10, if its settings have `normalize_observations`.

    Every update adds its batch to the statistics in `state.moments`. With `update_first`, the update normalizes by the
    new statistics; otherwise by the old ones, with which the actions of a rollout were chosen. A replay stores
    unnormalized observations, so old and new transitions are normalized by the same statistics. Before the first update
    observations are not normalized.

    In either case the data of inactive agents is blanked (`ignoring_inactive`).
    """
    algorithm = ignoring_inactive(algorithm)
    if not algorithm.settings.normalize_observations:
        return algorithm
    spec = algorithm.spec

    def init(key: jax.Array, hyperparameters: Any = None) -> Any:
        own = jax.vmap(lambda _: init_moments(spec.observation_size))(jnp.arange(groups.num_groups))
        moments = ObservationMoments(own, init_moments(spec.state_shape[-1]))
        return algorithm.init(key, hyperparameters)._replace(moments=moments)

    def act(key: jax.Array, state: Any, timestep: Timestep, memory: Any, deterministic: bool = False):
        timestep = timestep._replace(observation=in_units_of(state.moments, groups, timestep.observation))
        return algorithm.act(key, state, timestep, memory, deterministic)

    def added(moments: ObservationMoments, batch: Batch) -> ObservationMoments:
        seen = groups.gather(batch.observation, batch.observation.ndim - 2)
        active = groups.gather(batch.active, batch.active.ndim - 1)
        active &= jnp.asarray(groups.member_mask).reshape(*groups.members.shape, *[1] * (active.ndim - 2))
        weight = batch.active if spec.state_per_agent else batch.active.any(-1)
        return ObservationMoments(
            jax.vmap(update_moments)(moments.observation, seen, active),
            update_moments(moments.state, batch.state, weight),
        )

    def update(key: jax.Array, state: Any, batch: Batch) -> tuple[Any, dict[str, jax.Array]]:
        moments = added(state.moments, batch)
        units = moments if update_first else state.moments
        batch = batch._replace(
            observation=in_units_of(units, groups, batch.observation),
            final_observation=in_units_of(units, groups, batch.final_observation),
            state=normalize_moments(units.state, batch.state),
            final_state=normalize_moments(units.state, batch.final_state),
        )
        state, info = algorithm.update(key, state, batch)
        return state._replace(moments=moments), info

    # The data of inactive agents is blanked before the statistics are updated.
    return ignoring_inactive(algorithm._replace(init=init, act=act, update=update))
