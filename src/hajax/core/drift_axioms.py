"""`check_drift`: a test of whether a function is a heterogeneous-agent drift functional."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hajax.core.drifts import Drift, PolicyChange, check_reads
from hajax.core.on_policy.settings import DriftHyperparameters
from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters, mask_logits
from hajax.spec import ActionLayout
from hajax.validation import check_choice

KINDS = ("categorical", "Gaussian")
_NEAR, _FAR = 1e-5, 1e-3  # step lengths h; a zero gradient shows in D / h, which then falls with h


class DriftReport(NamedTuple):
    """The extreme values found by `check_drift` over all tested policies."""

    smallest: float  # the smallest D at a new policy
    at_old: float  # the largest |D| at the old policy
    slope: float  # the largest |D| / h at new policies at distance h = 1e-5
    trivial: bool  # D = 0 at all tested policies


def check_drift(
    drift: Drift,
    hyperparameters: Any = None,
    *,
    kinds: Sequence[str] = KINDS,
    num_policies: int = 200,
    seed: int = 0,
) -> DriftReport:
    """Checks the axioms of a drift functional (Kuba et al., 2022b, Definition 1) on random policies.

    D_π(π̂) is the expectation of `drift(change, hyperparameters)` over the actions of the *old* policy. It is computed
    for categorical and Gaussian policies of two components (with different numbers of choices, some of which are not
    available) and random advantages, as a sum over all actions, or over the nodes of a quadrature for Gaussians. It
    must

    1. be non-negative for every new policy π̂,
    2. be zero at the old policy, and
    3. have zero gradient there: D(π + h v) / h → 0 for random directions v as h → 0.

    The test runs in float64. Axioms that hold for all tested policies may still fail for others.

    Args:
      drift: `(change, hyperparameters) -> [K, B]`, elementwise.
      hyperparameters: the second argument of the drift; `DriftHyperparameters()` if `None`.
      kinds: the kinds of policies to test: `categorical`, `Gaussian`, or both.
      num_policies: the number of pairs of an old and a new policy of each kind.
      seed: the seed of the random policies.

    Raises:
      ValueError: an axiom fails (the message names it), a kind is unknown, the drift has a wrong shape, or it declares
        hyperparameters that are not given.
    """
    hyperparameters = DriftHyperparameters() if hyperparameters is None else hyperparameters
    name = getattr(drift, "__name__", repr(drift))
    if hasattr(drift, "reads"):
        check_reads(drift, hyperparameters)
    for kind in kinds:
        check_choice("kinds", kind, KINDS)
    with jax.enable_x64(True):
        reports = [_check(drift, name, hyperparameters, kind, PROBLEMS[kind](num_policies, seed)) for kind in kinds]
    return DriftReport(
        min(report.smallest for report in reports),
        max(report.at_old for report in reports),
        max(report.slope for report in reports),
        all(report.trivial for report in reports),
    )


class _Problem(NamedTuple):
    """Random policies of one kind as arrays `[size, …]`, their distributions, and their actions with weights."""

    old: np.ndarray
    new: np.ndarray
    direction: np.ndarray
    parameters: Callable[[jax.Array], ActionParameters]  # from policies `[size, …]` to their distributions
    action: np.ndarray  # [size, A, 2]
    weight: np.ndarray  # [size, A], the probabilities under the old policy
    advantage: np.ndarray  # [size, A]
    layout: ActionLayout


def _categorical(size: int, seed: int) -> _Problem:
    rng = np.random.default_rng(seed)
    old, new, direction = rng.normal(size=(3, size, 2, 4)) * np.array([1.5, 1.5, 1.0])[:, None, None, None]
    choices = np.array([[True] * 4, [True] * 3 + [False]])
    available = choices & (rng.random((size, 2, 4)) < 0.8)
    available[:, :, 0] = True
    first, second = (x.ravel() for x in np.meshgrid(np.arange(4), np.arange(3), indexing="ij"))

    def parameters(logits):
        return ActionParameters(mask_logits(logits, jnp.asarray(available)), None, None)

    share = np.asarray(jax.nn.softmax(parameters(jnp.asarray(old)).logits))
    weight = share[:, 0, first] * share[:, 1, second]
    action = np.tile(np.stack([first, second], -1).astype(float), (size, 1, 1))
    layout = ActionLayout(np.ones(2, bool), np.zeros(2, bool), choices, center=np.zeros(2), scale=np.ones(2))
    return _Problem(old, new, direction, parameters, action, weight, 2 * rng.normal(size=weight.shape), layout)


def _gaussian(size: int, seed: int) -> _Problem:
    rng = np.random.default_rng(seed)
    old, new, direction = rng.normal(size=(3, size, 2, 2))  # means and standard deviations of both components
    old[:, 1], new[:, 1] = np.exp(0.3 * old[:, 1]), np.exp(0.3 * new[:, 1])
    new[:, 0] = old[:, 0] + 0.5 * new[:, 0]
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    first, second = (x.ravel() for x in np.meshgrid(nodes, nodes, indexing="ij"))
    action = old[:, None, 0] + old[:, None, 1] * np.stack([first, second], -1)
    weight = np.tile(np.outer(weights, weights).ravel() / weights.sum() ** 2, (size, 1))
    layout = ActionLayout(
        np.zeros(2, bool), np.ones(2, bool), np.ones((2, 1), bool), center=np.zeros(2), scale=np.ones(2)
    )

    def parameters(policies):
        return ActionParameters(None, policies[:, 0], policies[:, 1])

    return _Problem(old, new, direction, parameters, action, weight, 2 * rng.normal(size=weight.shape), layout)


PROBLEMS: dict[str, Callable[[int, int], _Problem]] = dict(zip(KINDS, (_categorical, _gaussian), strict=True))


def _check(drift: Drift, name: str, hyperparameters: Any, kind: str, problem: _Problem) -> DriftReport:
    old, new, direction, parameters, action, weight, advantage, layout = problem

    def distribution(policies):
        one = parameters(jnp.asarray(policies))
        return jax.tree.map(lambda x: jnp.broadcast_to(x[:, None], (*weight.shape, *x.shape[1:])), one)

    def log_prob(policies):
        return jnp.where(weight > 0, distributions.log_prob(distribution(policies), layout, jnp.asarray(action)), 0)

    def value(to):
        log_ratio = log_prob(to) - log_prob(old)
        change = PolicyChange(log_ratio, jnp.asarray(advantage), distribution(to), layout, lambda: distribution(old))
        costs = drift(change, hyperparameters)
        if jnp.shape(costs) != weight.shape:
            raise ValueError(
                f"drift {name} has shape {jnp.shape(costs)} for changes at samples {weight.shape} of {kind} policies "
                "with two components; allowed: one value per sample"
            )
        return np.asarray(jnp.sum(weight * costs, -1))

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
