"""The mirror-learning template: drifts and their axioms, neighborhoods, and algorithms with them."""

from __future__ import annotations

import functools

import expected
import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest

import hajax
from hajax.core import neighborhoods
from hajax.core.drift_axioms import check_drift
from hajax.core.drifts import DRIFTS, PolicyChange, kl_new_old, kl_old_new, no_drift, ppo_clip, reads, tsallis
from hajax.core.on_policy.compound_ratio import GroupPolicy
from hajax.core.on_policy.haml import haml
from hajax.core.on_policy.samples import group_samples
from hajax.core.on_policy.settings import (
    DriftHyperparameters,
    GradientSettings,
    TrustRegionHyperparameters,
    TrustRegionSettings,
)
from hajax.core.on_policy.template import estimate, make_networks
from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters
from hajax.spaces import Box, Discrete
from hajax.spec import ActionLayout

TEAM = (Discrete(3), Box((-1.0, 0.0), (1.0, 5.0)), Discrete(3))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


# Axioms.


@pytest.mark.parametrize("name", DRIFTS)
def test_every_shipped_drift_is_a_drift_functional(name):
    report = check_drift(DRIFTS[name])
    assert report.trivial == (name == "no_drift")
    assert report.smallest >= 0
    assert report.at_old == 0


@pytest.mark.parametrize(
    ("wrong", "axiom"),
    [
        (lambda change, hyperparameters: -0.1 * jnp.square(change.log_ratio), "axiom 1, non-negativity"),
        (lambda change, hyperparameters: change.log_ratio * change.advantage, "axiom 1, non-negativity"),
        (lambda change, hyperparameters: 0.1 + jnp.square(change.log_ratio), "axiom 2, zero at the old policy"),
        (lambda change, hyperparameters: jnp.abs(change.log_ratio), "axiom 3, zero gradient at the old policy"),
        (lambda change, hyperparameters: jnp.abs(change.ratio - 1) ** 1.01, "axiom 3, zero gradient at the old policy"),
        # Correct for one component with all its choices, and NaN if a choice is not available.
        (lambda change, hyperparameters: jnp.square(change.new.logits - change.old.logits).mean((-2, -1)), "axiom 1"),
    ],
)
def test_a_wrong_drift_fails_by_the_axiom_s_name(wrong, axiom):
    with pytest.raises(ValueError, match=axiom):
        check_drift(wrong, kinds=("categorical",) if axiom == "axiom 1" else ("categorical", "Gaussian"))


def test_a_drift_of_components_is_refused():
    with pytest.raises(
        ValueError, match=r"drift per_component has shape \(200, 12, 2\) for .*; allowed: one value per sample"
    ):
        check_drift(per_component)
    with pytest.raises(ValueError, match="kinds='gaussian'; allowed: categorical, Gaussian"):
        check_drift(kl_old_new, kinds=("gaussian",))


def per_component(change, hyperparameters):
    return jnp.square(jax.nn.softmax(change.new.logits) - jax.nn.softmax(change.old.logits)).sum(-1)


def test_a_drift_for_choices_alone():
    def moved(change, hyperparameters):
        return jnp.square(jax.nn.softmax(change.new.logits) - jax.nn.softmax(change.old.logits)).sum((-2, -1))

    assert check_drift(moved, kinds=("categorical",)).smallest > 0


@pytest.mark.parametrize("drift", [DRIFTS["squared_log_ratio"], tsallis(), tsallis(0.5), tsallis(3.0)])
def test_sampled_drifts_are_drifts_sample_by_sample(drift):
    """f(r) ≥ 0 and f(1) = f'(1) = 0 hold at every sample, so the estimate at the old policy has no variance."""
    hyperparameters = DriftHyperparameters(drift_coef=3.0)

    def value(log_ratio):
        change = PolicyChange(log_ratio, jnp.zeros_like(log_ratio), None, None, lambda: None)  # type: ignore[arg-type]
        return drift(change, hyperparameters)

    log_ratio = jnp.linspace(-2, 2, 41)[None]
    assert (jnp.delete(value(log_ratio), 20) > 0).all()
    assert value(jnp.zeros((1, 1))).item() == jax.grad(lambda x: value(x).sum())(jnp.zeros((1, 1))).item() == 0


