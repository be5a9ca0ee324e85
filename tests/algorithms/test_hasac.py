"""HASAC and MASAC: updates equal those of `reference_soft.py` in float64; parts equal known integrals and limits."""

from __future__ import annotations

import dataclasses
import functools
import types
from typing import Any

import hasac_matrix
import jax
import jax.numpy as jnp
import numpy as np
import off_policy_problems
import problems
import pytest
import reference_off_policy as plain
import reference_soft as reference
from reference import Learner

import hajax
from hajax.core.actors import TeamActors
from hajax.core.batches import critic_input
from hajax.core.drifts import DRIFTS, no_drift, reads
from hajax.core.groups import make_groups
from hajax.core.neighborhoods import gradient_step, kl_ball
from hajax.core.off_policy.choices import Choices
from hajax.core.off_policy.joint_actions import JointActions
from hajax.core.off_policy.joint_critics import ActionValues
from hajax.core.off_policy.joint_sequence import OffPolicySamples
from hajax.core.off_policy.mehaml import mehaml
from hajax.core.off_policy.settings import (
    EntropyHyperparameters,
    SoftDriftHyperparameters,
    SoftHyperparameters,
    SoftSettings,
)
from hajax.core.off_policy.soft_objective import SoftObjective
from hajax.core.on_policy.settings import DriftHyperparameters
from hajax.core.settings import BallHyperparameters, BallSettings, CoefficientHyperparameters, combined
from hajax.envs.games import hasac_payoff
from hajax.envs.regulator import linear_quadratic
from hajax.nn.distributions import ActionParameters
from hajax.nn.layers import MLP
from hajax.nn.networks import JointCritic
from hajax.nn.squashing import action_of, draw
from hajax.spaces import Box, Discrete, MultiDiscrete
from hajax.spec import AgentSpec, EnvSpec

PAIR, FREE = Box((-1.0, 0.0), (2.0, 0.5)), Box((-np.inf,), (np.inf,))
MIXED = (PAIR, Discrete(4), MultiDiscrete((2, 3)), FREE)
CHOICES = (Discrete(3), MultiDiscrete((2, 3)), Discrete(2))
CASES: dict[str, dict[str, Any]] = {
    "hasac, one box agent": {"spaces": [PAIR]},
    "hasac, one discrete agent": {"spaces": [Discrete(4)], "gumbel_temperature": 0.7},
    "hasac, mixed team": {"spaces": MIXED, "sizes": (3, 2, 4, 3), "inactive": 0.3, "n_step": 3},
    "hasac, replayed actions": {"spaces": MIXED, "others": "replay", "inactive": 0.2},
    "hasac, current policies, epochs": {"spaces": MIXED, "others": "policy", "epochs": 2, "policy_delay": 2},
    "hasac, a fixed temperature": {"spaces": (FREE, Discrete(3)), "auto_temperature": False, "temperature": 0.6},
    "hasac, groups": {"spaces": (PAIR, Discrete(3), PAIR), "sharing": (0, 1, 0), "inactive": 0.3, "order": "fixed"},
    "hasac, exact": {"spaces": CHOICES, "sizes": (2, 3, 2), "expectation": "exact", "inactive": 0.3},
    "hasac, exact, shared": {"spaces": [Discrete(3)] * 3, "sharing": "all", "expectation": "exact", "inactive": 0.3},
    "masac, mixed team": {"spaces": MIXED},
    "masac, shared": {"spaces": [Discrete(3)] * 3, "sharing": "all", "agent_id": True, "inactive": 0.2},
}
SOFT = {"temperature_lr": 3e-2, "target_entropy": -0.7, "target_entropy_share": 0.6}


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@functools.cache
def problem(name: str):
    """The algorithm, a random state, and the compiled `update`, which also returns the random draws."""
    case = CASES[name]
    options = {k: v for k, v in case.items() if k not in ("spaces", "sizes", "inactive")}
    spec = problems.make_spec(case["spaces"], case.get("sizes"))
    algo = off_policy_problems.make_algorithm(name.split(",")[0], spec, **(SOFT | options))
    return algo, off_policy_problems.random_state(algo, 3), off_policy_problems.Recorder(algo)


