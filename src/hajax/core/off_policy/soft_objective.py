"""The objective of one group of agents in maximum-entropy mirror learning (`hajax.mehaml`), on one minibatch."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from hajax.core.batches import CriticInput
from hajax.core.drifts import Drift, PolicyChange, no_drift
from hajax.core.groups import Groups
from hajax.core.inactive import blank
from hajax.core.losses import weighted_mean
from hajax.core.off_policy.choices import MOST_CHOICES, Choices, choices_of, log_probs, unlisted
from hajax.core.off_policy.joint_actions import JointActions
from hajax.core.off_policy.joint_critics import ActionValues
from hajax.core.off_policy.joint_sequence import GroupActor, GroupObjective, Info, OffPolicySamples, replaced
from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters
from hajax.nn.squashing import Drawn, action_of, draw
from hajax.spec import ActionLayout, EnvSpec


@dataclasses.dataclass(frozen=True)
class SoftObjective(GroupObjective):
    """E[min_j Q_j(s, a) − α log π(a|o) − D] of one group's policies, given the actions of the other agents.

    Samples are `[K, B]`. States at which no member is active have weight 0, and the entropies of inactive members are
    omitted. It is a `hajax.neighborhoods.PolicyObjective`.
    """

    actions: JointActions
    critics: ActionValues
    actor: GroupActor
    params: Any  # the critics', [2, …]
    inputs: CriticInput  # the critics' inputs beside actions, [B, …]
    joint: jax.Array  # [B, N, F], the joint action that the group sees
    temperature: jax.Array  # [K, 1], α
    drift: Drift

    @property
    def layout(self) -> ActionLayout:
        return self.actor.tables.layout

    def distribution(self, params: Any, samples: OffPolicySamples) -> ActionParameters:
        return self.actor.distribution(params, samples)

    def loss(self, key: jax.Array, params: Any, old_params: Any, samples: OffPolicySamples) -> tuple[jax.Array, Info]:
        old = None if self.drift is no_drift else self.distribution(old_params, samples)
        loss = -self.gain(key, self.distribution(params, samples), old, samples)
        return loss, {"policy_loss": loss}

    def gain(
        self, key: jax.Array, new: ActionParameters, old: ActionParameters | None, samples: OffPolicySamples
    ) -> jax.Array:
        value_key, drift_key = jax.random.split(key)
        value = self.value(value_key, new, samples)
        return value if old is None or self.drift is no_drift else value - self.penalty(drift_key, new, old, samples)

    def value(self, key: jax.Array, parameters: ActionParameters, samples: OffPolicySamples) -> jax.Array:
        """E[min_j Q_j − α log π] of policies with the distribution parameters `[K, B, …]`."""
        drawn, features = self.drawn(key, parameters, samples)
        if samples.objective_data is None:  # the expectation is sampled
            return mean_of_states(samples, self.soft_value(drawn, features, samples))
        expected = self.expected(parameters, jax.lax.stop_gradient(features), samples)
        return mean_of_states(samples, sum_of_active(samples, expected))

    def penalty(
        self, key: jax.Array, new: ActionParameters, old: ActionParameters, samples: OffPolicySamples
    ) -> jax.Array:
        """The mean over the states of Σ D over the members, for a step from the policies `old` to `new`."""
        one, other = jax.random.split(key)
        drawn, features = self.drawn(one, old, samples)
        baseline = self.soft_value(*self.drawn(other, old, samples), samples)
        advantage = self.soft_value(drawn, features, samples) - baseline
        # Ratios are computed before squashing, which is one-to-one and does not change them.
        action = jax.lax.stop_gradient(action_of(self.layout, drawn.choice, drawn.raw))
        log_ratio = distributions.log_prob(new, self.layout, action) - distributions.log_prob(old, self.layout, action)
        change = PolicyChange(
            log_ratio=jnp.where(samples.weight > 0, log_ratio, 0),
            advantage=jnp.broadcast_to(jax.lax.stop_gradient(advantage), log_ratio.shape),
            new=new,
            layout=self.layout,
            old_policy=lambda: old,
        )
        return mean_of_states(samples, sum_of_active(samples, self.drift(change, self.hyperparameters)))

    def drawn(self, key: jax.Array, parameters: ActionParameters, samples: OffPolicySamples) -> tuple[Drawn, jax.Array]:
        """Sampled actions of all members, and their features `[K, B, F]`, zeros for inactive members."""
        drawn = draw(key, parameters, self.layout, self.hyperparameters.gumbel_temperature)
        features = self.actions.join(self.layout, drawn.choice, drawn.unit)
        return drawn, blank(features, samples.weight)

    def soft_value(self, drawn: Drawn, features: jax.Array, samples: OffPolicySamples) -> jax.Array:
        """min_j Q_j − Σ α log π, summed over the active members, `[B]`."""
        value = self.smaller(replaced(self.joint, samples.slot, features))
        return value - sum_of_active(samples, self.temperature * drawn.log_prob)

    def smaller(self, joint: jax.Array) -> jax.Array:
        """min_j Q_j at the joint actions, `[B]`."""
        return jax.vmap(self.critics.value, in_axes=(0, None, None))(self.params, self.inputs, joint).min(0)

    def expected(self, parameters: ActionParameters, features: jax.Array, samples: OffPolicySamples) -> jax.Array:
        """Σ_a π(a|o) (min_j Q_j(s, a) − α log π(a|o)) per member, `[K, B]`, with the other members' sampled actions."""
        assert parameters.logits is not None
        index = jnp.asarray(samples.objective_data.index)
        log_prob, possible = log_probs(samples.objective_data, parameters.logits, self.layout)  # [K, B, M]
        prob = jnp.where(possible, jnp.exp(log_prob), 0)
        one_hot = jax.nn.one_hot(index, self.actions.spec.num_choices, dtype=prob.dtype)
        own = self.actions.join(self.layout, one_hot, jnp.zeros(index.shape, prob.dtype))  # [M, F]
        joint = replaced(self.joint, samples.slot, features)

        def value(slot, own):
            return self.smaller(joint.at[:, slot].set(own.astype(joint.dtype), mode="drop"))

        of_choices = jax.vmap(value, in_axes=(None, 0), out_axes=-1)
        values = jax.vmap(of_choices, in_axes=(0, None))(samples.slot, own)  # [K, B, M]
        return jnp.sum(prob * (values - self.temperature[..., None] * log_prob), -1)


def mean_of_states(samples: OffPolicySamples, x: jax.Array) -> jax.Array:
    """The mean of `x` `[B]` over the states at which any member is active."""
    return weighted_mean(x, samples.weight.max(0))


def sum_of_active(samples: OffPolicySamples, x: jax.Array) -> jax.Array:
    """The sum of `x` `[K, B]` over the active members, `[B]`."""
    return jnp.sum(jnp.where(samples.weight > 0, x, 0), 0)


def own_choices(name: str, spec: EnvSpec, groups: Groups) -> Choices:
    """All choices of the agents of each group, `[G, M, D]` and `[G, M]`.

    Raises:
      ValueError: an agent has a Box or more than `MOST_CHOICES` choices.
    """
    agents = groups.first_member.tolist()
    if reason := unlisted(spec, agents):
        raise ValueError(
            f"expectation='exact' of {name}, but {reason}; allowed: sampled, unless every agent has discrete "
            f"actions and at most {MOST_CHOICES} joint choices"
        )
    return choices_of(spec, agents)
