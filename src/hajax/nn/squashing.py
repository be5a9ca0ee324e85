"""Bounded actions, and samples of actions that are differentiable in the distribution's parameters.

A squashed Gaussian samples x ~ N(mean, std) and u = tanh x if the component is bounded (u = x if not); the action is
a = center + scale · u. A relaxed categorical is sampled by the Gumbel trick: the sample is one-hot, with the gradient
of a softmax (Jang et al., 2017, https://arxiv.org/abs/1611.01144).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from hajax.nn.distributions import ActionParameters
from hajax.spec import ActionLayout


class Drawn(NamedTuple):
    """A sampled action, differentiable in the distribution's parameters; `None` for a kind that no agent has."""

    choice: jax.Array | None  # [..., D, C], one-hot
    raw: jax.Array | None  # [..., D], x, before squashing
    unit: jax.Array | None  # [..., D], in units in which bounds are ±1
    log_prob: jax.Array  # [...], of the native action, in nats


def squash(layout: ActionLayout, u: jax.Array) -> jax.Array:
    """tanh u where the component is bounded, u where it is not: `[…, D]`, in units in which bounds are ±1."""
    return jnp.where(layout.bounded, jnp.tanh(u), u)


def squashed_mean(layout: ActionLayout, parameters: ActionParameters) -> jax.Array:
    """The action of a policy without noise, the squashed mean `[…, D]`, in units in which bounds are ±1."""
    assert parameters.mean is not None
    return squash(layout, parameters.mean)


def clip_to_bounds(layout: ActionLayout, u: jax.Array) -> jax.Array:
    """`u` clipped to ±1 where the component is bounded, in units in which bounds are ±1."""
    return jnp.where(layout.bounded, jnp.clip(u, -1, 1), u)


def native(layout: ActionLayout, u: jax.Array) -> jax.Array:
    """`center + scale · u`, the action in native units; 0 for components that an agent lacks."""
    action = jnp.asarray(layout.center, u.dtype) + jnp.asarray(layout.scale, u.dtype) * u
    return jnp.where(layout.continuous, action, 0)


def log_squash_slope(layout: ActionLayout, x: jax.Array) -> jax.Array:
    """log da/dx of a = center + scale · squash(x), `[…, D]`: log(1 − tanh² x) without cancellation, plus log scale."""
    slope = 2 * (math.log(2) - x - jax.nn.softplus(-2 * x))
    return jnp.where(layout.bounded, slope, 0) + jnp.log(jnp.asarray(layout.scale, x.dtype))


def draw(
    key: jax.Array, parameters: ActionParameters, layout: ActionLayout, gumbel_temperature: float | jax.Array = 1.0
) -> Drawn:
    """A reparametrized sample of an action; `gumbel_temperature` is the temperature of the Gumbel softmax.

    The log-probability of real components is log N(x; mean, std) − log da/dx, the full change of variables. That of a
    choice is differentiable through the relaxed one-hot vector, as is the value of a critic.
    """
    choice_key, real_key = jax.random.split(key)
    choice = x = unit = None
    log_prob = jnp.zeros(())
    if parameters.logits is not None:
        logits = parameters.logits
        noisy = logits + jax.random.gumbel(choice_key, logits.shape, logits.dtype)
        hard = jax.nn.one_hot(jnp.argmax(noisy, -1), logits.shape[-1], dtype=logits.dtype)
        soft = jax.nn.softmax(noisy / gumbel_temperature)
        choice = hard + soft - jax.lax.stop_gradient(soft)
        available = jnp.isfinite(logits)
        scores = jnp.sum(choice * jnp.where(available, jax.nn.log_softmax(logits), 0), -1)
        log_prob += jnp.where(layout.discrete, scores, 0).sum(-1)
    if parameters.mean is not None:
        assert parameters.std is not None
        noise = jax.random.normal(real_key, parameters.mean.shape, parameters.mean.dtype)
        x = parameters.mean + parameters.std * noise
        unit = squash(layout, x)
        # log N(x; mean, std), with the noise in place of (x − mean) / std, which is equal and has simpler gradients.
        density = -jnp.square(noise) / 2 - jnp.log(parameters.std) - math.log(2 * math.pi) / 2
        log_prob += jnp.where(layout.continuous, density - log_squash_slope(layout, x), 0).sum(-1)
    return Drawn(choice, x, unit, log_prob)


def most_likely(parameters: ActionParameters, layout: ActionLayout) -> tuple[jax.Array | None, jax.Array | None]:
    """The one-hot choices `[…, D, C]` of the highest probability, and the squashed means `[…, D]`."""
    choice = unit = None
    if parameters.logits is not None:
        best = jnp.argmax(parameters.logits, -1)
        choice = jax.nn.one_hot(best, parameters.logits.shape[-1], dtype=parameters.logits.dtype)
    if parameters.mean is not None:
        unit = squash(layout, parameters.mean)
    return choice, unit


def action_of(layout: ActionLayout, choice: jax.Array | None, unit: jax.Array | None) -> jax.Array:
    """The action `[…, D]`: choice indices, and reals in native units; 0 for components that an agent lacks."""
    parts = []
    if choice is not None:
        parts.append(jnp.where(layout.discrete, jnp.argmax(choice, -1), 0).astype(choice.dtype))
    if unit is not None:
        parts.append(native(layout, unit))
    return sum(parts[1:], parts[0])
