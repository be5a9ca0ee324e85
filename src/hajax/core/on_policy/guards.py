"""Guards: the weights of samples that replace the compound ratio R, whose variance grows with the number of agents.

R = Π_{j<m} r_j, r_j = π_new(a^{i_j} | o^{i_j}) / π_old(a^{i_j} | o^{i_j}), has mean 1 over samples of the old policies
(Kuba et al., 2022a, Proposition 3). Its second moment is the product of those of the ratios if these are independent,
and so grows exponentially with the number of agents before: with many of them a few samples carry the whole gradient.
All guards leave R = 1 unchanged, so one agent, and the first agent of an order, are not affected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hajax.core.losses import weighted_mean


class CompoundRatio(NamedTuple):
    """The ratios of the agents updated before, at the samples `[B]` (or `[B, L]`)."""

    log: jax.Array  # log R = Σ log r_j
    clipped: jax.Array | None  # Π clip(r_j, 1 ± ε); None unless the guard reads it

    def times(self, log_ratio: jax.Array, clip: float | jax.Array) -> CompoundRatio:
        """With one more agent's ratio."""
        clipped = self.clipped
        if clipped is not None:
            clipped = clipped * jnp.clip(jnp.exp(log_ratio), jnp.maximum(1 - clip, 0), 1 + clip)
        return CompoundRatio(self.log + log_ratio, clipped)


Guard = Callable[[CompoundRatio, jax.Array, Any], jax.Array]


def unguarded(ratio: CompoundRatio, share: jax.Array, hyperparameters: Any) -> jax.Array:
    """R, as in the papers of HATRPO, HAPPO and HAA2C. Unbiased."""
    return jnp.exp(ratio.log)


def truncate(ratio: CompoundRatio, share: jax.Array, hyperparameters: Any) -> jax.Array:
    """min(R, c), c = `truncation`: truncated importance sampling (Ionides, 2008, *Truncated Importance Sampling*).

    Biased: samples with R > c count too little, by E[(R − c)⁺ · Â]. The effective sample size is at least B E[min(R,
    c)] / c.
    """
    return jnp.exp(jnp.minimum(ratio.log, jnp.log(hyperparameters.truncation)))


def clip(ratio: CompoundRatio, share: jax.Array, hyperparameters: Any) -> jax.Array:
    """Π clip(r_j, 1 ± ε), ε = `clip`: every agent counts only as far as the interval in which PPO trusts its ratio.

    Agents that share parameters are updated as one, and have one ratio, of their joint action.

    Biased: an agent that left the interval at a sample counts there as if it had stopped at the boundary. The weights
    lie within (1 − ε)^{m−1} and (1 + ε)^{m−1}.
    """
    assert ratio.clipped is not None
    return ratio.clipped


def interval(ratio: CompoundRatio, share: jax.Array, hyperparameters: Any) -> jax.Array:
    """clip(R, 1 ± ε/2), ε = `clip`, as in A2PO (Wang et al., 2023): https://arxiv.org/abs/2302.06205.

    Biased: samples count as if R were at most ε/2 away from 1. At least 1 − ε²/4 of them are effective.
    """
    half = hyperparameters.clip / 2
    return jnp.clip(jnp.exp(ratio.log), jnp.maximum(1 - half, 0), 1 + half)


def normalize(ratio: CompoundRatio, share: jax.Array, hyperparameters: Any) -> jax.Array:
    """R / mean(R) over the group's samples: self-normalized importance sampling (Owen, 2013, *Monte Carlo*, Ch. 9.2).

    Biased by O(1/B), and exact where expectations are. The weights have mean 1, but the effective sample size is that
    of R.
    """
    relative = jnp.exp(ratio.log - ratio.log.max())
    mean = weighted_mean(jnp.broadcast_to(relative, share.shape), share)
    return relative / jnp.where(mean > 0, mean, 1)


GUARDS: dict[str, Guard] = {
    "none": unguarded,
    "truncate": truncate,
    "clip": clip,
    "interval": interval,
    "normalize": normalize,
}


def no_ratio(guard: str, samples: jax.Array) -> CompoundRatio:
    """R = 1 at every sample, before the first agent; `samples` has its shape."""
    return CompoundRatio(jnp.zeros_like(samples), jnp.ones_like(samples) if guard == "clip" else None)


def diagnostics(ratio: CompoundRatio, weights: jax.Array, share: jax.Array) -> dict[str, jax.Array]:
    """How the ratio weights a group's samples, whose own weights are `share` `[K, B]`; scalars by name.

    - `compound_ratio_max`: the largest R.
    - `effective_samples`: (Σ w)² / (B Σ w²) of the guarded weights w: 1 if all samples weigh the same, 1/B if one
      sample carries the gradient.
    - `guarded`: the share of samples whose weight is not R.
    """
    present = (share > 0).any(0)
    most = jnp.finfo(ratio.log.dtype).max
    largest = jnp.minimum(jnp.exp(jnp.where(present, ratio.log, -jnp.inf).max()), most)
    spread = jnp.broadcast_to(weights, share.shape)
    mean, square = weighted_mean(spread, share), weighted_mean(jnp.square(spread), share)
    # Rounding is not a change.
    tolerance = float(jnp.finfo(ratio.log.dtype).eps) ** 0.5
    changed = jnp.abs(weights - jnp.exp(ratio.log)) > tolerance * weights
    return {
        "compound_ratio_max": largest,
        "effective_samples": jnp.where(square > 0, jnp.square(mean) / jnp.where(square > 0, square, 1), 1),
        "guarded": weighted_mean(jnp.broadcast_to(changed, share.shape).astype(share.dtype), share),
    }