def spaces_of(algo) -> list[reference.Space]:
    spaces = (agent.action_space for agent in algo.spec.agents)
    return [
        reference.Space(box=plain.Bounds(np.array(s.low), np.array(s.high)))
        if isinstance(s, Box)
        else reference.Space(s.choices)
        for s in spaces
    ]


def read(algo, state) -> reference.Team:
    """The state without padding."""
    team = off_policy_problems.views(algo, state, "critics")[0]
    flat = [view.read() for view in team]
    targets = [
        dataclasses.replace(view, learner=view.learner._replace(params=state.target_critics)).read().params
        for view in team
    ]
    temperatures = None
    if state.temperatures is not None:
        adam = state.temperatures.optimizer
        columns = zip(*(np.asarray(x) for x in (state.temperatures.params, adam.mu, adam.nu, adam.count)), strict=True)
        temperatures = [Learner({"x": p}, {"x": m}, {"x": v}, int(n)) for p, m, v, n in columns]
    actors = [view.read() for view in problems.actor_views(algo, state)]
    return reference.Team(actors, flat, targets, temperatures)


def minibatch(algo, batch, p: int) -> reference.Minibatch:
    one = jax.tree.map(lambda x: np.asarray(x)[p], batch)

    def available(mask):
        spaces = (agent.action_space for agent in algo.spec.agents)
        return [[mask[:, i, d, :n] for d, n in enumerate(space.choices)] for i, space in enumerate(spaces)]

    final_active = [one.final_active[:, i] for i in range(algo.spec.num_agents)]
    rows = off_policy_problems.transitions(algo, batch, p)
    return reference.Minibatch(rows, available(one.action_mask), available(one.final_action_mask), final_active)


def draws(algo, recorder, groups):
    """The random draws in the form of the reference: for the whole team, and for each group."""
    gumbels, normals = iter(recorder.gumbel), iter(recorder.noise)
    spec = algo.spec

    def one(agent, gumbel, normal):
        space = spec.agents[agent].action_space
        noise = [] if gumbel is None else [gumbel[:, d, :n] for d, n in enumerate(space.choices)]
        return reference.Draw(noise, np.zeros(0) if normal is None else normal[:, : space.num_components])

    def of_team():
        while True:
            gumbel = next(gumbels) if spec.has_discrete else None
            normal = next(normals) if spec.has_continuous else None
            pick = [[None if x is None else x[:, i] for x in (gumbel, normal)] for i in range(spec.num_agents)]
            yield [one(i, *parts) for i, parts in enumerate(pick)]

    def of_groups(order):
        for g in order:
            for _ in range(algo.settings.epochs + 1):
                gumbel = next(gumbels) if spec.has_discrete else None
                normal = next(normals) if spec.has_continuous else None
                pick = [[None if x is None else x[k] for x in (gumbel, normal)] for k in range(len(groups[g]))]
                yield [one(i, *parts) for i, parts in zip(groups[g], pick, strict=True)]

    return of_team(), of_groups


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", CASES)
def test_update_equals_the_reference(name):
    algo, state, recorder = problem(name)
    groups = problems.groups_of(algo.spec, algo.settings.sharing)
    for i in range(3):
        batch = off_policy_problems.random_batch(algo, 10 + i, CASES[name].get("inactive", 0.0))
        (new, info), _, orders = recorder(jax.random.key(i), state, batch)
        order = {"simultaneous": None, "fixed": range(len(groups))}.get(
            algo.settings.order, orders[0] if orders else [0]
        )
        team_draws, group_draws = draws(algo, recorder, groups)
        hp = off_policy_problems.numbers_of(state)
        rows = [minibatch(algo, batch, p) for p in range(algo.settings.policy_delay)]
        expected = reference.update(
            read(algo, state),
            groups,
            spaces_of(algo),
            rows,
            team_draws,
            group_draws(range(len(groups)) if order is None else order),
            order,
            algo.settings,
            hp,
        )
        assert_equals(algo, state, new, expected)
        assert np.isfinite(info["entropy"]).all()
        state = new


