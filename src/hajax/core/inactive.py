"""Agents that are not active: what they observe and do takes no part in acting or learning, whatever it holds.

An environment may show anything for an inactive agent, NaN included, and 0 · NaN is NaN in a sum or a gradient.
"""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from hajax.core.algorithm import Algorithm
from hajax.spec import EnvSpec, Timestep

Batch = TypeVar("Batch")  # an `OnPolicyBatch` or an `OffPolicyBatch`


def blank(x: jax.Array, active: jax.Array) -> jax.Array:
    """`x` `[…, F₁, …]` with zeros where `active` `[…]`, bool or a weight, is false or 0."""
    return jnp.where(active.reshape(*active.shape, *[1] * (x.ndim - active.ndim)) > 0, x, jnp.zeros((), x.dtype))


def blank_state(spec: EnvSpec, state: jax.Array, active: jax.Array) -> jax.Array:
    """The critic's state `[…, S]` or `[…, N, S]` with zeros for what is an inactive agent's, from `active` `[…, N]`.

    That is its own state, or its part of a state that is the agents' observations end to end.
    """
    if spec.state_per_agent:
        return blank(state, active)
    if not spec.state_from_observations:
        return state
    owner = np.repeat(np.arange(spec.num_agents), [agent.observation_size for agent in spec.agents])
    return jnp.where(jnp.take(active, owner, axis=-1), state, jnp.zeros((), state.dtype))


def blank_masks(action_mask: jax.Array, active: jax.Array) -> jax.Array:
    """The action masks `[…, N, D, C]` with every choice available to an inactive agent."""
    return action_mask | ~active[..., None, None]


def blank_timestep(timestep: Timestep) -> Timestep:
    """The timestep as policies see it: an inactive agent observes zeros. It chooses among what is available to it."""
    seen = timestep.observation  # which may have batch axes that `active` lacks, so that `blank` does not do
    return timestep._replace(observation=jnp.where(timestep.active[..., None], seen, jnp.zeros((), seen.dtype)))


def blank_batch(spec: EnvSpec, batch: Batch) -> Batch:
    """A batch of either kind without what inactive agents observed, could choose and did."""
    given: Any = batch
    fields = {
        "observation": blank(given.observation, given.active),
        "state": blank_state(spec, given.state, given.active),
        "action": blank(given.action, given.active),
        "final_observation": blank(given.final_observation, given.final_active),
        "final_state": blank_state(spec, given.final_state, given.final_active),
    }
    if spec.masks_actions:
        fields["action_mask"] = blank_masks(given.action_mask, given.active)
        if hasattr(given, "final_action_mask"):
            fields["final_action_mask"] = blank_masks(given.final_action_mask, given.final_active)
    return given._replace(**fields)


def ignoring_inactive(algorithm: Algorithm) -> Algorithm:
    """The algorithm, whose `act` and `update` never see what is shown of inactive agents."""

    def act(key: jax.Array, state: Any, timestep: Timestep, memory: Any, deterministic: bool = False):
        return algorithm.act(key, state, blank_timestep(timestep), memory, deterministic)

    def update(key: jax.Array, state: Any, batch: Any):
        return algorithm.update(key, state, blank_batch(algorithm.spec, batch))

    return algorithm._replace(act=act, update=update)
