"""Gradient steps: Adam with global-norm clipping and a traced learning rate, over epochs of minibatches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax import lax

from hajax.sharding import divided

Params = TypeVar("Params")
Carry = TypeVar("Carry")  # a `Learner`, or one with what else its steps update


class Learner(NamedTuple):
    """Parameters, the state of their optimizer (`None` if it has none), and `extra`.

    `extra` is any tree that only the neighborhood reads, for example an adaptive coefficient or a radius.
    """

    params: Any
    optimizer: Any = None
    extra: Any = None


def init_learner(params: Any) -> Learner:
    """A learner with Adam's moments at zero."""
    return Learner(params, optax.scale_by_adam().init(params))


def clip_to_norm(gradient: Any, max_norm: float | jax.Array) -> tuple[Any, jax.Array]:
    """The gradient, scaled down to global norm `max_norm` if its norm is larger, and the norm before."""
    norm = optax.tree.norm(gradient)
    scale = jnp.where(norm > max_norm, max_norm / jnp.where(norm > 0, norm, 1), 1)
    return jax.tree.map(lambda g: g * scale.astype(g.dtype), gradient), norm


def adam_step(
    learner: Learner,
    gradient: Any,
    learning_rate: float | jax.Array,
    max_grad_norm: float | jax.Array,
    adam_eps: float | jax.Array,
    l2: float | jax.Array = 0.0,
) -> tuple[Learner, jax.Array]:
    """One Adam step on a gradient clipped to global norm `max_grad_norm`; also returns the norm before clipping.

    With `l2`, that multiple of the parameters is added to the clipped gradient. The learning rate, the maximal norm and
    ε may be traced: changing them does not recompile, and they may differ between vmapped runs.
    """
    gradient, norm = clip_to_norm(gradient, max_grad_norm)
    if isinstance(l2, jax.Array) or l2:
        gradient = jax.tree.map(lambda g, p: g + l2 * p, gradient, learner.params)
    direction, optimizer = optax.scale_by_adam(eps=adam_eps).update(gradient, learner.optimizer)
    params = jax.tree.map(lambda p, d: p - (learning_rate * d).astype(p.dtype), learner.params, direction)
    return learner._replace(params=params, optimizer=optimizer), norm


def plain_step(
    learner: Learner, gradient: Any, learning_rate: float | jax.Array, max_grad_norm: float | jax.Array
) -> tuple[Learner, jax.Array]:
    """θ − α g, g clipped to global norm `max_grad_norm`; also returns the norm before clipping."""
    gradient, norm = clip_to_norm(gradient, max_grad_norm)
    params = jax.tree.map(lambda p, g: p - (learning_rate * g).astype(p.dtype), learner.params, gradient)
    return learner._replace(params=params), norm


def decayed(learning_rate: float | jax.Array, updates: jax.Array, decay_updates: float | jax.Array) -> jax.Array:
    """The learning rate with linear decay to 0 over `decay_updates` updates; constant if that is infinite."""
    return learning_rate * jnp.maximum(1 - updates / decay_updates, 0)


def actor_rate(state: Any) -> jax.Array | None:
    """The decayed learning rate of the actors; `None` if there is none, as for a KL ball."""
    rate = getattr(state.hyperparameters, "actor_lr", None)
    return None if rate is None else decayed(rate, state.updates, state.hyperparameters.decay_updates)


def shuffle(key: jax.Array, size: int) -> jax.Array:
    """A random permutation of 0, …, size − 1, int `[size]`.

    Random words that carry their index in the low bits are sorted once. `jax.random.permutation` sorts pairs twice,
    which takes seven times as long and slows a whole training noticeably. Words with equal high bits stay in the order
    of their indices, so the permutation is not exactly uniform. With 12 random bits or more, this has almost no effect
    on which samples share a minibatch.
    """
    index_bits = max(size - 1, 1).bit_length()
    if index_bits > 20:
        return jax.random.permutation(key, size)
    words = jax.random.bits(key, (size,), "uint32") >> index_bits << index_bits
    return (jnp.sort(words | jnp.arange(size, dtype="uint32")) & ((1 << index_bits) - 1)).astype(int)


def train_epochs(
    key: jax.Array,
    learner: Carry,
    batch: Any,
    step: Callable[[jax.Array, Carry, Any], tuple[Carry, Any]],
    epochs: int,
    minibatches: int,
) -> tuple[Carry, Any]:
    """Runs `step(key, learner, minibatch) -> (learner, info)` for `epochs` passes over `batch`, reshuffled every pass.

    Leaves of `batch` are `[K, B, …]`. A minibatch `[K, B / minibatches, …]` takes the same samples of all members. A
    single minibatch is not shuffled, because means do not depend on the order. `info` is averaged over all steps.

    Raises:
      ValueError: B is not divisible by `minibatches`.
    """
    size = jax.tree.leaves(batch)[0].shape[1]
    if size % minibatches:
        raise ValueError(f"minibatches={minibatches}; allowed: a divisor of {size}, the number of samples (or chunks)")

    def epoch(learner, key):
        if minibatches == 1:
            return step(key, learner, batch)
        index = shuffle(key, size).reshape(minibatches, -1)

        def on_minibatch(learner, inputs):
            key, rows = inputs
            # The indices are in range; the default mode would check the bounds of each index.
            minibatch = jax.tree.map(lambda x: jnp.take(x, rows, axis=1, mode="clip"), batch)
            return step(key, learner, divided(minibatch, axis=1))

        keys = jax.random.split(jax.random.fold_in(key, size), minibatches)
        return lax.scan(on_minibatch, learner, (keys, index))

    learner, info = lax.scan(epoch, learner, jax.random.split(key, epochs))
    return learner, jax.tree.map(jnp.mean, info)


def polyak_average(target: Any, params: Any, rate: float | jax.Array) -> Any:
    """φ′ ← τ φ + (1 − τ) φ′."""
    return jax.tree.map(lambda old, new: old + (rate * (new - old)).astype(old.dtype), target, params)