def assert_equals(algo, old, new, expected: reference.Team, tolerance: float = 1e-10) -> None:
    for view, learner in zip(problems.actor_views(algo, new), expected.actors, strict=True):
        view.assert_equals(learner, old.actors, tolerance)
    for view, learner in zip(off_policy_problems.views(algo, new, "critics")[0], expected.critics, strict=True):
        view.assert_equals(learner, old.critics, tolerance)
    actual = read(algo, new)
    for one, other in zip(actual.target_critics, expected.target_critics, strict=True):
        for name in other:
            np.testing.assert_allclose(one[name], other[name], 0, tolerance, err_msg=name)
    assert (actual.temperatures is None) == (expected.temperatures is None)
    for one, other in zip(actual.temperatures or [], expected.temperatures or [], strict=True):
        assert one.count == other.count
        for field in ("params", "mu", "nu"):
            np.testing.assert_allclose(getattr(one, field)["x"], getattr(other, field)["x"], 0, tolerance)


# Samples.


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("low", "high"), [(-1.0, 4.0), (2.0, 2.5), (-np.inf, np.inf)])
def test_squashed_log_probabilities_are_those_of_a_density(low, high):
    """With asymmetric bounds: the density integrates to 1, and its means are those of the samples, in native units."""
    layout = EnvSpec("one", (AgentSpec("a", (1,), Box((low,), (high,))),), 1, None).action_layout
    layout = type(layout)(*(table[0] for table in layout))
    parameters = ActionParameters(None, jnp.full((400_000, 1), 0.4), jnp.full((400_000, 1), 0.8))
    drawn = draw(jax.random.key(0), parameters, layout)
    action = np.asarray(action_of(layout, None, drawn.unit))[:, 0]
    order = np.argsort(action)
    density, a = np.exp(np.asarray(drawn.log_prob))[order], action[order]
    np.testing.assert_allclose(np.trapezoid(density, a), 1, atol=2e-3)
    np.testing.assert_allclose(np.trapezoid(density * a, a), action.mean(), atol=4e-3 * max(1, action.std()))
    assert low <= a[0] < a[-1] <= high
    # The same by hand, where there is no cancellation.
    center, scale = (0.0, 1.0) if np.isinf(low) else ((low + high) / 2, (high - low) / 2)
    u = (a[::1000] - center) / scale
    x = u if np.isinf(low) else np.arctanh(u)
    slope = scale * (1.0 if np.isinf(low) else 1 - u**2)
    expected = np.exp(-((x - 0.4) ** 2) / (2 * 0.64)) / (0.8 * np.sqrt(2 * np.pi)) / slope
    np.testing.assert_allclose(density[::1000], expected, rtol=1e-8)


@pytest.mark.usefixtures("float64")
def test_saturated_actions_have_finite_log_probabilities_and_gradients():
    layout = EnvSpec("one", (AgentSpec("a", (1,), Box((-1.0,), (1.0,))),), 1, None).action_layout
    layout = type(layout)(*(table[0] for table in layout))

    def log_prob(mean):
        return draw(jax.random.key(0), ActionParameters(None, mean, jnp.ones(1)), layout).log_prob

    for mean in (-300.0, 300.0):
        value, slope = jax.value_and_grad(log_prob)(jnp.array([mean]))
        assert np.isfinite(value)
        assert np.isfinite(slope).all()


@pytest.mark.usefixtures("float64")
def test_gumbel_gradients_are_those_of_the_exact_expectation():
    """For a linear function of the action, as the temperature goes to 0: E[f(a)] = Σ p f. One choice is masked."""
    f, logits = jnp.array([1.0, -2.0, 0.5, 3.0]), jnp.array([0.3, -0.2, -jnp.inf, 0.9])
    layout = EnvSpec("one", (AgentSpec("a", (1,), Discrete(4)),), 1, None).action_layout
    layout = type(layout)(*(table[0] for table in layout))

    def sampled(logits, temperature):
        many = jnp.broadcast_to(logits, (200_000, 1, 4))
        drawn = draw(jax.random.key(1), ActionParameters(many, None, None), layout, temperature)
        return jnp.mean(drawn.choice[:, 0] @ f), drawn

    exact = jax.grad(lambda x: jax.nn.softmax(x) @ f)(logits)
    (value, drawn), gradient = jax.value_and_grad(sampled, has_aux=True)(logits, 0.1)
    assert float(value) == pytest.approx(float(jax.nn.softmax(logits) @ f), abs=0.02)
    np.testing.assert_allclose(gradient, exact, atol=0.03)
    counts = np.bincount(np.asarray(drawn.choice[:, 0].argmax(-1)), minlength=4) / 200_000
    np.testing.assert_allclose(counts, jax.nn.softmax(logits), atol=0.005)
    assert counts[2] == 0
    np.testing.assert_allclose(
        drawn.log_prob, jnp.log(jax.nn.softmax(logits))[drawn.choice[:, 0].argmax(-1)], atol=1e-12
    )


