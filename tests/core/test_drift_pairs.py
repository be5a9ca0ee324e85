"""The exact drifts of `hajax.tabular` and the sampled ones of `hajax.drifts` are equal functionals; also wrong drifts.

The results on random games for the former (`benchmarks/theory.py`) therefore hold for the latter.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hajax import tabular
from hajax.core import drifts
from hajax.core.drift_axioms import check_drift
from hajax.core.drifts import PolicyChange
from hajax.core.on_policy.settings import DriftHyperparameters
from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters
from hajax.spec import ActionLayout
from hajax.tabular.policies import normalize

MASK = np.array([True, True, False, True])  # the agent lacks one action
LAYOUT = ActionLayout(np.ones(1, bool), np.zeros(1, bool), MASK[None], np.zeros(1), np.ones(1))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def negative(change, hyperparameters):
    """Violates axiom 1: a new policy has a negative drift."""
    return -hyperparameters.drift_coef * distributions.kl_divergence(change.new, change.old, change.layout)


def offset(change, hyperparameters):
    """Violates axiom 2: the drift is largest at the old policy. For discrete actions."""
    new, old = (jax.nn.softmax(policy.logits) for policy in (change.new, change.old))
    return hyperparameters.drift_coef * (2 - jnp.square(new - old).sum(-1)).sum(-1) / 2


def kinked(change, hyperparameters):
    """Violates axiom 3: Σ|new − old| = E_old|r − 1| has a kink at the old policy."""
    return hyperparameters.drift_coef * jnp.abs(change.ratio - 1)


NUMBERS = DriftHyperparameters(clip=0.2, drift_coef=0.3)
PAIRS = {
    "no_drift": (drifts.no_drift, tabular.no_drift()),
    "ppo_clip": (drifts.ppo_clip, tabular.clip_drift(0.2)),
    "kl_new_old": (drifts.kl_new_old, tabular.kl_drift(0.3)),
    "kl_old_new": (drifts.kl_old_new, tabular.reverse_kl_drift(0.3)),
    "tsallis": (drifts.tsallis(0.5), tabular.tsallis_drift(0.3, 0.5)),
    "squared_log_ratio": (drifts.squared_log_ratio, tabular.squared_log_ratio_drift(0.3)),
    "negative": (negative, tabular.negative_drift(0.3)),
    "offset": (offset, tabular.offset_drift(0.3)),
    "kinked": (kinked, tabular.kinked_drift(0.3)),
}
BROKEN = {
    "negative": "axiom 1, non-negativity",
    "offset": "axiom 2, zero at the old policy",
    "kinked": "axiom 3, zero gradient at the old policy",
}


def test_every_drift_has_its_pair():
    assert set(drifts.DRIFTS) <= set(PAIRS)


@pytest.mark.parametrize("name", PAIRS)
def test_the_exact_drift_is_the_sampled_one_s_mean(name):
    """The mean over own actions ~ old and earlier agents' actions, for which A has one of `draws` values per action."""
    sampled, exact = PAIRS[name]
    states, draws = 50, 3
    rng = np.random.default_rng(0)
    old, new = (normalize(jnp.asarray(1.5 * rng.normal(size=(states, 4))), jnp.asarray(MASK)) for _ in range(2))
    advantage = jnp.asarray(rng.normal(size=(states, draws, 4)))
    gains, losses = jnp.maximum(advantage, 0).mean(1), jnp.maximum(-advantage, 0).mean(1)
    surrogate = tabular.Surrogate(gains - losses, gains, losses, jnp.ones(states), jnp.array(1.0), jnp.asarray(MASK))
    wanted = exact.divergence(new, old, surrogate)

    def parameters(policy):
        logits = jnp.broadcast_to(policy[:, None, None, None], (*advantage.shape, 1, 4))
        return ActionParameters(jnp.where(MASK, logits, -jnp.inf), None, None)

    log_ratio = jnp.broadcast_to(jnp.where(MASK, new - old, 0)[:, None], advantage.shape)
    change = PolicyChange(log_ratio, advantage, parameters(new), LAYOUT, lambda: parameters(old))
    weight = jnp.where(MASK, jnp.exp(old), 0)[:, None] / draws
    found = (weight * sampled(change, NUMBERS)).sum((1, 2))
    np.testing.assert_allclose(found, wanted, 0, 1e-12)
    assert name == "no_drift" or float(jnp.abs(wanted).max()) > 1e-2


@pytest.mark.parametrize("name", BROKEN)
def test_wrong_drifts_of_the_random_games_fail_by_the_axiom_s_name(name):
    with pytest.raises(ValueError, match=BROKEN[name]):
        check_drift(PAIRS[name][0], NUMBERS, kinds=("categorical",))
