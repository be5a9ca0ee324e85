"""Mirror descent with a local trust region per agent, and how the radii are learned, as in MAMD and MAMT.

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
from hajax.core.off_policy.counterfactual import (
    Alternatives,
    CounterfactualObjective,
    CounterfactualParts,
    mean_square,
    outputs_of,
)
from hajax.core.off_policy.joint_sequence import Info, OffPolicySamples
from hajax.core.off_policy.settings import DecompositionSettings, MirrorSettings
from hajax.core.off_policy.template import OffPolicyState
from hajax.core.optimization import Learner, adam_step, decayed, init_learner
from hajax.nn import distributions
from hajax.nn.attention import pairs_of
from hajax.nn.decomposition import ModelingPolicies, TrustRegionDecomposition
from hajax.nn.distributions import ActionParameters
from hajax.nn.networks import init_params

LEAST_PROBABILITY = 1e-6


def tsallis_log(log_prob: jax.Array, q: jax.Array | float) -> jax.Array:
    """ln_q(p) = (p^(1−q) − 1) / (1 − q), and ln_1(p) = log p, from log p; p is at least 10⁻⁶."""
    log_prob = jnp.maximum(log_prob, jnp.log(LEAST_PROBABILITY))
    power = 1 - q
    safe = jnp.where(power == 0, 1, power)
    return jnp.where(power == 0, log_prob, jnp.expm1(safe * log_prob) / safe)


class MirrorData(NamedTuple):
    """What one group's objective reads in mirror descent, arrays over all groups `[G, …]`."""

    old_params: Any  # of the policies π_old
    radius: jax.Array  # [K]: δ of every member
    constrained: jax.Array  # bool [K]: whether a member has a trust region


@dataclasses.dataclass(frozen=True)
class MirrorObjective(CounterfactualObjective):
    """E[log π(a|o) · (A(o, a) − (ln_q π(a|o) − ln_q π_old(a|o)) / δ)] of one group's policies, a ~ π.

    Members without a trust region pay log π / ρ instead, as in MAAC.
    """

    def old(self, samples: OffPolicySamples) -> ActionParameters:
        """The old policies' distributions."""
        return self.actor.distribution(samples.objective_data.old_params, samples)

    def cost(self, log_prob: jax.Array, samples: OffPolicySamples) -> jax.Array:
        data, q = samples.objective_data, self.hyperparameters.tsallis_q
        old_log_prob = distributions.log_prob(self.old(samples), self.actor.tables.layout, self.action)
        change = tsallis_log(log_prob, q) - tsallis_log(old_log_prob, q)
        return jnp.where(data.constrained[:, None], change / data.radius[:, None], super().cost(log_prob, samples))

    def diagnostics(self, parameters: ActionParameters, samples: OffPolicySamples) -> Info:
        kl = distributions.kl_divergence(parameters, self.old(samples), self.actor.tables.layout)
        return super().diagnostics(parameters, samples) | {"kl_to_old": weighted_mean(kl, samples.weight)}


class OldPolicies(NamedTuple):
    """The `extra` of MAMD's state."""

    actors: Any  # the parameters of π_old, stacked [G, …]


@dataclasses.dataclass(frozen=True)
class MirrorParts(CounterfactualParts):
    """See `hajax.algorithms.mamd.mamd`. `constrained`, bool `[N]`, are the agents with a trust region."""

    settings: MirrorSettings
    constrained: tuple[bool, ...] = ()

    def init_extra(self, key: jax.Array, actors: Any, hyperparameters: Any) -> Any:
        return OldPolicies(actors)

    def radii(self, state: OffPolicyState) -> jax.Array:
        """δ of every agent, `[N]`."""
        return jnp.broadcast_to(state.hyperparameters.radius, (self.policies.spec.num_agents,))

    def samples(self, state: OffPolicyState, minibatch: OffPolicyBatch) -> OffPolicySamples:
        samples, groups = super().samples(state, minibatch), self.policies.groups
        constrained = groups.gather(jnp.asarray(self.constrained), axis=0)
        data = MirrorData(state.extra.actors, groups.gather(self.radii(state), axis=0), constrained)
        return samples._replace(objective_data=data)

    def group_objective(self, **fields: Any) -> MirrorObjective:
        return MirrorObjective(**fields)

    def finish(self, state: OffPolicyState, minibatch: OffPolicyBatch, info: Info) -> tuple[OffPolicyState, Info]:
        """Copies the new policies to π_old after every `old_policy_interval`-th update."""
        state, info = super().finish(state, minibatch, info)
        due = (state.updates + 1) % self.settings.old_policy_interval == 0
        old = jax.tree.map(lambda old, new: jnp.where(due, new, old), state.extra.actors, state.actors.params)
        return state._replace(extra=state.extra._replace(actors=old)), info


