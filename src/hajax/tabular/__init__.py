"""Exact mirror learning on finite cooperative games: the theory of the papers, executable.

    import jax
    from hajax import tabular

    jax.config.update("jax_enable_x64", True)
    game_key, policy_key, key = jax.random.split(jax.random.key(0), 3)
    game = tabular.random_game(game_key)
    update = tabular.haml(tabular.kl_drift(0.1))
    history = tabular.iterate(update, game, tabular.random_policy(policy_key, game), key, 300, gap=tabular.nash_gap)
    history.expected_return  # [301], never decreases
    history.gap  # [301], converges to 0

Games are padded to one shape, so that `jax.vmap` evaluates ten thousand of them in one call. Everything is exact up to
rounding; use float64 for the inequalities of the proofs.
"""

from hajax.tabular import guards, opponents
from hajax.tabular.drifts import (
    Drift,
    clip_drift,
    kl_drift,
    no_drift,
    reverse_kl_drift,
    squared_log_ratio_drift,
    tsallis_drift,
)
from hajax.tabular.games import Game, make_game, matrix_game, pad_game, random_game
from hajax.tabular.gaps import best_responses, nash_gap, quantal_response, quantal_response_gap
from hajax.tabular.mirror import History, Info, Update, haml, haspi, iterate, mehaml, multi_agent_policy_iteration
from hajax.tabular.neighborhoods import gradient_step, kl_ball, mirror_operator, no_neighborhood, trust_region
from hajax.tabular.non_stationarity import Variation, variation
from hajax.tabular.policies import log_policy, random_policy, uniform_policy
from hajax.tabular.surrogate import Surrogate, make_surrogate
from hajax.tabular.values import (
    Values,
    evaluate,
    multi_agent_advantage,
    multi_agent_q,
    soft_bellman,
)
from hajax.tabular.wrong_drifts import kinked_drift, negative_drift, offset_drift

__all__ = [
    "Drift",
    "Game",
    "History",
    "Info",
    "Surrogate",
    "Update",
    "Values",
    "Variation",
    "best_responses",
    "clip_drift",
    "evaluate",
    "gradient_step",
    "guards",
    "haml",
    "haspi",
    "iterate",
    "kinked_drift",
    "kl_ball",
    "kl_drift",
    "log_policy",
    "make_game",
    "make_surrogate",
    "matrix_game",
    "mehaml",
    "mirror_operator",
    "multi_agent_advantage",
    "multi_agent_policy_iteration",
    "multi_agent_q",
    "nash_gap",
    "negative_drift",
    "no_drift",
    "no_neighborhood",
    "offset_drift",
    "opponents",
    "pad_game",
    "quantal_response",
    "quantal_response_gap",
    "random_game",
    "random_policy",
    "reverse_kl_drift",
    "soft_bellman",
    "squared_log_ratio_drift",
    "trust_region",
    "tsallis_drift",
    "uniform_policy",
    "variation",
]
