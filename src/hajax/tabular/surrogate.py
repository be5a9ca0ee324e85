"""The surrogate of one agent at its update: the data that its drift, neighborhood and objective may use."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hajax.tabular.games import Game
from hajax.tabular.policies import average_over, entropy, own_action_values
from hajax.tabular.values import Values


class Surrogate(NamedTuple):
    """Agent i_m's exact surrogate in every state, given the new policies of the agents before it, π̄^{i_1:m−1}.

    `action_value` is E[A^{i_1:m}_π(s, a^{i_1:m−1}, a^{i_m})] over a^{i_1:m−1} ~ π̄. It differs from the agent's
    advantage by the gain of the earlier agents, which is constant in a^{i_m}, and so has the same maximizers.
    """

    action_value: jax.Array  # [S, A]
    gains: jax.Array  # [S, A], E[max(A^{i_1:m}, 0)]
    losses: jax.Array  # [S, A], E[max(−A^{i_1:m}, 0)]
    state_weight: jax.Array  # [S], ρ_π
    penalty: jax.Array  # [], C = 4 γ max|A_π| / (1 − γ)² (Kuba et al., 2022a, Theorem 1)
    mask: jax.Array  # bool [A]


def make_surrogate(
    game: Game,
    values: Values,
    policy: jax.Array,
    updated: jax.Array,
    agent: jax.Array,
    split: bool,
    weights: jax.Array | None = None,
) -> Surrogate:
    """The surrogate of `agent` (may be traced).

    Args:
      game: the game.
      values: of the old joint policy.
      policy: log-probabilities `[N, S, A]`, new for agents that are already updated and old for the others.
      updated: bool `[N]`, the agents that are already updated.
      agent: int [].
      split: whether `gains` and `losses` are needed; they are zero otherwise.
      weights: `[S, A, …, A]`, in place of the probabilities of the updated agents' joint action; see `tabular.guards`.
    """
    probabilities = jnp.exp(policy)
    others, factor = probabilities, jnp.ones(())
    if weights is not None:
        others, factor = jnp.where(updated[:, None, None], 1.0, probabilities), weights
    action_value = own_action_values(factor * values.advantage, others)[agent]
    gains = losses = jnp.zeros_like(action_value)
    if split:
        later = ~updated & (jnp.arange(game.num_agents) != agent)
        joint = average_over(values.advantage, probabilities, later)
        gains = own_action_values(factor * jnp.maximum(joint, 0), others)[agent]
        losses = own_action_values(factor * jnp.maximum(-joint, 0), others)[agent]
    return Surrogate(
        action_value, gains, losses, values.state_distribution, penalty(game, values), game.action_mask[agent]
    )


def penalty(game: Game, values: Values) -> jax.Array:
    """C = 4 γ max_{s,a} |A_π(s, a)| / (1 − γ)², scalar (Kuba et al., 2022a, Theorem 1 and Algorithm 1)."""
    largest = jnp.where(game.joint_mask, jnp.abs(values.advantage), 0).max()
    return 4 * game.discount * largest / (1 - game.discount) ** 2


def linear_part(new: jax.Array, surrogate: Surrogate, temperature: jax.Array | float) -> jax.Array:
    """E_{a~new}[action_value] + α H(new), `[S]`: the mirror operator without its drift."""
    return (jnp.exp(new) * surrogate.action_value).sum(-1) + temperature * entropy(new)


def ascent_direction(old: jax.Array, surrogate: Surrogate, temperature: jax.Array | float) -> jax.Array:
    """The derivative of `linear_part` by π(a|s) at the old policy, `[S, A]`, up to a constant per state."""
    return surrogate.action_value - temperature * old
