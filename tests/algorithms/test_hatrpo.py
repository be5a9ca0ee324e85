"""The trust-region step: products with the Fisher matrix, the step's length, the line search, and whole trainings.

`test_exactness.py` compares whole updates with `reference_trpo.py`.
"""

from __future__ import annotations

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest
import scipy.sparse.linalg
from cases import CASES, problem, update
from jax.flatten_util import ravel_pytree

import hajax
from hajax.core.actors import GroupTables
from hajax.core.drifts import no_drift
from hajax.core.groups import Groups
from hajax.core.neighborhoods import kl_ball
from hajax.core.on_policy.compound_ratio import GroupPolicy, MirrorObjective, improve_in_sequence
from hajax.core.on_policy.samples import OnPolicySamples, group_samples
from hajax.core.on_policy.template import estimate, make_networks
from hajax.core.optimization import Learner
from hajax.core.trust_region import Direction, line_search, linearize, natural_gradient_step
from hajax.envs.base import Environment
from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters
from hajax.nn.memory import NO_MEMORY
from hajax.spaces import Box, Discrete, MultiDiscrete
from hajax.spec import ActionLayout


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


# Products with the Fisher matrix.

SPACES = {
    "categorical": Discrete(4),
    "Gaussian": Box((-1.0, 0.0), (2.0, 5.0)),
    "MultiDiscrete": MultiDiscrete((2, 3)),
}


@functools.cache
def policy_of(kind: str, memory: str = "none"):
    """The policy, parameters and samples of one agent of this kind, padded because of an agent of another kind."""
    other = Discrete(3) if kind == "Gaussian" else Box((-1.0,) * 3, (1.0,) * 3)
    spec = problems.make_spec((SPACES[kind], other), (3, 5))
    algo = problems.make_algorithm("hatrpo", spec, hidden_sizes=(4,), memory=memory, chunk_length=3)
    state = problems.random_state(algo, 1)
    batch = problems.random_batch(algo, state, 1, inactive=0.3)
    actors, critics = make_networks("hatrpo", spec, algo.settings, None, None)
    everyone = jax.jit(lambda *given: group_samples(actors, given[1], estimate(critics, *given)))(state, batch)
    first = functools.partial(jax.tree.map, lambda x: jnp.asarray(x)[0])
    policy, params = GroupPolicy(actors, first(actors.tables)), first(state.actors.params)
    return policy, params, jax.jit(policy.samples_of)(params, first(everyone))


@pytest.mark.parametrize("memory", ["none", "gru"])
@pytest.mark.parametrize("kind", SPACES)
def test_fisher_product_is_that_of_the_explicit_hessian(kind, memory):
    """Also through a recurrent network, over chunks of the rollout."""
    policy, params, samples = policy_of(kind, memory)
    assert samples.weight.ndim == (2 if memory == "none" else 3)
    share = samples.weight / samples.weight.sum()
    flat, unravel = ravel_pytree(params)

    @jax.jit
    def fisher_product(v):
        around = linearize(lambda p: policy.distribution(p, samples), params, policy.tables.layout, share)
        return ravel_pytree(around.fisher_product(unravel(v)))[0]

    matrix = jax.jit(jax.hessian(lambda x: problems.mean_kl(policy, params, unravel(x), samples)))(flat)
    rng = np.random.default_rng(0)
    for _ in range(3):
        v = rng.normal(size=flat.shape)
        product = fisher_product(jnp.asarray(v))
        np.testing.assert_allclose(product, matrix @ v, 0, 1e-8)
    assert np.abs(matrix).max() > 1e-2


@pytest.mark.parametrize("damping", [0.0, 0.1])
@pytest.mark.parametrize("kind", SPACES)
def test_the_longest_step_reaches_the_radius_to_second_order(kind, damping):
    """½ xᵀHx = δ with the undamped H, for any number of conjugate gradient iterations."""
    policy, params, samples = policy_of(kind)
    share = samples.weight / samples.weight.sum()

    @jax.jit
    def step_and_products(direction):
        around = linearize(lambda p: policy.distribution(p, samples), params, policy.tables.layout, share)
        # A gradient of the objective lies in the range of the Fisher matrix.
        gradient = around.fisher_product(direction)
        step, expected = natural_gradient_step(around.fisher_product, gradient, 0.3, damping, iterations=10)
        x = ravel_pytree(step)[0]
        return x @ ravel_pytree(around.fisher_product(step))[0], x @ ravel_pytree(gradient)[0], expected

    direction = jax.tree.map(lambda x: jnp.asarray(np.cos(np.arange(float(x.size))).reshape(x.shape)), params)
    length, gain, expected = map(float, step_and_products(direction))
    assert length / 2 == pytest.approx(0.3, rel=1e-9)
    assert gain == pytest.approx(expected, rel=1e-12)


