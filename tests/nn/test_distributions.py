"""Action distributions against scipy, enumeration and numeric integration, in float64, on padded layouts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters
from hajax.spaces import Box, Discrete, MultiDiscrete
from hajax.spec import ActionLayout, AgentSpec, EnvSpec


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


LOW, HIGH = (-1.0, 2.0, -np.inf), (3.0, 2.5, np.inf)


def layout_of(*spaces) -> ActionLayout:
    """The layout of the first of the agents, padded by the presence of the others."""
    spec = EnvSpec("spaces", tuple(AgentSpec(str(i), (1,), space) for i, space in enumerate(spaces)), 1, None)
    return ActionLayout(*(table[0] for table in spec.action_layout))


def gaussian(rng, size: int) -> ActionParameters:
    return ActionParameters(None, jnp.asarray(rng.normal(size=size)), jnp.asarray(rng.uniform(0.2, 1.5, size)))


def categorical(rng, layout: ActionLayout, unavailable=()) -> ActionParameters:
    """Random logits, −inf for what does not exist and for the `unavailable` (component, choice) pairs."""
    allowed = np.array(layout.choices)
    for d, c in unavailable:
        allowed[d, c] = False
    return ActionParameters(
        distributions.mask_logits(jnp.asarray(2 * rng.normal(size=allowed.shape)), allowed), None, None
    )


def test_box_density_is_that_of_the_action_in_native_units():
    """Asymmetric bounds per dimension and an unbounded one, against scipy; the layout is padded by a wider agent."""
    rng = np.random.default_rng(0)
    layout = layout_of(Box(LOW, HIGH), Box((0.0,) * 5, (1.0,) * 5))
    p = gaussian(rng, 5)
    center, scale = np.array([1.0, 2.25, 0.0]), np.array([2.0, 0.25, 1.0])
    native = scipy.stats.norm(center + scale * p.mean[:3], scale * p.std[:3])
    action = np.zeros((7, 5))
    action[:, :3] = native.rvs((7, 3), random_state=1)
    action[:, 3:] = 9.0  # padding: whatever stands there is not looked at
    np.testing.assert_allclose(
        distributions.log_prob(p, layout, jnp.asarray(action)), native.logpdf(action[:, :3]).sum(-1), 0, 1e-12
    )
    np.testing.assert_allclose(distributions.entropy(p, layout), native.entropy().sum(), 0, 1e-12)
    np.testing.assert_allclose(distributions.mode(p, layout)[:3], native.mean(), 0, 1e-12)
    assert not distributions.mode(p, layout)[3:].any()


def test_box_density_integrates_to_one_and_to_its_entropy_and_divergence():
    rng = np.random.default_rng(1)
    layout = layout_of(Box((-1.0,), (3.0,)))
    p, q = gaussian(rng, 1), gaussian(rng, 1)
    x, step = np.linspace(-40, 40, 80001, retstep=True)
    log_p, log_q = (np.asarray(distributions.log_prob(one, layout, jnp.asarray(x)[:, None])) for one in (p, q))
    np.testing.assert_allclose(np.exp(log_p).sum() * step, 1, 0, 1e-10)
    np.testing.assert_allclose(-(np.exp(log_p) * log_p).sum() * step, distributions.entropy(p, layout), 0, 1e-10)
    divergence = (np.exp(log_p) * (log_p - log_q)).sum() * step
    np.testing.assert_allclose(divergence, distributions.kl_divergence(p, q, layout), 0, 1e-9)
    draws = np.asarray(
        distributions.sample(jax.random.key(0), jax.tree.map(lambda a: jnp.tile(a, (20000, 1)), p), layout)
    )
    result = scipy.stats.kstest(draws[:, 0], scipy.stats.norm(1 + 2 * float(p.mean[0]), 2 * float(p.std[0])).cdf)
    assert result.pvalue > 0.01


@pytest.mark.parametrize("unavailable", [(), ((0, 1), (1, 0), (1, 3))])
def test_discrete_components_are_independent_categoricals(unavailable):
    """All joint actions by enumeration: they sum to 1, and give the entropy and the divergence by definition."""
    rng = np.random.default_rng(2)
    layout = layout_of(MultiDiscrete((3, 4)), MultiDiscrete((2, 2, 5)))
    p, q = categorical(rng, layout, unavailable), categorical(rng, layout, unavailable)
    joint = jnp.array([[a, b, 0] for a in range(3) for b in range(4)], float)
    log_p, log_q = (np.asarray(distributions.log_prob(one, layout, joint)) for one in (p, q))
    odds = [np.exp(np.asarray(p.logits[d])) for d in range(2)]
    table = np.outer(odds[0][:3] / odds[0][:3].sum(), odds[1][:4] / odds[1][:4].sum()).ravel()
    np.testing.assert_allclose(np.exp(log_p), table, 0, 1e-12)
    gone = [any((d, int(a[d])) in unavailable for d in range(2)) for a in joint]
    assert (np.exp(log_p) == 0).tolist() == gone
    live = ~np.array(gone)
    np.testing.assert_allclose(np.exp(log_p).sum(), 1, 0, 1e-12)
    np.testing.assert_allclose(-(table[live] * log_p[live]).sum(), distributions.entropy(p, layout), 0, 1e-12)
    divergence = (table[live] * (log_p[live] - log_q[live])).sum()
    np.testing.assert_allclose(divergence, distributions.kl_divergence(p, q, layout), 0, 1e-12)
    best = joint[int(np.argmax(log_p))]
    np.testing.assert_array_equal(distributions.mode(p, layout), best)


def test_gradients_stay_finite_and_unavailable_choices_receive_none():
    """log-prob, entropy and both arguments of KL, with a choice left out and with only one left."""
    layout = layout_of(MultiDiscrete((4, 4)), Box((0.0,), (1.0,)))
    rng = np.random.default_rng(3)
    allowed = np.array([[True, False, True, True], [False, False, True, False]])
    q = ActionParameters(jnp.where(allowed, rng.normal(size=(2, 4)), -jnp.inf), jnp.zeros(2), jnp.ones(2))

    def parameters(logits):
        return ActionParameters(distributions.mask_logits(logits, allowed), jnp.zeros(2), jnp.ones(2))

    functions = {
        "log_prob": lambda x: distributions.log_prob(parameters(x), layout, jnp.array([2.0, 2.0])),
        "entropy": lambda x: distributions.entropy(parameters(x), layout),
        "KL to": lambda x: distributions.kl_divergence(parameters(x), q, layout),
        "KL from": lambda x: distributions.kl_divergence(q, parameters(x), layout),
    }
    x = jnp.asarray(rng.normal(size=(2, 4)))
    with_gradients = jax.jit(lambda x: {name: jax.value_and_grad(f)(x) for name, f in functions.items()})
    for name, (value, gradient) in with_gradients(x).items():
        assert np.isfinite(value), name
        assert np.isfinite(gradient).all(), name
        assert not gradient[~allowed].any(), name
        assert np.abs(gradient[0][allowed[0]]).min() > 1e-4, name
        for d, c in np.argwhere(allowed):
            bump = jnp.zeros((2, 4)).at[d, c].set(1e-6)
            slope = (with_gradients(x + bump)[name][0] - with_gradients(x - bump)[name][0]) / 2e-6
            np.testing.assert_allclose(slope, gradient[d, c], 0, 1e-8)


def test_mixed_teams_score_each_agent_by_its_own_kind():
    """In one team, a discrete agent's density ignores the Gaussian parameters, a Box agent's the logits."""
    rng = np.random.default_rng(4)
    for own, other in ((Discrete(3), Box((-1.0,), (5.0,))), (Box((-1.0,), (5.0,)), Discrete(3))):
        layout, single = layout_of(own, other), layout_of(own)
        both = ActionParameters(categorical(rng, layout).logits, *gaussian(rng, 1)[1:])
        one = both._replace(mean=None, std=None) if isinstance(own, Discrete) else both._replace(logits=None)
        action = jnp.array([2.0])
        for function in (distributions.mode, distributions.entropy):
            np.testing.assert_allclose(function(both, layout), function(one, single), 0, 1e-12)
        both_log_prob = distributions.log_prob(both, layout, action)
        np.testing.assert_allclose(both_log_prob, distributions.log_prob(one, single, action), 0, 1e-12)
        assert distributions.kl_divergence(both, both, layout) == 0
