"""LOLA: learning with opponent-learning awareness, from samples.

Foerster et al., *Learning with Opponent-Learning Awareness* (AAMAS 2018): https://arxiv.org/abs/1709.04326, and *DiCE:
The Infinitely Differentiable Monte Carlo Estimator* (ICML 2018): https://arxiv.org/abs/1802.05098.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from hajax.core.actors import TeamActors, policy_torso
from hajax.core.algorithm import Algorithm
from hajax.core.batches import OnPolicyBatch
from hajax.core.groups import make_groups
from hajax.core.losses import weighted_mean
from hajax.core.observation_moments import ObservationMoments, with_running_moments
from hajax.core.on_policy.template import ActExtras
from hajax.core.optimization import Learner, adam_step, decayed, init_learner
from hajax.core.settings import AscentHyperparameters, TeamHyperparameters, TeamSettings, as_arrays
from hajax.nn import distributions
from hajax.spec import EnvSpec, Timestep
from hajax.validation import setting


class LolaHyperparameters(AscentHyperparameters, TeamHyperparameters):
    """Hyperparameters of LOLA."""

    discount: float | jax.Array = 0.96
    actor_lr: float | jax.Array = 0.05
    lookahead: float | jax.Array = setting(
        1.0, "η: the step along its own gradient that an agent expects of every other; 0 is a naive learner", low=0
    )


@dataclasses.dataclass(frozen=True)
class LolaSettings(TeamSettings):
    """Static settings of LOLA."""

    order: str = "simultaneous"
    layer_norm: bool = False

    @property
    def rewards(self) -> tuple[str, ...]:
        """The kinds of reward, the usual one last."""
        return ("team", "individual")


class LolaState(NamedTuple):
    """The learner state. It contains the hyperparameters, so a sweep is a `vmap`."""

    actors: Learner  # stacked [N, …]
    updates: jax.Array  # int []: the number of updates so far
    hyperparameters: Any
    moments: ObservationMoments | None = None  # if observations are normalized


def lola(
    spec: EnvSpec,
    settings: LolaSettings = LolaSettings(),
    hyperparameters: LolaHyperparameters = LolaHyperparameters(),
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """LOLA for the agents that `spec` describes, who may have interests of their own.

    Every agent i ascends, by one step of Adam per rollout and simultaneously with the others,

        ∇_i Jⁱ + η Σ_{j≠i} (∇_i ∇_j Jʲ) ∇_j Jⁱ:

    it anticipates that agent j is about to move by η ∇_j Jʲ, which depends on its own parameters. All derivatives are
    those of one sampled objective, `dice_returns`, at the rollout. ∇_j Jⁱ and the second derivatives come from the same
    samples, so their product is biased by O(1/E), as in the paper. For games with a round of memory
    `hajax.tabular.opponents.lola_gradient` is the exact form, whose expectation this estimates.

    The paper has two agents; for more this is the sum of its terms. A rollout should hold whole episodes: what an
    action does to rewards after its end is not seen. There is no critic.

    Args:
      actor: a flax module used as torso (see `hajax.haml`). There is no choice of a critic.

    Raises:
      ValueError: a hyperparameter is out of range, agents share parameters, the order is not `simultaneous`, or a
        `critic` is given.
    """
    if critic is not None:
        raise ValueError("critic of lola; allowed: None, because it has none")
    settings.require("lola", sharing="none", order="simultaneous")
    hyperparameters.validate()
    defaults, groups = hyperparameters, make_groups(spec, "none")
    torso = policy_torso(spec, settings, actor)
    actors = TeamActors(spec, groups, torso, settings.agent_id, True, settings.output_gain)

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

    algorithm = Algorithm("lola", "on_policy", spec, settings, defaults, init, actors.initial_memory, act, update)
    return with_running_moments(algorithm, groups, update_first=False)


def lola_directions(returns: Any, params: Any, lookahead: jax.Array | float) -> Any:
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
    paid = weight[..., None] * reward

    def backward(later, step):
        ends, own = step
        later = own + jnp.where(ends[:, None], 0, later)
        return later, later

    ends = jnp.concatenate([first[1:], jnp.ones_like(first[:1])])
    _, to_go = lax.scan(backward, jnp.zeros_like(paid[0]), (ends, paid), reverse=True)
    envs = to_go.shape[1]
    baseline = (to_go.sum(1, keepdims=True) - to_go) / max(envs - 1, 1)

    def box(x: jax.Array) -> jax.Array:
        return jnp.exp(x - lax.stop_gradient(x))[..., None]

    terms = box(past) * paid + (1 - box(joint)) * lax.stop_gradient(baseline)
    return terms.sum((0, 1)) / first.sum()
