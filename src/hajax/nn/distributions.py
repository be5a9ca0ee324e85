"""Action distributions of padded, possibly mixed action components.

A distribution is represented by its parameters, which are arrays. Distrax distributions are built from them inside each
function, because they cannot be passed through `vmap` reliably. Components are independent given the observation, so
joint log-probabilities, entropies and divergences are sums over the components that an agent has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from hajax.spec import ActionLayout

if TYPE_CHECKING:
    import distrax  # imported on first use, because the import takes seconds


class ActionParameters(NamedTuple):
    """Parameters of the distribution of one action; `None` for a kind of action that no agent of the team has.

    `logits` `[…, D, C]` are −inf where a choice is unavailable. `mean` and `std` `[…, D]` are those of a Gaussian
    variable u; the action is `center + scale · u`.
    """

    logits: jax.Array | None
    mean: jax.Array | None
    std: jax.Array | None


def mask_logits(logits: jax.Array, available: jax.Array) -> jax.Array:
    """The logits with −inf for unavailable choices, whose probability is then exactly 0 and has no gradient."""
    return jnp.where(available, logits, -jnp.inf)


def _categorical(parameters: ActionParameters) -> distrax.Categorical:
    import distrax

    return distrax.Categorical(logits=parameters.logits)


def _gaussian(parameters: ActionParameters) -> distrax.Normal:
    import distrax

    return distrax.Normal(parameters.mean, parameters.std)


def _scaled(layout: ActionLayout, u: jax.Array) -> jax.Array:
    return jnp.asarray(layout.center, u.dtype) + jnp.asarray(layout.scale, u.dtype) * u


def _combine(layout: ActionLayout, discrete: jax.Array | None, continuous: jax.Array | None) -> jax.Array:
    """Takes discrete components from `discrete`, Box components from `continuous`; 0 for those that an agent lacks."""
    parts = []
    if discrete is not None:
        parts.append(jnp.where(layout.discrete, discrete, 0))
    if continuous is not None:
        parts.append(jnp.where(layout.continuous, continuous, 0))
    return sum(parts[1:], parts[0])


def sample(key: jax.Array, parameters: ActionParameters, layout: ActionLayout) -> jax.Array:
    """Draws an action `[…, D]`: indices for discrete components, unclipped reals for Box components."""
    discrete = continuous = None
    discrete_key, continuous_key = jax.random.split(key)
    if parameters.logits is not None:
        discrete = _categorical(parameters).sample(seed=discrete_key).astype(parameters.logits.dtype)
    if parameters.mean is not None:
        continuous = _scaled(layout, _gaussian(parameters).sample(seed=continuous_key))
    return _combine(layout, discrete, continuous)


def mode(parameters: ActionParameters, layout: ActionLayout) -> jax.Array:
    """The most probable action `[…, D]`."""
    discrete = continuous = None
    if parameters.logits is not None:
        discrete = _categorical(parameters).mode().astype(parameters.logits.dtype)
    if parameters.mean is not None:
        continuous = _scaled(layout, parameters.mean)
    return _combine(layout, discrete, continuous)


def log_prob(parameters: ActionParameters, layout: ActionLayout, action: jax.Array) -> jax.Array:
    """The joint log-density of `action` `[…, D]`, summed over components: `[…]`.

    For Box components it is the density in native units, log N(u; mean, std) − log scale.
    """
    discrete = continuous = None
    if parameters.logits is not None:
        # Box components are evaluated at choice 0, which always exists, and masked afterwards.
        index = jnp.where(layout.discrete, action, 0).astype(int)
        discrete = _categorical(parameters).log_prob(index)
    if parameters.mean is not None:
        scale = jnp.asarray(layout.scale, action.dtype)
        u = jnp.where(layout.continuous, (action - jnp.asarray(layout.center, action.dtype)) / scale, 0)
        continuous = _gaussian(parameters).log_prob(u) - jnp.log(scale)
    return _combine(layout, discrete, continuous).sum(-1)


def entropy(parameters: ActionParameters, layout: ActionLayout) -> jax.Array:
    """The joint (differential) entropy in nats, summed over components: `[…]`."""
    discrete = continuous = None
    if parameters.logits is not None:
        discrete = _categorical(parameters).entropy()
    if parameters.mean is not None:
        scale = jnp.asarray(layout.scale, parameters.mean.dtype)
        continuous = _gaussian(parameters).entropy() + jnp.log(scale)
    return _combine(layout, discrete, continuous).sum(-1)


def kl_divergence(p: ActionParameters, q: ActionParameters, layout: ActionLayout) -> jax.Array:
    """KL(p ‖ q) in nats, exact for every kind, summed over components: `[…]`.

    `p` and `q` must have the same unavailable choices, which contribute 0.
    """
    discrete = continuous = None
    if p.logits is not None:
        discrete = _categorical(p).kl_divergence(_categorical(q))
    if p.mean is not None:
        continuous = _gaussian(p).kl_divergence(_gaussian(q))
    return _combine(layout, discrete, continuous).sum(-1)


def fisher_product(parameters: ActionParameters, layout: ActionLayout, tangent: ActionParameters) -> ActionParameters:
    """F · v, where F is the Fisher information of the action in the distribution's parameters.

    F is the Hessian of KL(parameters ‖ ·) at `parameters`: diag(p) − p pᵀ in the logits of a categorical, 1/σ² in the
    mean and 2/σ² in the σ of a Gaussian. It is 0 for components that an agent lacks. `tangent` is v.
    """

    def of_categorical(logits, v):
        p = jax.nn.softmax(logits)
        return jnp.where(layout.discrete[..., None], p * (v - jnp.sum(p * v, -1, keepdims=True)), 0)

    def of_gaussian(std, v_mean, v_std):
        precision = jnp.where(layout.continuous, jnp.reciprocal(jnp.square(std)), 0)
        return precision * v_mean, 2 * precision * v_std

    logits = None if parameters.logits is None else of_categorical(parameters.logits, tangent.logits)
    gaussian = (None, None) if parameters.std is None else of_gaussian(parameters.std, tangent.mean, tangent.std)
    return ActionParameters(logits, *gaussian)
