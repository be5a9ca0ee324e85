"""Sequential policy improvement with the compound ratio, the core of every on-policy heterogeneous-agent algorithm.

Agent i_m improves its policy against the joint advantage weighted by what the agents before it have changed,

    M^{i_1:m}(s, a) = Π_{j<m} π_new(a^{i_j} | o^{i_j}) / π_old(a^{i_j} | o^{i_j}) · Â(s, a),

an unbiased estimate of its advantage given *their new* policies (Kuba et al., 2022, Proposition 3 and Eq. 10).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hajax.core.actors import GroupTables, TeamActors
from hajax.core.drifts import Drift, PolicyChange
from hajax.core.losses import weighted_mean
from hajax.core.on_policy.samples import GroupBatch, in_chunks
from hajax.core.optimization import Learner
from hajax.core.sequential import draw_permutation, sequential_update
from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters
from hajax.spec import ActionLayout


@dataclasses.dataclass(frozen=True)
class GroupPolicy:
    """One group's policy as functions of its parameters and samples `[K, B, …]`, or sequences `[K, B, L, …]`."""

    actors: TeamActors
    tables: GroupTables

    def distribution(self, params: Any, samples: GroupBatch) -> ActionParameters:
        """The action distribution at every sample."""
        return self._evaluate(params, samples)[0]

    def samples_of(self, params: Any, rollout: GroupBatch) -> GroupBatch:
        """What to learn from: with a memory, chunks of the rollout's sequences, else the samples as they are.

        A chunk begins with the memory that the policy of `params`, which made the rollout, had there. It is recomputed,
        so that a rollout need only tell what was remembered before its step 0.
        """
        if not self.actors.memory.remembers:
            return rollout
        return in_chunks(rollout, self._evaluate(params, rollout)[1], self.actors.chunk_length)

    def change(self, old_params: Any, new_params: Any, samples: GroupBatch) -> PolicyChange:
        """From the policy of `old_params`, which drew the samples, to that of `new_params`."""
        new = self.distribution(new_params, samples)
        return self.change_to(new, lambda: self.distribution(old_params, samples), samples)

    def change_to(
        self, new: ActionParameters, old: Callable[[], ActionParameters], samples: GroupBatch
    ) -> PolicyChange:
        """The same from the policies' distributions."""
        return PolicyChange(self._log_ratio(new, samples), samples.advantage, new, self.tables.layout, old)

    def log_ratio(self, params: Any, samples: GroupBatch) -> jax.Array:
        """log π_new/π_old of the group's joint action, `[B]` or `[B, L]`; inactive members have no part in it."""
        return self._log_ratio(self.distribution(params, samples), samples).sum(0)

    def _evaluate(self, params: Any, samples: GroupBatch) -> tuple[ActionParameters, Any]:
        inputs = (samples.observation, samples.action_mask, samples.memory_input)
        return self.actors.distribution(params, self.tables, *inputs)

    def _log_ratio(self, new: ActionParameters, samples: GroupBatch) -> jax.Array:
        log_prob = distributions.log_prob(new, self.tables.layout, samples.action)
        # A sample without weight may be of an impossible action; 0 · ∞ would make the gradient NaN.
        return jnp.where(samples.weight > 0, log_prob - samples.log_prob, 0)


@dataclasses.dataclass(frozen=True)
class MirrorObjective:
    """E[r · M − D] of one group on a rollout: the sampled mirror operator (Kuba et al., 2022b, Definition 3).

    A `PolicyObjective` of `core/neighborhoods.py`, whose samples are `GroupBatch`es with M as their `advantage`.
    """

    policy: GroupPolicy
    drift: Drift
    diagnostics: Callable[[PolicyChange, Any], dict[str, jax.Array]]  # elementwise, as a drift
    settings: Any
    hyperparameters: Any
    learning_rate: Any

    @property
    def minibatches(self) -> int:
        return self.settings.minibatches

    @property
    def layout(self) -> ActionLayout:
        return self.policy.tables.layout

    def samples_of(self, params: Any, rollout: GroupBatch) -> GroupBatch:
        return self.policy.samples_of(params, rollout)

    def distribution(self, params: Any, samples: GroupBatch) -> ActionParameters:
        return self.policy.distribution(params, samples)

    def at(self, change: PolicyChange) -> jax.Array:
        """r · M − D at every sample."""
        return change.ratio * change.advantage - self.drift(change, self.hyperparameters)

    def gain(self, key: jax.Array, new: ActionParameters, old: ActionParameters, samples: GroupBatch) -> jax.Array:
        return weighted_mean(self.at(self.policy.change_to(new, lambda: old, samples)), samples.weight)

    def loss(
        self, key: jax.Array, params: Any, old_params: Any, samples: GroupBatch
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """−E[r · M − D] − c · H.

        The entropy bonus c · H (`entropy_coef`) is PPO's and no part of mirror learning, whose guarantees hold for
        c = 0.
        """
        change = self.policy.change(old_params, params, samples)

        def mean(x):
            return weighted_mean(x, samples.weight)

        surrogate = mean(self.at(change))
        entropy = mean(distributions.entropy(change.new, change.layout))
        info = {
            "policy_loss": -surrogate,
            "entropy": entropy,
            "approx_kl": mean(change.ratio - 1 - change.log_ratio),
        }
        info |= {name: mean(x) for name, x in self.diagnostics(change, self.hyperparameters).items()}
        return -surrogate - getattr(self.hyperparameters, "entropy_coef", 0) * entropy, info


ImproveGroup = Callable[[jax.Array, GroupPolicy, Learner, GroupBatch], tuple[Learner, dict[str, jax.Array]]]


def improve_in_sequence(
    key: jax.Array,
    actors: TeamActors,
    order: str,
    learners: Learner,
    samples: GroupBatch,
    improve: ImproveGroup,
) -> tuple[Learner, dict[str, jax.Array]]:
    """Improves every group's policy once, in `order`; the ratio is recomputed on the full batch after each.

    With a memory, it is the ratio of the new policy with the new policy's own memory since the rollout began.

    Args:
      key: drawn from for the permutation and by `improve`.
      order: `random`, `fixed`, or `simultaneous` (no group sees another's change: M = Â).
      learners: stacked `[G, …]`.
      samples: of all groups, `[G, K, B, …]`, with standardized advantages; with a memory, the rollout's sequences.
      improve: `(key, policy, learner, samples) -> (learner, info)`, one group's whole improvement on its samples
        `[K, B, …]`, whose `advantage` is M; with a memory, they are the rollout's sequences, of which
        `policy.samples_of` makes the chunks to learn from.

    Returns:
      The new learners, and the groups' info stacked `[G]`, with the mean of the final `compound_ratio`.
    """
    order_key, improve_key = jax.random.split(key)
    num_groups = actors.groups.num_groups

    def update_group(learner, inputs, ratio):
        key, tables, samples = inputs
        policy = GroupPolicy(actors, tables)
        weighted = samples._replace(advantage=ratio * samples.advantage)
        learner, info = improve(key, policy, learner, weighted)
        return learner, ratio * jnp.exp(policy.log_ratio(learner.params, samples)), info

    learners, ratio, info = sequential_update(
        update_group,
        draw_permutation(order_key, num_groups, order),
        learners,
        (jax.random.split(improve_key, num_groups), actors.tables, samples),
        jnp.ones_like(samples.log_prob[0, 0]),
    )
    return learners, info | {"compound_ratio": ratio.mean()}
