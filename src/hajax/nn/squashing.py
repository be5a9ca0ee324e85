"""Actions within bounds: what a policy means, squashed by tanh where an action is bounded."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hajax.nn.distributions import ActionParameters
from hajax.spec import ActionLayout


def squash(layout: ActionLayout, u: jax.Array) -> jax.Array:
    """tanh u where the component is bounded, u where it is not: `[…, D]`, in units in which bounds are ±1."""
    return jnp.where(layout.bounded, jnp.tanh(u), u)


def squashed_mean(layout: ActionLayout, parameters: ActionParameters) -> jax.Array:
    """What a policy does without noise: its mean, squashed."""
    assert parameters.mean is not None
    return squash(layout, parameters.mean)


def clip_to_bounds(layout: ActionLayout, u: jax.Array) -> jax.Array:
    """`u`, in units in which bounds are ±1, within them."""
    return jnp.where(layout.bounded, jnp.clip(u, -1, 1), u)


def native(layout: ActionLayout, u: jax.Array) -> jax.Array:
    """`center + scale · u`, the action itself; 0 for components that an agent lacks."""
    action = jnp.asarray(layout.center, u.dtype) + jnp.asarray(layout.scale, u.dtype) * u
    return jnp.where(layout.continuous, action, 0)
