"""Memory: arrays that an actor or a critic carries from step to step, and that are reset at the start of an episode."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
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

# `(module, x, memory) -> (features, memory)`, and what repeats `(module, memory, inputs) -> (memory, outputs)` over the
# leading axis of the inputs.
Step = Callable[[Any, jax.Array, Any], tuple[jax.Array, Any]]
Scan = Callable[[Callable[..., Any], Any, Any], tuple[Any, Any]]


class BaseMemory(nn.Module, ABC):
    """A module between a torso and its head that carries any tree of arrays from step to step."""

    @abstractmethod
    def initial_memory(self, batch_shape: tuple[int, ...]) -> Any:
        """The memory at the start of an episode, arrays `[*batch_shape, …]`."""

    @abstractmethod
    def __call__(self, x: jax.Array, memory_input: MemoryInput) -> tuple[jax.Array, Any]:
        """Processes one step, `x` `[…, F]`, or a sequence `[…, L, F]`. The shapes of `memory_input` decide which.

        Returns:
          Features `[…, H]` or `[…, L, H]` and the memory after every step. The features of an inactive step are those
          that it would have if it were active.
        """

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

    def run(self, step: Step, scan: Scan, x: jax.Array, memory_input: MemoryInput) -> tuple[jax.Array, Any]:
        """The result of `__call__` from a `step`, which `scan` repeats for a sequence.

        The memory is reset before steps that open an episode, and does not change at inactive steps.
        """

        def where(condition, one, other):
            return jnp.where(condition.reshape(*condition.shape, *[1] * (other.ndim - condition.ndim)), one, other)

        def guarded(module, memory, inputs):
            x, first, active = inputs
            memory = jax.tree.map(functools.partial(where, first), module.initial_memory(first.shape), memory)
            features, new = step(module, x, memory)
            new = jax.tree.map(functools.partial(where, active), new, memory)
            return new, (features, new)

        memory, first, active = memory_input
        time = jax.tree.leaves(memory)[0].ndim - self._initial_leaves()[0].ndim
        if first.ndim == time:
            return guarded(self, memory, (x, first, active))[1]
        _, of_steps = scan(guarded, memory, jax.tree.map(lambda x: jnp.moveaxis(x, time, 0), (x, first, active)))
        features, memory = jax.tree.map(lambda x: jnp.moveaxis(x, 0, time), of_steps)
        return features, memory

    def _initial_leaves(self) -> list[Any]:
        return jax.tree.leaves(jax.eval_shape(lambda: self.initial_memory(())))


class Memory(BaseMemory):
    """A memory defined by `initial_memory` and `step`. The library resets it and runs it on sequences."""

    @abstractmethod
    def step(self, x: jax.Array, memory: Any) -> tuple[jax.Array, Any]:
        """Maps features `[…, F]` and the memory `[…, …]` to new features `[…, H]` and the new memory."""

    def __call__(self, x: jax.Array, memory_input: MemoryInput) -> tuple[jax.Array, Any]:
        def scan(body, memory, steps):
            return nn.scan(body, variable_broadcast="params", split_rngs={"params": False})(self, memory, steps)

        return self.run(lambda module, x, memory: module.step(x, memory), scan, x, memory_input)


class NoMemory(BaseMemory):
    """The identity, without memory."""

    def initial_memory(self, batch_shape: tuple[int, ...]) -> Any:
        return ()

    def __call__(self, x: jax.Array, memory_input: MemoryInput) -> tuple[jax.Array, Any]:
        return x, ()


NO_MEMORY = NoMemory()


class GRU(BaseMemory):
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

        def step(module, inputs, memory):
            recurrent = (memory.reshape(-1, self.size) @ kernel).reshape(inputs.shape)
            x_reset, x_keep, x_new = jnp.split(inputs, 3, -1)
            h_reset, h_keep, h_new = jnp.split(recurrent, 3, -1)
            reset, keep = nn.sigmoid(x_reset + h_reset), nn.sigmoid(x_keep + h_keep)
            new = (1 - keep) * nn.tanh(x_new + reset * (h_new + bias)) + keep * memory
            return new, new

        def scan(body, memory, steps):  # `step` uses no variables of the module, so that it needs no lifting
            return lax.scan(functools.partial(body, self), memory, steps)

        before = memory_input._replace(memory=memory_input.memory.astype(inputs.dtype))
        features, memory = self.run(step, scan, inputs, before)
        return MaskedLayerNorm()(features) if self.layer_norm else features, memory


def initial_input(memory: BaseMemory) -> MemoryInput:
    """The input of one step at the start of an episode, without batch axes."""
    return memory.select(memory.initial_memory(()), jnp.zeros((), bool), jnp.ones((), bool))
