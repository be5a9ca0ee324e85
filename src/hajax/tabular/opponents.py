"""Agents with rewards of their own, and learners that anticipate each other's next step (LOLA), exactly."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hajax.tabular.games import Game, make_game
from hajax.tabular.policies import normalize
from hajax.tabular.values import evaluate


class GeneralSumGame(NamedTuple):
    """A finite Markov game whose agents have rewards of their own."""

    game: Game  # its reward is the agents' sum
    rewards: jax.Array  # [N, S, A, …, A]


class Learning(NamedTuple):
    """A learning process of K steps."""

    parameters: jax.Array  # [K + 1, N, S, A − 1]
    returns: jax.Array  # [K + 1, N], as by `expected_returns`


def iterated_game(payoffs: Any, discount: float) -> GeneralSumGame:
    """A matrix game that is played round after round by agents that remember the last round.

    State 0 is the first round, and state 1 + k the one after the k-th joint action, in C order: after CC, CD, DC, DD.

    Args:
        payoffs: `[N, A_1, …, A_N]`, the reward of each agent.
        discount: γ in [0, 1).

    Raises:
        ValueError: the payoffs have another shape, or as `make_game`.
    """
    payoffs = np.asarray(payoffs, dtype=float)
    if payoffs.ndim < 2 or payoffs.shape[0] != payoffs.ndim - 1:
        raise ValueError(f"payoffs has shape {payoffs.shape}; allowed: [N, A_1, ..., A_N], one table for each agent")
    widths = payoffs.shape[1:]
    outcomes = int(np.prod(widths))
    states = 1 + outcomes
    successor = np.eye(states)[1:].reshape(*widths, states)
    transition = np.broadcast_to(successor, (states, *widths, states))
    games = [
        make_game(np.broadcast_to(own, (states, *widths)), transition, np.eye(states)[0], discount) for own in payoffs
    ]
    rewards = jnp.stack([game.reward for game in games])
    return GeneralSumGame(games[0]._replace(reward=rewards.sum(0)), rewards)


def policy_of(played: GeneralSumGame, parameters: jax.Array) -> jax.Array:
    """Log-probabilities `[N, S, A]` of the logits `[N, S, A − 1]`; the logit of an agent's last action is 0.

    With two actions the first is chosen with the probability σ(θ), as in Foerster et al. (2018). Parameters of actions
    that an agent does not have are not used.
    """
    mask = played.game.action_mask
    last = jnp.arange(mask.shape[1]) == mask.sum(1, keepdims=True) - 1
    logits = jnp.concatenate([parameters, jnp.zeros_like(parameters[..., :1])], axis=-1)
    return normalize(jnp.where(last[:, None], 0, logits), mask[:, None])


def expected_returns(played: GeneralSumGame, policy: jax.Array) -> jax.Array:
    """Jⁱ(π) = E[Σ_t γᵗ rⁱ_t] of every agent, `[N]`, for log-probabilities `[N, S, A]`."""
    return jax.vmap(lambda own: evaluate(played.game._replace(reward=own), policy).expected_return)(played.rewards)


def lola_gradient(played: GeneralSumGame, parameters: jax.Array, lookahead: jax.Array | float) -> jax.Array:
    """The direction `[N, S, A − 1]` in which every agent i moves, if the others are to make a step of their own:

        ∇_i Jⁱ + η_i Σ_{j≠i} (∇_i ∇_j Jʲ) ∇_j Jⁱ

    Agent i anticipates that agent j moves by η_i ∇_j Jʲ, which depends on its own parameters. This is LOLA's exact form
    for two agents (Foerster et al., 2018, *Learning with Opponent-Learning Awareness*, https://arxiv.org/abs/1709.04326,
    Eqs. 4.3–4.5), and the sum of its terms for more. With η = 0 the agents are naive.

    Args:
        played: the game.
        parameters: logits, as in `policy_of`.
        lookahead: η, for all agents or for each, `[N]`.
    """

    def derivatives(parameters):
        return jax.jacrev(lambda own: expected_returns(played, policy_of(played, own)))(parameters)  # [N, N, S, A − 1]

    others = 1 - jnp.eye(parameters.shape[0])
    each = jnp.arange(parameters.shape[0])
    first = derivatives(parameters)

    def anticipated(parameters):
        """Σ_{j≠i} ∇_j Jⁱ · ∇_j Jʲ for every i, with the first factor held fixed."""
        steps = derivatives(parameters)[each, each]
        return (others * jnp.einsum("ij...,j...->ij", first, steps)).sum(1)

    second = jax.jacrev(anticipated)(parameters)
    eta = jnp.broadcast_to(jnp.asarray(lookahead), each.shape)
    return first[each, each] + eta[:, None, None] * second[each, each]


def learn(
    played: GeneralSumGame,
    parameters: jax.Array,
    steps: int,
    *,
    step_size: float = 1.0,
    lookahead: jax.Array | float = 1.0,
) -> Learning:
    """Simultaneous steps θ ← θ + δ · `lola_gradient` of all agents, from logits `[N, S, A − 1]`."""

    def step(parameters, _):
        returns = expected_returns(played, policy_of(played, parameters))
        return parameters + step_size * lola_gradient(played, parameters, lookahead), (parameters, returns)

    last, (before, returns) = lax.scan(step, parameters, None, steps)
    final = expected_returns(played, policy_of(played, last))
    return Learning(jnp.concatenate([before, last[None]]), jnp.concatenate([returns, final[None]]))
