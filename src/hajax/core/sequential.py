"""The sequential update: groups of agents are updated one after another, given the new policies of the earlier ones.

All heterogeneous-agent algorithms share this scheme (Kuba et al., 2022a, Algorithms 1–3). It is a scan over a
permutation of stacked parameters. The carry is the compound ratio on-policy and the joint action off-policy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

ORDERS: tuple[str, ...] = ("random", "fixed", "simultaneous")
ORDERS_BY_SCORE: tuple[str, ...] = ("greedy", "semi_greedy")


def draw_permutation(key: jax.Array, num_groups: int, order: str, scores: jax.Array | None = None) -> jax.Array | None:
    """The update order, int `[G]`: a fresh permutation (`random`) or 0 … G−1 (`fixed`); `None` if `simultaneous`.

    `greedy` is by descending `scores` `[G]`. With `semi_greedy` the positions 0, 2, … have the best group that is left,
    and the others a random one (Wang et al., 2023, *Order Matters*: https://arxiv.org/abs/2302.06205). Ties are broken
    at random.
    """
    if order == "simultaneous":
        return None
    if order == "fixed" or num_groups == 1:
        return jnp.arange(num_groups)
    shuffled = jax.random.permutation(key, num_groups)
    if order == "random":
        return shuffled
    assert scores is not None
    # A NaN is the lowest score: the order is a permutation whatever the scores are.
    ranked = jnp.nan_to_num(scores, nan=-jnp.inf, neginf=-jnp.inf, posinf=jnp.inf)[shuffled]

    def take_next(position, carry):
        taken, left = carry
        best = left & (ranked == jnp.where(left, ranked, -jnp.inf).max())
        by_score = (order == "greedy") | (position % 2 == 0)
        first = jnp.argmax(jnp.where(by_score, best, left))
        return taken.at[position].set(first), left.at[first].set(False)

    start = jnp.zeros_like(shuffled), jnp.ones(num_groups, bool)
    return shuffled[lax.fori_loop(0, num_groups, take_next, start)[0]]


def sequential_update(
    update_group: Callable[[Any, Any, Any], tuple[Any, Any, Any]],
    permutation: jax.Array | None,
    states: Any,
    inputs: Any,
    carry: Any,
) -> tuple[Any, Any, Any]:
    """Updates G groups in the order of `permutation`, or simultaneously.

    Args:
      update_group: `(state, inputs, carry) -> (state, carry, info)`, the update of one group.
      permutation: int `[G]`, or `None` for simultaneous updates: every group gets the initial carry, which is returned
        unchanged. This is the simultaneous baseline (MAPPO for HAPPO).
      states: a tree with leading axis G: each group's parameters and optimizer state.
      inputs: a tree with leading axis G: each group's data and random key.
      carry: the initial carry, which each group passes to the next.

    Returns:
      `(states, carry, infos)`: the new states and the groups' info, both in the order of the groups (not of the
      permutation), and the last carry.
    """
    if permutation is None:

        def update_alone(_, group):
            state, inputs = group
            state, _, info = update_group(state, inputs, carry)
            return None, (state, info)

        _, (states, infos) = lax.scan(update_alone, None, (states, inputs))
        return states, carry, infos

    def update_next(carry, group):
        state, inputs = group
        state, carry, info = update_group(state, inputs, carry)
        return carry, (state, info)

    in_order = jax.tree.map(lambda x: jnp.asarray(x)[permutation], (states, inputs))
    carry, results = lax.scan(update_next, carry, in_order)
    states, infos = jax.tree.map(lambda x: jnp.zeros_like(x).at[permutation].set(x), results)
    return states, carry, infos
