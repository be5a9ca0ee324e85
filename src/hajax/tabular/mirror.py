"""Exact heterogeneous-agent mirror learning, with or without maximum entropy, and its histories."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hajax.core.sequential import ORDERS, draw_permutation, sequential_update
from hajax.tabular.drifts import Drift, Temperature, no_drift
from hajax.tabular.games import Game
from hajax.tabular.guards import Guard
from hajax.tabular.neighborhoods import Neighborhood, max_penalty, mirror_operator, no_neighborhood
from hajax.tabular.surrogate import make_surrogate
from hajax.tabular.values import Values, evaluate
from hajax.validation import check_choice, check_number


class Info(NamedTuple):
    """Diagnostics of an update."""

    values: Values  # of the joint policy before the update
    gain: jax.Array  # [N, S], increase of each agent's mirror operator (Kuba et al., 2022b, inequality (5))


@dataclasses.dataclass(frozen=True, eq=False)
class Update:
    """`update(key, game, policy) -> (policy, info)` of log-probabilities `[N, S, A]`; `jax.vmap` it over games."""

    apply: Callable[[jax.Array, Game, jax.Array], tuple[jax.Array, Info]]
    temperature: Temperature  # α of the values that are improved

    def __call__(self, key: jax.Array, game: Game, policy: jax.Array) -> tuple[jax.Array, Info]:
        return self.apply(key, game, policy)


def mehaml(
    drift: Drift | None = None,
    neighborhood: Neighborhood | None = None,
    *,
    temperature: Temperature = 0.0,
    order: str = "random",
    guard: Guard | None = None,
) -> Update:
    """One iteration of maximum entropy heterogeneous-agent mirror learning (Liu et al., 2024, Algorithm 1), exact.

    The agents of a permutation, one after another, maximize their mirror operator in every state,

        π^{i_m} = arg max over U(π_old^{i_m}) of E_β[E_{π̄^{i_1:m−1}, π}[A^{i_m}_{old}] + α H(π(·|s)) − D(π | s, π̄)],

    with π̄ the new policies of the agents before. α = 0 is HAML (Kuba et al., 2022b, Algorithm Template 1).

    Args:
      drift: D, `no_drift()` by default.
      neighborhood: U, all policies by default.
      temperature: α ≥ 0; may be traced if positive (a traced zero is not recognized, and may give NaN).
      order: `random` (a fresh permutation), `fixed` (0 … N−1), or `simultaneous`: every agent responds to the *old*
        policies of the others, for which nothing is proven.
      guard: weights in place of the compound ratio of the agents before, so that the expectation over their new
        policies is no longer exact; see `tabular.guards`. By default the ratio itself.

    Raises:
      ValueError: if the temperature is negative or the order unknown.
    """
    check_choice("order", order, ORDERS)
    if not isinstance(temperature, jax.core.Tracer):
        check_number("temperature", temperature, 0)
        temperature = float(temperature)  # a concrete array may hold a zero
    drift = no_drift() if drift is None else drift
    neighborhood = no_neighborhood() if neighborhood is None else neighborhood

    def update(key: jax.Array, game: Game, policy: jax.Array) -> tuple[jax.Array, Info]:
        values = evaluate(game, policy, temperature)

        def update_agent(old, agent, carry):
            policies, updated = carry
            weights = None
            if guard is not None:
                before = updated[:, None, None]
                weights = guard(*(jnp.where(before, jnp.exp(x), 1.0) for x in (policy, policies)))
            surrogate = make_surrogate(game, values, policies, updated, agent, drift.splits, weights)
            new = neighborhood(drift, old, surrogate, temperature)
            before, after = (mirror_operator(drift, own, old, surrogate, temperature) for own in (old, new))
            return new, (policies.at[agent].set(new), updated.at[agent].set(True)), after - before

        agents = jnp.arange(game.num_agents)
        permutation = draw_permutation(key, game.num_agents, order)
        none_updated = jnp.zeros(game.num_agents, bool)
        policy, _, gain = sequential_update(update_agent, permutation, policy, agents, (policy, none_updated))
        return policy, Info(values, gain)

    return Update(update, temperature)


def haml(
    drift: Drift | None = None,
    neighborhood: Neighborhood | None = None,
    *,
    order: str = "random",
    guard: Guard | None = None,
) -> Update:
    """One iteration of heterogeneous-agent mirror learning (Kuba et al., 2022b, Template 1): `mehaml` with α = 0."""
    return mehaml(drift, neighborhood, order=order, guard=guard)


def haspi(temperature: Temperature, *, order: str = "random") -> Update:
    """One iteration of heterogeneous-agent soft policy iteration (Liu et al., 2024, Eq. 8), α > 0.

    π^{i_m} ∝ exp(E_{a^{i_1:m−1}~π_new}[Q^{i_1:m}_old(s, a^{i_1:m−1}, ·)]/α): `mehaml` without drift and neighborhood.

    Raises:
      ValueError: if α is not positive or the order unknown.
    """
    if not isinstance(temperature, jax.core.Tracer):
        check_number("temperature", temperature, 0, open_low=True)
    return mehaml(temperature=temperature, order=order)


def multi_agent_policy_iteration(*, order: str = "random") -> Update:
    """Kuba et al., 2022a, Algorithm 1: L^{i_1:m}(π̄, π) − C max_s KL(π_old ‖ π) with C = 4γ max|A|/(1 − γ)².

    J never decreases, but the constant makes steps so small that no practical number of iterations comes near an
    equilibrium. The penalty couples the states and is not part of `Info.gain`, which is the advantage alone.
    """
    return haml(no_drift(), max_penalty(), order=order)


class History(NamedTuple):
    """The history of `iterate`: K updates and the K + 1 joint policies around them."""

    policy: jax.Array  # [N, S, A], log-probabilities of the last joint policy
    value: jax.Array  # [K + 1, S], V of π_0 … π_K (soft for α > 0)
    expected_return: jax.Array  # [K + 1], J
    gain: jax.Array  # [K, N, S], see `Info`
    gap: jax.Array | None  # [K + 1], or None without a `gap` function


def iterate(
    update: Update,
    game: Game,
    policy: jax.Array,
    key: jax.Array,
    num_iterations: int,
    *,
    gap: Callable[[Game, jax.Array], jax.Array] | None = None,
) -> History:
    """Applies an update K times.

    Args:
      update: from `haml`, `mehaml`, `haspi` or `multi_agent_policy_iteration`.
      game: one game; `jax.vmap` over games, policies and keys for a batch.
      policy: π_0, log-probabilities `[N, S, A]`.
      key: for the permutations.
      num_iterations: K.
      gap: `(game, policy) -> []`, computed for every policy, for example `nash_gap`.
    """

    def step(policies, key):
        _, policy = policies
        new_policy, info = update(key, game, policy)
        distance = None if gap is None else gap(game, policy)
        return (policy, new_policy), (info.values.value, info.values.expected_return, info.gain, distance)

    # One extra update, which is dropped, so that the last policy is evaluated by the same program.
    keys = jax.random.split(key, num_iterations)
    keys = jnp.concatenate([keys, key[None]])
    (last, _), (value, expected_return, gain, distances) = lax.scan(step, (policy, policy), keys)
    return History(last, value, expected_return, gain[:-1], distances)
