"""Finite games: exact values against their definitions, padding, the papers' identities, and the gaps."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tabular_reference import ByHand, games_and_policies, one

from hajax import tabular
from hajax.envs.games import hasac_payoff, trap_of_heterogeneity_payoff
from hajax.tabular.policies import average_over, joint_probabilities, kl_divergence, own_action_values
from hajax.tabular.values import solve

CLOSE = {"rtol": 0, "atol": 1e-10}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def batched(function):
    return jax.jit(jax.vmap(function))


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_values_are_those_of_the_definitions(alpha):
    games, policies = games_and_policies(12, discount=(0.0, 0.99))
    values = batched(lambda game, policy: tabular.evaluate(game, policy, alpha))(games, policies)
    for k in range(12):
        hand = ByHand(one(games, k), one(policies, k))
        value, q, expected_return, distribution = hand.values(hand.policies[0], alpha)
        inside = (slice(hand.states), *(slice(width) for width in hand.widths))
        np.testing.assert_allclose(values.value[k, : hand.states], value, **CLOSE)
        np.testing.assert_allclose(values.q[k][inside], q, **CLOSE)
        np.testing.assert_allclose(values.expected_return[k], expected_return, **CLOSE)
        np.testing.assert_allclose(values.state_distribution[k, : hand.states], distribution, **CLOSE)
        mean_q = [
            sum(hand.probability(hand.policies[0], s, a) * q[(s, *a)] for a in hand.joint_actions)
            for s in range(hand.states)
        ]
        centered = q - np.reshape(mean_q, (-1,) + (1,) * (q.ndim - 1))
        np.testing.assert_allclose(values.advantage[k][inside], centered, **CLOSE)


@pytest.mark.parametrize("discount", [0.5, 0.99])
def test_elimination_is_exact_and_needs_no_lapack(discount):
    games, policies = games_and_policies(50, discount=(discount, discount))
    evaluate = batched(tabular.evaluate)
    values = evaluate(games, policies)
    # The Bellman residuals, which bound the error by 1/(1 − γ) times as much.
    joint = jax.vmap(joint_probabilities)(jnp.exp(policies)).reshape(50, 6, -1)
    residual = (joint * values.q.reshape(50, 6, -1)).sum(-1) - values.value
    assert jnp.abs(residual).max() <= 1e-10 * (1 - discount)
    np.testing.assert_allclose(values.state_distribution.sum(1), 1 / (1 - discount), rtol=1e-12)
    text = evaluate.lower(games, policies).as_text()
    assert not [name for name in ("lapack", "getrf", "geqrf", "triangular_solve", "cholesky") if name in text]
    gap = batched(tabular.nash_gap).lower(games, policies).as_text()
    assert "lapack" not in gap
    assert "triangular_solve" not in gap
    matrix = np.eye(5) - discount * np.random.default_rng(0).dirichlet(np.ones(5), 5)
    right = np.arange(5.0)
    np.testing.assert_allclose(solve(jnp.array(matrix), jnp.array(right)), np.linalg.solve(matrix, right), rtol=1e-11)


def test_multi_agent_values_and_advantages_are_those_of_the_definitions():
    games, policies = games_and_policies(6, num_agents=(3, 3), num_states=(2, 3))
    for k in range(6):
        game, policy = one(games, k), one(policies, k)
        hand = ByHand(game, policy)
        q = tabular.evaluate(game, policy).q
        for given, agents in (([], [0]), ([2], [0]), ([1], [2, 0]), ([0, 2], [1])):
            flags = [jnp.isin(jnp.arange(3), jnp.array(chosen, int)) for chosen in (given, agents)]
            table = tabular.multi_agent_advantage(q, policy, *flags)
            for s, action in itertools.product(range(hand.states), hand.joint_actions):
                by_hand = hand.advantage(hand.policies[0], np.asarray(q), given, agents, s, action)
                np.testing.assert_allclose(table[(s, *action)], by_hand, **CLOSE)


# --- padding --------------------------------------------------------------------------------------------------------


def unpadded(game):
    hand = ByHand(game)
    return tabular.make_game(hand.reward, hand.transition, hand.initial, hand.discount)


def cut(policy, game):
    """A padded joint policy in the shape of the unpadded game."""
    agents, width = game.action_mask.shape
    return policy[:agents, : game.state_mask.shape[0], :width]


def small_games(number):
    """Games that use less than what they are padded to, in their own and in padded arrays, with policies of both."""
    games, policies = games_and_policies(number, first=100, num_agents=(2, 3), num_actions=(2, 3), num_states=(1, 3))
    for k in range(number):
        game = unpadded(one(games, k))
        agents, width = game.action_mask.shape
        own = jnp.where(game.action_mask[:, None], cut(one(policies, k), game), tabular.policies.LOG_ZERO)
        padded_game = tabular.pad_game(game, 6, 4, 4)
        blank = tabular.uniform_policy(padded_game)
        padded = blank.at[:agents, : own.shape[1], :width].set(own)
        yield game, own, padded_game, padded


PADDED_UPDATES = {
    "clip": lambda: tabular.haml(tabular.clip_drift(), order="fixed"),
    "kl_ball": lambda: tabular.haml(None, tabular.kl_ball(), order="fixed"),
    "trust_region": lambda: tabular.haml(None, tabular.trust_region(), order="fixed"),
    "gradient_step": lambda: tabular.haml(tabular.kl_drift(), tabular.gradient_step(), order="fixed"),
    "algorithm 1": lambda: tabular.multi_agent_policy_iteration(order="fixed"),
    "haspi": lambda: tabular.haspi(0.3, order="fixed"),
}


@pytest.mark.parametrize("name", PADDED_UPDATES)
def test_a_padded_game_is_the_game_itself(name):
    update = PADDED_UPDATES[name]()

    @jax.jit
    def run(game, policy):
        history = tabular.iterate(update, game, policy, jax.random.key(0), 4)
        gaps = tabular.nash_gap(game, history.policy), tabular.quantal_response_gap(game, policy, 0.5)
        return history, (*gaps, game.reward_range)

    for game, own, padded_game, padded in small_games(1):
        (result, numbers), (padded_result, padded_numbers) = run(game, own), run(padded_game, padded)
        states = game.state_mask.shape[0]
        agents = game.num_agents
        np.testing.assert_allclose(padded_result.value[:, :states], result.value, **CLOSE)
        np.testing.assert_allclose(padded_result.expected_return, result.expected_return, **CLOSE)
        np.testing.assert_allclose(padded_result.gain[:, :agents, :states], result.gain, **CLOSE)
        probabilities = jnp.where(game.action_mask[:, None], jnp.exp(cut(padded_result.policy, game)), 0)
        np.testing.assert_allclose(probabilities, jnp.exp(result.policy), rtol=0, atol=1e-8)
        np.testing.assert_allclose(padded_numbers, numbers, **CLOSE)


def test_random_games_have_every_size_and_are_games():
    games, policies = games_and_policies(300)
    sizes = {
        "agents": (games.action_mask.sum(-1) > 1).sum(-1),
        "actions": games.action_mask.sum(-1).max(-1),
        "states": games.state_mask.sum(-1),
    }
    assert {name: sorted(set(np.asarray(size).tolist())) for name, size in sizes.items()} == {
        "agents": [2, 3, 4],
        "actions": [2, 3, 4],
        "states": [1, 2, 3, 4, 5, 6],
    }
    exists = jax.vmap(lambda game: game.joint_mask)(games)
    np.testing.assert_allclose(games.transition.sum(-1), exists, **CLOSE)
    assert (games.reward[~exists] == 0).all()
    np.testing.assert_allclose(games.initial.sum(-1), 1, **CLOSE)
    assert ((games.initial > 0) == games.state_mask).all()
    np.testing.assert_allclose(jnp.exp(policies).sum(-1), 1, **CLOSE)
    assert (jnp.exp(policies) > 0).sum() == 6 * games.action_mask.sum()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"discount": 1.0}, "discount=1.0"),
        ({"reward": np.zeros(2)}, "reward has shape"),
        ({"reward": np.full((2, 2, 3), np.nan)}, "not finite"),
        ({"initial": np.ones(2)}, "initial is not a distribution"),
        ({"transition": np.ones((2, 2, 3, 3)) / 3}, r"transition has shape \(2, 2, 3, 3\)"),
    ],
)
def test_a_wrong_game_is_refused(change, message):
    right = {
        "reward": np.zeros((2, 2, 3)),
        "transition": np.full((2, 2, 3, 2), 0.5),
        "initial": np.full(2, 0.5),
        "discount": 0.9,
    }
    tabular.make_game(**right)
    with pytest.raises(ValueError, match=message):
        tabular.make_game(**right | change)
    with pytest.raises(ValueError, match="num_states=1"):
        tabular.pad_game(tabular.make_game(**right), 1, 2, 3)


# --- the identities of hatrpo-happo ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def problems():
    """Games, an old joint policy π, a new one π̄ near it or far away, an order, and what is needed of both."""
    with jax.enable_x64(True):
        games, old, far = games_and_policies(60, policies=2, discount=(0.0, 0.99))
        nearness = jnp.linspace(0.01, 1, 60)[:, None, None, None]
        new = jax.vmap(lambda game, weights: tabular.policies.normalize(weights, game.action_mask[:, None]))(
            games, (1 - nearness) * old + nearness * far
        )
        orders = jax.vmap(lambda key: jax.random.permutation(key, 4))(jax.random.split(jax.random.key(7), 60))
        evaluate = batched(tabular.evaluate)
        return games, old, new, orders, evaluate(games, old), evaluate(games, new)


def before(order, m):
    return jnp.isin(jnp.arange(4), order[:m])


def local_advantage(q, policy, order, m):
    """A^{i_m}(s, a^{i_1:m−1}, a^{i_m}), `[S, A, …]`."""
    return tabular.multi_agent_advantage(q, policy, before(order, m), jnp.arange(4) == order[m])


def expectation(table, policy):
    return average_over(table, jnp.exp(policy), jnp.ones(4, bool))[:, 0, 0, 0, 0]


def mixed(new, old, order, m):
    """π̄ for i_1:m, π for the others."""
    return jnp.where(before(order, m)[:, None, None], new, old)


def test_lemma_1_advantages_add_up(problems):
    games, old, _, orders, values, _ = problems

    def error(policy, order, q):
        errors, total = [], 0.0
        for m in range(4):
            total = total + local_advantage(q, policy, order, m)
            nobody = jnp.zeros(4, bool)
            errors.append(total - tabular.multi_agent_advantage(q, policy, nobody, before(order, m + 1)))
        return jnp.abs(jnp.stack(errors)).max()

    assert batched(error)(old, orders, values.q).max() <= 1e-10
    # The whole team's advantage is A_π itself.
    everyone = batched(
        lambda policy, q: tabular.multi_agent_advantage(q, policy, jnp.zeros(4, bool), jnp.ones(4, bool))
    )
    exists = jax.vmap(lambda game: game.joint_mask)(games)
    np.testing.assert_allclose(jnp.where(exists, everyone(old, values.q) - values.advantage, 0), 0, **CLOSE)


def test_equation_6_and_proposition_3(problems):
    _, old, new, orders, values, _ = problems

    def errors(old, new, order, values):
        joint_old = joint_probabilities(jnp.exp(old))
        for m in range(4):
            advantage = local_advantage(values.q, old, order, m)
            yield expectation(advantage, mixed(new, old, order, m))  # Eq. 6: nothing is gained by staying
            left = expectation(advantage, mixed(new, old, order, m + 1))
            ratio = [joint_probabilities(jnp.exp(mixed(new, old, order, k))) / joint_old for k in (m, m + 1)]
            weight = jnp.where(joint_old > 0, joint_old * (ratio[1] - ratio[0]), 0)
            yield left - (weight * values.advantage).reshape(6, -1).sum(1)  # Eq. 9: (r − 1) · M

    largest = batched(lambda *args: jnp.abs(jnp.stack(list(errors(*args)))).max())(old, new, orders, values)
    assert largest.max() <= 1e-10
    # The ratios matter: without the earlier agents' the expectation differs.
    other = batched(
        lambda old, new, order, values: (
            expectation(local_advantage(values.q, old, order, 2), mixed(new, old, order, 3))
            - expectation(local_advantage(values.q, old, order, 2), mixed(new, old, order[jnp.array([2, 0, 1, 3])], 1))
        )
    )(old, new, orders, values)
    assert jnp.abs(other).max() > 0.1


def test_lemma_7_performance_difference(problems):
    _, _, new, _, values, new_values = problems
    gained = jax.vmap(lambda table, policy, weight: weight @ expectation(table, policy))(
        values.advantage, new, new_values.state_distribution
    )
    difference = new_values.expected_return - values.expected_return
    np.testing.assert_allclose(gained, difference, rtol=0, atol=1e-10)
    wrong = jax.vmap(lambda table, policy, weight: weight @ expectation(table, policy))(
        values.advantage, new, values.state_distribution
    )
    assert jnp.abs(wrong - difference).max() > 1e-2  # the old distribution of states will not do


def test_lemma_8_and_the_bounds_of_theorem_1_and_lemma_2(problems):
    games, old, new, orders, values, new_values = problems

    def terms(game, old, new, order, values):
        joint_old, joint_new = (joint_probabilities(jnp.exp(policy)).reshape(6, -1) for policy in (old, new))
        log_ratio = jnp.where(joint_old > 0, jnp.log(joint_old) - jnp.log(joint_new), 0)
        joint_kl = (joint_old * log_ratio).sum(1)
        own_kl = kl_divergence(old, new)  # [N, S]
        constant = 4 * game.discount * jnp.where(game.joint_mask, jnp.abs(values.advantage), 0).max()
        constant = constant / (1 - game.discount) ** 2
        surrogate = values.expected_return + values.state_distribution @ expectation(values.advantage, new)
        summands = [
            values.state_distribution
            @ expectation(local_advantage(values.q, old, order, m), mixed(new, old, order, m + 1))
            - constant * own_kl[order[m]].max()
            for m in range(4)
        ]
        return joint_kl, own_kl, surrogate, constant, sum(summands)

    joint_kl, own_kl, surrogate, constant, summands = batched(terms)(games, old, new, orders, values)
    mask = games.state_mask
    np.testing.assert_allclose(joint_kl, own_kl.sum(1), **CLOSE)
    joint_max, own_max = jnp.where(mask, joint_kl, 0).max(1), jnp.where(mask[:, None], own_kl, 0).max(2).sum(1)
    assert (joint_max <= own_max + 1e-10).all()  # Lemma 8
    bound = surrogate - constant * joint_max
    assert (new_values.expected_return >= bound - 1e-10).all()  # Theorem 1
    assert (new_values.expected_return >= values.expected_return + summands - 1e-10).all()  # Lemma 2
    assert (new_values.expected_return < surrogate - 1e-6).any()  # the penalty is needed


@pytest.mark.parametrize("alpha", [0.0, 0.5])
def test_soft_bellman_operator_contracts(alpha):
    games, policies = games_and_policies(40, discount=(0.0, 0.99))
    exists = jax.vmap(lambda game: game.joint_mask)(games)
    first, second = jnp.where(exists, jax.random.normal(jax.random.key(0), (2, *games.reward.shape)), 0)
    apply = batched(lambda game, policy, q: tabular.soft_bellman(game, policy, q, alpha))
    after = jnp.abs(jnp.where(exists, apply(games, policies, first) - apply(games, policies, second), 0))
    bound = games.discount * jnp.abs(first - second).max((1, 2, 3, 4, 5))
    assert (after.max((1, 2, 3, 4, 5)) <= bound + 1e-12).all()
    q = batched(lambda game, policy: tabular.evaluate(game, policy, alpha).q)(games, policies)
    np.testing.assert_allclose(apply(games, policies, q), q, **CLOSE)


# --- gaps -----------------------------------------------------------------------------------------------------------


def test_nash_gap_is_the_best_of_all_deterministic_deviations():
    games, policies = games_and_policies(6, num_agents=(2, 3), num_actions=(2, 3), num_states=(1, 3))
    for k in range(6):
        game, policy = one(games, k), one(policies, k)
        hand = ByHand(game, policy)
        joint_policy = hand.policies[0]
        expected_return = hand.values(joint_policy)[2]
        best = expected_return
        for agent, width in enumerate(hand.widths):
            for actions in itertools.product(range(width), repeat=hand.states):
                deviating = list(joint_policy)
                deviating[agent] = np.eye(width)[list(actions)]
                best = max(best, hand.values(deviating)[2])
        np.testing.assert_allclose(tabular.nash_gap(game, policy), best - expected_return, **CLOSE)


def test_gaps_vanish_at_known_equilibria():
    game = tabular.matrix_game(hasac_payoff())
    mask = game.action_mask[:, None]
    for action in range(3):
        agreed = tabular.log_policy(jnp.broadcast_to(jnp.eye(3)[action], (2, 1, 3)), mask)
        np.testing.assert_allclose(tabular.nash_gap(game, agreed), 0, **CLOSE)
    miss = tabular.log_policy(jnp.eye(3)[:2, None], mask)
    np.testing.assert_allclose(tabular.nash_gap(game, miss), 30, **CLOSE)  # from −20 to 10
    trap = tabular.matrix_game(trap_of_heterogeneity_payoff())
    seven = tabular.log_policy(
        jnp.full((2, 1, 2), 0.5).at[..., 0].set(0.7).at[..., 1].set(0.3), trap.action_mask[:, None]
    )
    np.testing.assert_allclose(tabular.nash_gap(trap, seven), 3 * 0.7 - 1 - 0.75, **CLOSE)
    # A logit equilibrium of a game of one's own: each agent's Boltzmann policy does not depend on the other's.
    own = jnp.array([1.0, 2.0, 4.0])
    alone = tabular.matrix_game(own[:, None] + own[None, :])
    boltzmann = tabular.log_policy(jnp.broadcast_to(jax.nn.softmax(own / 0.7), (2, 1, 3)), alone.action_mask[:, None])
    np.testing.assert_allclose(tabular.quantal_response_gap(alone, boltzmann, 0.7), 0, **CLOSE)
    assert tabular.quantal_response_gap(alone, boltzmann, 1.4) > 0.1


def test_own_action_values_average_over_the_others():
    games, policies = games_and_policies(3)
    for k in range(3):
        probabilities = jnp.exp(policies[k])
        for agent in range(4):
            others = jnp.arange(4) != agent
            table = average_over(games.reward[k], probabilities, others)
            index = tuple(slice(None) if i == agent else 0 for i in range(4))
            np.testing.assert_allclose(
                own_action_values(games.reward[k], probabilities)[agent], table[(slice(None), *index)], **CLOSE
            )
