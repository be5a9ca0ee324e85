"""Radii of trust regions that are learned from how non-stationary the agents find each other, as in MAMT.

Li et al., *Dealing with Non-Stationarity in MARL via Trust-Region Decomposition* (ICLR 2022):
https://arxiv.org/abs/2102.10616.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hajax.core.batches import OffPolicyBatch, critic_input
from hajax.core.losses import weighted_mean
from hajax.core.off_policy.attention_settings import DecompositionSettings
from hajax.core.off_policy.counterfactual import Alternatives, log_probability, mean_square, outputs_of
from hajax.core.off_policy.joint_sequence import Info
from hajax.core.off_policy.mirror_descent import MirrorParts, tsallis_log
from hajax.core.off_policy.template import OffPolicyState
from hajax.core.optimization import Learner, adam_step, decayed, init_learner
from hajax.nn import distributions
from hajax.nn.attention import pairs_of
from hajax.nn.decomposition import ModelingPolicies, TrustRegionDecomposition
from hajax.nn.distributions import ActionParameters
from hajax.nn.networks import init_params


class Decomposition(NamedTuple):
    """The `extra` of MAMT's state."""

    actors: Any  # the parameters of π_old, stacked [G, …]
    radii: Learner  # δ of every agent, [N]
    network: Learner  # of `TrustRegionDecomposition`
    modeling: Learner  # of `ModelingPolicies`, stacked [N, …]


class Measurements(NamedTuple):
    """What the steps of the radii, the network and the models read, with joint actions of the current policies."""

    observation: jax.Array  # [B, N, O]
    features: jax.Array  # of the joint actions, [B, N, F]
    taken: jax.Array  # the replay's joint actions, [B, N, D]
    active: jax.Array  # bool [B, N]
    policies: ActionParameters  # of all agents, [B, N, …]
    divergence: jax.Array  # E[ln_q π − ln_q π_old] of every agent, [N]
    coordination: jax.Array  # C, [B, N, N]
    distance: jax.Array  # the non-stationarity D, [B, N]
    counts: jax.Array  # [B, N]: 1 where it counts, else 0


def coordination(value: jax.Array, expected: jax.Array, active: jax.Array) -> jax.Array:
    """C_ij = softmax over i ≠ j of |Q_i(o, a) − V_j(o)|, `[B, N, N]`; 0 if i or j is inactive.

    Args:
      value: Q_i of the joint action, `[B, N]`.
      expected: V_j = Σ_b π_j(b|o_j) Q_j(o, b, a⁻ʲ), `[B, N]`.
      active: bool `[B, N]`.
    """
    pairs = pairs_of(active)
    gap = jnp.where(pairs, jnp.abs(value[..., :, None] - expected[..., None, :]), -jnp.inf)
    largest = gap.max(-2, keepdims=True)
    weight = jnp.where(pairs, jnp.exp(gap - jnp.where(jnp.isfinite(largest), largest, 0)), 0)
    total = weight.sum(-2, keepdims=True)
    return weight / jnp.where(total > 0, total, 1)