def test_a_temperature_that_adapts_starts_above_zero():
    spec = problems.make_spec([Discrete(3)])
    assert hajax.make_algorithm("hasac", spec, temperature=0.0, auto_temperature=False).hyperparameters.temperature == 0
    algo = hajax.make_algorithm("hasac", spec)
    with pytest.raises(ValueError, match=r"temperature=0\.0; allowed: a number > 0"):
        hajax.make_algorithm("hasac", spec, temperature=0.0)
    with pytest.raises(ValueError, match=r"temperature=0\.0; allowed: a number > 0"):
        algo.init(jax.random.key(0), algo.hyperparameters.replace(temperature=0.0))


# Learning.


@pytest.mark.parametrize("expectation", ["sampled", "exact"])
def test_the_temperature_finds_the_target_entropy_of_a_bandit(expectation):
    """Two agents, with 3 and 4 arms: the final entropies are the given shares of log n."""
    rng = np.random.default_rng(0)
    env = hajax.make_env("games/matrix", payoff=rng.normal(size=(3, 4)).tolist())
    settings = {"hidden_sizes": (16,), "batch_size": 64, "buffer_size": 2000, "warmup_steps": 100}
    numbers = {
        "temperature_lr": 1e-2,
        "actor_lr": 5e-3,
        "critic_lr": 1e-2,
        "target_rate": 0.1,
        "target_entropy_share": 0.5,
    }
    algo = hajax.make_algorithm("hasac", env, expectation=expectation, **settings, **numbers)
    train = hajax.make_train(env, algo, total_steps=100 + 10 * 2500, num_envs=10, rollout_length=10)
    _, metrics = jax.jit(train)(jax.random.key(0))
    np.testing.assert_allclose(metrics["entropy"][-50:].mean(0), 0.5 * np.log([3, 4]), rtol=0.08)
    assert (metrics["temperature"][-1] > 0).all()


def test_the_temperature_finds_the_target_entropy_of_a_continuous_bandit():
    """One real component per agent. In units of ±1, the target entropy is relative to that of the uniform, log 2."""
    env = linear_quadratic(max_steps=1)
    settings = {"hidden_sizes": (16,), "batch_size": 64, "buffer_size": 2000, "warmup_steps": 100}
    numbers = {"temperature_lr": 1e-2, "actor_lr": 5e-3, "critic_lr": 1e-2, "target_rate": 0.1, "target_entropy": -0.5}
    algo = hajax.make_algorithm("hasac", env, **settings, **numbers)
    train = hajax.make_train(env, algo, total_steps=100 + 10 * 2000, num_envs=10, rollout_length=10)
    _, metrics = jax.jit(train)(jax.random.key(0))
    # The entropy is of native actions, whose range is 1.5 times as wide.
    np.testing.assert_allclose(metrics["entropy"][-50:].mean(0), -0.5 + np.log(1.5), atol=0.05)


@pytest.mark.evidence
def test_hasac_escapes_the_local_optimum_of_its_paper_s_game():
    """Figures 3a and 4c of Liu et al., 2024, with a learned critic and its own samples, from policies (0.6, 0.2, 0.2).

    At α = 2 it stays at (A, A), with a reward of 5. At α = 10 it goes to (C, C), where the exact limit is 16.55.
    """
    cold, warm = hasac_matrix.train([2.0, 10.0], "exact", 2, batch_size=64)
    assert (cold["greedy"], warm["greedy"]) == ({"AA": 2}, {"CC": 2})
    assert warm["greedy_return"] == 20
    np.testing.assert_allclose(cold["return"], 5, atol=0.2)
    np.testing.assert_allclose(warm["return"], 16.55, atol=1.0)


