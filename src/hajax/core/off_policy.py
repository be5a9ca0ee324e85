"""What off-policy algorithms share: the critics' regression, targets, and policies improved in sequence.

The carry of the sequential update is the joint action. Agent i_m ascends a joint critic in which the agents before it
already act by their *new* policies (Kuba et al., *Heterogeneous-Agent Mirror Learning*, 2022, Eq. 7),

    E[Q(s, a^{i_1:m-1}_new, a^{i_m}, a^{i_m+1:n})],

and where its own fresh action then replaces the old one for the agents after it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from hajax.core.actors import GroupTables, TeamActors, policy_input
from hajax.core.advantages import weighted_mean
from hajax.core.groups import Groups
from hajax.core.inactive import blank
from hajax.core.joint_critics import ActionValues
from hajax.core.observation_moments import ObservationMoments
from hajax.core.optimization import Learner, adam_step
from hajax.core.sequential import draw_permutation, sequential_update
from hajax.core.transitions import OffPolicyBatch, discounted
from hajax.nn.distributions import ActionParameters
from hajax.spec import EnvSpec

Info = dict[str, jax.Array]


class OffPolicyState(NamedTuple):
    """All that the next update needs. `hyperparameters` are numbers inside the state, so a sweep is a `vmap`."""

    actors: Learner  # stacked [G, …]
    critics: Any  # a `Learner`, stacked [V, copies, …]; `None` if there are none
    target_actors: Any  # parameters, stacked [G, …]; `None` if targets use the actors themselves
    target_critics: Any  # parameters, stacked [V, copies, …]; `None` if there are none
    updates: jax.Array  # int []: updates done so far
    hyperparameters: Any
    temperatures: Learner | None = None  # log α of every agent, [N], if it adapts
    moments: ObservationMoments | None = None  # if observations are normalized


class GroupSamples(NamedTuple):
    """What one group sees of a minibatch, `[K, B, …]` each (with all groups in front: `[G, K, B, …]`)."""

    observation: jax.Array  # [K, B, O]
    action_mask: jax.Array | None  # bool [K, B, D, C]; None if the environment has none
    weight: jax.Array  # [K, B]: 1 where a member was alive, else 0
    place: jax.Array  # int [K]: each member's row in the joint action; N, which is none, for what only fills up
    choices: Any = None  # `Choices` [M], if something goes through all of one agent's


class Policies(Protocol):
    """The team's policies, in groups: `TeamActors`, or the agents' `OwnValues`."""

    @property
    def spec(self) -> EnvSpec: ...
    @property
    def groups(self) -> Groups: ...
    @property
    def agent_id(self) -> bool: ...
    @property
    def tables(self) -> Any:
        """What padding means for each group, `[G, …]`."""


class Critics(Protocol):
    """Networks on the state and the joint action, all of one shape."""

    def value(self, params: Any, state: jax.Array, joint: jax.Array) -> jax.Array:
        """One network's values `[B]` of states `[B, S]` and joint actions `[N, B, F]`."""


@dataclasses.dataclass(frozen=True)
class GroupActor:
    """One group's actor as a function of its parameters and samples."""

    actors: TeamActors
    tables: GroupTables

    def distribution(self, params: Any, samples: GroupSamples) -> ActionParameters:
        """The parameters of the group's actions, `[K, B, …]`."""
        return self.actors.distribution(params, self.tables, None, samples.observation, samples.action_mask)[0]


def group_samples(policies: Policies, batch: OffPolicyBatch) -> GroupSamples:
    """The samples of all groups, from a minibatch `[B, …]`."""
    groups, spec = policies.groups, policies.spec
    observation = groups.gather(policy_input(spec, batch.observation, policies.agent_id), axis=1)
    alive = groups.gather(batch.active, axis=1) & jnp.asarray(groups.member_mask)[..., None]
    return GroupSamples(
        observation=observation,
        action_mask=groups.gather(batch.action_mask, axis=1) if spec.masks_actions else None,
        weight=alive.astype(observation.dtype),
        place=jnp.where(groups.member_mask, groups.members, spec.num_agents),
    )


def check_minibatches(policy_delay: int, batch: OffPolicyBatch) -> None:
    """Raises ValueError unless the batch has a minibatch for every critic step of an update."""
    found = batch.observation.shape[0]
    if found != policy_delay:
        raise ValueError(
            f"batch of {found} minibatches [P, B, …]; allowed with policy_delay={policy_delay}: {policy_delay}"
        )


def replaced(joint: jax.Array, place: jax.Array, own: jax.Array) -> jax.Array:
    """The joint action `[N, B, F]` with a group's own features `[K, B, F]` in its members' rows."""
    return joint.at[place].set(own.astype(joint.dtype), mode="drop")


def check_spec(name: str, spec: EnvSpec, per_agent_critics: bool) -> None:
    """Raises ValueError unless a joint critic suits the environment: its kind of reward, and one state for the team."""
    allowed = ("team", "individual") if per_agent_critics else ("team",)
    if spec.reward not in allowed:
        raise ValueError(
            f"reward={spec.reward!r} of {spec.name} does not suit {name}, whose critic judges the whole team; "
            f"allowed: {', '.join(allowed)}"
        )
    if spec.state_per_agent:
        raise ValueError(
            f"state_per_agent=True of {spec.name} does not suit {name}, whose critics see one state of the "
            "environment; allowed: False"
        )


