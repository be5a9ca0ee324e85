"""Mirror descent with a local trust region per agent, as in MAMD.

Li et al., *Dealing with Non-Stationarity in MARL via Trust-Region Decomposition* (ICLR 2022):
https://arxiv.org/abs/2102.10616.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hajax.core.batches import OffPolicyBatch
from hajax.core.losses import weighted_mean
from hajax.core.off_policy.attention_settings import MirrorSettings
from hajax.core.off_policy.counterfactual import CounterfactualObjective, CounterfactualParts, log_probability
from hajax.core.off_policy.joint_sequence import Info, OffPolicySamples
from hajax.core.off_policy.template import OffPolicyState
from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters

LEAST_PROBABILITY = 1e-6


def tsallis_log(log_prob: jax.Array, q: jax.Array | float, least: float = 0.0) -> jax.Array:
    """ln_q(p) = (p^(1−q) − 1) / (1 − q), and ln_1(p) = log p, from log p; p is raised to `least`."""
    if least:
        log_prob = jnp.maximum(log_prob, jnp.log(least))
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

    The cost of members without a trust region is log π / ρ, as in MAAC.
    """

    least: float  # the least probability in the logarithms

    def old(self, samples: OffPolicySamples) -> ActionParameters:
        """The old policies' distributions."""
        return self.actor.distribution(samples.objective_data.old_params, samples)

    def cost(self, log_prob: jax.Array, samples: OffPolicySamples) -> jax.Array:
        data, q = samples.objective_data, self.hyperparameters.tsallis_q
        old_log_prob = log_probability(self.old(samples), self.actor.tables.layout, self.action)
        change = tsallis_log(log_prob, q, self.least) - tsallis_log(old_log_prob, q, self.least)
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

    @property
    def least(self) -> float:
        """The least probability in Tsallis logarithms; densities, which have units, have none."""
        return 0.0 if self.critics.choices is None else LEAST_PROBABILITY

    def radii(self, state: OffPolicyState) -> jax.Array:
        """δ of every agent, `[N]`."""
        return jnp.broadcast_to(state.hyperparameters.radius, (self.policies.spec.num_agents,))

    def samples(self, state: OffPolicyState, minibatch: OffPolicyBatch) -> OffPolicySamples:
        samples, groups = super().samples(state, minibatch), self.policies.groups
        constrained = groups.gather(jnp.asarray(self.constrained), axis=0)
        data = MirrorData(state.extra.actors, groups.gather(self.radii(state), axis=0), constrained)
        return samples._replace(objective_data=data)

    def group_objective(self, **fields: Any) -> MirrorObjective:
        return MirrorObjective(**fields, least=self.least)

    def finish(self, state: OffPolicyState, minibatch: OffPolicyBatch, info: Info) -> tuple[OffPolicyState, Info]:
        """Copies the new policies to π_old after every `old_policy_interval`-th update."""
        state, info = super().finish(state, minibatch, info)
        due = (state.updates + 1) % self.settings.old_policy_interval == 0
        old = jax.tree.map(lambda old, new: jnp.where(due, new, old), state.extra.actors, state.actors.params)
        return state._replace(extra=state.extra._replace(actors=old)), info