def test_direction_is_that_of_conjugate_gradients_with_so_many_iterations():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(30, 30))
    matrix, gradient = root @ root.T / 30, rng.normal(size=30)
    step, _ = natural_gradient_step(lambda v: matrix @ v, jnp.asarray(gradient), 0.5, 0.02, iterations=7)
    x, _ = scipy.sparse.linalg.cg(matrix + 0.02 * np.eye(30), gradient, rtol=0, maxiter=7)
    np.testing.assert_allclose(step, x / np.sqrt(x @ matrix @ x), 0, 1e-10)


def test_no_gradient_no_step():
    step, expected = natural_gradient_step(lambda v: 2 * v, jnp.zeros(3), 0.5, 0.0, iterations=10)
    assert not step.any()
    assert expected == 0


def equations(jaxpr):
    """All equations of a program, at any depth."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.core.jaxprs_in_params(equation.params):
            yield from equations(inner)


def test_conjugate_gradients_do_not_evaluate_the_policy_again():
    """The loop of conjugate gradients is linear: it has matrix products, but no activation functions of the network."""
    spec = problems.make_spec((Discrete(3), Discrete(3)))
    algo = problems.make_algorithm("hatrpo", spec, activation="tanh")
    state = problems.random_state(algo, 0)
    batch = problems.random_batch(algo, state, 0)
    jaxpr = jax.make_jaxpr(algo.update)(jax.random.key(0), state, batch).jaxpr
    loops = [equation.params["body_jaxpr"].jaxpr for equation in equations(jaxpr) if equation.primitive.name == "while"]
    bodies = [{equation.primitive.name for equation in equations(body)} for body in loops]
    evaluated = ["tanh" in body for body in bodies if "dot_general" in body]
    assert evaluated.count(True) == 1  # the line search
    assert evaluated.count(False) >= 1  # the conjugate gradients, also as a transpose


# The line search.


@pytest.mark.parametrize(
    ("improvement", "kl", "candidate", "accepted"),
    [
        (lambda x: x, lambda x: 0.5 * x**2, 0, True),
        (lambda x: x - 0.7 * x**2, lambda x: 0 * x, 1, True),  # 0.3 of the first-order prediction, then 0.65
        (lambda x: x, lambda x: 2 * x**2, 1, True),
        (lambda x: x - 3 * x**2, lambda x: 0 * x, 3, True),
        (lambda x: -x, lambda x: 0 * x, 4, False),
        (lambda x: x * jnp.nan, lambda x: 0 * x, 4, False),
        (lambda x: x, lambda x: x * jnp.nan, 4, False),
        (lambda x: x, lambda x: 0 * x + 0.5001, 4, False),
    ],
)
def test_line_search_takes_the_first_candidate_that_gains_enough_within_the_radius(
    improvement, kl, candidate, accepted
):
    """θ = 3 + x with x = 1, ½, ¼ …, κ = 0.5, δ = 0.5, five candidates."""
    direction = Direction(jnp.array(1.0), jnp.array(1.0))
    found = line_search(
        lambda params: (improvement(params - 3), kl(params - 3)), jnp.array(3.0), direction, 0.5, 0.5, 0.5, steps=5
    )
    assert (int(found.candidate), bool(found.accepted)) == (candidate, accepted)
    assert float(found.params) == (3 + 0.5**candidate if accepted else 3)


def test_a_rejected_step_leaves_the_agent_exactly_as_it_was():
    name = "hatrpo, rejected"
    _, state, batch = problem(name)
    new_state, info, _ = update(name, state, batch)
    rejected = np.flatnonzero(np.asarray(info["accepted"]) == 0)
    assert rejected.size
    for group in rejected:
        jax.tree.map(
            lambda new, old, g=group: np.testing.assert_array_equal(new[g], old[g]), new_state.actors, state.actors
        )
    assert set(np.asarray(info["kl"])[rejected]) == {0.0}


def test_the_compared_updates_reject_accept_and_shorten_steps():
    candidates, rejected = [], 0
    for name in (name for name, case in CASES.items() if case.algorithm == "hatrpo"):
        _, state, batch = problem(name)
        _, info, _ = update(name, state, batch)
        candidates += [int(j) for j, good in zip(info["candidate"], info["accepted"], strict=True) if good]
        rejected += int((np.asarray(info["accepted"]) == 0).sum())
    assert rejected
    assert 0 in candidates
    assert max(candidates) >= 2


# Figure 1 of hatrpo-happo: r(a¹, a²) = a¹ a², unit-variance Gaussians, δ = 0.5.


@pytest.mark.parametrize("order", ["simultaneous", "fixed", "random"])
def test_figure_1(order):
    """Every mean moves by √(2δ) = 1, the second agent's towards the new mean of the first; expectations are exact."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    old = jnp.array([[-0.25], [0.25]])
    first, second = (x.ravel() for x in np.meshgrid(-0.25 + nodes, 0.25 + nodes, indexing="ij"))
    weight = np.outer(weights, weights).ravel() / weights.sum() ** 2
    layout = ActionLayout(
        np.zeros(1, bool), np.ones(1, bool), np.ones((1, 1), bool), center=np.zeros(1), scale=np.ones(1)
    )

    class Means(types.SimpleNamespace):
        """Actors whose only parameter is the mean."""

        groups = Groups((0, 1))
        memory = NO_MEMORY

        def distribution(self, params, tables, observation, action_mask, memory_input):
            mean = jnp.broadcast_to(params, (*observation.shape[:-1], 1))
            return ActionParameters(None, mean, jnp.ones_like(mean)), ()

    actors = Means(tables=GroupTables(None, jax.tree.map(lambda x: np.stack([x, x]), layout)))
    action = np.stack([first, second])[:, None, :, None]
    log_prob = jax.vmap(lambda mean, a: distributions.log_prob(ActionParameters(None, mean, jnp.ones(1)), layout, a))(
        old, jnp.asarray(action)
    )
    advantage = first * second + 0.0625
    samples = OnPolicySamples(
        observation=jnp.zeros((2, 1, first.size, 1)),
        action_mask=None,
        action=jnp.asarray(action),
        log_prob=log_prob,
        advantage=jnp.broadcast_to(advantage, (2, 1, first.size)),
        weight=jnp.broadcast_to(weight, (2, 1, first.size)),
    )
    hyperparameters = types.SimpleNamespace(kl_radius=0.5, damping=0.0, accept_ratio=0.5, backtrack=0.8, clip=0.2)
    settings = types.SimpleNamespace(
        cg_iterations=10, line_search_steps=10, order=order, guard="none", center_advantage=False
    )

    def improve(key, policy, learner, samples, own):
        objective = MirrorObjective(policy, no_drift, lambda *_: {}, settings, hyperparameters, None)
        return kl_ball.improve(key, objective, learner, samples)

    learners, info = improve_in_sequence(
        jax.random.key(3), actors, settings, hyperparameters, Learner(old), samples, improve
    )
    means = np.asarray(learners.params)[:, 0]
    np.testing.assert_allclose(np.abs(means - [-0.25, 0.25]), 1, atol=1e-9)
    np.testing.assert_allclose(info["kl"], 0.5, atol=1e-9)
    np.testing.assert_array_equal(info["candidate"], 0)
    assert means.prod() == pytest.approx(-0.5625 if order == "simultaneous" else 0.9375, abs=1e-9)


