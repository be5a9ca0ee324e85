"""Exact values of a joint policy, with or without an entropy bonus, without LAPACK so that they can be vmapped."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hajax.tabular.games import Game
from hajax.tabular.policies import average_over, entropy, joint_probabilities


class Values(NamedTuple):
    """The values of a joint policy π at temperature α (α = 0: the standard objective)."""

    value: jax.Array  # [S], V_π(s) = E[Q_π(s, a)] + α Σ_i H(πⁱ(·|s))
    q: jax.Array  # [S, A, …, A], Q_π(s, a) = r + γ E[V_π(s')]
    advantage: jax.Array  # [S, A, …, A], Q_π(s, a) − E_π[Q_π(s, ·)]
    expected_return: jax.Array  # [], J(π) = E_{s~d}[V_π(s)]
    state_distribution: jax.Array  # [S], the improper ρ_π(s) = Σ_t γᵗ Pr(s_t = s)


def solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
    """x `[S]` with matrix · x = right, by Gauss–Jordan elimination.

    Pivoting is not needed for I − γP and its transpose: one is diagonally dominant by rows, the other by columns.
    Batched LAPACK calls inside one compiled program can deadlock on CPUs with few cores.
    """
    table = jnp.concatenate([matrix, right[:, None]], axis=1)
    for k in range(matrix.shape[0]):
        row = table[k] / table[k, k]
        reduced = table - table[:, k, None] * row
        table = jnp.where((jnp.arange(matrix.shape[0]) == k)[:, None], row, reduced)
    return table[:, -1]


def evaluate(game: Game, policy: jax.Array, temperature: jax.Array | float = 0.0) -> Values:
    """Values of the joint policy `[N, S, A]` (log-probabilities) from the Bellman equation V = r_π + α H + γ P_π V.

    With α > 0 these are the soft values of Liu et al. (2024), *Maximum Entropy Heterogeneous-Agent Reinforcement
    Learning*, Eqs. 4–6: Q does not contain the entropy of its own action, V does.
    """
    probabilities = jnp.exp(policy)
    states = game.initial.shape[0]
    joint = joint_probabilities(probabilities)
    weights = joint.reshape(states, -1)
    transition = game.transition.reshape(states, -1, states)
    policy_transition = (weights[..., None] * transition).sum(1)
    policy_reward = (joint * game.reward).reshape(states, -1).sum(1) + temperature * entropy(policy).sum(0)
    system = jnp.eye(states) - game.discount * policy_transition
    value = solve(system, policy_reward)
    q = soft_bellman_target(game, value)
    advantage = q - (weights * q.reshape(states, -1)).sum(1).reshape(states, *(1,) * game.num_agents)
    return Values(value, q, advantage, game.initial @ value, solve(system.T, game.initial))


def soft_bellman_target(game: Game, value: jax.Array) -> jax.Array:
    """r(s, a) + γ E[V(s')], `[S, A, …, A]` (Liu et al., 2024, Eq. 5, for a value `[S]` that may contain entropies)."""
    return game.reward + game.discount * (game.transition * value).sum(-1)


def soft_bellman(game: Game, policy: jax.Array, q: jax.Array, temperature: jax.Array | float = 0.0) -> jax.Array:
    """The soft Bellman operator Γ_π (Liu et al., 2024, Eqs. 5–6) on a table `[S, A, …, A]`: a γ-contraction to Q_π."""
    joint = joint_probabilities(jnp.exp(policy))
    expected = (joint * q).reshape(q.shape[0], -1).sum(1)
    return soft_bellman_target(game, expected + temperature * entropy(policy).sum(0))


def multi_agent_q(q: jax.Array, policy: jax.Array, agents: jax.Array) -> jax.Array:
    """Q^{i_1:m}_π(s, a^{i_1:m}) = E over the other agents' actions, for i_1:m given by bool `agents` `[N]`.

    Of shape `[S, A, …, A]`, constant along the axes of the others (Kuba et al., 2022a, Definition 1; for soft values
    without the entropies of the others, which are constant in a^{i_1:m}).
    """
    return average_over(q, jnp.exp(policy), ~agents)


def multi_agent_advantage(q: jax.Array, policy: jax.Array, given: jax.Array, agents: jax.Array) -> jax.Array:
    """A^{i_1:m}_π(s, a^{j_1:k}, a^{i_1:m}) = Q^{j_1:k, i_1:m} − Q^{j_1:k}, `[S, A, …, A]` (Kuba et al., 2022a, Eq. 1).

    Args:
      q: Q_π, `[S, A, …, A]`.
      policy: log-probabilities `[N, S, A]`.
      given, agents: bool `[N]`, the disjoint sets j_1:k and i_1:m.
    """
    return multi_agent_q(q, policy, given | agents) - multi_agent_q(q, policy, given)
