"""A critic that attends: values of every agent's choices, from its own observation and what the others see and do."""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.nn.initializers import orthogonal

SLOPE = 0.01  # of LeakyReLU
GAIN = math.sqrt(2 / (1 + SLOPE**2))
# The parts whose gradients every agent's loss adds to: of N agents they are divided by N.
SHARED = ("encoder", "encoder_bias", "keys", "queries", "values", "values_bias")


class AttentionCritic(nn.Module):
    """The critics of all agents of *Actor-Attention-Critic* (Iqbal & Sha, 2019, Section 3.2), evaluated together.

    With an encoding of agent i's observation, e_i = σ(S_i oⁱ), and one of every agent's observation and action,
    c_j = σ(C_j (oʲ, aʲ)), head h gives agent i

        x_i^h = Σ_{j≠i} w_ij σ(V_h c_j),   w_ij = softmax over j of (Q_h e_i)ᵀ K_h c_j / √d,

    and its values are Q_i(o, ·, a⁻ⁱ) = B_i σ(A_i (e_i, x_i^1, …, x_i^H)), one per choice of its own; σ is LeakyReLU.
    K, Q and V are shared, the rest is each agent's own. An agent attends to the other active agents; if there is none,
    x_i is zero. Padded inputs are zeros.

    With `reads_own_action`, for actions that are no choices, A_i reads the agent's own action too: Q_i(o, aⁱ, a⁻ⁱ).
    """

    num_choices: int
    width: int = 128
    heads: int = 4
    reads_own_action: bool = False

    @nn.compact
    def __call__(
        self, observation: jax.Array, action: jax.Array, active: jax.Array, own_action: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Values `[…, N, M]`, and the attention's logits `[…, H, N, N]` before their scale, 0 where none attends.

        Args:
          observation: `[…, N, O]`.
          action: the features of the joint action, `[…, N, F]`; an agent's own does not change its values.
          active: bool `[…, N]`.
          own_action: with `reads_own_action`, features of every agent's own actions `[S, …, N, F]`, which its values
            `[S, …, N, M]` are of; its action by default.
        """
        agents, size = observation.shape[-2], self.width // self.heads
        # Agents come first: matrix products are several times as fast as with the agent axis between the others.
        seen, taken = (jnp.moveaxis(x, -2, 0) for x in (observation, jnp.concatenate([observation, action], -1)))

        def own(name: str, x: jax.Array, width: int, gain: float = GAIN) -> jax.Array:
            return own_layer(self, name, x, width, gain)

        def shared(name: str, x: jax.Array) -> jax.Array:
            """A layer of every head, `[N, …, W] -> [N, …, H, d]`, as one matrix product."""
            kernel = self.param(name, _stacked(orthogonal(GAIN)), (self.heads, self.width, size), x.dtype)
            out = x @ jnp.moveaxis(kernel, 0, 1).reshape(self.width, self.heads * size)
            return out.reshape(*out.shape[:-1], self.heads, size)

        seen = nn.leaky_relu(own("observer", seen, self.width), SLOPE)
        encoded = nn.leaky_relu(own("encoder", taken, self.width), SLOPE)
        bias = self.param("values_bias", nn.initializers.zeros, (self.heads, size), encoded.dtype)
        values = nn.leaky_relu(shared("values", encoded) + bias, SLOPE)
        logits = jnp.sum(shared("queries", seen)[:, None] * shared("keys", encoded)[None], -1)  # [N, N, ..., H]
        logits = jnp.moveaxis(logits, (0, 1), (-2, -1))  # [..., H, N, N]
        others = active[..., None, None, :] & ~jnp.eye(agents, dtype=bool)
        weights = jnp.moveaxis(attention_weights(logits / math.sqrt(size), others), (-2, -1), (0, 1))
        attended = jnp.sum(weights[..., None] * values[None], 1)  # [N, ..., H, d]
        joined = jnp.concatenate([seen, attended.reshape(*attended.shape[:-2], -1)], -1)
        hidden = own("hidden", joined, self.width)
        if self.reads_own_action:
            mine = jnp.moveaxis(action if own_action is None else own_action, -2, 0)
            hidden = hidden if own_action is None else hidden[:, None]
            hidden = hidden + own_layer(self, "hidden_action", mine, self.width, bias=False)
        found = own("output", nn.leaky_relu(hidden, SLOPE), self.num_choices, gain=1.0)
        return jnp.moveaxis(found, 0, -2), jnp.where(others, logits, 0)


def own_layer(
    module: nn.Module, name: str, x: jax.Array, width: int, gain: float = GAIN, bias: bool = True
) -> jax.Array:
    """A layer of every agent's own, inside a compact module: `[N, …, I] -> [N, …, width]`."""
    agents, inputs = x.shape[0], x.shape[-1]
    kernel = module.param(name, _stacked(orthogonal(gain)), (agents, inputs, width), x.dtype)
    out = jnp.einsum("n...i,niw->n...w", x, kernel)
    if not bias:
        return out
    added = module.param(f"{name}_bias", nn.initializers.zeros, (agents, width), x.dtype)
    return out + added.reshape(agents, *[1] * (x.ndim - 2), width)


def pairs_of(active: jax.Array) -> jax.Array:
    """Which pairs of different agents are active, `[…, N] -> bool […, N, N]`."""
    return active[..., :, None] & active[..., None, :] & ~jnp.eye(active.shape[-1], dtype=bool)


def attention_weights(logits: jax.Array, others: jax.Array) -> jax.Array:
    """The softmax over those of `others`, `[…, N]`; zeros if there is none."""
    largest = jnp.max(logits, -1, keepdims=True, where=others, initial=-jnp.inf)
    shifted = jnp.where(others, logits - jax.lax.stop_gradient(jnp.where(jnp.isfinite(largest), largest, 0)), 0)
    weight = jnp.where(others, jnp.exp(shifted), 0)
    total = weight.sum(-1, keepdims=True)
    return weight / jnp.where(total > 0, total, 1)


def with_shared_gradients_of_the_mean(params: dict[str, Any], agents: int) -> dict[str, Any]:
    """The parameters, of which the `SHARED` ones have 1/N of their gradient."""
    return {
        name: x / agents + jax.lax.stop_gradient(x - x / agents) if name in SHARED else x for name, x in params.items()
    }


def _stacked(init: Any) -> Any:
    """An initializer with a separate key for every matrix of a stack `[K, …]`."""

    def of_stack(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
        return jax.vmap(lambda key: init(key, shape[1:], dtype))(jax.random.split(key, shape[0]))

    return of_stack
