"""The networks of trust-region decomposition: modeling policies, and an estimate of the non-stationarity.

Li et al., *Dealing with Non-Stationarity in MARL via Trust-Region Decomposition* (ICLR 2022), Figure 11:
https://arxiv.org/abs/2102.10616.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.nn.attention import SLOPE, own_layer
from hajax.nn.distributions import ActionParameters
from hajax.nn.initializers import orthogonal
from hajax.nn.networks import LOG_STD_RANGE


class ModelingPolicies(nn.Module):
    """Every agent's model of the others, π̂_i(·|o_i, j): a distribution of agent j's action, from what agent i observes.

    A network of two hidden layers per agent, which also reads a one-hot vector of j. Its outputs are logits, and means
    and standard deviations of real components.
    """

    num_components: int
    num_choices: int  # 0 if no component is discrete
    has_continuous: bool
    width: int = 128

    @nn.compact
    def __call__(self, observation: jax.Array) -> ActionParameters:
        """The parameters of distributions `[…, N, N, …]`, by i and j, from observations `[…, N, O]`."""
        agents = observation.shape[-2]
        whom = self.param("whom", nn.initializers.normal(agents**-0.5), (agents, agents, self.width), observation.dtype)
        first = own_layer(self, "first", jnp.moveaxis(observation, -2, 0), self.width)
        # By i, j, and the rest.
        hidden = first[:, None] + whom.reshape(agents, agents, *[1] * (first.ndim - 2), self.width)
        hidden = nn.leaky_relu(own_layer(self, "second", nn.leaky_relu(hidden, SLOPE), self.width), SLOPE)

        def output(name: str, width: int) -> jax.Array:
            return jnp.moveaxis(own_layer(self, name, hidden, width, gain=0.01), (0, 1), (-3, -2))

        logits = mean = std = None
        if self.num_choices:
            logits = output("logits", self.num_components * self.num_choices)
            logits = logits.reshape(*logits.shape[:-1], self.num_components, self.num_choices)
        if self.has_continuous:
            mean = output("mean", self.num_components)
            std = jnp.exp(jnp.clip(output("log_std", self.num_components), *LOG_STD_RANGE))
        return ActionParameters(logits, mean, std)


class TrustRegionDecomposition(nn.Module):
    """An estimate of the non-stationarity that every agent meets, λ_i · k_i, from the team's actions and radii.

    Both factors encode (o_i, a_i) and the radius δ_i by networks of every agent's own. For k the encodings x_i pass
    through one graph convolution, which all agents share,

        x′_j = (W x_j + b) / d_j + Σ_i C_ij (W x_i + b) / √(d_i d_j),   d_j = 1 + the number of edges to j,

    a sum over the edges i → j of the coordination graph, and then through two layers of their own.
    """

    width: int = 128

    @nn.compact
    def __call__(
        self, observation: jax.Array, action: jax.Array, radii: jax.Array, weights: jax.Array, edges: jax.Array
    ) -> jax.Array:
        """Estimates `[…, N]`.

        Args:
          observation: `[…, N, O]`, zeros for inactive agents.
          action: the features of the joint action, `[…, N, F]`, zeros for inactive agents.
          radii: δ, `[N]`.
          weights: the coordination coefficients C_ij, `[…, N, N]`.
          edges: bool `[…, N, N]`: whether agent i sends to agent j ≠ i.
        """
        taken = jnp.moveaxis(jnp.concatenate([observation, action], -1), -2, 0)
        agents, rest = len(taken), [1] * (taken.ndim - 2)

        def layer(name: str, x: jax.Array, width: int = self.width, bias: bool = True) -> jax.Array:
            return nn.leaky_relu(own_layer(self, name, x, width, bias=bias), SLOPE)

        # The encoders of both factors are one stack, [2N, …], which compiles and runs in half of the operations. The
        # encoding of δ, the same in all samples, joins that of (o, a) as a layer of the two concatenated would.
        radius = layer("radius_more", layer("radius", jnp.tile(radii, 2)[:, None]), bias=False)
        of_radius = own_layer(self, "joined_radius", radius, self.width, bias=False)
        joined = own_layer(self, "joined", layer("taken", jnp.concatenate([taken, taken])), self.width)
        encoded = nn.leaky_relu(joined + of_radius.reshape(2 * agents, *rest, self.width), SLOPE)
        of_k, of_lambda = jnp.split(encoded, 2)

        kernel = self.param("graph", orthogonal(), (self.width, self.width), taken.dtype)
        bias = self.param("graph_bias", nn.initializers.zeros, (self.width,), taken.dtype)
        shares = jnp.moveaxis(graph(weights, edges), (-2, -1), (0, 1))  # [N, N, ...], by sender and receiver
        passed = jnp.sum(shares[..., None] * (of_k @ kernel + bias)[:, None], 0)
        k = layer("k_output", layer("k_hidden", passed), 1, bias=False)
        product = layer("lambda_output", of_lambda, 1, bias=False) * k
        return jnp.moveaxis(product[..., 0], 0, -1)


def graph(weights: jax.Array, edges: jax.Array) -> jax.Array:
    """The matrix of a graph convolution, `[…, N, N]`: C_ij / √(d_i d_j) on edges and 1 / d_j on the diagonal.

    d_j is 1 plus the number of edges that lead to j (Kipf & Welling, 2017, with weighted edges).
    """
    degree = 1 + edges.sum(-2)
    loops = jnp.eye(edges.shape[-1], dtype=weights.dtype)
    scale = jax.lax.rsqrt(degree.astype(weights.dtype))
    return (jnp.where(edges, weights, 0) + loops) * scale[..., :, None] * scale[..., None, :]
