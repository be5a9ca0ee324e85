"""The distance of a joint policy from an equilibrium: the Nash gap and the quantal-response gap."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from hajax.tabular.games import Game
from hajax.tabular.policies import normalize, own_action_values
from hajax.tabular.values import evaluate, solve


def best_responses(game: Game, policy: jax.Array) -> jax.Array:
    """max over πⁱ of V_{πⁱ, π^{−i}}(s) for every agent, `[N, S]`: the best value with the others' policies fixed.

    Computed by policy iteration, which is exact, on agent i's Markov decision process given the others' policies.
    """
    probabilities = jnp.exp(policy)
    reward = own_action_values(game.reward, probabilities)  # [N, S, A]
    transition = own_action_values(game.transition, probabilities)  # [N, S, A, S]
    states = jnp.arange(game.initial.shape[0])
    precision = 32 * jnp.finfo(reward.dtype).eps

    def respond(reward, transition, mask, policy):
        def q_of(value):
            return jnp.where(mask, reward + game.discount * transition @ value, -jnp.inf)

        def value_of(actions):
            chosen = transition[states, actions]
            return solve(jnp.eye(states.size) - game.discount * chosen, reward[states, actions])

        def improve(carry):
            actions, value, _ = carry
            q = q_of(value)
            # Actions change only for a gain beyond rounding, so that ties cannot cycle. Larger errors of the solution
            # cannot cycle either, because then the actions stay.
            gain = q.max(-1) - value
            better = jnp.where(gain > precision * (1 + jnp.abs(value).max()), q.argmax(-1), actions)
            return better, value_of(better), (better != actions).any()

        actions = jnp.where(mask, policy, -jnp.inf).argmax(-1)
        start = actions, value_of(actions), jnp.ones((), bool)
        return lax.while_loop(lambda carry: carry[2], improve, start)[1]

    return jax.vmap(respond)(reward, transition, game.action_mask, policy)


def nash_gap(game: Game, policy: jax.Array) -> jax.Array:
    """max_i [max_{πⁱ} J(πⁱ, π^{−i}) − J(π)], scalar: zero exactly at Nash equilibria (Kuba et al., 2022b, §2).

    Args:
      game: one game; `jax.vmap` for a batch.
      policy: log-probabilities `[N, S, A]`.
    """
    return (best_responses(game, policy) @ game.initial).max() - evaluate(game, policy).expected_return


def quantal_response(game: Game, policy: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """The responses exp(E_{a^{−i}~π^{−i}}[Q_π(s, aⁱ, a^{−i})]/α)/Z, `[N, S, A]` (Liu et al., 2024, Theorem 1)."""
    q = own_action_values(evaluate(game, policy, temperature).q, jnp.exp(policy))
    return normalize(q / temperature, game.action_mask[:, None])


def quantal_response_gap(game: Game, policy: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """max |πⁱ(aⁱ|s) − response| over agents, states and actions, scalar: zero exactly at quantal response equilibria.

    The response is the closed form of Liu et al., 2024, Theorem 1; α must be positive.
    """
    reply = quantal_response(game, policy, temperature)
    distance = jnp.abs(jnp.exp(policy) - jnp.exp(reply)).max((0, 2))
    return jnp.where(game.state_mask, distance, 0).max()