def test_the_limits_that_learned_critics_are_compared_with():
    for alpha, expected in ((5, 4.2552), (10, 16.5501)):
        np.testing.assert_allclose(hasac_matrix.exact_limit(alpha)[0], expected, atol=5e-5)


class ExactCritic:
    """Q(s, a) of the paper's game, linear in each agent's action, so that it may be evaluated at probabilities."""

    def value(self, params, state, joint):
        return jnp.einsum("ba,bc,ac->b", joint[:, 0], joint[:, 1], hasac_payoff()) + 0 * params


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("alpha", "limit", "expected_reward"),
    [
        (1.0, [1, 0, 0], 5.0000),
        (2.0, [1, 0, 0], 4.9996),
        (5.0, [0.9849, 0.0075, 0.0076], 4.2552),
        (10.0, [0.0221, 0.0224, 0.9555], 16.5501),
        (15.0, [0.1278, 0.1354, 0.7368], 2.6711),
        (20.0, [0.2514, 0.2790, 0.4697], -7.2625),
    ],
)
def test_with_an_exact_critic_policies_approach_the_paper_s_table(alpha, limit, expected_reward):
    """Gradients of `SoftObjective`: agents ascend one after another from (0.6, 0.2, 0.2), each to its own maximum."""
    spec = problems.make_spec([Discrete(3)] * 2)
    actions = JointActions(spec)
    layout = type(spec.action_layout)(*(table[0] for table in spec.action_layout))
    actor = types.SimpleNamespace(tables=types.SimpleNamespace(layout=layout))
    choices = Choices(np.arange(3)[:, None], np.ones(3, bool))

    def improve(logits, agent, probs):
        samples = OffPolicySamples(None, None, jnp.ones((1, 1)), jnp.array([agent]), choices)
        fixed = (jnp.zeros(2), jnp.zeros((1, 0)), probs[None], jnp.full((1, 1), alpha), no_drift)
        objective = SoftObjective(None, SoftHyperparameters(), None, actions, ExactCritic(), actor, *fixed)

        def value(x):
            return objective.value(jax.random.key(0), ActionParameters(x[None, None, None], None, None), samples)

        def newton(x, _):
            # The natural gradient in the logits of a softmax is gradient / π up to a constant; steps of 1/α converge.
            gradient = jax.grad(value)(x) / jnp.maximum(jax.nn.softmax(x), 1e-9)
            return x + 0.5 * (gradient - gradient.mean()) / alpha, None

        return jax.lax.scan(newton, logits, None, 40)[0]

    def sweep(logits, _):
        for agent in (0, 1):
            logits = logits.at[agent].set(improve(logits[agent], agent, jax.nn.softmax(logits)))
        return logits, None

    start = jnp.log(jnp.tile(jnp.array([0.6, 0.2, 0.2]), (2, 1)))
    logits, _ = jax.jit(lambda x: jax.lax.scan(sweep, x, None, 600))(start)
    policies = np.asarray(jax.nn.softmax(logits))
    np.testing.assert_allclose(policies, [limit, limit], atol=1e-4)
    assert policies[0] @ hasac_payoff() @ policies[1] == pytest.approx(expected_reward, abs=1e-3)


# The template.


