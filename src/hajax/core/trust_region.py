"""A step within a KL ball: natural gradient by conjugate gradients, then a backtracking line search.

Schulman et al., *Trust Region Policy Optimization* (ICML 2015); for sequential updates Kuba et al., 2022a, Eq. 8 and
Algorithm 2, lines 11–13.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.scipy.sparse.linalg import cg

from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters
from hajax.spec import ActionLayout

Product = Callable[[Any], Any]  # v -> H v, on trees like the parameters


class Linearized(NamedTuple):
    """A policy linearized at its parameters. A product costs one evaluation of J and one of Jᵀ."""

    distribution: ActionParameters  # at the parameters
    pull: Callable[[ActionParameters], Any]  # Jᵀu, a gradient in the network's parameters
    fisher_product: Product  # Hv = JᵀFJv


def linearize(
    distribution: Callable[[Any], ActionParameters], params: Any, layout: ActionLayout, share: jax.Array
) -> Linearized:
    """The policy `params -> distributions [K, B]`, linearized at `params`.

    H is the Hessian of Σ share · KL(π_old ‖ ·) at the old policy. The gradient of the KL divergence is zero there, so
    H = JᵀFJ, where F is the Fisher information of the distributions and J is the network's Jacobian.
    """
    old, push = jax.linearize(distribution, params)
    transposed = jax.linear_transpose(push, params)

    def pull(u):
        return transposed(u)[0]

    def fisher_product(v):
        product = distributions.fisher_product(old, layout, push(v))
        return pull(jax.tree.map(lambda x: x * share.reshape(*share.shape, *[1] * (x.ndim - share.ndim)), product))

    return Linearized(old, pull, fisher_product)


class Direction(NamedTuple):
    """The longest step, and its expected gain."""

    step: Any  # β x, a tree like the parameters: ½ (βx)ᵀ H (βx) = δ
    expected: jax.Array  # βx · g: the gain of the objective to first order


def natural_gradient_step(
    fisher_product: Product, gradient: Any, radius: Any, damping: Any, iterations: int
) -> Direction:
    """The longest step along x ≈ (H + λI)⁻¹ g with a KL divergence, to second order, within `radius` δ:

        β = √(2δ / xᵀHx).

    Args:
      fisher_product: `v -> H v`, H the Hessian of the mean KL(π_old ‖ ·) at the old policy.
      gradient: g of the objective, a tree like the parameters.
      radius: δ.
      damping: λ. It affects only the direction; the length β uses the undamped H.
      iterations: the largest number of conjugate gradient iterations.
    """

    def damped_product(v):
        return jax.tree.map(lambda product, x: product + damping * x, fisher_product(v), v)

    precision = jnp.finfo(jnp.result_type(*jax.tree.leaves(gradient))).eps
    x, _ = cg(damped_product, gradient, tol=float(precision), maxiter=iterations)
    curvature = optax.tree.vdot(x, fisher_product(x))
    length = jnp.where(curvature > 0, jnp.sqrt(2 * radius / jnp.where(curvature > 0, curvature, 1)), 0)
    return Direction(jax.tree.map(lambda x: length * x, x), length * optax.tree.vdot(x, gradient))


class Search(NamedTuple):
    """The current or final candidate of a line search."""

    candidate: jax.Array  # int j: the step is shortened by α^j
    accepted: jax.Array  # bool
    params: Any  # the candidate's parameters
    improvement: jax.Array  # the increase of the objective
    kl: jax.Array


def line_search(
    evaluate: Callable[[Any], tuple[jax.Array, jax.Array]],
    params: Any,
    direction: Direction,
    radius: Any,
    accept_ratio: Any,
    backtrack: Any,
    steps: int,
) -> Search:
    """The first of θ + α^j · step, j = 0 … `steps` − 1, that is accepted; if there is none, `params` unchanged.

    A candidate is accepted if it improves the objective by at least κ · α^j · expected, and if its KL divergence is
    within the radius, up to a relative √eps.

    Args:
      evaluate: `params -> (improvement of the objective, mean KL from the old policy)`.
      params: θ.
      direction: the longest step.
      radius, accept_ratio, backtrack: δ, κ and α.
      steps: the largest number of candidates.
    """
    tolerance = float(jnp.finfo(direction.expected.dtype).eps) ** 0.5  # 3e-4 in float32, 1e-8 in float64

    def candidate(index):
        scale = backtrack**index
        new = jax.tree.map(lambda p, s: p + (scale * s).astype(p.dtype), params, direction.step)
        improvement, kl = evaluate(new)
        enough = improvement >= accept_ratio * scale * direction.expected
        accepted = enough & (improvement > 0) & (kl <= radius * (1 + tolerance))
        return Search(index, accepted, new, improvement, kl)

    def unfinished(search):
        return ~search.accepted & (search.candidate < steps - 1)

    first = candidate(jnp.zeros((), int))
    last = lax.while_loop(unfinished, lambda search: candidate(search.candidate + 1), first)
    kept = jax.tree.map(lambda new, old: jnp.where(last.accepted, new, old), last.params, params)
    return last._replace(params=kept)


def step_within_kl_ball(
    params: Any,
    gradient: Any,
    fisher_product: Product,
    evaluate: Callable[[Any], tuple[jax.Array, jax.Array]],
    hyperparameters: Any,
    settings: Any,
) -> tuple[Any, dict[str, jax.Array]]:
    """The parameters accepted by a line search along the natural gradient, or `params`, and diagnostics by name.

    Args:
      params, gradient, fisher_product, evaluate: as in `natural_gradient_step` and `line_search`.
      hyperparameters, settings: with the fields of `BallHyperparameters` and `BallSettings`.
    """
    direction = natural_gradient_step(
        fisher_product, gradient, hyperparameters.kl_radius, hyperparameters.damping, settings.cg_iterations
    )
    found = line_search(
        evaluate,
        params,
        direction,
        hyperparameters.kl_radius,
        hyperparameters.accept_ratio,
        hyperparameters.backtrack,
        settings.line_search_steps,
    )
    return found.params, {
        "kl": jnp.where(found.accepted, found.kl, 0),
        "improvement": jnp.where(found.accepted, found.improvement, 0),
        "expected_improvement": direction.expected,
        "accepted": found.accepted.astype(direction.expected.dtype),
        "candidate": found.candidate.astype(direction.expected.dtype),
    }