Improve = Callable[[jax.Array, Any, Learner, GroupSamples, jax.Array], tuple[Learner, jax.Array, Info]]


def improve_in_sequence(
    key: jax.Array,
    policies: Policies,
    order: str,
    learners: Learner,
    samples: GroupSamples,
    joint: jax.Array,
    improve: Improve,
) -> tuple[Learner, Info]:
    """Improves every group's policy once, in `order`; its new actions replace the old ones for the groups after it.

    Inactive agents have no actions: their rows of the joint action are zeros, before and after.

    Args:
      key: drawn from for the permutation and by `improve`.
      order: `random`, `fixed`, or `simultaneous` (every group sees `joint` as it was).
      learners: stacked `[G, …]`.
      samples: of all groups, `[G, K, B, …]`.
      joint: `[N, B, F]`, the joint action that the first group sees.
      improve: `(key, tables, learner, samples, joint) -> (learner, features, info)`, one group's whole improvement,
        given its tables of `policies.tables`, and the features `[K, B, F]` of what its new policy does.

    Returns:
      The new learners, and the groups' info stacked `[G]`.
    """
    order_key, improve_key = jax.random.split(key)
    num_groups = policies.groups.num_groups

    def update_group(learner, inputs, joint):
        key, tables, samples = inputs
        learner, features, info = improve(key, tables, learner, samples, joint)
        return learner, replaced(joint, samples.place, blank(features, samples.weight)), info

    learners, _, info = sequential_update(
        update_group,
        draw_permutation(order_key, num_groups, order),
        learners,
        (jax.random.split(improve_key, num_groups), policies.tables, samples),
        joint,
    )
    return learners, info


def regress(
    critics: Critics,
    learners: Learner,
    state: jax.Array,
    joint: jax.Array,
    target: jax.Array,
    learning_rate: jax.Array,
    numbers: Any,
) -> tuple[Learner, Info]:
    """One Adam step of every network on mean (y − Q(s, a))², for states `[B, S]`, actions `[N, B, F]`, y `[V, B]`."""

    def step(learner, target):
        def loss(params):
            value = critics.value(params, state, joint)
            return jnp.mean(jnp.square(target - value)), value.mean()

        (value_loss, value), gradient = jax.value_and_grad(loss, has_aux=True)(learner.params)
        learner, norm = adam_step(learner, gradient, learning_rate, numbers.max_grad_norm, numbers.adam_eps)
        return learner, {"value_loss": value_loss, "value": value, "critic_grad_norm": norm}

    return jax.vmap(jax.vmap(step, in_axes=(0, None)))(learners, target)


def fit_critics(
    critics: Critics,
    learners: Learner,
    batch: OffPolicyBatch,
    taken: jax.Array,
    target_values: Callable[[jax.Array, OffPolicyBatch], jax.Array],
    keys: jax.Array,
    learning_rate: jax.Array,
    numbers: Any,
) -> tuple[Learner, Info]:
    """A step of every network on each minibatch in turn, towards Σ_{j<k} γʲ rʲ + γᵏ (1 − terminated) · value.

    Args:
      taken: the joint actions of the minibatches, `[P, N, B, F]`.
      target_values: `(key, minibatch) -> [V, B]`, what the targets say of where the transitions led.
      keys: one per minibatch, `[P]`.
    """
    check_minibatches(len(keys), batch)

    def step(learners: Learner, inputs):
        key, minibatch, taken = inputs
        target = discounted(minibatch, target_values(key, minibatch), numbers.discount)
        return regress(critics, learners, minibatch.state, taken, target, learning_rate, numbers)

    learners, info = lax.scan(step, learners, (keys, batch, taken))
    return learners, {name: x.mean() for name, x in info.items()}


def polyak_average(target: Any, params: Any, rate: float | jax.Array) -> Any:
    """φ′ ← τ φ + (1 − τ) φ′."""
    return jax.tree.map(lambda old, new: old + (rate * (new - old)).astype(old.dtype), target, params)


def judge(
    critics: ActionValues, params: Any, state: jax.Array, joint: jax.Array, samples: GroupSamples, own: jax.Array
) -> jax.Array:
    """The mean over samples of what the critics say of a group's own actions `[K, B, F]` in the joint action.

    The team's critic judges all members' actions at once. With a critic per agent, each judges its own agent's action
    beside those that the other members' policies take now: no agent learns for another's reward.

    Args:
      params: one network's per critic, `[V, …]`.
      samples: where no member was alive, nothing counts.
    """
    own = blank(own, samples.weight)
    if not critics.per_agent:
        value = critics.value(jax.tree.map(lambda x: x[0], params), state, replaced(joint, samples.place, own))
        return weighted_mean(value, samples.weight.max(0))
    others = replaced(joint, samples.place, lax.stop_gradient(own))

    def of_member(place, own):
        critic = jax.tree.map(lambda x: jnp.take(x, place, axis=0, mode="clip"), params)
        return critics.value(critic, state, others.at[place].set(own, mode="drop"))

    return weighted_mean(jax.vmap(of_member)(samples.place, own), samples.weight)
