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
from hajax.core.batches import GroupBatch
from hajax.core.normalisation import RunningMoments
from hajax.core.optimisation import Learner
from hajax.core.sequential import draw_permutation, sequential_update
from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters


@dataclasses.dataclass(frozen=True)
class GroupPolicy:
    """One group's policy as functions of its parameters and samples `[K, B, …]`."""

    actors: TeamActors
    tables: GroupTables
    moments: RunningMoments | None

    def distribution(self, params: Any, samples: GroupBatch) -> ActionParameters:
        """The action distribution at every sample."""
        return self.actors.distribution(params, self.tables, self.moments, samples.observation, samples.action_mask)

    def log_prob_and_entropy(self, params: Any, samples: GroupBatch) -> tuple[jax.Array, jax.Array]:
        """log π(a|o) of the samples' actions and the entropy of π(·|o), each `[K, B]`."""
        parameters = self.distribution(params, samples)
        log_prob = distributions.log_prob(parameters, self.tables.layout, samples.action)
        return log_prob, distributions.entropy(parameters, self.tables.layout)

    def log_ratio(self, params: Any, samples: GroupBatch) -> jax.Array:
        """log π_new/π_old of the group's joint action, `[B]`; members that are not alive have no part in it."""
        log_prob, _ = self.log_prob_and_entropy(params, samples)
        return jnp.where(samples.weight > 0, log_prob - samples.log_prob, 0).sum(0)


Improve = Callable[[jax.Array, GroupPolicy, Learner, GroupBatch], tuple[Learner, dict[str, jax.Array]]]


def improve_in_sequence(
    key: jax.Array,
    actors: TeamActors,
    order: str,
    learners: Learner,
    moments: RunningMoments | None,
    samples: GroupBatch,
    improve: Improve,
) -> tuple[Learner, dict[str, jax.Array]]:
    """Improves every group's policy once, in `order`; the ratio is recomputed on the full batch after each.

    Args:
      key: drawn from for the permutation and by `improve`.
      order: `random`, `fixed`, or `simultaneous` (no group sees another's change: M = Â).
      learners: stacked `[G, …]`.
      samples: of all groups, `[G, K, B, …]`, with standardised advantages.
      improve: `(key, policy, learner, samples) -> (learner, info)`, one group's whole improvement on its samples
        `[K, B, …]`, whose `advantage` is M.

    Returns:
      The new learners, and the groups' info stacked `[G]`, with the mean of the final `compound_ratio`.
    """
    order_key, improve_key = jax.random.split(key)
    num_groups = actors.groups.num_groups

    def update_group(learner, inputs, ratio):
        key, tables, moments, samples = inputs
        policy = GroupPolicy(actors, tables, moments)
        learner, info = improve(key, policy, learner, samples._replace(advantage=ratio * samples.advantage))
        return learner, ratio * jnp.exp(policy.log_ratio(learner.params, samples)), info

    learners, ratio, info = sequential_update(
        update_group,
        draw_permutation(order_key, num_groups, order),
        learners,
        (jax.random.split(improve_key, num_groups), actors.tables, moments, samples),
        jnp.ones_like(samples.log_prob[0, 0]),
    )
    return learners, info | {"compound_ratio": ratio.mean()}