# Whole trainings.


def own_divergence(before: ActionParameters, after: ActionParameters) -> jax.Array:
    """KL(before, after) `[…, N]` from the distributions' parameters, categorical or Gaussian."""
    if before.logits is not None:
        old, new = jax.nn.log_softmax(before.logits), jax.nn.log_softmax(after.logits)
        return jnp.sum(jnp.where(jnp.isfinite(old), jnp.exp(old) * (old - new), 0), (-2, -1))
    variance = (before.std / after.std) ** 2
    return jnp.sum(variance - 1 - jnp.log(variance) + ((before.mean - after.mean) / after.std) ** 2, -1) / 2


def told_apart() -> Environment:
    """mpe/simple_reference with movement and message (one of 50 actions) as two separate choices."""
    env = hajax.make_env("mpe/simple_reference")
    agents = tuple(dataclasses.replace(agent, action_space=MultiDiscrete((5, 10))) for agent in env.spec.agents)
    spec = dataclasses.replace(env.spec, agents=agents)
    choices = jnp.asarray(spec.action_layout.choices)

    def shown(timestep):
        return timestep._replace(action_mask=choices, final=timestep.final._replace(action_mask=choices))

    def reset(key):
        state, first = env.reset(key)
        return state, shown(first)

    def step(key, state, action):
        state, following = env.step(key, state, 10 * action[:, :1] + action[:, 1:])
        return state, shown(following)

    return Environment(spec, reset, step)


