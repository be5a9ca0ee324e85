"""How far a joint policy is from an equilibrium: the Nash gap and the quantal-response gap."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from hajax.tabular.games import Game
from hajax.tabular.policies import normalize, own_action_values
from hajax.tabular.values import evaluate, solve


def best_responses(game: Game, policy: jax.Array) -> jax.Array:
    """max over πⁱ of V_{πⁱ, π^{−i}}(s) for every agent, `[N, S]`: what each could reach if the others stayed.

    By policy iteration, which is exact, on the Markov decision process that the others' policies make for agent i.
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
            # Only a gain beyond rounding moves on, so that ties cannot cycle; nor can an error of the solution that is
            # larger than that, for then the actions stay.
            gain = q.max(-1) - value
            better = jnp.where(gain > precision * (1 + jnp.abs(value).max()), q.argmax(-1), actions)
            return better, value_of(better), (better != actions).any()

        actions = jnp.where(mask, policy, -jnp.inf).argmax(-1)
        start = actions, value_of(actions), jnp.ones((), bool)
        return lax.while_loop(lambda carry: carry[2], improve, start)[1]

    return jax.vmap(respond)(reward, transition, game.action_mask, policy)


def nash_gap(game: Game, policy: jax.Array) -> jax.Array:
    """max_i [max_{πⁱ} J(πⁱ, π^{−i}) − J(π)], scalar: zero exactly at Nash equilibria (haml, §2).

    Args:
      game: one game; `jax.vmap` for a batch.
      policy: log-probabilities `[N, S, A]`.
    """
    return (best_responses(game, policy) @ game.initial).max() - evaluate(game, policy).expected_return


def quantal_response(game: Game, policy: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """Every agent's Boltzmann reply, exp(E_{a^{−i}~π^{−i}}[Q_π(s, aⁱ, a^{−i})]/α)/Z (hasac, Theorem 1), `[N, S, A]`."""
    q = own_action_values(evaluate(game, policy, temperature).q, jnp.exp(policy))
    return normalize(q / temperature, game.action_mask[:, None])


def quantal_response_gap(game: Game, policy: jax.Array, temperature: jax.Array | float) -> jax.Array:
    """max |πⁱ(aⁱ|s) − reply| over agents, states and actions, scalar: zero exactly at quantal response equilibria.

    The reply is the closed form of Theorem 1 of hasac; α must be positive.
    """
    reply = quantal_response(game, policy, temperature)
    distance = jnp.abs(jnp.exp(policy) - jnp.exp(reply)).max((0, 2))
    return jnp.where(game.state_mask, distance, 0).max()
