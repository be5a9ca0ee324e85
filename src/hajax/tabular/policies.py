"""Joint policies of a finite game, as log-probabilities, and expectations under them.

A joint policy is `[N, S, A]`, log πⁱ(aⁱ | s). Exact updates drive probabilities to zero, from which a multiplicative
update cannot recover although a later change of the other agents may require it. Every action therefore keeps the
probability e^`LOG_LEAST`, far below the rounding of values; actions that an agent does not have stay at `LOG_ZERO`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hajax.tabular.games import Game

# Represents log 0: its exp is exactly 0, and the difference of two such entries is 0, not NaN.
LOG_ZERO = -1e4
LOG_LEAST = -600.0


def normalize(log_weights: jax.Array, mask: jax.Array) -> jax.Array:
    """Log-probabilities `[…, A]` in proportion to exp(log_weights) over the actions of `mask`."""
    weights = jnp.where(mask, log_weights, -jnp.inf)
    log_probs = weights - jax.scipy.special.logsumexp(weights, axis=-1, keepdims=True)
    return jnp.where(mask, jnp.maximum(log_probs, LOG_LEAST), LOG_ZERO)


def log_policy(probabilities: jax.Array, mask: jax.Array) -> jax.Array:
    """The log-probabilities of probabilities `[…, A]`, renormalized over the actions of `mask`."""
    return normalize(jnp.maximum(jnp.log(jnp.maximum(probabilities, 0)), LOG_ZERO), mask)


def uniform_policy(game: Game) -> jax.Array:
    """Log-probabilities `[N, S, A]` of every agent's uniform policy."""
    mask = jnp.broadcast_to(game.action_mask[:, None], (game.num_agents, *game.initial.shape, game.reward.shape[-1]))
    return normalize(jnp.zeros(mask.shape), mask)


def random_policy(key: jax.Array, game: Game) -> jax.Array:
    """Log-probabilities `[N, S, A]`, uniform on the simplex of the agents' actions."""
    policy = uniform_policy(game)
    weights = -jnp.log1p(-jax.random.uniform(key, policy.shape))
    return normalize(jnp.log(jnp.maximum(weights, jnp.finfo(weights.dtype).tiny)), game.action_mask[:, None])


def joint_probabilities(probabilities: jax.Array) -> jax.Array:
    """π(a|s) = Π_i πⁱ(aⁱ|s), `[S, A, …, A]`, of `[N, S, A]`."""
    num_agents, num_states, _ = probabilities.shape
    joint = jnp.ones((num_states,) + (1,) * num_agents, probabilities.dtype)
    for agent in range(num_agents):  # static and small: every agent has its own axis
        joint = joint * _along(probabilities[agent], agent, joint.ndim)
    return joint


def average_over(table: jax.Array, probabilities: jax.Array, agents: jax.Array) -> jax.Array:
    """E over the actions of `agents` (bool `[N]`, may be traced) of a table `[S, A, …, A]`, in the same shape.

    With the complement of i_1:m for `agents` and Q for the table this is the multi-agent Q^{i_1:m}.
    """
    for agent in range(probabilities.shape[0]):
        weights = _along(probabilities[agent], agent, table.ndim)
        table = jnp.where(agents[agent], (weights * table).sum(agent + 1, keepdims=True), table)
    return table


def own_action_values(table: jax.Array, probabilities: jax.Array) -> jax.Array:
    """E over the *other* agents' actions of a table `[S, A, …, A, …]`, for every agent: `[N, S, A, …]`.

    Recursive: the tensor is averaged over one half of the agents for the results of the other half, which costs two
    passes over it instead of N.
    """

    def serve(table, agents):
        if len(agents) == 1:
            return [table]
        middle = len(agents) // 2
        first, second = agents[:middle], agents[middle:]
        return serve(average(table, len(first), second), first) + serve(average(table, 0, first), second)

    def average(table, axis, agents):
        for agent in agents:
            table = (_along(probabilities[agent], axis, table.ndim) * table).sum(axis + 1)
        return table

    return jnp.stack(serve(table, list(range(probabilities.shape[0]))))


def _along(own: jax.Array, axis: int, ndim: int) -> jax.Array:
    """`[S, A]` as a table that varies along an agent's axis only."""
    return own.reshape(own.shape[0], *(1,) * axis, own.shape[1], *(1,) * (ndim - axis - 2))


def entropy(log_probs: jax.Array) -> jax.Array:
    """H = −Σ_a π log π over the last axis; actions that do not exist contribute nothing."""
    return -(jnp.exp(log_probs) * log_probs).sum(-1)


def kl_divergence(first: jax.Array, second: jax.Array) -> jax.Array:
    """KL(first ‖ second) of log-probabilities over the last axis, exact up to rounding for steps of any size.

    Computed as Σ p (e^w − 1 − w) with w = log q/p. Each term is non-negative, and a short series replaces it where w is
    so small that the difference would cancel (the steps of Algorithm 1 have divergences below 1e-12).
    """
    w = second - first
    series = w * w * (1 / 2 + w * (1 / 6 + w * (1 / 24 + w * (1 / 120 + w * (1 / 720 + w * (1 / 5040 + w / 40320))))))
    first_probs = jnp.exp(first)
    plain = jnp.exp(second) - first_probs - first_probs * w
    return jnp.where(jnp.abs(w) < 0.05, first_probs * series, plain).sum(-1)
