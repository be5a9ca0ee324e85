"""Finite cooperative Markov games as arrays, padded so that games of different sizes are one batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hajax.validation import check_number


class Game(NamedTuple):
    """A cooperative Markov game ⟨N, S, A, r, P, γ, d⟩ (Kuba et al., 2022b, *Heterogeneous-Agent Mirror Learning*, §2).

    Every agent has its own axis of joint actions, of the common width A; entries that no agent can reach are zero.
    Padding is exact: an absent agent has one action and an absent state is never entered, so every value, advantage and
    update of the padded game equals that of the game. Use `jax.vmap` for batches.
    """

    reward: jax.Array  # [S, A, …, A], r(s, a) of the team
    transition: jax.Array  # [S, A, …, A, S], P(s' | s, a)
    initial: jax.Array  # [S], the distribution d of the first state
    discount: jax.Array  # []
    action_mask: jax.Array  # bool [N, A], the actions that an agent has
    state_mask: jax.Array  # bool [S]

    @property
    def num_agents(self) -> int:
        """N, including padded agents."""
        return self.action_mask.shape[-2]

    @property
    def joint_mask(self) -> jax.Array:
        """Bool `[S, A, …, A]`: states and joint actions that exist."""
        mask = self.state_mask
        for agent_mask in self.action_mask:
            mask = mask[..., None] & agent_mask
        return mask

    @property
    def reward_range(self) -> jax.Array:
        """max r − min r over existing states and actions, the unit of gaps."""
        exists = self.joint_mask
        low = jnp.where(exists, self.reward, jnp.inf).min()
        return jnp.where(exists, self.reward, -jnp.inf).max() - low


def make_game(reward: Any, transition: Any, initial: Any, discount: float) -> Game:
    """A game from unpadded arrays; agents may have different numbers of actions.

    Args:
      reward: `[S, A_1, …, A_N]`.
      transition: `[S, A_1, …, A_N, S]`, distributions over the last axis.
      initial: `[S]`, a distribution.
      discount: γ in [0, 1).

    Raises:
      ValueError: if shapes disagree, a number is not finite, a distribution is invalid, or γ is out of range.
    """
    reward, transition, initial = (np.asarray(x, dtype=float) for x in (reward, transition, initial))
    check_number("discount", discount, 0, np.nextafter(1, 0))
    if reward.ndim < 2:
        raise ValueError(f"reward has shape {reward.shape}; allowed: [S, A_1, ..., A_N] with at least one agent")
    states, *widths = reward.shape
    for name, array, shape in (("transition", transition, (*reward.shape, states)), ("initial", initial, (states,))):
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}; allowed: {shape}, from reward's {reward.shape}")
        if not (np.all(array >= 0) and np.allclose(array.sum(-1), 1, 0, 1e-6)):
            raise ValueError(f"{name} is not a distribution over its last axis")
    if not np.isfinite(reward).all():
        raise ValueError("reward is not finite; allowed: finite numbers")
    width = max(widths)
    room = [(0, 0), *((0, width - own) for own in widths)]
    return Game(
        jnp.asarray(np.pad(reward, room)),
        jnp.asarray(np.pad(transition, [*room, (0, 0)])),
        jnp.asarray(initial),
        jnp.asarray(float(discount)),
        jnp.asarray(np.arange(width) < np.array(widths)[:, None]),
        jnp.ones(states, bool),
    )


def matrix_game(payoff: Any, discount: float = 0.0) -> Game:
    """The single-state game of the tensor `payoff` `[A_1, …, A_N]`; with γ = 0 its value is E[r], that of one round.

    Raises:
      ValueError: as `make_game`.
    """
    reward = np.asarray(payoff, dtype=float)[None]
    return make_game(reward, np.ones((*reward.shape, 1)), np.ones(1), discount)


def pad_game(game: Game, num_states: int, num_agents: int, num_actions: int) -> Game:
    """The same game in arrays of a larger common shape.

    Raises:
      ValueError: if a size is smaller than the game's.
    """
    agents, actions = game.action_mask.shape
    states = game.state_mask.shape[0]
    for name, size, least in (
        ("num_states", num_states, states),
        ("num_agents", num_agents, agents),
        ("num_actions", num_actions, actions),
    ):
        check_number(name, size, least, whole=True)
    absent, more_actions, more_states = num_agents - agents, num_actions - actions, num_states - states
    # An absent agent's axis has one action, the first.
    room = [(0, more_states), *[(0, more_actions)] * agents, *[(0, num_actions - 1)] * absent]
    one = (1,) * absent
    reward = game.reward.reshape(*game.reward.shape, *one)
    transition = game.transition.reshape(*game.reward.shape, *one, states)
    own = jnp.pad(game.action_mask, [(0, 0), (0, more_actions)])
    only_first = jnp.broadcast_to(jnp.arange(num_actions) == 0, (absent, num_actions))
    return game._replace(
        reward=jnp.pad(reward, room),
        transition=jnp.pad(transition, [*room, (0, more_states)]),
        initial=jnp.pad(game.initial, (0, more_states)),
        action_mask=jnp.concatenate([own, only_first]),
        state_mask=jnp.pad(game.state_mask, (0, more_states)),
    )


def random_game(
    key: jax.Array,
    num_agents: Sequence[int] = (2, 4),
    num_actions: Sequence[int] = (2, 4),
    num_states: Sequence[int] = (1, 6),
    discount: Sequence[float] = (0.5, 0.95),
) -> Game:
    """A random game in arrays of the largest size, so that `jax.vmap(random_game)(keys)` is a batch of games.

    The numbers of agents, of states and of every agent's actions are uniform in their (inclusive) ranges, and so is γ.
    Rewards are uniform in [−1, 1]. A transition is E^k/Σ E^k of exponential variables E, uniform on the simplex for
    k = 1 and nearly deterministic for larger k, which is uniform in [1, 5]. Initial states are uniform on the
    simplex, positive.

    Args:
      key: the random key of the game.
      num_agents, num_actions, num_states, discount: the ranges, (least, greatest).

    Raises:
      ValueError: if a range is empty or out of bounds.
    """
    for name, (low, high) in (("num_agents", num_agents), ("num_actions", num_actions), ("num_states", num_states)):
        check_number(name, low, 1, whole=True)
        check_number(name, high, low, whole=True)
    check_number("discount", discount[0], 0)
    check_number("discount", discount[1], discount[0], np.nextafter(1, 0))
    agents, actions, states = num_agents[1], num_actions[1], num_states[1]
    shape = (states,) + (actions,) * agents
    sizes = np.array([agents, 1, 1, 1, 1, states, math.prod(shape), math.prod(shape) * states])
    # A single draw, because each call of a generator adds seconds of compilation.
    parts = jnp.split(jax.random.uniform(key, (sizes.sum(),)), np.cumsum(sizes)[:-1])
    own_actions, team, number, place, exponent, initial, reward, transition = parts

    def whole(uniform, bounds):
        low, high = bounds
        return jnp.minimum(low + jnp.floor(uniform * (high - low + 1)), high)

    def scaled(uniform, low, high):
        return low + (high - low) * uniform

    present = jnp.arange(agents) < whole(team, num_agents)
    state_mask = jnp.arange(states) < whole(number, num_states)
    sharpness = scaled(exponent, 1.0, 5.0)
    next_state = (-jnp.log1p(-transition.reshape(*shape, states))) ** sharpness * state_mask
    first_state = -jnp.log1p(-initial) * state_mask
    game = Game(
        reward=scaled(reward.reshape(shape), -1.0, 1.0),
        transition=next_state / next_state.sum(-1, keepdims=True),
        initial=first_state / first_state.sum(),
        discount=scaled(place[0], *discount),
        action_mask=jnp.arange(actions) < jnp.where(present, whole(own_actions, num_actions), 1)[:, None],
        state_mask=state_mask,
    )
    exists = game.joint_mask
    return game._replace(
        reward=jnp.where(exists, game.reward, 0), transition=jnp.where(exists[..., None], game.transition, 0)
    )