@functools.cache
def four_epochs_of_hasac():
    """A problem, and HASAC's actors after an update."""
    algo, state, _ = problem("hasac, mixed team")
    batch = off_policy_problems.random_batch(algo, 0)
    settings = dataclasses.replace(algo.settings, epochs=4)
    update = mehaml("hasac", algo.spec, settings, algo.hyperparameters).update
    return algo, state, batch, settings, jax.jit(update)(jax.random.key(0), state, batch)[0].actors.params


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", sorted(set(DRIFTS) - {"no_drift"}))
def test_a_drift_shortens_steps(name):
    """With coefficient 0 (or a clip that is never reached) the update is HASAC's; with a large one agents move less."""
    algo, state, batch, settings, without = four_epochs_of_hasac()
    tight, loose = (
        ({"clip": 1e-3}, {"clip": 1e6}) if name == "ppo_clip" else ({"drift_coef": 300.0}, {"drift_coef": 0.0})
    )

    given = SoftDriftHyperparameters(**vars(algo.hyperparameters))
    update = jax.jit(mehaml("mine", algo.spec, settings, given, drift=DRIFTS[name]).update)

    def changed(**hyperparameters):
        hyperparameters = jax.tree.map(lambda x: jnp.asarray(x, float), given.replace(**hyperparameters))
        new, info = update(jax.random.key(0), state._replace(hyperparameters=hyperparameters), batch)
        assert all(np.isfinite(x).all() for x in info.values())
        return new.actors.params

    for one, other in zip(jax.tree.leaves(changed(**loose)), jax.tree.leaves(without), strict=True):
        np.testing.assert_allclose(one, other, 0, 1e-10)
    far, near = (distance(state.actors.params, params) for params in (without, changed(**tight)))
    assert near < 0.9 * far


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["ppo_clip", "kl_old_new", "kl_new_old", "squared_log_ratio"])
def test_a_penalty_is_the_expected_drift(name):
    """One agent of the paper's game, with the other at (0.2, 0.5, 0.3): exact sums over its choices, against samples.

    Ratios are p / q for the new p and the old q. M of a choice a is Q(a) − α log q(a) minus the same of another sample
    from q.
    """
    plays, alpha, clip = 400_000, 3.0, 0.2
    old, new, other = np.array([0.6, 0.3, 0.1]), np.array([0.4, 0.35, 0.25]), np.array([0.2, 0.5, 0.3])
    spec = problems.make_spec([Discrete(3)] * 2)
    layout = type(spec.action_layout)(*(table[0] for table in spec.action_layout))
    actor = types.SimpleNamespace(tables=types.SimpleNamespace(layout=layout))
    samples = OffPolicySamples(None, None, jnp.ones((1, plays)), jnp.array([0]))
    joint = jnp.broadcast_to(jnp.stack([jnp.zeros(3), jnp.asarray(other)]), (plays, 2, 3))
    hyperparameters = SoftDriftHyperparameters(drift_coef=1.0, clip=clip)
    given = (jnp.zeros(2), jnp.zeros((plays, 0)), joint, jnp.full((1, 1), alpha), DRIFTS[name])
    objective = SoftObjective(None, hyperparameters, None, JointActions(spec), ExactCritic(), actor, *given)

    def parameters(p):
        return ActionParameters(jnp.broadcast_to(jnp.log(jnp.asarray(p)), (1, plays, 1, 3)), None, None)

    penalty = float(jax.jit(objective.penalty)(jax.random.key(0), parameters(new), parameters(old), samples))
    value = hasac_payoff() @ other - alpha * np.log(old)
    advantage, ratio = value[:, None] - value[None], (new / old)[:, None]
    expected = {
        "ppo_clip": old @ np.maximum((ratio - np.clip(ratio, 1 - clip, 1 + clip)) * advantage, 0) @ old,
        "kl_old_new": old @ np.log(old / new),
        "kl_new_old": new @ np.log(new / old),
        "squared_log_ratio": old @ np.log(new / old) ** 2 / 2,
    }
    assert penalty == pytest.approx(expected[name], rel=0.02)


@pytest.mark.usefixtures("float64")
def test_a_gradient_step_is_a_step_along_hasac_s_gradient():
    """Adam's first moment after one step is 0.1 g, with g clipped to the same norm.

    Random draws have no influence: agents are updated simultaneously on exact expectations, with the replay's actions
    of the other agent.
    """
    spec = problems.make_spec([Discrete(4), Discrete(3)])
    algo = off_policy_problems.make_algorithm("masac", spec, expectation="exact", others="replay")
    state = off_policy_problems.random_state(algo, 0)
    batch = off_policy_problems.random_batch(algo, 0)
    given = SoftHyperparameters(**vars(algo.hyperparameters))
    mine = mehaml("mine", algo.spec, algo.settings, given, neighborhood=gradient_step)
    params = jax.jit(mine.update)(jax.random.key(0), state, batch)[0].actors.params
    moment = jax.jit(algo.update)(jax.random.key(0), state, batch)[0].actors.optimizer.mu
    expected = jax.tree.map(lambda p, m: p - given.actor_lr * m / 0.1, state.actors.params, moment)
    assert distance(params, state.actors.params) > 1e-8
    for one, other in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, 0, 1e-12)


