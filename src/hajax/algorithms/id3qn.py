"""ID3QN: independent dueling double Q-learning, in which every agent learns as if it were alone.

Tampuu et al., *Multiagent Cooperation and Competition with Deep Reinforcement Learning* (2017):
https://arxiv.org/abs/1511.08779; with double Q-learning (van Hasselt et al., 2016: https://arxiv.org/abs/1509.06461)
and dueling networks (Wang et al., 2016: https://arxiv.org/abs/1511.06581).
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from hajax.core import off_policy
from hajax.core.actors import policy_torso
from hajax.core.advantages import weighted_mean
from hajax.core.algorithm import Algorithm
from hajax.core.double_q import epsilon_greedy, team_choices
from hajax.core.groups import make_groups
from hajax.core.observation_moments import with_running_moments
from hajax.core.off_policy import Info, OffPolicyState
from hajax.core.off_policy_settings import DuelingSettings
from hajax.core.off_policy_settings import IndependentQHyperparameters as Hyperparameters
from hajax.core.optimization import Learner, adam_step, decayed, init_learner
from hajax.core.own_values import OwnValues
from hajax.core.transitions import OffPolicyBatch, discounted
from hajax.spec import EnvSpec

DEFAULTS = DuelingSettings(order="simultaneous")


def id3qn(
    spec: EnvSpec,
    settings: DuelingSettings = DEFAULTS,
    hyperparameters: Hyperparameters | None = None,
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
) -> Algorithm:
    """ID3QN for the team that `spec` describes, all of whose actions are discrete.

    Every agent regresses its own values, of what it sees and does, on

        yⁱ = Σ_{j<k} γʲ rⁱʲ + γᵏ (1 − terminated) q′ⁱ(o′ⁱ, argmax_a qⁱ(o′ⁱ, a)),

    with the team's reward or its own (`reward="individual"`), and targets φ′ ← τ φ + (1 − τ) φ′. One agent alone is
    D3QN. An agent that died on the way has no value of its own any more: the team's reward goes on, so the mean of the
    living agents' values stands for it; its own does not.

    Args:
      actor: a flax module used as torso; see `core.double_q.double_q_learning`. There is no critic.

    Raises:
      ValueError: as there, but for joint choices, of which there may be any number; and if a `critic` is given.
    """
    name = "id3qn"
    settings.require(name, order="simultaneous")
    if critic is not None:
        raise ValueError(f"critic={type(critic).__name__} of {name}, which has none; allowed: None")
    numbers = hyperparameters or Hyperparameters()
    numbers.validate()
    torso = policy_torso(spec, settings, actor)
    own = OwnValues(spec, make_groups(spec, settings.sharing), team_choices(name, spec), torso, settings)
    defaults = numbers

    def init(key: jax.Array, hyperparameters: Any = None) -> OffPolicyState:
        numbers = defaults if hyperparameters is None else hyperparameters
        numbers.validate()
        params = own.init(key)
        return OffPolicyState(
            actors=jax.vmap(init_learner)(params),
            critics=None,
            target_actors=params,
            target_critics=None,
            updates=jnp.zeros((), int),
            hyperparameters=jax.tree.map(lambda x: jnp.asarray(x, float), numbers),
        )

    def target_values(params: Any, target_params: Any, batch: OffPolicyBatch) -> jax.Array:
        """What is to come for every agent, `[N, B]`."""
        chosen = own.greedy(params, batch.final_observation, batch.final_action_mask)
        values = own.team_values(target_params, batch.final_observation)
        value = jnp.take_along_axis(values, chosen[..., None], -1)[..., 0]  # [B, N]
        if spec.reward == "team":
            living = jax.vmap(weighted_mean)(value, batch.final_active.astype(value.dtype))[:, None]
            return jnp.where(batch.final_active, value, living).T
        return jnp.where(batch.final_active, value, 0).T

    def update(key: jax.Array, state: OffPolicyState, batch: OffPolicyBatch) -> tuple[OffPolicyState, Info]:
        numbers = state.hyperparameters
        rate = decayed(numbers.actor_lr, state.updates, numbers.decay_updates)

        def on_minibatch(learners: Learner, minibatch: OffPolicyBatch):
            value = target_values(learners.params, state.target_actors, minibatch)
            target = own.groups.gather(discounted(minibatch, value, numbers.discount), axis=0)  # [G, K, B]
            taken = own.groups.gather(own.choices.number(minibatch.action), axis=1)[..., None]
            samples = off_policy.group_samples(own, minibatch)

            def step(learner, tables, samples, target, taken):
                def loss(params):
                    values = own.values(params, tables, samples.observation)
                    value = jnp.take_along_axis(values, taken, -1)[..., 0]
                    value_loss = weighted_mean(jnp.square(target - value), samples.weight)
                    return value_loss, weighted_mean(value, samples.weight)

                def descend(learner, _):
                    (value_loss, value), gradient = jax.value_and_grad(loss, has_aux=True)(learner.params)
                    learner, norm = adam_step(learner, gradient, rate, numbers.max_grad_norm, numbers.adam_eps)
                    return learner, {"value_loss": value_loss, "value": value, "actor_grad_norm": norm}

                return lax.scan(descend, learner, None, settings.epochs)

            return jax.vmap(step)(learners, own.tables, samples, target, taken)

        off_policy.check_minibatches(settings.policy_delay, batch)
        learners, info = lax.scan(on_minibatch, state.actors, batch)
        state = state._replace(
            actors=learners,
            target_actors=off_policy.polyak_average(state.target_actors, learners.params, numbers.target_rate),
            updates=state.updates + 1,
        )
        return state, {name: x.mean((0, 2)) for name, x in info.items()}

    algorithm = Algorithm(
        name, "off_policy", spec, settings, defaults, init, lambda shape: (), epsilon_greedy(own), update
    )
    return with_running_moments(algorithm, own.groups)
