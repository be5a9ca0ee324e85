"""Flax networks of actors and critics: a torso (yours or our MLP) and a head that knows about padding."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.nn.distributions import ActionParameters, mask_logits
from hajax.nn.initializers import orthogonal
from hajax.spec import ActionLayout

if TYPE_CHECKING:
    from hajax.nn.recurrence import MemoryInput

# Each with the gain of orthogonal initialization that keeps the variance (as `torch.nn.init.calculate_gain` has it).
ACTIVATIONS: dict[str, tuple[Callable[[jax.Array], jax.Array], float]] = {
    "relu": (nn.relu, math.sqrt(2)),
    "tanh": (nn.tanh, 5 / 3),
    "elu": (nn.elu, 1.0),
    "gelu": (nn.gelu, math.sqrt(2)),
    "silu": (nn.silu, math.sqrt(2)),
}

StdKind = Literal["parameter", "network", "none"]
LOG_STD_RANGE = (-20.0, 2.0)


def dense(
    width: int,
    kernel_init: Callable,
    x: jax.Array,
    name: str | None = None,
    bias_init: Callable = nn.initializers.zeros,
) -> jax.Array:
    """A linear layer with parameters of the precision of its input: float64 inputs make a float64 network.

    It sees one batch axis, for the gradient of a product with several goes through transposed copies. Of an input
    without entries only the bias is left.
    """
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    out = nn.Dense(width, kernel_init=kernel_init, bias_init=bias_init, param_dtype=x.dtype, name=name)(rows)
    return out.reshape(*x.shape[:-1], width)


class MaskedLayerNorm(nn.Module):
    """Layer normalization over the last axis (Ba et al., 2016), with statistics over the entries that exist.

    Entries outside `mask` stay 0.
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


# Normalized, an input loses its mean and its scale: much of what a few entries tell.
LAYER_NORM_MIN_INPUTS = 16
# Of the order of what entries of order 1 contribute; docs/results shows what it does.
FIRST_BIAS_STD = 0.25


def has_inputs(least: int, x: jax.Array, mask: jax.Array | None) -> bool | jax.Array:
    """Whether `x […, O]` has at least so many entries beside padding: a Python bool, or an array if the mask is one."""
    if mask is None or least <= 1 or x.shape[-1] < least:
        return x.shape[-1] >= least
    return mask.sum() >= least


class MLP(nn.Module):
    """`[LayerNorm on the input] → [Linear → activation → LayerNorm] × n`, orthogonal weights. The default torso.

    Input `[…, O]`, output `[…, hidden_sizes[-1]]`. `mask`, bool `[O]`, marks the input entries that the agent has.
    With `layer_norm`, an input of fewer than `layer_norm_min_inputs` entries is not normalized, and the first biases
    are drawn from N(0, 1/16): with zeros the layers behind them would be the same for every multiple of the input. All
    other biases start at 0. With `layer_norm_min_inputs=1` it is HARL's network for on-policy algorithms.
    """

    hidden_sizes: Sequence[int] = (128, 128)
    activation: str = "relu"
    layer_norm: bool = True
    layer_norm_min_inputs: int = LAYER_NORM_MIN_INPUTS
    input_layer_norm: bool = True  # if not, the input is features, whose biases have been drawn

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
            if self.layer_norm:  # called alike whether or not there is one on the input
                x = MaskedLayerNorm(name=f"MaskedLayerNorm_{layer + self.input_layer_norm}")(x)
            bias_init = nn.initializers.zeros
        return x


def unless(condition: bool | jax.Array, init: Callable) -> Callable:
    """The initializer `init`, or zeros under the condition."""

    def initializer(key: jax.Array, shape: Sequence[int], dtype: Any) -> jax.Array:
        return jnp.where(condition, 0, init(key, shape, dtype))

    return initializer


def apply_torso(torso: nn.Module, x: jax.Array, mask: jax.Array | None) -> jax.Array:
    """`torso(x, mask=mask)` if its `__call__` has a parameter `mask`, else `torso(x)`: padding is zeros in any case."""
    takes_mask = "mask" in inspect.signature(type(torso).__call__).parameters
    return torso(x, mask=mask) if takes_mask else torso(x)