class Decomposition(NamedTuple):
    """The `extra` of MAMT's state."""

    actors: Any  # the parameters of π_old, stacked [G, …]
    radii: Learner  # δ of every agent, [N]
    network: Learner  # of `TrustRegionDecomposition`
    modeling: Learner  # of `ModelingPolicies`, stacked [N, …]


class Seen(NamedTuple):
    """What a minibatch shows, with joint actions of the current policies."""

    observation: jax.Array  # [B, N, O]
    features: jax.Array  # of the joint actions, [B, N, F]
    taken: jax.Array  # the replay's joint actions, [B, N, D]
    active: jax.Array  # bool [B, N]
    policies: ActionParameters  # of all agents, [B, N, …]
    divergence: jax.Array  # E[ln_q π − ln_q π_old] of every agent, [N]
    coordination: jax.Array  # C, [B, N, N]
    measure: jax.Array  # the non-stationarity D, [B, N]
    measured: jax.Array  # [B, N]: 1 where it counts, else 0


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
        """One step of the radii, of the network, and of the models, and what they are made from."""
        seen = self.seen(key, state, minibatch)
        radii, network, modeling = (
            self.step_radii(state, seen),
            self.step_network(state, seen),
            self.step_models(state, seen),
        )
        extra = state.extra._replace(radii=radii, network=network[0], modeling=modeling[0])
        info = {
            "radius": radii.params,
            "non_stationarity": jax.vmap(weighted_mean)(seen.measure.T, seen.measured.T),
            "decomposition_loss": network[1],
            "modeling_loss": modeling[1],
        }
        return state._replace(extra=extra), info | spread(seen.coordination, pairs_of(minibatch.active))

    def seen(self, key: jax.Array, state: OffPolicyState, minibatch: OffPolicyBatch) -> Seen:
        """What the steps are made from, for joint actions of the current policies."""
        params = jax.tree.map(lambda x: x[0, 0], state.critics.params)
        joint_key, own_key = jax.random.split(key)
        policies = self.team(state.actors.params, minibatch.observation, minibatch.action_mask)
        alternatives = self.alternatives(own_key, state.actors.params, minibatch)
        joint = self.actions(joint_key, state, minibatch)
        value, expected, _ = self.judged(params, critic_input(minibatch), joint, alternatives)
        weights = coordination(value, expected, minibatch.active)
        models, outputs = self.modeled(state.extra.modeling.params, minibatch.observation, policies)
        theirs = jax.tree.map(lambda x: x[:, None], policies)
        distance = distributions.kl_divergence(theirs, models, self.policies.layout) / outputs
        measure, measured = non_stationarity(distance, weights, minibatch.active)
        return Seen(
            observation=minibatch.observation,
            features=self.critics.features(joint, minibatch.active),
            taken=self.joint(minibatch),
            active=minibatch.active,
            policies=policies,
            divergence=self.divergence(state, minibatch, alternatives),
            coordination=weights,
            measure=measure,
            measured=measured.astype(measure.dtype),
        )

    def divergence(self, state: OffPolicyState, minibatch: OffPolicyBatch, alternatives: Alternatives) -> jax.Array:
        """The mean of E[ln_q π − ln_q π_old] over the samples in which an agent is active, `[N]`."""
        old, q = state.extra.actors, state.hyperparameters.tsallis_q
        if alternatives.action is None:
            old_log_prob, _ = self.log_probs(old, minibatch)
        else:
            team = self.team(old, minibatch.observation, minibatch.action_mask)
            old_log_prob = distributions.log_prob(team, self.policies.layout, alternatives.action)
            old_log_prob = jnp.moveaxis(old_log_prob, 0, -1)
        change = tsallis_log(alternatives.log_prob, q) - tsallis_log(old_log_prob, q)
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

    def estimate(self, hyperparameters: Any, params: Any, radii: jax.Array, seen: Seen) -> jax.Array:
        """The network's estimates of the non-stationarity, `[B, N]`."""
        edges = pairs_of(seen.active) & (seen.coordination >= hyperparameters.edge_threshold)
        inputs = (seen.observation, seen.features, radii, seen.coordination, edges)
        return jnp.asarray(self.network.apply({"params": params}, *inputs))

    def radii_loss(self, radii: jax.Array, hyperparameters: Any, params: Any, seen: Seen) -> jax.Array:
        """Σᵢ E[ln_q πⁱ − ln_q πⁱ_old] / δᵢ + the mean of the network's estimates: what the radii minimize."""
        estimate = self.estimate(hyperparameters, params, radii, seen)
        return jnp.sum(seen.divergence / radii) + weighted_mean(estimate, seen.active.astype(estimate.dtype))

    def step_radii(self, state: OffPolicyState, seen: Seen) -> Learner:
        """The radii after a step."""
        h, learner = state.hyperparameters, state.extra.radii
        gradient = jax.grad(self.radii_loss)(learner.params, h, state.extra.network.params, seen)
        learner, _ = adam_step(learner, gradient, of_now(h.radius_lr, state), h.max_grad_norm, h.adam_eps)
        return learner._replace(params=jnp.clip(learner.params, h.radius_min, h.radius_max))

    def step_network(self, state: OffPolicyState, seen: Seen) -> tuple[Learner, jax.Array]:
        """The network after a step of regression on the non-stationarity, and the mean squared error before."""
        h, (max_grad_norm, l2) = state.hyperparameters, self.critics.limits(state.hyperparameters)

        def loss(params: Any) -> jax.Array:
            error = self.estimate(h, params, state.extra.radii.params, seen) - seen.measure
            return weighted_mean(jnp.square(error), seen.measured)

        error, gradient = jax.value_and_grad(loss)(state.extra.network.params)
        rate = of_now(h.decomposition_lr, state)
        return adam_step(state.extra.network, gradient, rate, max_grad_norm, h.adam_eps, l2)[0], error

    def step_models(self, state: OffPolicyState, seen: Seen) -> tuple[Learner, jax.Array]:
        """The models after a step on the replay's actions, and their mean cross-entropies `[N]` before."""
        h, weight = state.hyperparameters, pairs_of(seen.active).astype(seen.measure.dtype)
        by_model, layout = jax.vmap(weighted_mean, in_axes=1), self.policies.layout

        def loss(params: Any) -> tuple[jax.Array, jax.Array]:
            models, _ = self.modeled(params, seen.observation, seen.policies)
            taken = jnp.broadcast_to(seen.taken[:, None], (*weight.shape, seen.taken.shape[-1]))
            cross_entropy = by_model(-distributions.log_prob(models, layout, taken), weight)
            penalty = by_model(mean_square(models, layout), weight)
            return jnp.sum(cross_entropy + h.logit_penalty * penalty), cross_entropy

        gradient, cross_entropy = jax.grad(loss, has_aux=True)(state.extra.modeling.params)
        step = jax.vmap(adam_step, in_axes=(0, 0, None, None, None))  # every agent's model is a network of its own
        rate = of_now(h.modeling_lr, state)
        return step(state.extra.modeling, gradient, rate, h.max_grad_norm, h.adam_eps)[0], cross_entropy


def of_now(rate: jax.Array, state: OffPolicyState) -> jax.Array:
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
