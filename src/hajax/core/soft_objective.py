"""What one group of agents maximizes in maximum-entropy mirror learning, from one minibatch (see `core/mehaml.py`)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from hajax.core.advantages import weighted_mean
from hajax.core.choices import MOST_CHOICES, Choices, choices_of, unlisted
from hajax.core.drifts import Drift, PolicyChange
from hajax.core.groups import Groups
from hajax.core.inactive import blank
from hajax.core.joint_actions import JointActions
from hajax.core.joint_critics import ActionValues
from hajax.core.off_policy import GroupActor, GroupSamples, replaced
from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters
from hajax.nn.squashing import Drawn, action_of, draw
from hajax.spec import EnvSpec


@dataclasses.dataclass(frozen=True)
class SoftObjective:
    """E[min_j Q_j(s, a) − α log π(a|o)] of one group's policies, the other agents' actions given.

    Samples are `[K, B]`; a state at which no member is alive does not count, and a member that is not alive has no
    entropy.
    """

    actions: JointActions
    critics: ActionValues
    actor: GroupActor
    samples: GroupSamples
    joint: jax.Array  # [N, B, F], the joint action that the group sees
    params: Any  # the critics', [2, …]
    state: jax.Array  # [B, S]
    temperature: jax.Array  # [K, 1], α
    softness: jax.Array | float

    @property
    def layout(self):
        return self.actor.tables.layout

    @property
    def counted(self) -> jax.Array:
        """`[B]`, 1 where a member is alive."""
        return self.samples.weight.max(0)

    def mean(self, x: jax.Array) -> jax.Array:
        """The mean of `[B]` over the states that count."""
        return weighted_mean(x, self.counted)

    def living(self, x: jax.Array) -> jax.Array:
        """The sum of `[K, B]` over the members that are alive, `[B]`."""
        return jnp.sum(jnp.where(self.samples.weight > 0, x, 0), 0)

    def smaller(self, joint: jax.Array) -> jax.Array:
        """min_j Q_j `[B]`."""
        return jax.vmap(self.critics.value, in_axes=(0, None, None))(self.params, self.state, joint).min(0)

    def drawn(self, key: jax.Array, parameters: ActionParameters) -> tuple[Drawn, jax.Array]:
        """Actions of all members, and their features `[K, B, F]`, zeros for inactive ones."""
        drawn = draw(key, parameters, self.layout, self.softness)
        features = self.actions.join(self.layout, drawn.choice, drawn.unit)
        return drawn, blank(features, self.samples.weight)

    def soft_value(self, drawn: Drawn, features: jax.Array) -> jax.Array:
        """min_j Q_j − Σ α log π over the members, `[B]`."""
        value = self.smaller(replaced(self.joint, self.samples.place, features))
        return value - self.living(self.temperature * drawn.log_prob)

    def __call__(self, key: jax.Array, parameters: ActionParameters) -> jax.Array:
        """The objective of policies with these parameters `[K, B, …]`."""
        drawn, features = self.drawn(key, parameters)
        if self.samples.choices is None:  # the expectation is sampled
            return self.mean(self.soft_value(drawn, features))
        return self.mean(self.living(self._expected(parameters, jax.lax.stop_gradient(features))))

    def _expected(self, parameters: ActionParameters, features: jax.Array) -> jax.Array:
        """Each member's Σ_a π(a|o) (min_j Q_j(s, a) − α log π(a|o)), `[K, B]`, the other members acting as drawn."""
        assert parameters.logits is not None
        index, exists = (jnp.asarray(x) for x in self.samples.choices)
        scores = jax.nn.log_softmax(parameters.logits)[..., jnp.arange(index.shape[-1]), index]  # [K, B, M, D]
        scores = jnp.where(self.layout.discrete, scores, 0).sum(-1)
        possible = exists & jnp.isfinite(scores)
        log_prob = jnp.where(possible, scores, 0)
        prob = jnp.where(possible, jnp.exp(log_prob), 0)
        one_hot = jax.nn.one_hot(index, self.actions.spec.num_choices, dtype=prob.dtype)
        own = self.actions.join(self.layout, one_hot, jnp.zeros(index.shape, prob.dtype))  # [M, F]
        joint = replaced(self.joint, self.samples.place, features)

        def value(place, own):
            return self.smaller(joint.at[place].set(own.astype(joint.dtype), mode="drop"))

        of_choices = jax.vmap(value, in_axes=(None, 0), out_axes=-1)
        values = jax.vmap(of_choices, in_axes=(0, None))(self.samples.place, own)  # [K, B, M]
        return jnp.sum(prob * (values - self.temperature[..., None] * log_prob), -1)

    def penalty(
        self, key: jax.Array, drift: Drift, old: ActionParameters, parameters: ActionParameters, numbers: Any
    ) -> jax.Array:
        """The mean drift Σ D from the policies of `old` to those of `parameters`."""
        one, other = jax.random.split(key)
        drawn, features = self.drawn(one, old)
        advantage = self.soft_value(drawn, features) - self.soft_value(*self.drawn(other, old))
        # Before they are squashed, as `nn/distributions.py` has them: squashing is one-to-one and leaves ratios alone.
        action = jax.lax.stop_gradient(action_of(self.layout, drawn.choice, drawn.raw))
        log_ratio = distributions.log_prob(parameters, self.layout, action) - distributions.log_prob(
            old, self.layout, action
        )
        change = PolicyChange(
            log_ratio=jnp.where(self.samples.weight > 0, log_ratio, 0),
            advantage=jnp.broadcast_to(jax.lax.stop_gradient(advantage), log_ratio.shape),
            new=parameters,
            layout=self.layout,
            old_policy=lambda: old,
        )
        return self.mean(self.living(drift(change, numbers)))


def own_choices(name: str, spec: EnvSpec, groups: Groups) -> Choices:
    """All joint choices of one agent of each group, `[G, M, D]` and `[G, M]`.

    Raises ValueError if an agent has a Box, or too many.
    """
    agents = groups.first_member.tolist()
    if reason := unlisted(spec, agents):
        raise ValueError(
            f"expectation='exact' of {name}, but {reason}; allowed: sampled, unless every agent has discrete "
            f"actions and at most {MOST_CHOICES} joint choices"
        )
    return choices_of(spec, agents)