def remember(gru: nn.Module | None, features: jax.Array, memory_input: MemoryInput | None) -> tuple[jax.Array, Any]:
    """The features, with what is remembered in them, and the memory after every step; `()` without a GRU."""
    return (features, ()) if gru is None else gru(features, memory_input)


class Actor(nn.Module):
    """A torso, perhaps a memory, and the action head: `(observation […, O], tables of one agent) -> ActionParameters`.

    It also returns the memory after every step, which is `()` without a `gru`; with one, `memory_input` says what was
    remembered before, and whether the observations are single steps or sequences `[…, L, O]`.

    Discrete components get logits (−inf where unavailable). Box components get a mean from the network and a standard
    deviation as `std` says: `"parameter"` is state-independent, `std_scale · sigmoid(log_std)` with `log_std` starting
    at 1, as in HARL; `"network"` is e^l with l from the network, clipped to [−20, 2]; `"none"` leaves it out.
    """

    torso: nn.Module
    num_components: int
    num_choices: int
    has_discrete: bool
    has_continuous: bool
    equal_choices: bool = False  # every component has all choices, so that only an action mask can take one away
    output_gain: float = 0.01
    std: StdKind = "parameter"
    std_scale: float = 0.5
    gru: nn.Module | None = None

    @nn.compact
    def __call__(
        self,
        observation: jax.Array,
        observation_mask: jax.Array | None,
        layout: ActionLayout,
        action_mask: jax.Array | None = None,
        memory_input: MemoryInput | None = None,
    ) -> tuple[ActionParameters, Any]:
        features = apply_torso(self.torso, observation, observation_mask)
        features, memory = remember(self.gru, features, memory_input)
        head_init = orthogonal(self.output_gain)
        logits = mean = std = None
        if self.has_discrete:
            width = self.num_components * self.num_choices
            logits = dense(width, head_init, features, "logits")
            logits = logits.reshape(*logits.shape[:-1], self.num_components, self.num_choices)
            if action_mask is not None or not self.equal_choices:
                logits = mask_logits(logits, available_choices(layout, action_mask))
        if self.has_continuous:
            mean = dense(self.num_components, head_init, features, "mean")
            if self.std == "parameter":
                log_std = self.param("log_std", nn.initializers.ones, (self.num_components,), mean.dtype)
                std = jnp.broadcast_to(self.std_scale * nn.sigmoid(log_std), mean.shape)
            elif self.std == "network":
                std = jnp.exp(jnp.clip(dense(self.num_components, head_init, features, "log_std"), *LOG_STD_RANGE))
        return ActionParameters(logits, mean, std), memory


def available_choices(layout: ActionLayout, action_mask: jax.Array | None) -> jax.Array:
    """The choices that exist and that the environment allows, `[…, D, C]`.

    Components that are not discrete ignore the environment's mask; a component left without any choice (an inactive
    agent in some environments) gets all of its own back, because an empty categorical is NaN.
    """
    choices = jnp.asarray(layout.choices)
    if action_mask is None:
        return choices
    allowed = choices & action_mask
    usable = jnp.asarray(layout.discrete) & allowed.any(-1)
    return jnp.where(usable[..., None], allowed, choices)


class Critic(nn.Module):
    """A torso, perhaps a memory, and a linear output: `x […, S] -> value […]`, and the memory as of `Actor`."""

    torso: nn.Module
    gru: nn.Module | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array | None = None, memory_input: MemoryInput | None = None
    ) -> tuple[jax.Array, Any]:
        features, memory = remember(self.gru, apply_torso(self.torso, x, mask), memory_input)
        return dense(1, orthogonal(1.0), features, "value")[..., 0], memory


def init_params(module: nn.Module, key: jax.Array, *inputs: Any) -> Any:
    """The module's parameters (the `params` collection is all that hajax's networks have)."""
    return module.init(key, *inputs)["params"]
