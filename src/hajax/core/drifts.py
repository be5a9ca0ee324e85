"""Drift functionals: the penalty on an agent's step away from its old policy.

A heterogeneous-agent drift functional (Kuba et al., 2022b, *Heterogeneous-Agent Mirror Learning*, Definition 1:
https://arxiv.org/abs/2208.01682) is non-negative, and zero with zero gradient at the old policy. If agent i_m maximizes
E[r · M − D] (Definition 3) in any neighborhood of its policy, the team's return does not decrease. `hajax.check_drift`
tests a functional.

A drift here is an elementwise function `(change, hyperparameters) -> [K, B]` (for policies with memory `[K, B, L]`).
Its mean over samples of the *old* policy estimates D_π(π̂ | s, π̄). `@reads(…)` declares the hyperparameters that it
reads. Sampled forms such as f(r) with f convex and f(1) = f'(1) = 0 are non-negative at every sample.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp

from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters
from hajax.spec import ActionLayout


@dataclasses.dataclass(frozen=True)
class PolicyChange:
    """A group's step from its old policy to a new one, at samples `[K, B]` (or `[K, B, L]`) of the old policy."""

    log_ratio: jax.Array  # [K, B], log r = log π_new(a|o) − log π_old(a|o); 0 at samples of weight 0
    advantage: jax.Array  # [K, B], M = g · Â, less a constant with `center_advantage`
    new: ActionParameters  # the distributions π_new(·|o)
    layout: ActionLayout
    old_policy: Callable[[], ActionParameters]  # a forward pass, compiled only if `old` is read
    preceding: float | jax.Array = 1.0  # [K, B], g: the (guarded) compound ratio of the agents before

    @functools.cached_property
    def old(self) -> ActionParameters:
        """The distributions π_old(·|o)."""
        return self.old_policy()

    @property
    def ratio(self) -> jax.Array:
        """r = π_new(a|o) / π_old(a|o), `[K, B]`."""
        return jnp.exp(self.log_ratio)


class Drift(Protocol):
    """A drift functional: an elementwise function. `reads` names the hyperparameters that it reads."""

    reads: tuple[str, ...]

    def __call__(self, change: PolicyChange, hyperparameters: Any, /) -> jax.Array:
        """D at every sample, `[K, B]`."""


def reads(*names: str) -> Callable[[Callable[[PolicyChange, Any], jax.Array]], Drift]:
    """A decorator that declares the hyperparameters of a drift: `@reads("drift_coef")`, or `@reads()` for none.

    The drift receives only the declared hyperparameters.
    """

    def declare(function: Callable[[PolicyChange, Any], jax.Array]) -> Drift:
        @functools.wraps(function)
        def drift(change: PolicyChange, hyperparameters: Any) -> jax.Array:
            return function(change, Declared(function, {name: getattr(hyperparameters, name) for name in names}))

        declared: Any = drift
        declared.reads = names
        return declared

    return declare


class Declared:
    """The declared hyperparameters of a drift. Other attributes raise an AttributeError."""

    def __init__(self, function: Callable, values: dict[str, Any]):
        self.__dict__.update(values)
        self._drift = getattr(function, "__name__", repr(function))

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f'drift {self._drift} reads {name}; allowed: what it declares, as by @reads("{name}")')


def check_reads(drift: Drift, hyperparameters: Any) -> None:
    """Raises ValueError unless the drift declares the hyperparameters that it reads, and all of them are given."""
    name = getattr(drift, "__name__", repr(drift))
    if not hasattr(drift, "reads"):
        raise ValueError(
            f'drift {name} does not declare what it reads; allowed: @reads("drift_coef"), or @reads() for nothing'
        )
    missing = [read for read in drift.reads if not hasattr(hyperparameters, read)]
    if missing:
        raise ValueError(
            f"{type(hyperparameters).__name__} has no {', '.join(missing)}, which {name} reads; allowed: any class "
            "that also has it"
        )


@reads()
def no_drift(change: PolicyChange, hyperparameters: Any) -> jax.Array:
    """D = 0, the trivial drift of HAA2C and, within a KL ball, of HATRPO."""
    return jnp.zeros_like(change.log_ratio)


@reads("clip")
def ppo_clip(change: PolicyChange, hyperparameters: Any) -> jax.Array:
    """D = ReLU([r − clip(r, 1 ± ε)] · M), so that r · M − D is PPO's clipped surrogate.

    ε is `hyperparameters.clip`. See Kuba et al., 2022b, Section 4.3 and Appendix D.
    """
    clipped = jnp.clip(change.ratio, 1 - hyperparameters.clip, 1 + hyperparameters.clip)
    return jax.nn.relu((change.ratio - clipped) * change.advantage)


@reads("drift_coef")
def kl_old_new(change: PolicyChange, hyperparameters: Any) -> jax.Array:
    """D = c · KL(π_old ‖ π_new), exact in the action; c is `hyperparameters.drift_coef`."""
    return hyperparameters.drift_coef * distributions.kl_divergence(change.old, change.new, change.layout)


@reads("drift_coef")
def kl_new_old(change: PolicyChange, hyperparameters: Any) -> jax.Array:
    """D = c · KL(π_new ‖ π_old), exact in the action; c is `hyperparameters.drift_coef`."""
    return hyperparameters.drift_coef * distributions.kl_divergence(change.new, change.old, change.layout)


@reads("drift_coef")
def squared_log_ratio(change: PolicyChange, hyperparameters: Any) -> jax.Array:
    """D = c · ½ (log r)², sampled; c is `hyperparameters.drift_coef`. To second order its mean is c · KL."""
    return hyperparameters.drift_coef * jnp.square(change.log_ratio) / 2


def tsallis(q: float = 2.0) -> Drift:
    """D = c · (r^q − 1 − q (r − 1)) / (q (q − 1)), sampled: the Tsallis relative entropy of order `q`, divided by q.

    Its mean over the old policy is c/q · D_q(π_new ‖ π_old), where D_q = (E_old[r^q] − 1) / (q − 1). With `q = 2` it is
    half the χ² divergence; as q → 1 it tends to the KL divergence. The term q (r − 1) has mean zero and makes every
    sample non-negative.

    Raises:
      ValueError: q is not positive or is 1.
    """
    if q <= 0 or q == 1:
        raise ValueError(f"q={q}; allowed: a number > 0 other than 1, which is the KL divergence")

    @reads("drift_coef")
    def drift(change: PolicyChange, hyperparameters: Any) -> jax.Array:
        # The terms cancel near r = 1, where expm1 is accurate.
        powers = jnp.expm1(q * change.log_ratio) - q * jnp.expm1(change.log_ratio)
        return hyperparameters.drift_coef * powers / (q * (q - 1))

    cast(Any, drift).__name__ = f"tsallis({q:g})"
    return drift


DRIFTS: dict[str, Drift] = {
    "no_drift": no_drift,
    "ppo_clip": ppo_clip,
    "kl_old_new": kl_old_new,
    "kl_new_old": kl_new_old,
    "squared_log_ratio": squared_log_ratio,
    "tsallis": tsallis(),
}
