"""HAPPO: heterogeneous-agent proximal policy optimisation.

Kuba et al., *Trust Region Policy Optimisation in Multi-Agent Reinforcement Learning* (ICLR 2022), Algorithm 3:
https://arxiv.org/abs/2109.11251. The comments below give its line numbers.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.core.algorithm import Algorithm
from hajax.core.settings import Hyperparameters, Settings
from hajax.core import on_policy
from hajax.core.advantages import weighted_mean
from hajax.core.losses import clipped_surrogate
from hajax.core.batches import GroupBatch, OnPolicyBatch, group_batches
from hajax.core.on_policy import OnPolicyState
from hajax.core.optimisation import decayed, gradient_step, train_epochs
from hajax.core.sequential import draw_permutation, sequential_update
from hajax.nn import distributions
from hajax.spec import EnvSpec

DEFAULTS = Settings(order="random", sharing="none")


def happo(
    spec: EnvSpec,
    settings: Settings = DEFAULTS,
    hyperparameters: Hyperparameters | None = None,
    *,
    actor: nn.Module | None = None,
    critic: nn.Module | None = None,
    name: str = "happo",
) -> Algorithm:
    """HAPPO for the team that `spec` describes.

    Agents update one after another in random order. Agent i_m maximises the clipped surrogate (Eq. 11)

        E[min(r · M, clip(r, 1 ± ε) · M)] + c · H,   r = π_new(aᵐ|oᵐ) / π_old(aᵐ|oᵐ),

    in which M is the advantage times the compound ratio of the agents before it; once it has finished all its epochs,
    the ratio is recomputed on the full batch for the agents after it: M ← r · M.

    Args:
      spec: the environment's specification; with a centralised critic its reward must be the team's.
      settings: static settings.
      hyperparameters: default numbers, which `init` may replace.
      actor, critic: flax modules used as torsos instead of the MLP, called as `module(x, mask)` with `x` `[…, O]` (or
        the state `[…, S]`) padded with zeros and `mask` bool `[O]` or `None`; they return features `[…, H]`.

    Raises:
      ValueError: if a number is out of range, agents cannot share parameters, or the reward is of the wrong kind.
    """
    actors, critics = on_policy.make_networks(name, spec, settings, actor, critic)

    def update(key: jax.Array, state: OnPolicyState, batch: OnPolicyBatch) -> tuple[OnPolicyState, dict]:
        hp = state.hyperparameters
        learning_rate = decayed(hp.actor_lr, state.updates, settings.decay_updates)
        order_key, actor_key, critic_key = jax.random.split(key, 3)
        estimates = on_policy.estimate(critics, state, batch)  # line 7
        samples = group_batches(actors, batch, estimates)

        def log_prob_and_entropy(params, tables, moments, samples: GroupBatch):
            policy = actors.distribution(params, tables, moments, samples.observation, samples.action_mask)
            log_prob = distributions.log_prob(policy, tables.layout, samples.action)
            return log_prob, distributions.entropy(policy, tables.layout)

        def update_agent(learner, inputs, compound_ratio):
            key, tables, moments, samples = inputs
            samples = samples._replace(advantage=compound_ratio * samples.advantage)  # M

            def loss(params, samples: GroupBatch):
                log_prob, entropy = log_prob_and_entropy(params, tables, moments, samples)
                log_ratio = log_prob - samples.log_prob
                ratio = jnp.exp(log_ratio)
                surrogate = weighted_mean(clipped_surrogate(ratio, samples.advantage, hp.clip), samples.weight)
                entropy = weighted_mean(entropy, samples.weight)
                info = {
                    "policy_loss": -surrogate,
                    "entropy": entropy,
                    "approx_kl": weighted_mean(ratio - 1 - log_ratio, samples.weight),
                    "clip_fraction": weighted_mean(jnp.abs(ratio - 1) > hp.clip, samples.weight),
                }
                return -surrogate - hp.entropy_coef * entropy, info

            def step(learner, minibatch):
                gradient, info = jax.grad(loss, has_aux=True)(learner.params, minibatch)
                learner, norm = gradient_step(learner, gradient, learning_rate, hp.max_grad_norm, hp.adam_eps)
                return learner, info | {"actor_grad_norm": norm}

            learner, info = train_epochs(key, learner, samples, step, settings.epochs, settings.minibatches)  # line 11
            new_log_prob, _ = log_prob_and_entropy(learner.params, tables, moments, samples)
            log_ratio = jnp.where(samples.weight > 0, new_log_prob - samples.log_prob, 0)
            return learner, compound_ratio * jnp.exp(log_ratio.sum(0)), info  # line 12

        permutation = draw_permutation(order_key, actors.groups.num_groups, settings.order)  # line 8
        keys = jax.random.split(actor_key, actors.groups.num_groups)
        new_actors, compound_ratio, actor_info = sequential_update(  # lines 10–13
            update_agent,
            permutation,
            state.actors,
            (keys, actors.tables, state.actor_moments, samples),
            jnp.ones_like(samples.log_prob[0, 0]),  # line 9
        )
        new_state, critic_info = on_policy.update_critics(  # lines 14–15
            critic_key, critics, settings, state, batch, estimates
        )
        new_state = on_policy.update_actor_moments(new_state, samples)._replace(actors=new_actors, updates=state.updates + 1)
        return new_state, actor_info | critic_info | {"compound_ratio": compound_ratio.mean()}

    return on_policy.make_algorithm(name, settings, hyperparameters or Hyperparameters(), actors, critics, update)