def non_stationarity(distance: jax.Array, weights: jax.Array, active: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How far every agent's model of its closest partner is from that partner's policy, `[B, N]`, and where it counts.

    The closest partner of agent i is j = argmax_j Σ_batch C_ij.

    Args:
      distance: KL(π_j(·|o_j) ‖ π̂_i(·|o_i, j)), `[B, N, N]`, by i and j.
      weights: the coordination coefficients C, `[B, N, N]`.
      active: bool `[B, N]`.
    """
    agents = active.shape[-1]
    total = jnp.where(jnp.eye(agents, dtype=bool), -jnp.inf, weights.sum(0))
    partner = jnp.argmax(total, -1)  # [N]
    return distance[:, jnp.arange(agents), partner], active & active[:, partner] & (agents > 1)


@dataclasses.dataclass(frozen=True)
class DecompositionParts(MirrorParts):
    """See `hajax.algorithms.mamt.mamt`."""

    settings: DecompositionSettings

    @functools.cached_property
    def network(self) -> TrustRegionDecomposition:
        return TrustRegionDecomposition(self.settings.decomposition_width)

    @functools.cached_property
    def modeling(self) -> ModelingPolicies:
        spec = self.policies.spec
        choices = spec.num_choices if spec.has_discrete else 0
        return ModelingPolicies(spec.num_components, choices, spec.has_continuous, self.settings.decomposition_width)

    def init_extra(self, key: jax.Array, actors: Any, hyperparameters: Any) -> Decomposition:
        spec, (network_key, modeling_key) = self.policies.spec, jax.random.split(key)
        agents = spec.num_agents
        seen = jnp.zeros((agents, spec.observation_size))
        features, radii = jnp.zeros(self.critics.actions.own.shape), jnp.full(agents, hyperparameters.radius)
        none = jnp.zeros((agents, agents))
        network = init_params(self.network, network_key, seen, features, radii, none, none > 0)
        modeling = init_params(self.modeling, modeling_key, seen)
        return Decomposition(actors, init_learner(radii), init_learner(network), jax.vmap(init_learner)(modeling))

    def radii(self, state: OffPolicyState) -> jax.Array:
        return state.extra.radii.params

    def prepare(self, key: jax.Array, state: OffPolicyState, minibatch: OffPolicyBatch) -> tuple[OffPolicyState, Info]:
        """One step of the radii, of the network, and of the models."""
        found = self.measure(key, state, minibatch)
        radii = self.step_radii(state, found)
        (network, error), (modeling, cross_entropy) = self.step_network(state, found), self.step_models(state, found)
        extra = state.extra._replace(radii=radii, network=network, modeling=modeling)
        info = {
            "radius": radii.params,
            "non_stationarity": jax.vmap(weighted_mean)(found.distance.T, found.counts.T),
            "decomposition_loss": error,
            "modeling_loss": cross_entropy,
        }
        return state._replace(extra=extra), info | spread(found.coordination, pairs_of(minibatch.active))

    def measure(self, key: jax.Array, state: OffPolicyState, minibatch: OffPolicyBatch) -> Measurements:
        """What the steps read, for joint actions of the current policies."""
        params = jax.tree.map(lambda x: x[0, 0], state.critics.params)
        joint_key, own_key = jax.random.split(key)
        policies = self.team(state.actors.params, minibatch.observation, minibatch.action_mask)
        alternatives = self.alternatives(own_key, state.actors.params, minibatch)
        joint = self.actions(joint_key, state, minibatch)
        value, expected, _ = self.evaluated(params, critic_input(minibatch), joint, alternatives)
        weights = coordination(value, expected, minibatch.active)
        models, outputs = self.modeled(state.extra.modeling.params, minibatch.observation, policies)
        theirs = jax.tree.map(lambda x: x[:, None], policies)
        distance = distributions.kl_divergence(theirs, models, self.policies.layout) / outputs
        distance, counts = non_stationarity(distance, weights, minibatch.active)
        return Measurements(
            observation=minibatch.observation,
            features=self.critics.features(joint, minibatch.active),
            taken=self.joint(minibatch),
            active=minibatch.active,
            policies=policies,
            divergence=self.divergence(state, minibatch, alternatives),
            coordination=weights,
            distance=distance,
            counts=counts.astype(distance.dtype),
        )

    def divergence(self, state: OffPolicyState, minibatch: OffPolicyBatch, alternatives: Alternatives) -> jax.Array:
        """The mean of E[ln_q π − ln_q π_old] over the samples in which an agent is active, `[N]`."""
        q = state.hyperparameters.tsallis_q
        old_log_prob = self.log_probs_of(state.extra.actors, minibatch, alternatives.action)
        change = tsallis_log(alternatives.log_prob, q, self.least) - tsallis_log(old_log_prob, q, self.least)
        mean = jnp.sum(alternatives.weight * change, -1)
        return jax.vmap(weighted_mean)(mean.T, minibatch.active.T.astype(mean.dtype))

    def modeled(
        self, params: Any, observation: jax.Array, policies: ActionParameters
    ) -> tuple[ActionParameters, jax.Array]:
        """π̂_i(·|o_i, j), `[B, N, N, …]` by i and j, with the choices that π_j has, and the numbers of their outputs."""
        found: Any = self.modeling.apply({"params": params}, observation)
        if policies.logits is not None:
            found = found._replace(logits=jnp.where(jnp.isfinite(policies.logits)[:, None], found.logits, -jnp.inf))
        return found, outputs_of(found, self.policies.layout)

    def estimate(self, hyperparameters: Any, params: Any, radii: jax.Array, found: Measurements) -> jax.Array:
        """The network's estimates of the non-stationarity, `[B, N]`."""
        edges = pairs_of(found.active) & (found.coordination >= hyperparameters.edge_threshold)
        inputs = (found.observation, found.features, radii, found.coordination, edges)
        return jnp.asarray(self.network.apply({"params": params}, *inputs))

    def radii_loss(self, radii: jax.Array, hyperparameters: Any, params: Any, found: Measurements) -> jax.Array:
        """Σᵢ E[ln_q πⁱ − ln_q πⁱ_old] / δᵢ + the mean of the network's estimates: what the radii minimize."""
        estimate = self.estimate(hyperparameters, params, radii, found)
        return jnp.sum(found.divergence / radii) + weighted_mean(estimate, found.counts)

    def step_radii(self, state: OffPolicyState, found: Measurements) -> Learner:
        """The radii after a step."""
        h, learner = state.hyperparameters, state.extra.radii
        gradient = jax.grad(self.radii_loss)(learner.params, h, state.extra.network.params, found)
        learner, _ = adam_step(learner, gradient, rate_now(h.radius_lr, state), h.max_grad_norm, h.adam_eps)
        return learner._replace(params=jnp.clip(learner.params, h.radius_min, h.radius_max))

    def step_network(self, state: OffPolicyState, found: Measurements) -> tuple[Learner, jax.Array]:
        """The network after a step of regression on the non-stationarity, and the mean squared error before."""
        h, (max_grad_norm, l2) = state.hyperparameters, self.critics.limits(state.hyperparameters)

        def loss(params: Any) -> jax.Array:
            error = self.estimate(h, params, state.extra.radii.params, found) - found.distance
            return weighted_mean(jnp.square(error), found.counts)

        error, gradient = jax.value_and_grad(loss)(state.extra.network.params)
        rate = rate_now(h.decomposition_lr, state)
        return adam_step(state.extra.network, gradient, rate, max_grad_norm, h.adam_eps, l2)[0], error

    def step_models(self, state: OffPolicyState, found: Measurements) -> tuple[Learner, jax.Array]:
        """The models after a step on the replay's actions, and their mean cross-entropies `[N]` before."""
        h, weight = state.hyperparameters, pairs_of(found.active).astype(found.distance.dtype)
        by_model, layout = jax.vmap(weighted_mean, in_axes=1), self.policies.layout

        def loss(params: Any) -> tuple[jax.Array, jax.Array]:
            models, _ = self.modeled(params, found.observation, found.policies)
            taken = jnp.broadcast_to(found.taken[:, None], (*weight.shape, found.taken.shape[-1]))
            cross_entropy = by_model(-log_probability(models, layout, taken), weight)
            penalty = by_model(mean_square(models, layout), weight)
            return jnp.sum(cross_entropy + h.logit_penalty * penalty), cross_entropy

        gradient, cross_entropy = jax.grad(loss, has_aux=True)(state.extra.modeling.params)
        step = jax.vmap(adam_step, in_axes=(0, 0, None, None, None))  # every agent's model is a network of its own
        rate = rate_now(h.modeling_lr, state)
        return step(state.extra.modeling, gradient, rate, h.max_grad_norm, h.adam_eps)[0], cross_entropy


def rate_now(rate: jax.Array, state: OffPolicyState) -> jax.Array:
    """A learning rate, decayed like the others."""
    return decayed(rate, state.updates, state.hyperparameters.decay_updates)


def spread(weights: jax.Array, pairs: jax.Array) -> Info:
    """The mean and standard deviation of every agent's coordination coefficients C_ij, `[N]`, over samples and j."""
    rows = jnp.moveaxis(pairs.astype(weights.dtype), 1, 0)
    by_agent = jax.vmap(weighted_mean)
    values = jnp.moveaxis(weights, 1, 0)
    mean = by_agent(values, rows)
    return {
        "coordination": mean,
        "coordination_std": jnp.sqrt(by_agent(jnp.square(values - mean[:, None, None]), rows)),
    }