BallHyperparametersOfSoft = combined(EntropyHyperparameters, BallHyperparameters)


def in_a_ball(radius, **settings):
    """A team of two agents with 4 and 3 choices in one state, exact expectations, and constant critics.

    The Fisher matrix of few choices is singular in the parameters of a network. Without any damping, iterations after
    convergence divide rounding errors by each other, and the direction depends on the processor.
    """
    spec = problems.make_spec([Discrete(4), Discrete(3)])
    hyperparameters = BallHyperparametersOfSoft(kl_radius=radius, critic_lr=0.0, damping=1e-8, temperature=0.3)
    chosen = combined(SoftSettings, BallSettings)(
        hidden_sizes=(8,), batch_size=5, expectation="exact", auto_temperature=False, cg_iterations=50, **settings
    )
    algo = mehaml("ball", spec, chosen, hyperparameters, neighborhood=kl_ball)
    state, batch = off_policy_problems.random_state(algo, 0), off_policy_problems.random_batch(algo, 0)
    everything = jnp.broadcast_to(jnp.asarray(spec.action_layout.choices), batch.action_mask.shape)
    same = jax.tree.map(lambda x: jnp.broadcast_to(x[:, :1], x.shape), batch._replace(action_mask=everything))
    return algo, state, same


def log_policies(algo, state, batch):
    """log π of both agents in the one state."""
    actors = TeamActors(algo.spec, make_groups(algo.spec, "none"), torso_of(algo), False, True, 0.01, std="network")
    logits = actors.team_distribution(state.actors.params, batch.observation[0, 0], None)[0].logits
    return [np.asarray(jax.nn.log_softmax(logits[i, 0, :n])) for i, n in enumerate((4, 3))]


def torso_of(algo):
    return MLP(algo.settings.hidden_sizes, layer_norm=False)


@pytest.mark.usefixtures("float64")
def test_a_step_in_a_kl_ball_is_along_the_natural_gradient():
    """In a single state log π moves along the advantage of min Q − α log π, until KL(old ‖ new) = δ."""
    algo, state, batch = in_a_ball(1e-9, others="replay", order="simultaneous")
    new, info = jax.jit(algo.update)(jax.random.key(0), state, batch)
    actions = JointActions(algo.spec)
    network = JointCritic(torso_of(algo), actions.columns)
    critics = ActionValues(algo.spec, actions, network, per_agent=False, copies=2)
    taken = np.asarray(batch.action[0, 0, :, 0]).astype(int)
    before, after = log_policies(algo, state, batch), log_policies(algo, new, batch)
    for i, count in enumerate((4, 3)):
        joint = np.zeros((count, 2, 4))  # [choices, N, F]
        joint[:, 1 - i, taken[1 - i]] = 1
        joint[np.arange(count), i, np.arange(count)] = 1
        inputs = jax.tree.map(lambda x, n=count: jnp.broadcast_to(x[0, 0], (n, *x.shape[2:])), critic_input(batch))
        q = np.asarray(critics.values(state.critics.params, inputs, jnp.asarray(joint)).min((0, 1)))
        pi, value = np.exp(before[i]), q - 0.3 * before[i]
        advantage = value - pi @ value
        step = after[i] - before[i]
        step -= pi @ step
        np.testing.assert_allclose(step / np.abs(step).max(), advantage / np.abs(advantage).max(), 0, 1e-3)
        # By a third-order term the longest step may be slightly too long; the next candidate is 0.8 of it.
        assert info["candidate"][i] <= 1
        assert pi @ (before[i] - after[i]) == pytest.approx(1e-9 * 0.64 ** float(info["candidate"][i]), rel=1e-3)
    np.testing.assert_array_equal(info["accepted"], 1)


