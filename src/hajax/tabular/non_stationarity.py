"""How an agent's environment changes when the other agents' policies do, exactly, beside their divergence."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hajax.tabular.games import Game
from hajax.tabular.policies import kl_divergence, own_action_values


class Variation(NamedTuple):
    """The change of what each agent faces between two joint policies, `[N]`."""

    reward: jax.Array  # max over s, aⁱ of |r'ⁱ(s, aⁱ) − rⁱ(s, aⁱ)|, a summand of the budget B_r
    transition: jax.Array  # max over s, aⁱ of ‖P'ⁱ(·|s, aⁱ) − Pⁱ(·|s, aⁱ)‖₁, a summand of the budget B_p
    others_kl: jax.Array  # max over s of KL(π^{−i}(·|s) ‖ π'^{−i}(·|s)), in nats


def variation(game: Game, old: jax.Array, new: jax.Array) -> Variation:
    """The variation between two joint policies, log-probabilities `[N, S, A]`.

    To agent i the others' policies are a part of the environment, with the reward rⁱ(s, aⁱ) = E[r(s, aⁱ, a^{−i})] and
    the transition Pⁱ(s' | s, aⁱ) = E[P(s' | s, aⁱ, a^{−i})] over a^{−i} ~ π^{−i}. Sums of their variations over a
    learning process bound its dynamic regret (*Dealing with Non-Stationarity in MARL via Trust-Region Decomposition*,
    https://arxiv.org/abs/2102.10616, appendix E), and the divergence of the others bounds the variations:

        transition ≤ √2 · √others_kl,    reward ≤ √2 · max|r| · √others_kl

    √2 is the constant of Pinsker's inequality. The paper has 2 ln 2 ≈ 1.386, which is too small where that is tight.
    """
    reward, transition = (
        own_action_values(table, jnp.exp(new)) - own_action_values(table, jnp.exp(old))
        for table in (game.reward, game.transition)
    )
    divergence = jnp.where(game.state_mask, kl_divergence(old, new), 0)  # [N, S]
    exists = game.state_mask[:, None] & game.action_mask[:, None]
    return Variation(
        jnp.where(exists, jnp.abs(reward), 0).max((1, 2)),
        jnp.where(exists, jnp.abs(transition).sum(-1), 0).max((1, 2)),
        ((1 - jnp.eye(len(divergence))) @ divergence).max(1),  # of independent policies divergences add up
    )