def test_sampled_drifts_estimate_their_divergences():
    """Tsallis of order 2 is half the χ² divergence; near order 1 it is KL(π_new ‖ π_old)."""
    rng = np.random.default_rng(0)
    old, new = (jax.nn.log_softmax(jnp.asarray(rng.normal(size=4))) for _ in range(2))
    layout = ActionLayout(np.ones(1, bool), np.zeros(1, bool), np.ones((1, 4), bool), np.zeros(1), np.ones(1))
    wide = [ActionParameters(jnp.broadcast_to(x, (1, 4, 1, 4)), None, None) for x in (old, new)]
    change = PolicyChange((new - old)[None], jnp.zeros((1, 4)), wide[1], layout, lambda: wide[0])
    hyperparameters = DriftHyperparameters(drift_coef=3.0)

    def mean(drift):
        return float(jnp.sum(jnp.exp(old) * drift(change, hyperparameters)))

    p, q = np.exp(old), np.exp(new)
    assert mean(tsallis(2.0)) == pytest.approx(3 * np.sum((q - p) ** 2 / p) / 2, rel=1e-12)
    assert mean(tsallis(0.5)) == pytest.approx(3 * (1 - np.sum(np.sqrt(p * q))) / 0.25, rel=1e-12)
    assert mean(tsallis(1 + 1e-6)) == pytest.approx(3 * np.sum(q * np.log(q / p)), rel=1e-5)
    assert mean(kl_new_old) == pytest.approx(3 * np.sum(q * np.log(q / p)), rel=1e-12)
    assert mean(kl_old_new) == pytest.approx(3 * np.sum(p * np.log(p / q)), rel=1e-12)
    for order in (0, 1, -2):
        with pytest.raises(ValueError, match=f"q={order}; allowed: a number > 0"):
            tsallis(order)


def test_the_clip_s_drift_makes_the_clipped_surrogate():
    rng = np.random.default_rng(1)
    log_ratio, advantage = jnp.asarray(rng.normal(size=(2, 1, 1000)))
    change = PolicyChange(log_ratio, advantage, None, None, None)  # type: ignore[arg-type]
    hyperparameters = DriftHyperparameters(clip=0.3)
    ratio = jnp.exp(log_ratio)
    clipped_surrogate = jnp.minimum(ratio * advantage, jnp.clip(ratio, 0.7, 1.3) * advantage)
    np.testing.assert_allclose(ratio * advantage - ppo_clip(change, hyperparameters), clipped_surrogate, 0, 1e-13)


# Neighborhoods and coefficients, against plain loops over agents.


def build(drift=no_drift, neighborhood=neighborhoods.unrestricted, *, order="fixed", adaptive=False, **hyperparameters):
    trust_region = neighborhood is neighborhoods.kl_ball
    common = {"hidden_sizes": (6,), "critic_epochs": 1, "order": order}
    settings = TrustRegionSettings(**common) if trust_region else GradientSettings(**common, epochs=3)
    kind = TrustRegionHyperparameters if trust_region else DriftHyperparameters
    return haml(
        "mine",
        problems.make_spec(TEAM, (3, 2, 3)),
        settings,
        kind(**hyperparameters),
        drift=drift,
        neighborhood=neighborhood,
        adaptive=adaptive,
    )


@functools.cache
def rollout():
    algo = build()
    state = problems.random_state(algo, 4)
    return state.actors.params, state.critics.params, problems.random_batch(algo, state, 4, inactive=0.2, noise=0)


def start(algo):
    """A state with the parameters of the policy that made `rollout`."""
    actors, critics, _ = rollout()
    state = jax.jit(algo.init)(jax.random.key(0))
    return state._replace(actors=state.actors._replace(params=actors), critics=state.critics._replace(params=critics))


def updated(algo, **hyperparameters):
    state = start(algo)
    state = state._replace(hyperparameters=state.hyperparameters.replace(**hyperparameters))
    return state, *jax.jit(algo.update)(jax.random.key(0), state, rollout()[2])


