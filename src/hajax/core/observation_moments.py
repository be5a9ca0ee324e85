"""Observations and states in units of their running statistics, around any algorithm."""

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
    """Moments of what agents that share parameters observe, and of the state that critics see."""

    observation: RunningMoments  # [G, O], of active agents
    state: RunningMoments  # [S]; of all active agents' states, if every agent has one of its own


def in_units_of(moments: ObservationMoments | None, groups: Groups, observation: jax.Array) -> jax.Array:
    """Observations `[…, N, O]`, each agent's by its group's moments; as they are if there are none."""
    if moments is None:
        return observation
    axis = observation.ndim - 2
    return groups.scatter(jax.vmap(normalize_moments)(moments.observation, groups.gather(observation, axis)), axis)


def with_running_moments(algorithm: Algorithm, groups: Groups, *, update_first: bool) -> Algorithm:
    """The algorithm with inputs (x − mean) / std, clipped to ±10, if its settings say `normalize_observations`.

    Either way, what is shown of inactive agents takes no part in it (`ignoring_inactive`).

    Every update adds its batch to the statistics, in `state.moments`. With `update_first`, it then sees observations
    and states in units of the new statistics; else in those of the old ones, in which a rollout's actions were chosen.
    A replay keeps what the environment showed, so that old and new transitions are always read in the same units.
    Before the first update, policies see observations as they are.
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

    # What is shown of inactive agents stays out of the statistics too.
    return ignoring_inactive(algorithm._replace(init=init, act=act, update=update))