@pytest.mark.usefixtures("float64")
def test_no_step_leaves_its_kl_ball_and_each_one_taken_improves():
    algo, state, batch = in_a_ball(0.05, others="policy")
    update, accepted = jax.jit(algo.update), 0
    for i in range(8):
        before = log_policies(algo, state, batch)
        state, info = update(jax.random.key(i), state, batch)
        after = log_policies(algo, state, batch)
        for agent, (old, new) in enumerate(zip(before, after, strict=True)):
            kl = np.exp(old) @ (old - new)
            assert kl == pytest.approx(float(info["kl"][agent]), abs=1e-12)
            assert kl <= 0.05 * (1 + 1e-6)
            assert (float(info["improvement"][agent]) > 0) == bool(info["accepted"][agent]) == bool(kl > 0)
        accepted += int(info["accepted"].sum())
    assert accepted >= 8


def test_a_drift_may_be_for_boxes_only():
    """A drift is refused if it does not declare what it reads, or if that is missing."""

    @reads("drift_coef")
    def of_means(change, hyperparameters):
        return hyperparameters.drift_coef * jnp.square(change.new.mean - change.old.mean).sum(-1)

    spec, hyperparameters = problems.make_spec([PAIR, FREE]), SoftDriftHyperparameters()
    assert mehaml("mine", spec, None, hyperparameters, drift=of_means).name == "mine"
    assert hajax.haml("mine", spec, None, DriftHyperparameters(), drift=of_means).name == "mine"
    with pytest.raises(ValueError, match="SoftHyperparameters has no drift_coef, which of_means reads"):
        mehaml("mine", spec, None, SoftHyperparameters(), drift=of_means)
    for template in (mehaml, hajax.haml):
        with pytest.raises(ValueError, match=r"drift <lambda> does not declare what it reads; allowed: @reads"):
            template("mine", spec, drift=lambda change, hyperparameters: jnp.zeros_like(change.log_ratio))


@pytest.mark.usefixtures("float64")
def test_a_drift_in_a_kl_ball_on_a_mixed_team():
    """Boxes and choices, sampled, with inactive agents: finite, within the ball, and shorter with a drift."""
    case = CASES["hasac, mixed team"]
    spec = problems.make_spec(case["spaces"], case["sizes"])
    settings = combined(SoftSettings, BallSettings)(hidden_sizes=(6, 5), batch_size=7, others="policy")
    kind = combined(BallHyperparametersOfSoft, CoefficientHyperparameters)
    algo = mehaml("mine", spec, settings, kind(kl_radius=0.02), drift=DRIFTS["kl_old_new"], neighborhood=kl_ball)
    random, batch = off_policy_problems.random_state(algo, 0), off_policy_problems.random_batch(algo, 0, 0.3)
    update, steps = jax.jit(algo.update), []
    for coef in (0.0, 1e4):
        numbers = random.hyperparameters.replace(drift_coef=jnp.asarray(coef))
        state = random._replace(hyperparameters=numbers)
        new, info = update(jax.random.key(0), state, batch)
        assert all(np.isfinite(x).all() for x in info.values())
        assert (np.asarray(info["kl"]) <= 0.02 * (1 + 1e-6)).all()
        steps.append(distance(new.actors.params, state.actors.params))
    assert 0 <= steps[1] < steps[0]


def test_a_neighborhood_needs_its_settings():
    spec = problems.make_spec([Discrete(2)])
    with pytest.raises(ValueError, match="SoftSettings has no cg_iterations, line_search_steps; allowed: any class"):
        mehaml("mine", spec, SoftSettings(), neighborhood=kl_ball)
    with pytest.raises(ValueError, match=r"SoftHyperparameters has no kl_radius, .*; allowed: any class"):
        mehaml("mine", spec, None, SoftHyperparameters(), neighborhood=kl_ball)
    with pytest.raises(ValueError, match="SoftHyperparameters has no clip, which ppo_clip reads; allowed: any class"):
        mehaml("mine", spec, None, SoftHyperparameters(), drift=DRIFTS["ppo_clip"])
    algo = mehaml("mine", spec, neighborhood=kl_ball)  # the defaults have all that it reads
    assert (algo.settings.cg_iterations, algo.hyperparameters.kl_radius) == (10, 0.01)


def distance(a, b):
    return sum(
        float(np.square(np.asarray(x) - np.asarray(y)).sum())
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )
