"""Drift functionals: what an agent pays for moving away from its old policy.

A heterogeneous-agent drift functional (Kuba et al., *Heterogeneous-Agent Mirror Learning*, 2022, Definition 1:
https://arxiv.org/abs/2208.01682) is nowhere negative, and zero with zero gradient where the new policy is the old one.
Agent i_m then maximizes E[r · M − D] (Definition 3), in any neighborhood of its policy, and the team's return cannot
fall. `check_drift` tests a functional of one's own.

A drift here is an elementwise function `(change, numbers) -> [K, B]` (for policies with memory `[K, B, L]`) whose mean
over samples of the *old* policy estimates D_π(π̂ | s, π̄). Sampled forms such as f(r) with f convex and f(1) = f'(1) = 0
are non-negative sample by sample.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters
from hajax.spec import ActionLayout, EnvSpec


@dataclasses.dataclass(frozen=True)
class PolicyChange:
    """A group's step from its old policy to a new one, at samples `[K, B]` (or `[K, B, L]`) that the old one drew."""

    log_ratio: jax.Array  # [K, B], log r = log π_new(a|o) − log π_old(a|o); 0 where a sample has no weight
    advantage: jax.Array  # [K, B], M: the advantage times the compound ratio of the agents before
    new: ActionParameters  # the distributions π_new(·|o)
    layout: ActionLayout
    old_policy: Callable[[], ActionParameters]  # a forward pass, which only those pay for who read `old`

    @functools.cached_property
    def old(self) -> ActionParameters:
        """The distributions π_old(·|o)."""
        return self.old_policy()

    @property
    def ratio(self) -> jax.Array:
        """r = π_new(a|o) / π_old(a|o), `[K, B]`."""
        return jnp.exp(self.log_ratio)


Drift = Callable[[PolicyChange, Any], jax.Array]


def no_drift(change: PolicyChange, numbers: Any) -> jax.Array:
    """D = 0, the trivial drift: HAA2C, and HATRPO inside its KL ball."""
    return jnp.zeros_like(change.log_ratio)


def ppo_clip(change: PolicyChange, numbers: Any) -> jax.Array:
    """D = ReLU([r − clip(r, 1 ± ε)] · M), which makes r · M − D the clipped surrogate (haml, Section 4.3, Appendix D).

    ε is `numbers.clip`.
    """
    clipped = jnp.clip(change.ratio, 1 - numbers.clip, 1 + numbers.clip)
    return jax.nn.relu((change.ratio - clipped) * change.advantage)


def kl_old_new(change: PolicyChange, numbers: Any) -> jax.Array:
    """D = c · KL(π_old ‖ π_new), exact in the action; c is `numbers.drift_coef`."""
    return numbers.drift_coef * distributions.kl_divergence(change.old, change.new, change.layout)


def kl_new_old(change: PolicyChange, numbers: Any) -> jax.Array:
    """D = c · KL(π_new ‖ π_old), exact in the action; c is `numbers.drift_coef`."""
    return numbers.drift_coef * distributions.kl_divergence(change.new, change.old, change.layout)


def squared_log_ratio(change: PolicyChange, numbers: Any) -> jax.Array:
    """D = c · ½ (log r)², sampled; c is `numbers.drift_coef`. Near r = 1 it is the KL divergence."""
    return numbers.drift_coef * jnp.square(change.log_ratio) / 2


def tsallis(q: float = 2.0) -> Drift:
    """D = c · (r^q − 1 − q (r − 1)) / (q (q − 1)), sampled: the Tsallis relative entropy of order `q`, over q.

    Its mean over the old policy is c/q · D_q(π_new ‖ π_old), D_q = (E_old[r^q] − 1) / (q − 1); `q = 2` is half the χ²
    divergence, and q → 1 the KL divergence. The middle term has mean zero and makes every sample non-negative.

    Raises:
      ValueError: q is not positive or is 1.
    """
    if q <= 0 or q == 1:
        raise ValueError(f"q={q}; allowed: a number > 0 other than 1, which is the KL divergence")

    def drift(change: PolicyChange, numbers: Any) -> jax.Array:
        # expm1 keeps the precision near r = 1, where the terms cancel.
        powers = jnp.expm1(q * change.log_ratio) - q * jnp.expm1(change.log_ratio)
        return numbers.drift_coef * powers / (q * (q - 1))

    drift.__name__ = f"tsallis({q:g})"
    return drift


DRIFTS: dict[str, Drift] = {
    "no_drift": no_drift,
    "ppo_clip": ppo_clip,
    "kl_old_new": kl_old_new,
    "kl_new_old": kl_new_old,
    "squared_log_ratio": squared_log_ratio,
    "tsallis": tsallis(),
}


class _Watched:
    """`numbers`, and the names of those that were read."""

    def __init__(self, numbers: Any):
        self.numbers, self.names = numbers, set[str]()

    def __getattr__(self, name: str) -> Any:
        self.names.add(name)
        return getattr(self.numbers, name)


def numbers_read(drift: Drift, numbers: Any, spec: EnvSpec) -> set[str]:
    """The names of what the drift, on policies of that team, reads of `numbers`; ValueError if it has one not."""
    layout = ActionLayout(*(table[0] for table in spec.action_layout))
    shape = (1, 1, spec.num_components)
    logits = jnp.zeros((*shape, spec.num_choices)) if spec.has_discrete else None
    mean, std = (jnp.zeros(shape), jnp.ones(shape)) if spec.has_continuous else (None, None)
    policy = ActionParameters(logits, mean, std)
    change = PolicyChange(jnp.zeros((1, 1)), jnp.zeros((1, 1)), policy, layout, lambda: policy)
    watched = _Watched(numbers)
    try:
        jax.eval_shape(lambda: drift(change, watched))
    except AttributeError as error:
        if error.obj is not numbers:
            raise
        name = getattr(drift, "__name__", repr(drift))
        raise ValueError(
            f"{type(numbers).__name__} has no {error.name}, which {name} reads; allowed: any class that also has it"
        ) from None
    return watched.names
