"""HAPPO: heterogeneous-agent proximal policy optimisation.

Kuba et al., *Trust Region Policy Optimisation in Multi-Agent Reinforcement Learning* (ICLR 2022), Algorithm 3:
https://arxiv.org/abs/2109.11251. The comments below give its line numbers.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from hajax.core import on_policy
from hajax.core.advantages import weighted_mean
from hajax.core.algorithm import Algorithm
from hajax.core.batches import GroupBatch, OnPolicyBatch, group_batches
from hajax.core.compound_ratio import GroupPolicy, improve_in_sequence
from hajax.core.losses import clipped_surrogate
from hajax.core.on_policy import OnPolicyState
from hajax.core.optimisation import Learner, decayed, gradient_step, train_epochs
from hajax.core.settings import Hyperparameters, Settings
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
      actor, critic: flax modules used as torsos instead of the MLP, from `x` `[…, O]` (for a centralised critic the
        state `[…, S]`), padded with zeros, to features `[…, H]`. A module whose `__call__` has a parameter `mask` also
        gets the entries that the agent has, bool `[O]`, or `None` if nothing is padded.
      name: what the algorithm calls itself, in results and errors.

    Raises:
      ValueError: if a number is out of range, agents cannot share parameters, or the reward is of the wrong kind.
    """
    actors, critics = on_policy.make_networks(name, spec, settings, actor, critic)

    def update(key: jax.Array, state: OnPolicyState, batch: OnPolicyBatch) -> tuple[OnPolicyState, dict]:
        hp = state.hyperparameters
        learning_rate = decayed(hp.actor_lr, state.updates, hp.decay_updates)
        actor_key, critic_key = jax.random.split(key)
        estimates = on_policy.estimate(critics, state, batch)  # line 7
        samples = group_batches(actors, batch, estimates)

        def improve_agent(key, policy: GroupPolicy, learner: Learner, samples: GroupBatch):
            def loss(params, samples: GroupBatch):
                log_prob, entropy = policy.log_prob_and_entropy(params, samples)
                # A sample without weight may be of an impossible action; 0 · ∞ would make the gradient NaN.
                log_ratio = jnp.where(samples.weight > 0, log_prob - samples.log_prob, 0)
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

            return train_epochs(key, learner, samples, step, settings.epochs, settings.minibatches)  # line 11

        new_actors, actor_info = improve_in_sequence(  # lines 8–13
            actor_key, actors, settings.order, state.actors, state.actor_moments, samples, improve_agent
        )
        state, critic_info = on_policy.update_critics(  # lines 14–15
            critic_key, critics, settings, state, batch, estimates
        )
        state = on_policy.update_actor_moments(state, samples)
        return state._replace(actors=new_actors, updates=state.updates + 1), actor_info | critic_info

    return on_policy.make_algorithm(name, settings, hyperparameters or Hyperparameters(), actors, critics, update)
