"""Population-based training: poor members of a population go on from copies of good ones, with other hyperparameters.

    parents = select(key, scores)  # [P]
    states = jax.tree.map(lambda x: x[parents], states)
    hyperparameters = perturb(key, hyperparameters, parents != jnp.arange(P), {"actor_lr": (0.0, jnp.inf)}, 1.25)

See Jaderberg et al., Population Based Training of Neural Networks, 2017 (arXiv 1711.09846), Section 4.1.1: truncation
selection, and exploration by perturbation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["perturb", "select"]


def select(key: jax.Array, scores: jax.Array, fraction: float = 0.25) -> jax.Array:
    """Truncation selection: the member from which each goes on, int `[P]`, its own index for those that are kept.

    Each of the worst ⌊`fraction` · P⌋ members (at least one) goes on from one of as many best ones, drawn uniformly. A
    member whose score is not finite is replaced too, and nobody goes on from it, unless no score is finite.

    Args:
      key: a random key.
      scores: `[P]`, the larger the better.
      fraction: up to 0.5.
    """
    size = scores.shape[0]
    count = max(1, int(fraction * size))
    finite = jnp.isfinite(scores)
    scores = jnp.where(finite, scores, -jnp.inf)
    order = jnp.argsort(scores, descending=True)
    rank = jnp.argsort(order)
    drawn = order[jax.random.randint(key, (size,), 0, jnp.clip(finite.sum(), 1, count))]
    replaced = ((rank >= size - count) | ~finite) & finite.any() & (size > 1)
    return jnp.where(replaced, drawn, jnp.arange(size))


def perturb(
    key: jax.Array, hyperparameters: Any, changed: jax.Array, bounds: Mapping[str, tuple[float, float]], factor: float
) -> Any:
    """The hyperparameters `[P]` in which those of `bounds` are multiplied by `factor` or divided by it.

    Both are equally likely, for each hyperparameter and member separately, and only members with `changed` (bool `[P]`)
    change. Results are clipped to the bounds `(low, high)`.
    """
    for name, (low, high) in bounds.items():
        key, own = jax.random.split(key)
        values = getattr(hyperparameters, name)
        up = jax.random.bernoulli(own, shape=values.shape)
        moved = jnp.clip(jnp.where(up, values * factor, values / factor), low, high)
        hyperparameters = hyperparameters.replace(**{name: jnp.where(changed, moved, values)})
    return hyperparameters
