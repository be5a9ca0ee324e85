"""The theorems on random games, a small part of `benchmarks/theory.py`, and the HASAC paper's matrix game."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import theory

from hajax import tabular
from hajax.envs.games import hasac_payoff

GAMES = 32  # one shape for all, so that games are drawn and gaps measured by one program
# The session's options suit programs that compute next to nothing. These compute a few seconds.
OPTIONS = {"xla_backend_optimization_level": 1}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def run(name, **changes):
    return theory.run(name, theory.variants()[name]._replace(**changes), GAMES, compiler_options=OPTIONS)


def check_monotonic(row):
    assert row["games_with_a_fall_of_return"] == 0
    assert row["games_with_a_fall_of_value"] == 0
    assert row["largest_fall_of_value"] <= 1e-9
    assert row["least_gain_of_the_mirror_operator"] >= -1e-9  # inequality (5) of haml
    assert row["median_gain_of_return"] > 0


def quick(names):
    """The first stands for all in `make test`; the others are benchmarks' quick runs."""
    return [names[0], *(pytest.param(name, marks=pytest.mark.evidence) for name in names[1:])]


FIXED_STEP = ["clip", "none", "reverse_kl", "clip, kl_ball", "none, kl_ball"]


@pytest.mark.parametrize("name", quick(FIXED_STEP))
def test_haml_improves_every_state_and_ends_at_nash_equilibria(name):
    row = run(name)
    check_monotonic(row)
    assert row["median_gap_at_first"] > 0.1
    assert row["share_of_gaps_within_1e-3"] >= 0.99, row["gaps_beyond_1e-3"]


@pytest.mark.evidence
def test_hatrpo_s_trust_region_improves_every_state():
    check_monotonic(run("none, trust_region", iterations=10))


@pytest.mark.evidence
def test_algorithm_1_improves():
    row = run("algorithm_1")
    check_monotonic(row)
    assert row["gap"]["median"] > 0.1  # the theoretical constant: no claim about where it ends


@pytest.mark.parametrize("name", quick(["haspi, 0.5", "mehaml, none, gradient_step"]))
def test_soft_values_never_decrease_and_end_at_quantal_response_equilibria(name):
    row = run(name)
    check_monotonic(row)
    assert row["median_gap_at_first"] > 0.1
    assert row["gap"]["99%"] <= 1e-3
    assert row["gap"]["median"] <= 1e-6


def test_simultaneous_updates_do_decrease():
    row = run("simultaneous, none")
    assert row["games_with_a_fall_of_return"] >= 0.1 * GAMES
    assert row["largest_fall_of_return"] > 0.01


@pytest.mark.evidence
def test_wrong_drifts_break_what_their_axiom_protects():
    rows = {name: run(f"wrong, {name}") for name in ("negative", "offset", "kinked")}
    for name in ("negative", "offset"):
        assert rows[name]["games_with_a_fall_of_return"] >= 0.5 * GAMES
        assert rows[name]["share_of_gaps_within_1e-3"] < 0.8
    check_monotonic(rows["kinked"])  # it is non-negative and zero at the old policy, so Lemma 2 of haml holds
    assert rows["kinked"]["share_of_gaps_within_1e-3"] < 0.8


def test_histories_show_the_gap_of_every_policy():
    update = tabular.haml(tabular.kl_drift(0.1))

    @functools.partial(jax.jit, compiler_options=OPTIONS)
    def play(number):
        game, policy, key = theory.draw(number)
        history = tabular.iterate(update, game, policy, key, 30, gap=tabular.nash_gap)
        first, last = (tabular.nash_gap(game, joint) for joint in (policy, history.policy))
        return game, history, first, last, tabular.evaluate(game, history.policy).expected_return

    game, history, first, last, expected_return = play(3)
    assert history.expected_return.shape == history.gap.shape == (31,)
    np.testing.assert_allclose(history.gap[0], first, atol=1e-12)
    np.testing.assert_allclose(history.gap[-1], last, atol=1e-12)
    np.testing.assert_allclose(history.value @ game.initial, history.expected_return, atol=1e-12)
    np.testing.assert_allclose(history.expected_return[-1], expected_return, atol=1e-12)


# --- the matrix game of the HASAC paper -----------------------------------------------------------------------------

# α: agent 1 after its first update, both at convergence (hasac, Table 3), and the limits of E[r] and the soft
# objective.
TABLE = {
    1: ([0.9990, 0.0001, 0.0009], [1, 0, 0], 5.0000, 5.0000),
    2: ([0.9603, 0.0107, 0.0290], [1, 0, 0], 4.9996, 5.0000),
    5: ([0.7083, 0.1171, 0.1747], [0.9849, 0.0075, 0.0076], 4.2552, 5.1424),
    10: ([0.5254, 0.2136, 0.2609], [0.0221, 0.0224, 0.9555], 16.5501, 20.8032),
    15: ([0.4596, 0.2522, 0.2882], [0.1278, 0.1354, 0.7368], 2.6711, 25.4344),
    20: ([0.4269, 0.2722, 0.3009], [0.2514, 0.2790, 0.4697], -7.2625, 35.0652),
}


@pytest.fixture(scope="module")
def matrix_game():
    with jax.enable_x64(True):
        return theory.matrix_game(OPTIONS)


@pytest.mark.parametrize("alpha", TABLE)
def test_haspi_on_the_matrix_game_is_the_paper_s_table(matrix_game, alpha):
    row = matrix_game[str(alpha)]
    first, last, expected_reward, soft_objective = TABLE[alpha]
    np.testing.assert_allclose(row["agent_1_after_the_first_update"], first, rtol=0, atol=5e-5 + 1e-9)
    np.testing.assert_allclose(row["at_convergence"], [last, last], rtol=0, atol=5e-5 + 1e-9)
    np.testing.assert_allclose(row["expected_reward"], expected_reward, rtol=0, atol=1e-9)
    np.testing.assert_allclose(row["soft_objective"], soft_objective, rtol=0, atol=1e-9)


def test_equation_9_of_hasac_is_false_as_stated(matrix_game):
    """Proposition 1 of hasac says that one sequential soft update is the joint optimum. It is not; see theory.md."""
    row = matrix_game["5"]
    assert row["soft_objective_after_one_update"] == 2.5168
    assert row["best_soft_objective"] == 20.0067


def test_the_limits_are_quantal_response_equilibria():
    game = tabular.matrix_game(hasac_payoff())
    start = tabular.log_policy(jnp.tile(jnp.array([0.6, 0.2, 0.2]), (2, 1, 1)), game.action_mask[:, None])

    def solve(alpha):
        return tabular.iterate(
            tabular.haspi(alpha, order="fixed"),
            game,
            start,
            jax.random.key(0),
            400,
            gap=lambda game, policy: tabular.quantal_response_gap(game, policy, alpha),
        )

    history = jax.jit(jax.vmap(solve))(jnp.array([1.0, 5.0, 20.0]))
    assert (history.gap[:, 0] > 0.1).all()
    assert (history.gap[:, -1] <= 1e-8).all()
    assert (jnp.diff(history.value[..., 0]) >= -1e-9).all()
