"""Memory: arrays that an actor or a critic carries from step to step, and that are reset at the start of an episode."""

from __future__ import annotations

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from hajax.nn.initializers import orthogonal
from hajax.nn.layers import MaskedLayerNorm, dense

MEMORIES = ("none", "gru")


class MemoryInput(NamedTuple):
    """The memory before a step `[…]` or a sequence of L steps `[…, L]`, with the flags of these steps."""

    memory: Any  # arrays [..., …], before the (first) step
    first: Any  # bool [...] or [..., L]: the step opens an episode, and the memory is reset before it
    active: Any  # bool, shape of `first`: inactive steps do not change the memory


NOTHING = MemoryInput((), (), ())  # for networks without memory


class Memory(nn.Module):
    """A recurrent module between a torso and its head. A subclass defines `initial_memory` and `step`.

    The memory is any tree of arrays. Applied to a `MemoryInput`, the module resets the memory where an episode begins,
    leaves it unchanged where the agent is inactive, and processes single steps or sequences.
    """

    def initial_memory(self, batch_shape: tuple[int, ...]) -> Any:
        """The memory at the start of an episode, arrays `[*batch_shape, …]`."""
        raise NotImplementedError

    def step(self, x: jax.Array, memory: Any) -> tuple[jax.Array, Any]:
        """Maps features `[…, F]` and the memory `[…, …]` to new features `[…, H]` and the new memory."""
        raise NotImplementedError

    @property
    def remembers(self) -> bool:
        """Whether the memory has any arrays. If so, training samples are sequences."""
        return bool(self._initial_leaves())

    def select(self, memory: Any, first: jax.Array, active: jax.Array) -> MemoryInput:
        """The input of this memory, `NOTHING` if it remembers nothing. `first` may lack the last axes of `active`."""
        if not self.remembers:
            return NOTHING
        missing = tuple(range(first.ndim, active.ndim))
        return MemoryInput(memory, jnp.broadcast_to(jnp.expand_dims(first, missing), active.shape), active)

    def __call__(self, x: jax.Array, memory_input: MemoryInput) -> tuple[jax.Array, Any]:
        """Processes one step, `x` `[…, F]`, or a sequence `[…, L, F]`. The shapes of `memory_input` decide which.

        Returns:
          Features `[…, H]` or `[…, L, H]` and the memory after every step. The features of an inactive step are those
          that it would have if it were active.
        """
        memory, first, active = memory_input
        batch_axes = jax.tree.leaves(memory)[0].ndim - self._initial_leaves()[0].ndim
        if first.ndim == batch_axes:
            return self.guarded_step(x, memory, first, active)

        def advance(module, memory, inputs):
            features, memory = module.guarded_step(inputs[0], memory, *inputs[1:])
            return memory, (features, memory)

        steps = jax.tree.map(lambda x: jnp.moveaxis(x, batch_axes, 0), (x, first, active))
        scan = nn.scan(advance, variable_broadcast="params", split_rngs={"params": False})
        _, of_steps = scan(self, memory, steps)
        features, memory = jax.tree.map(lambda x: jnp.moveaxis(x, 0, batch_axes), of_steps)
        return features, memory

    def guarded_step(self, x: jax.Array, memory: Any, first: jax.Array, active: jax.Array) -> tuple[jax.Array, Any]:
        """A step that resets the memory where `first` `[…]`, and does not change it where `active` `[…]` is false."""

        def where(condition, one, other):
            return jnp.where(condition.reshape(*condition.shape, *[1] * (other.ndim - condition.ndim)), one, other)

        memory = jax.tree.map(lambda new, old: where(first, new, old), self.initial_memory(first.shape), memory)
        features, new = self.step(x, memory)
        return features, jax.tree.map(lambda new, old: where(active, new, old), new, memory)

    def _initial_leaves(self) -> list[Any]:
        return jax.tree.leaves(jax.eval_shape(lambda: self.initial_memory(())))


class NoMemory(Memory):
    """The identity, without memory."""

    def initial_memory(self, batch_shape: tuple[int, ...]) -> Any:
        return ()

    def __call__(self, x: jax.Array, memory_input: MemoryInput) -> tuple[jax.Array, Any]:
        return x, ()


NO_MEMORY = NoMemory()


class GRU(Memory):
    """A gated recurrent unit (Cho et al., *Learning Phrase Representations*, 2014, https://arxiv.org/abs/1406.1078).

    With features x and the memory h, which is 0 at the start of an episode,

        r = σ(W_r x + b_r + U_r h),   z = σ(W_z x + b_z + U_z h),
        ĥ = tanh(W_h x + b_h + r ⊙ (U_h h + c)),   h' = (1 − z) ⊙ ĥ + z ⊙ h,

    with r inside the recurrent term as in cuDNN. The output is LayerNorm(h'), as in HARL, or h' without `layer_norm`;
    the new memory is h'. The three matrices W form one orthogonal matrix, and so do the three U. Biases are
    initialized to 0.
    """

    size: int
    layer_norm: bool = True

    def initial_memory(self, batch_shape: tuple[int, ...]) -> jax.Array:
        return jnp.zeros((*batch_shape, self.size))

    @nn.compact
    def __call__(self, x: jax.Array, memory_input: MemoryInput) -> tuple[jax.Array, jax.Array]:
        inputs = dense(3 * self.size, orthogonal(), x, "input")  # for all steps in one product
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


def initial_input(memory: Memory) -> MemoryInput:
    """The input of one step at the start of an episode, without batch axes."""
    return memory.select(memory.initial_memory(()), jnp.zeros((), bool), jnp.ones((), bool))
