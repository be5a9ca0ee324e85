"""`check_drift`: is a function a heterogeneous-agent drift functional?"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hajax.core.drifts import Drift, PolicyChange
from hajax.core.settings import DriftHyperparameters
from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters
from hajax.spec import ActionLayout

_NEAR, _FAR = 1e-5, 1e-3  # step lengths, whose slopes tell a zero gradient from another


class DriftReport(NamedTuple):
    """What `check_drift` saw, over all policies that it tried."""

    smallest: float  # the least D of a new policy
    at_old: float  # the largest |D| at the old policy itself
    slope: float  # the largest |D| / h at new policies h = 1e-5 away
    trivial: bool  # D = 0 wherever it was tried


def check_drift(drift: Drift, numbers: Any = None, *, num_policies: int = 200, seed: int = 0) -> DriftReport:
    """Checks the axioms of a heterogeneous-agent drift functional (haml, Definition 1) on random policies.

    For a categorical and a Gaussian policy, D_π(π̂) = E over the *old* policy's actions of `drift(change, numbers)` is
    summed over all actions (for the Gaussian over the nodes of a quadrature), with random advantages, and must be

    1. non-negative for every new policy π̂,
    2. zero at the old policy, and
    3. have zero gradient there: D(π + h v) / h → 0 for random directions v as h → 0.

    It runs in float64. Axioms that hold on all policies tried may still fail on others.

    Args:
      drift: `(change, numbers) -> [K, B]`, elementwise.
      numbers: what the drift reads its coefficients from; `DriftHyperparameters()` if `None`.
      num_policies: how many pairs of an old and a new policy to try, of each kind.
      seed: of the random policies.

    Raises:
      ValueError: an axiom fails; the message names it.
    """
    numbers = DriftHyperparameters() if numbers is None else numbers
    name = getattr(drift, "__name__", repr(drift))
    with jax.enable_x64(True):
        reports = [
            _check(drift, name, numbers, *_problem(kind, num_policies, seed)) for kind in ("categorical", "Gaussian")
        ]
    return DriftReport(
        min(report.smallest for report in reports),
        max(report.at_old for report in reports),
        max(report.slope for report in reports),
        all(report.trivial for report in reports),
    )


def _problem(kind: str, size: int, seed: int) -> tuple[Any, ...]:
    """Old policies, new ones, and directions, `[size]` of each; actions `[size, A, 1]`, their weights under the old
    policy, advantages `[size, A]`, and the action's layout."""
    rng = np.random.default_rng(seed)
    if kind == "categorical":
        old, new, direction = rng.normal(size=(3, size, 4)) * np.array([1.5, 1.5, 1.0])[:, None, None]
        action = np.tile(np.arange(4.0), (size, 1))
        weight = np.asarray(jax.nn.softmax(old))
        layout = ActionLayout(
            np.ones(1, bool), np.zeros(1, bool), np.ones((1, 4), bool), center=np.zeros(1), scale=np.ones(1)
        )
    else:
        old, new, direction = rng.normal(size=(3, size, 2))
        old[:, 1], new[:, 1] = np.exp(0.3 * old[:, 1]), np.exp(0.3 * new[:, 1])  # means and standard deviations
        new[:, 0] = old[:, 0] + 0.5 * new[:, 0]
        nodes, weights = np.polynomial.hermite_e.hermegauss(9)
        action = old[:, :1] + old[:, 1:] * nodes
        weight = np.tile(weights / weights.sum(), (size, 1))
        layout = ActionLayout(
            np.zeros(1, bool), np.ones(1, bool), np.ones((1, 1), bool), center=np.zeros(1), scale=np.ones(1)
        )
    return kind, old, new, direction, action[..., None], weight, 2 * rng.normal(size=weight.shape), layout


def _check(drift: Drift, name: str, numbers: Any, kind: str, *problem: Any) -> DriftReport:
    old, new, direction, action, weight, advantage, layout = problem

    def distribution(x):
        x = jnp.broadcast_to(jnp.asarray(x)[:, None], (*weight.shape, x.shape[-1]))
        if kind == "categorical":
            return ActionParameters(x[:, :, None], None, None)
        return ActionParameters(None, x[..., :1], x[..., 1:])

    before = distributions.log_prob(distribution(old), layout, action)

    def value(to):
        new = distribution(to)
        log_ratio = distributions.log_prob(new, layout, action) - before
        change = PolicyChange(log_ratio, jnp.asarray(advantage), new, layout, lambda: distribution(old))
        return np.asarray(jnp.sum(weight * drift(change, numbers), -1))

    def fail(axiom: str, found: str):
        raise ValueError(
            f"drift {name} fails axiom {axiom} ({found}, {kind} policy); allowed: a drift functional, see check_drift"
        )

    far = value(new)
    if not np.isfinite(far).all() or far.min() < -1e-9:
        fail("1, non-negativity", f"D = {far.min():.3g} at a new policy")
    at_old = np.abs(value(old))
    if not at_old.max() <= 1e-12:
        fail("2, zero at the old policy", f"D = {at_old.max():.3g} there")
    slopes = [np.max([np.abs(value(old + sign * h * direction)) / h for sign in (1, -1)], 0) for h in (_NEAR, _FAR)]
    steep = slopes[0] > np.maximum(0.5 * slopes[1], 1e-7)
    if steep.any():
        fail("3, zero gradient at the old policy", f"D(π + hv) / h = {slopes[0][steep].max():.3g} at h = {_NEAR:g}")
    return DriftReport(float(far.min()), float(at_old.max()), float(slopes[0].max()), not far.any())