TRAININGS = {
    "categorical": functools.partial(hajax.make_env, "mpe/simple_spread"),
    "one of 50": functools.partial(hajax.make_env, "mpe/simple_reference"),
    "Gaussian": functools.partial(hajax.make_env, "games/linear_quadratic"),
    "MultiDiscrete": told_apart,
}


@functools.cache
def watched_training(kind):
    """The algorithm, and a training that also returns the divergence of every step and takes the radius as argument."""
    env = TRAININGS[kind]()
    algo = hajax.make_algorithm("hatrpo", env, hidden_sizes=(16,), critic_epochs=1)
    actors, _ = make_networks("hatrpo", env.spec, algo.settings, None, None)

    def policies(state, batch):
        return actors.team_distribution(state.actors.params, batch.observation, None)[0]

    def update(key, state, batch):
        new, info = algo.update(key, state, batch)
        own_kl = own_divergence(policies(state, batch), policies(new, batch))  # [T, E, N]: all agents are active
        return new, info | {"own_kl": own_kl.mean((0, 1))}

    train = hajax.make_train(env, algo._replace(update=update), total_steps=30 * 200, num_envs=8, rollout_length=25)
    return algo, jax.jit(train)


@pytest.mark.parametrize("kl_radius", [0.01, 0.1])
@pytest.mark.parametrize(
    "kind",  # one kind of choice and the Gaussian in `make test`
    [
        "categorical",
        "Gaussian",
        *(pytest.param(kind, marks=pytest.mark.evidence) for kind in ("one of 50", "MultiDiscrete")),
    ],
)
def test_no_accepted_step_leaves_the_ball_in_a_whole_training(kind, kl_radius):
    """By the divergence between the policies, computed here from their parameters and not from HATRPO's info."""
    with jax.enable_x64(False):
        algo, train = watched_training(kind)
        numbers = jax.tree.map(lambda x: jnp.asarray(x, float), algo.hyperparameters.replace(kl_radius=kl_radius))
        _, metrics = train(jax.random.key(0), numbers)
    kl, accepted = np.asarray(metrics["own_kl"]), np.asarray(metrics["accepted"])
    assert kl.shape == (30, algo.spec.num_agents)
    assert kl.max() <= kl_radius * (1 + 4e-4)  # √eps of float32 is 3.5e-4
    np.testing.assert_allclose(metrics["kl"], kl, 1e-3, 1e-6)
    assert accepted.mean() > 0.8
    used = (kl / kl_radius)[accepted == 1]
    full = 0.8 ** (2 * np.asarray(metrics["candidate"])[accepted == 1])  # of the radius, to second order
    assert (used / full).min() > 0.05  # 0.2 or more over 24 seeds of each
    assert np.median(used) > 0.3


def test_it_solves_the_trap_of_homogeneity():
    env = hajax.make_env("games/trap_of_homogeneity", num_agents=2)
    algo = hajax.make_algorithm("hatrpo", env, hidden_sizes=(16,), kl_radius=0.05)
    train = hajax.make_train(env, algo, total_steps=128 * 60, num_envs=128, rollout_length=1)
    state, _ = jax.jit(train)(jax.random.key(0))
    evaluate = hajax.make_evaluate(env, algo, num_episodes=50)
    assert evaluate(jax.random.key(1), state)["episode_return"].mean() == 1
