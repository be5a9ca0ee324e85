"""Layers and the default torso. They use the precision of their inputs and exclude padding."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.nn.initializers import orthogonal

# Activation functions, with the gains of orthogonal initialization of `torch.nn.init.calculate_gain`.
ACTIVATIONS: dict[str, tuple[Callable[[jax.Array], jax.Array], float]] = {
    "relu": (nn.relu, math.sqrt(2)),
    "tanh": (nn.tanh, 5 / 3),
    "elu": (nn.elu, 1.0),
    "gelu": (nn.gelu, math.sqrt(2)),
    "silu": (nn.silu, math.sqrt(2)),
}


def dense(
    width: int,
    kernel_init: Callable,
    x: jax.Array,
    name: str | None = None,
    bias_init: Callable = nn.initializers.zeros,
) -> jax.Array:
    """A linear layer whose parameters have the precision of its input: float64 inputs make a float64 network.

    Batch axes are flattened into one, because the gradient of a product with several batch axes makes transposed
    copies. For an input without entries the output is the bias.
    """
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    out = nn.Dense(width, kernel_init=kernel_init, bias_init=bias_init, param_dtype=x.dtype, name=name)(rows)
    return out.reshape(*x.shape[:-1], width)


class MaskedLayerNorm(nn.Module):
    """Layer normalization over the last axis (Ba et al., 2016), with statistics over the entries of `mask`.

    The other entries of the output are 0.
    """

    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:], x.dtype)
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], x.dtype)
        count = x.shape[-1] if mask is None else jnp.maximum(mask.sum(), 1)
        mean = jnp.sum(x, -1, keepdims=True, where=mask) / count
        centered = x - mean
        variance = jnp.sum(jnp.square(centered), -1, keepdims=True, where=mask) / count
        normalized = centered * jax.lax.rsqrt(variance + self.epsilon) * scale + bias
        return normalized if mask is None else jnp.where(mask, normalized, 0)


# Normalization removes the mean and the scale of an input, which is much of the information in a few entries.
LAYER_NORM_MIN_INPUTS = 16
# The order of magnitude of the contributions of inputs of order 1. Its effect is measured in docs/results.
FIRST_BIAS_STD = 0.25


def has_inputs(least: int, x: jax.Array, mask: jax.Array | None) -> bool | jax.Array:
    """Whether `x […, O]` has at least `least` entries beside padding: a bool, or an array if that depends on `mask`."""
    if mask is None or least <= 1 or x.shape[-1] < least:
        return x.shape[-1] >= least
    return mask.sum() >= least


class MLP(nn.Module):
    """The default torso: `[LayerNorm of the input] → [Linear → activation → LayerNorm] × n` with orthogonal weights.

    The input is `[…, O]`, the output `[…, hidden_sizes[-1]]`. `mask`, bool `[O]`, marks the input entries that the
    agent has. With `layer_norm`, an input of fewer than `layer_norm_min_inputs` entries is not normalized, and the
    biases of the first layer are drawn from N(0, 1/16): with zero biases the normalized output of that layer would not
    depend on the scale of the input. All other biases are initialized to 0. With `layer_norm_min_inputs=1` it is HARL's
    network for on-policy algorithms.
    """

    hidden_sizes: Sequence[int] = (128, 128)
    activation: str = "relu"
    layer_norm: bool = True
    layer_norm_min_inputs: int = LAYER_NORM_MIN_INPUTS
    input_layer_norm: bool = True  # false if the input is the features of another torso

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        activation, gain = ACTIVATIONS[self.activation]
        bias_init = nn.initializers.zeros
        if self.layer_norm and self.input_layer_norm:
            wide = has_inputs(self.layer_norm_min_inputs, x, mask)
            if wide is not True:
                bias_init = unless(wide, nn.initializers.normal(FIRST_BIAS_STD))
            if wide is not False:
                normalized = MaskedLayerNorm(name="MaskedLayerNorm_0")(x, mask)
                x = normalized if wide is True else jnp.where(wide, normalized, x)
        for layer, width in enumerate(self.hidden_sizes):
            x = dense(width, orthogonal(gain, mask if layer == 0 else None), x, bias_init=bias_init)
            x = activation(x)
            if self.layer_norm:  # the same names with and without one on the input
                x = MaskedLayerNorm(name=f"MaskedLayerNorm_{layer + self.input_layer_norm}")(x)
            bias_init = nn.initializers.zeros
        return x


def unless(condition: bool | jax.Array, init: Callable) -> Callable:
    """The initializer `init` if `condition` is false, or else zeros."""

    def initializer(key: jax.Array, shape: Sequence[int], dtype: Any) -> jax.Array:
        return jnp.where(condition, 0, init(key, shape, dtype))

    return initializer
