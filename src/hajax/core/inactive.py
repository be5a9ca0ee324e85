"""Inactive agents: their observations and actions are replaced by zeros before acting and learning.

An environment may return any values for an inactive agent, including NaN. A weight of 0 is not enough then, because
0 · NaN is NaN in a sum or a gradient.
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
    """`x` `[…, F₁, …]` with zeros where `active` `[…]`, a bool or a weight, is false or 0."""
    return jnp.where(active.reshape(*active.shape, *[1] * (x.ndim - active.ndim)) > 0, x, jnp.zeros((), x.dtype))


def blank_state(spec: EnvSpec, state: jax.Array, active: jax.Array) -> jax.Array:
    """The critic's state `[…, S]` or `[…, N, S]` with zeros for the parts of inactive agents, from `active` `[…, N]`.

    An agent's part is its row of a state per agent, or its observation in a state that concatenates observations. Any
    other state is unchanged.
    """
    if spec.state_per_agent:
        return blank(state, active)
    if not spec.state_from_observations:
        return state
    owner = np.repeat(np.arange(spec.num_agents), [agent.observation_size for agent in spec.agents])
    return jnp.where(jnp.take(active, owner, axis=-1), state, jnp.zeros((), state.dtype))


def blank_masks(action_mask: jax.Array, active: jax.Array) -> jax.Array:
    """The action masks `[…, N, D, C]` with every choice available to inactive agents."""
    return action_mask | ~active[..., None, None]


def blank_timestep(timestep: Timestep) -> Timestep:
    """The timestep with zeros for the observations of inactive agents. Their action masks are unchanged."""
    seen = timestep.observation  # `blank` does not suit: the observation may have batch axes that `active` lacks
    return timestep._replace(observation=jnp.where(timestep.active[..., None], seen, jnp.zeros((), seen.dtype)))


def blank_batch(spec: EnvSpec, batch: Batch) -> Batch:
    """A batch of either kind, with the observations, states, action masks and actions of inactive agents blanked."""
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
    """The algorithm whose `act` and `update` blank the data of inactive agents first."""

    def act(key: jax.Array, state: Any, timestep: Timestep, memory: Any, deterministic: bool = False):
        return algorithm.act(key, state, blank_timestep(timestep), memory, deterministic)

    def update(key: jax.Array, state: Any, batch: Any):
        return algorithm.update(key, state, blank_batch(algorithm.spec, batch))

    return algorithm._replace(act=act, update=update)
