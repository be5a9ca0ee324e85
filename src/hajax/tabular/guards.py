"""Exact guards of the compound ratio R = Π new/old over the agents updated before: weights in place of R.

The sampled ones are in `hajax.core.on_policy.guards`, with the bias of each. `guard=normalize` has no counterpart: the
mean of R is exactly 1.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from hajax.tabular.policies import joint_probabilities
from hajax.validation import check_number

# (old [N, S, A], new [N, S, A]) of the agents updated before, probabilities that are 1 for all others, to g(R) · Π old,
# [S, A, …, A]. Not divided by Π old, which may be 0.
Guard = Callable[[jax.Array, jax.Array], jax.Array]


def truncate(truncation: float = 2.0) -> Guard:
    """min(R, c).

    Raises:
      ValueError: if c < 1.
    """
    check_number("truncation", truncation, 1)
    return lambda old, new: jnp.minimum(joint_probabilities(new), truncation * joint_probabilities(old))


def clip(clip: float = 0.2) -> Guard:
    """Π clip(new/old, 1 ± ε).

    Raises:
      ValueError: if ε is not in (0, 1].
    """
    check_number("clip", clip, 0, 1, open_low=True)
    return lambda old, new: joint_probabilities(jnp.clip(new, (1 - clip) * old, (1 + clip) * old))


def interval(clip: float = 0.2) -> Guard:
    """clip(R, 1 ± ε/2).

    Raises:
      ValueError: if ε is not in (0, 1].
    """
    check_number("clip", clip, 0, 1, open_low=True)

    def weights(old, new):
        before = joint_probabilities(old)
        return jnp.clip(joint_probabilities(new), (1 - clip / 2) * before, (1 + clip / 2) * before)

    return weights