def each_agent(algo):
    """For each agent: the terms of its objective as functions of its parameters, and M at its samples."""
    state, batch = start(algo), rollout()[2]
    actors, critics = make_networks("mine", algo.spec, algo.settings, None, None)
    samples = group_samples(actors, batch, estimate(critics, state, batch))
    for i in range(algo.spec.num_agents):
        own = functools.partial(jax.tree.map, lambda x, i=i: jnp.asarray(x)[i])
        yield GroupPolicy(actors, own(actors.tables)), own(state.actors.params), own(samples)


def test_gradient_step_is_one_clipped_step_of_plain_gradient_ascent():
    chosen = {"actor_lr": 0.3, "entropy_coef": 0.0, "max_grad_norm": 0.05}
    algo = build(neighborhood=neighborhoods.gradient_step, **chosen)
    _, new, info = updated(algo)
    compound, norms = 1.0, []
    for i, (policy, params, samples) in enumerate(each_agent(algo)):
        total = samples.weight.sum()

        def gain(p, policy=policy, samples=samples, compound=compound, total=total):
            ratio = jnp.exp(policy.log_ratio(p, samples))
            return jnp.sum(samples.weight * ratio * compound * samples.advantage) / total

        gradient = jax.jit(jax.grad(gain))(params)
        norm = np.sqrt(sum(float(jnp.sum(g**2)) for g in jax.tree.leaves(gradient)))
        norms.append(norm)
        wanted = jax.tree.map(lambda p, g, norm=norm: p + 0.3 * min(1, 0.05 / norm) * g, params, gradient)
        expected.assert_trees_close(jax.tree.map(lambda x, i=i: x[i], new.actors.params), wanted, 1e-12)
        compound = compound * jnp.exp(jax.jit(policy.log_ratio)(wanted, samples))
    np.testing.assert_allclose(info["actor_grad_norm"], norms, 1e-10)
    assert max(norms) > 0.05  # so that the gradient was clipped
    assert new.actors.optimizer is None


@pytest.mark.parametrize("drift", [kl_old_new, kl_new_old, DRIFTS["squared_log_ratio"], DRIFTS["tsallis"]])
def test_a_larger_drift_coefficient_shortens_steps(drift):
    """The update starts at the old policy, at which the drift is strictly convex."""
    distances = []
    algo = build(drift, actor_lr=0.01, entropy_coef=0.0)
    for coefficient in (0.0, 1.0, 100.0):
        _, new, _ = updated(algo, drift_coef=jnp.asarray(coefficient))
        moved = [
            float(problems.mean_kl(policy, params, jax.tree.map(lambda x, i=i: x[i], new.actors.params), samples))
            for i, (policy, params, samples) in enumerate(each_agent(algo))
        ]
        distances.append(sum(moved))
    free, held, pinned = distances
    assert pinned < 0.5 * held < 0.5 * free


def test_an_adaptive_coefficient_doubles_halves_or_stays():
    """By the KL divergence of each agent's update, as in Schulman et al. (2017), Section 4."""
    base = build(kl_old_new, actor_lr=0.02, drift_coef=0.5)
    _, new, _ = updated(base)
    kl = np.array(
        [
            float(problems.mean_kl(policy, params, jax.tree.map(lambda x, i=i: x[i], new.actors.params), samples))
            for i, (policy, params, samples) in enumerate(each_agent(base))
        ]
    )
    target = float(np.median(kl))
    adaptive = build(kl_old_new, adaptive=True, actor_lr=0.02, drift_coef=0.5, kl_target=target)
    state, new, info = updated(adaptive)
    np.testing.assert_array_equal(state.actors.extra.drift_coef, 0.5)
    np.testing.assert_allclose(info["kl"], kl, 1e-10)
    factor = np.where(kl > 1.5 * target, 2, np.where(kl < target / 1.5, 0.5, 1))
    assert len(set(factor)) > 1
    np.testing.assert_allclose(new.actors.extra.drift_coef, 0.5 * factor, 1e-12)


