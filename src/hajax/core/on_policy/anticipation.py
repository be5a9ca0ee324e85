"""Learners that anticipate each other's next step, by derivatives of a sampled objective (LOLA with DiCE)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hajax.core.actors import TeamActors
from hajax.core.algorithm import Algorithm
from hajax.core.batches import OnPolicyBatch
from hajax.core.losses import weighted_mean
from hajax.core.observation_moments import ObservationMoments, with_running_moments
from hajax.core.on_policy.settings import LolaHyperparameters, LolaSettings
from hajax.core.on_policy.template import ActExtras
from hajax.core.optimization import Learner, adam_step, decayed, init_learner
from hajax.core.settings import as_arrays
from hajax.nn import distributions
from hajax.spec import Timestep


class LolaState(NamedTuple):
    """The learner state. It contains the hyperparameters, so a sweep is a `vmap`."""

    actors: Learner  # stacked [N, …]
    updates: jax.Array  # int []: the number of updates so far
    hyperparameters: Any
    moments: ObservationMoments | None = None  # if observations are normalized


def make_algorithm(
    name: str, settings: LolaSettings, hyperparameters: LolaHyperparameters, actors: TeamActors
) -> Algorithm:
    """The algorithm with these actors, one per agent. See `hajax.algorithms.lola.lola`.

    Raises:
      ValueError: a hyperparameter is out of range.
    """
    hyperparameters.validate()
    spec, defaults = actors.spec, hyperparameters

    def init(key: jax.Array, hyperparameters: Any = None) -> LolaState:
        chosen = as_arrays(defaults if hyperparameters is None else hyperparameters)
        return LolaState(jax.vmap(init_learner)(actors.init(key)), jnp.zeros((), int), chosen)

    def act(key: jax.Array, state: LolaState, timestep: Timestep, memory: Any, deterministic: bool = False):
        action, log_prob, memory = actors.act(key, state.actors.params, timestep, memory, deterministic)
        return action, ActExtras(log_prob), memory

    def update(key: jax.Array, state: LolaState, batch: OnPolicyBatch) -> tuple[LolaState, dict[str, jax.Array]]:
        mask = batch.action_mask if spec.masks_actions else None
        active = batch.active.astype(batch.reward.dtype)

        def returns(params: Any) -> jax.Array:
            parameters, _ = actors.team_distribution(params, batch.observation, mask)
            log_prob = active * distributions.log_prob(parameters, actors.layout, batch.action)
            return dice_returns(log_prob, batch.reward, batch.first, state.hyperparameters.discount)

        directions = lola_directions(returns, state.actors.params, state.hyperparameters.lookahead)
        h = state.hyperparameters
        rate = decayed(h.actor_lr, state.updates, h.decay_updates)
        step = jax.vmap(adam_step, in_axes=(0, 0, None, None, None))
        learners, norm = step(state.actors, jax.tree.map(jnp.negative, directions), rate, h.max_grad_norm, h.adam_eps)
        parameters, _ = actors.team_distribution(state.actors.params, batch.observation, mask)
        entropy = distributions.entropy(parameters, actors.layout)
        info = {
            "discounted_return": returns(state.actors.params),
            "entropy": jax.vmap(weighted_mean, in_axes=-1)(entropy, active),
            "actor_grad_norm": norm,
        }
        return state._replace(actors=learners, updates=state.updates + 1), info

    algorithm = Algorithm(name, "on_policy", spec, settings, defaults, init, actors.initial_memory, act, update)
    return with_running_moments(algorithm, actors.groups, update_first=False)


def lola_directions(returns: Callable[[Any], jax.Array], params: Any, lookahead: jax.Array | float) -> Any:
    """The direction of every agent, a tree like `params`, from `returns(params) -> [N]` and parameters `[N, …]`."""

    def own(jacobian: Any) -> Any:
        """Derivatives `[N, N, …]` of each agent's quantity by its own parameters, `[N, …]`."""
        return jax.tree.map(lambda x: x[jnp.arange(len(x)), jnp.arange(len(x))], jacobian)

    first = jax.jacrev(returns)(params)

    def anticipated(params: Any) -> jax.Array:
        """Σ_{j≠i} ∇_j Jⁱ · ∇_j Jʲ for every i, with the first factor held fixed, `[N]`."""
        steps = own(jax.jacrev(returns)(params))
        products = jax.tree.map(lambda x, y: (x * y).reshape(*x.shape[:2], -1).sum(-1), first, steps)
        by_pairs = jnp.sum(jnp.stack(jax.tree.leaves(products)), 0)  # [N, N]
        return jnp.sum(by_pairs * (1 - jnp.eye(len(by_pairs))), 1)

    second = jax.jacrev(anticipated)(params)
    return jax.tree.map(lambda x, y: x + lookahead * y, own(first), own(second))


def dice_returns(log_prob: jax.Array, reward: jax.Array, first: jax.Array, discount: jax.Array | float) -> jax.Array:
    """An estimate of every agent's expected discounted return, whose derivatives are estimates too, `[N]`.

        mean over episodes of Σ_t γᵗ □(a_0 … a_t) rⁱ_t + (1 − □(a_t)) bⁱ_t,   □(a) = exp(log π(a) − sg(log π(a))),

    of DiCE, of any order. Rewards depend on the actions of all agents until then, which □ makes differentiable; its
    value is 1. The baseline b is the mean of the other environments' discounted rewards from step t on, which the
    actions of this one do not change: it lowers the variance and leaves expectations as they are.

    Args:
      log_prob: of the agents' actions, `[T, E, N]`.
      reward: `[T, E, N]`.
      first: bool `[T, E]`: whether the step opens an episode; step 0 counts as one that does.
      discount: γ.
    """
    joint = log_prob.sum(-1)
    first = first.at[0].set(True)

    def forward(carry, step):
        total, weight = carry
        begins, own = step
        total, weight = jnp.where(begins, 0, total) + own, jnp.where(begins, 1, weight * discount)
        return (total, weight), (total, weight)

    start = jnp.zeros_like(joint[0]), jnp.ones_like(joint[0])
    _, (past, weight) = lax.scan(forward, start, (first, joint))
    discounted = weight[..., None] * reward

    def backward(later, step):
        ends, own = step
        later = own + jnp.where(ends[:, None], 0, later)
        return later, later

    ends = jnp.concatenate([first[1:], jnp.ones_like(first[:1])])
    _, to_go = lax.scan(backward, jnp.zeros_like(discounted[0]), (ends, discounted), reverse=True)
    envs = to_go.shape[1]
    baseline = (to_go.sum(1, keepdims=True) - to_go) / max(envs - 1, 1)

    def box(x: jax.Array) -> jax.Array:
        return jnp.exp(x - lax.stop_gradient(x))[..., None]

    terms = box(past) * discounted + (1 - box(joint)) * lax.stop_gradient(baseline)
    return terms.sum((0, 1)) / first.sum()
