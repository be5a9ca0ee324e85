"""Dueling networks: separate streams for the value of a state and the advantages of actions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.nn.initializers import orthogonal
from hajax.nn.layers import MLP, dense
from hajax.nn.networks import apply_torso


class Dueling(nn.Module):
    """A torso and two streams of fully connected layers, `x […, S] -> values […, M]` of M actions.

        Q(a) = V + A(a) − mean of A over the actions that exist

    Wang et al., *Dueling Network Architectures*, 2016, Eq. 9: https://arxiv.org/abs/1511.06581. `exists`, bool `[M]`,
    marks those actions; `None` means all.
    """

    torso: nn.Module
    num_actions: int
    hidden_sizes: Sequence[int] = (128,)
    activation: str = "relu"
    layer_norm: bool = False
    output_gain: float = 0.01

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None, exists: jax.Array | None = None) -> jax.Array:
        features = apply_torso(self.torso, x, mask)

        def stream(name: str, width: int, gain: float) -> jax.Array:
            hidden = (self.hidden_sizes, self.activation, self.layer_norm)
            layers = MLP(*hidden, input_layer_norm=False, name=f"{name}_stream")
            return dense(width, orthogonal(gain), layers(features), name)

        value, advantage = stream("value", 1, 1.0), stream("advantage", self.num_actions, self.output_gain)
        return value + advantage - jnp.mean(advantage, -1, keepdims=True, where=exists)


def action_values(
    network: Dueling, params: Any, x: jax.Array, mask: jax.Array | None = None, exists: jax.Array | None = None
) -> jax.Array:
    """The values `[…, M]` of `network` with parameters `params`."""
    return cast(jax.Array, network.apply({"params": params}, x, mask, exists))