def test_the_next_update_is_that_of_the_adapted_coefficient():
    """Halved for all agents, the next update is that with half the coefficient. It is halved at most ten times."""
    fixed, adaptive = (
        build(kl_old_new, adaptive=adaptive, actor_lr=0.02, drift_coef=50.0, kl_target=1e3)
        for adaptive in (False, True)
    )
    _, new, _ = updated(adaptive)
    np.testing.assert_array_equal(new.actors.extra.drift_coef, 25)
    again, info = jax.jit(adaptive.update)(jax.random.key(1), new, rollout()[2])
    np.testing.assert_array_equal(info["drift_coef"], 25)
    plain = new._replace(actors=new.actors._replace(extra=None))
    wanted = {}
    for coefficient in (25.0, 50.0):
        changed = plain.hyperparameters.replace(drift_coef=jnp.asarray(coefficient))
        wanted[coefficient] = jax.jit(fixed.update)(
            jax.random.key(1), plain._replace(hyperparameters=changed), rollout()[2]
        )[0].actors.params
    expected.assert_trees_close(again.actors.params, wanted[25.0], 1e-12)
    with pytest.raises(AssertionError):
        expected.assert_trees_close(again.actors.params, wanted[50.0], 1e-6)
    for i in range(12):
        new, _ = jax.jit(adaptive.update)(jax.random.key(i), new, rollout()[2])
    np.testing.assert_array_equal(new.actors.extra.drift_coef, 50 / 1024)


@pytest.mark.parametrize(
    ("drift", "hyperparameters", "message"),
    [
        (no_drift, {}, "adaptive=True with a drift that does not read drift_coef; allowed: one that does"),
        (ppo_clip, {}, "adaptive=True with a drift that does not read drift_coef; allowed: one that does"),
        (kl_old_new, {"drift_coef": 0.0}, "drift_coef=0.0; allowed: a number > 0"),
    ],
)
def test_a_coefficient_that_cannot_adapt_is_refused(drift, hyperparameters, message):
    with pytest.raises(ValueError, match=message):
        build(drift, adaptive=True, **hyperparameters)


def test_a_drift_inside_the_kl_ball_is_part_of_what_a_step_must_improve():
    free = build(no_drift, neighborhoods.kl_ball, kl_radius=0.05)
    _, _, info = updated(free)

    @reads()
    def heavy(change, hyperparameters):
        return 50 * distributions.kl_divergence(change.old, change.new, change.layout)

    _, _, held_info = updated(build(heavy, neighborhoods.kl_ball, kl_radius=0.05))
    np.testing.assert_allclose(info["expected_improvement"][0], held_info["expected_improvement"][0], 1e-10)
    assert held_info["candidate"][0] > info["candidate"][0]
    assert held_info["kl"][0] < 0.5 * info["kl"][0]


def test_a_drift_is_given_what_it_declares_and_nothing_else():
    @reads("drift_coef")
    def declares_too_little(change, hyperparameters):
        return hyperparameters.drift_coef * jnp.maximum(change.ratio - 1 - hyperparameters.clip, 0)

    message = r"drift declares_too_little reads clip; allowed: what it declares, as by @reads\(\"clip\"\)"
    with pytest.raises(AttributeError, match=message):
        hajax.check_drift(declares_too_little)
    with pytest.raises(AttributeError, match=message):
        updated(build(declares_too_little))


def test_settings_that_a_neighborhood_lacks_are_named():
    spec = problems.make_spec(TEAM, (3, 2, 3))
    with pytest.raises(ValueError, match="GradientSettings has no cg_iterations, line_search_steps; allowed: any"):
        haml("mine", spec, GradientSettings(), neighborhood=neighborhoods.kl_ball)
    with pytest.raises(ValueError, match="TrustRegionHyperparameters has no actor_lr; allowed: any class"):
        haml("mine", spec, hyperparameters=TrustRegionHyperparameters())


# In use.


def test_a_user_s_algorithm_trains():
    with jax.enable_x64(False):
        env = hajax.make_env("games/trap_of_homogeneity", num_agents=2)
        algo = haml(
            "tsallis",
            env.spec,
            GradientSettings(hidden_sizes=(16,)),
            DriftHyperparameters(actor_lr=5e-3, drift_coef=0.1),
            drift=tsallis(2.0),
        )
        train = hajax.make_train(env, algo, total_steps=128 * 100, num_envs=128, rollout_length=1)
        state, metrics = jax.jit(train)(jax.random.key(0))
        evaluate = hajax.make_evaluate(env, algo, num_episodes=50)
        assert evaluate(jax.random.key(1), state)["episode_return"].mean() == 1
        assert set(metrics) >= {"policy_loss", "entropy", "approx_kl", "actor_grad_norm"}
