"""Weighted means over samples, and the loss of state-value critics."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

VALUE_LOSSES = ("huber", "squared")


def weighted_mean(x: jax.Array, weight: jax.Array) -> jax.Array:
    """Σ w·x / Σ w over all axes; 0 if the total weight is 0. Entries of weight 0 may be NaN."""
    total = weight.sum()
    return jnp.sum(jnp.where(weight > 0, x, 0) * weight) / jnp.where(total > 0, total, 1)


def value_error(
    value: jax.Array,
    target: jax.Array,
    old_value: jax.Array,
    kind: str,
    huber_delta: float | jax.Array,
    clip: float | jax.Array | None,
) -> jax.Array:
    """The critic's elementwise loss: ½ (target − value)², or the Huber loss with `huber_delta`.

    With `clip`, it is the larger of this and the loss of `old_value + clip(value − old_value, ±clip)`, which limits the
    change of the value in one update, as in PPO's code.
    """

    def loss(prediction):
        if kind == "squared":
            return optax.losses.squared_error(prediction, target) / 2
        return optax.losses.huber_loss(prediction, target, delta=huber_delta)

    if clip is None:
        return loss(value)
    return jnp.maximum(loss(value), loss(old_value + jnp.clip(value - old_value, -clip, clip)))
