"""Memory: a gated recurrent unit over steps and sequences, which forgets exactly where an episode begins."""

from __future__ import annotations

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from hajax.nn.initializers import orthogonal
from hajax.nn.layers import MaskedLayerNorm, dense

MEMORIES = ("none", "gru")


class MemoryInput(NamedTuple):
    """What is remembered before a step `[…]` or a sequence of L steps `[…, L]`, and which steps change it."""

    memory: jax.Array  # [..., H], before the (first) step
    first: jax.Array  # bool [...] or [..., L]: the step opens an episode, and what was before is forgotten
    active: jax.Array  # bool, as `first`: other steps leave the memory as it is


class GRU(nn.Module):
    """A gated recurrent unit (Cho et al., *Learning Phrase Representations*, 2014, https://arxiv.org/abs/1406.1078).

    From features x and the memory h, which is 0 where an episode begins,

        r = σ(W_r x + b_r + U_r h),   z = σ(W_z x + b_z + U_z h),
        ĥ = tanh(W_h x + b_h + r ⊙ (U_h h + c)),   h' = (1 − z) ⊙ ĥ + z ⊙ h,

    with r within the recurrent term as in cuDNN's form. What goes on to the head is LayerNorm(h'), as in HARL; what
    is remembered is h'. W and U are orthogonal, the three of each as one matrix; biases are 0.
    """

    size: int
    layer_norm: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, memory_input: MemoryInput) -> tuple[jax.Array, jax.Array]:
        """Of one step, `x` `[…, F]`, or of a sequence, `[…, L, F]`, as the shape of `memory_input` says.

        Returns:
            Features and the memory after every step, `[…, H]` or `[…, L, H]`. An inactive step has features too, as if
            it were remembered.
        """
        inputs = dense(3 * self.size, orthogonal(), x, "input")  # of all steps at once
        kernel = self.param("kernel", orthogonal(), (self.size, 3 * self.size), x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.size,), x.dtype)

        def step(memory, inputs, first, active):
            memory = jnp.where(first[..., None], 0, memory)
            recurrent = (memory.reshape(-1, self.size) @ kernel).reshape(inputs.shape)
            x_reset, x_keep, x_new = jnp.split(inputs, 3, -1)
            h_reset, h_keep, h_new = jnp.split(recurrent, 3, -1)
            reset, keep = nn.sigmoid(x_reset + h_reset), nn.sigmoid(x_keep + h_keep)
            new = (1 - keep) * nn.tanh(x_new + reset * (h_new + bias)) + keep * memory
            return new, jnp.where(active[..., None], new, memory)

        before = memory_input.memory.astype(inputs.dtype)
        if x.ndim == before.ndim:
            features, memory = step(before, inputs, memory_input.first, memory_input.active)
        else:
            time = before.ndim - 1
            steps = jax.tree.map(lambda x: jnp.moveaxis(x, time, 0), (inputs, memory_input.first, memory_input.active))

            def advance(memory, of_step):
                features, memory = step(memory, *of_step)
                return memory, (features, memory)

            _, of_steps = lax.scan(advance, before, steps)
            features, memory = jax.tree.map(lambda x: jnp.moveaxis(x, 0, time), of_steps)
        return MaskedLayerNorm()(features) if self.layer_norm else features, memory


def empty_memory_input(gru: GRU | None, batch_shape: tuple[int, ...] = ()) -> MemoryInput | None:
    """Nothing remembered, before one step; `None` without a GRU."""
    if gru is None:
        return None
    return MemoryInput(jnp.zeros((*batch_shape, gru.size)), jnp.zeros(batch_shape, bool), jnp.ones(batch_shape, bool))
