"""Sequential policy improvement with the joint action, the core of every off-policy heterogeneous-agent algorithm.

The carry of the sequential update is the joint action. Agent i_m ascends a joint critic at the actions of the *new*
policies of the agents updated before (Kuba et al., *Heterogeneous-Agent Mirror Learning*, 2022b, Eq. 7),

    E[Q(s, a^{i_1:m-1}_new, a^{i_m}, a^{i_m+1:n})].

The action of its new policy then replaces its action in the carry for the agents updated later.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from hajax.core.actors import GroupTables, TeamActors, policy_input
from hajax.core.batches import CriticInput, OffPolicyBatch
from hajax.core.groups import Groups
from hajax.core.inactive import blank
from hajax.core.losses import weighted_mean
from hajax.core.off_policy.joint_critics import ActionValues
from hajax.core.optimization import Learner
from hajax.core.sequential import draw_permutation, sequential_update
from hajax.nn.distributions import ActionParameters
from hajax.spec import EnvSpec

Info = dict[str, jax.Array]


class OffPolicySamples(NamedTuple):
    """One group's samples of a minibatch, arrays `[K, B, …]` (with a leading axis G: those of all groups)."""

    observation: jax.Array  # [K, B, O]
    action_mask: jax.Array | None  # bool [K, B, D, C]; None if the environment has none
    weight: jax.Array  # [K, B]: 1 where a member was active, else 0
    slot: jax.Array  # int [K]: each member's row in the joint action; N, which is out of range, for padding
    objective_data: Any = None  # what else the objective reads, a tree of arrays [G, …] over all groups


class Policies(Protocol):
    """The team's policies with parameters stacked over groups: `TeamActors` or `OwnValues`."""

    @property
    def spec(self) -> EnvSpec: ...
    @property
    def groups(self) -> Groups: ...
    @property
    def agent_id(self) -> bool: ...
    @property
    def tables(self) -> Any:
        """The masks and layouts of each group, arrays `[G, …]`."""


@dataclasses.dataclass(frozen=True)
class GroupActor:
    """One group's actors as a function of their parameters and samples."""

    actors: TeamActors
    tables: GroupTables

    def distribution(self, params: Any, samples: OffPolicySamples) -> ActionParameters:
        """The parameters of the group's action distributions, `[K, B, …]`."""
        return self.actors.distribution(params, self.tables, samples.observation, samples.action_mask)[0]


@dataclasses.dataclass(frozen=True)
class GroupObjective:
    """One group's objective on a minibatch: the base class of off-policy `hajax.neighborhoods.Objective`s."""

    settings: Any
    hyperparameters: Any
    learning_rate: Any
    minibatches: ClassVar[int] = 1

    def samples_of(self, params: Any, samples: OffPolicySamples) -> OffPolicySamples:
        return samples


def group_samples(policies: Policies, batch: OffPolicyBatch) -> OffPolicySamples:
    """The samples of all groups `[G, K, B, …]`, from a minibatch `[B, …]`."""
    groups, spec = policies.groups, policies.spec
    observation = groups.gather(policy_input(spec, batch.observation, policies.agent_id), axis=1)
    active = groups.gather(batch.active, axis=1) & jnp.asarray(groups.member_mask)[..., None]
    return OffPolicySamples(
        observation=observation,
        action_mask=groups.gather(batch.action_mask, axis=1) if spec.masks_actions else None,
        weight=active.astype(observation.dtype),
        slot=jnp.where(groups.member_mask, groups.members, spec.num_agents),
    )


def replaced(joint: jax.Array, slot: jax.Array, own: jax.Array) -> jax.Array:
    """The joint action `[B, N, F]` with the features `[K, B, F]` of a group's actions in the rows of its members."""
    return joint.at[:, slot].set(jnp.moveaxis(own, 0, 1).astype(joint.dtype), mode="drop")


ImproveGroup = Callable[[jax.Array, Any, Learner, OffPolicySamples, jax.Array], tuple[Learner, jax.Array, Info]]


def improve_in_sequence(
    key: jax.Array,
    policies: Policies,
    order: str,
    learners: Learner,
    samples: OffPolicySamples,
    joint: jax.Array,
    improve: ImproveGroup,
) -> tuple[Learner, Info]:
    """Improves every group's policy once, in `order`. A group's new actions replace the old ones for later groups.

    The rows of inactive agents in the joint action are zeros throughout.

    Args:
      key: the key for the permutation and for `improve`.
      order: `random`, `fixed`, or `simultaneous` (every group sees the initial `joint`).
      learners: stacked `[G, …]`.
      samples: the samples of all groups, `[G, K, B, …]`.
      joint: the joint action that the first group sees, `[B, N, F]`.
      improve: `(key, tables, learner, samples, joint) -> (learner, features, info)` updates one group, given its slice
        of `policies.tables`. `features` `[K, B, F]` are those of its new policy's actions.

    Returns:
      The new learners, and the groups' info stacked `[G]`.
    """
    order_key, improve_key = jax.random.split(key)
    num_groups = policies.groups.num_groups

    def update_group(learner, inputs, joint):
        key, tables, samples = inputs
        learner, features, info = improve(key, tables, learner, samples, joint)
        return learner, replaced(joint, samples.slot, blank(features, samples.weight)), info

    learners, _, info = sequential_update(
        update_group,
        draw_permutation(order_key, num_groups, order),
        learners,
        (jax.random.split(improve_key, num_groups), policies.tables, samples),
        joint,
    )
    return learners, info


def score(
    critics: ActionValues, params: Any, inputs: CriticInput, joint: jax.Array, samples: OffPolicySamples, own: jax.Array
) -> jax.Array:
    """The mean value of a group's actions `own` `[K, B, F]` in the joint action, over the samples.

    A critic for the team evaluates the actions of all members together. With a critic per agent, each critic evaluates
    the action of its own agent, and gradients do not flow through the actions of the other members: no agent learns
    from another agent's reward.

    Args:
      params: the parameters of one network per critic, `[V, …]`.
      samples: the group's samples. Samples at which no member was active have weight 0.
    """
    own = blank(own, samples.weight)
    if not critics.per_agent:
        value = critics.value(jax.tree.map(lambda x: x[0], params), inputs, replaced(joint, samples.slot, own))
        return weighted_mean(value, samples.weight.max(0))
    others = replaced(joint, samples.slot, lax.stop_gradient(own))

    def of_member(slot, own):
        critic = jax.tree.map(lambda x: jnp.take(x, slot, axis=0, mode="clip"), params)
        return critics.value(critic, inputs, others.at[:, slot].set(own, mode="drop"))

    return weighted_mean(jax.vmap(of_member)(samples.slot, own), samples.weight)
