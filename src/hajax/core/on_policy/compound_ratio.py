"""Sequential policy improvement with the compound ratio, the core of every on-policy heterogeneous-agent algorithm.

Agent i_m improves its policy on the joint advantage, weighted by the ratios of the agents updated before,

    M^{i_1:m}(s, a) = Π_{j<m} π_new(a^{i_j} | o^{i_j}) / π_old(a^{i_j} | o^{i_j}) · Â(s, a),

an unbiased estimate of the agent's advantage given their *new* policies (Kuba et al., 2022a, Proposition 3 and Eq. 10).
A guard (`hajax.core.on_policy.guards`) replaces the product of ratios by weights of lower variance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from hajax.core.actors import GroupTables, TeamActors
from hajax.core.drifts import Drift, PolicyChange
from hajax.core.losses import weighted_mean
from hajax.core.on_policy.advantages import TraceTerms
from hajax.core.on_policy.guards import GUARDS, diagnostics, no_ratio
from hajax.core.on_policy.samples import OnPolicySamples, corrected_advantages, in_chunks
from hajax.core.optimization import Learner
from hajax.core.sequential import ORDERS_BY_SCORE, draw_permutation, sequential_update
from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters
from hajax.spec import ActionLayout

# Diagnostics `[G]` by position in the order of updates; others are by group.
BY_POSITION = ("compound_ratio_max", "effective_samples", "guarded")


@dataclasses.dataclass(frozen=True)
class GroupPolicy:
    """One group's policy as functions of its parameters and samples `[K, B, …]`, or sequences `[K, B, L, …]`."""

    actors: TeamActors
    tables: GroupTables

    def distribution(self, params: Any, samples: OnPolicySamples) -> ActionParameters:
        """The action distribution at every sample."""
        return self._evaluate(params, samples)[0]

    def samples_of(self, params: Any, rollout: OnPolicySamples) -> OnPolicySamples:
        """The samples for gradients: chunks of the rollout's sequences with a memory, else the rollout itself.

        `params` are those of the policy that made the rollout. The memory at the beginning of each chunk is recomputed
        with them, so that a rollout needs to store only the memory before its step 0.
        """
        if not self.actors.memory.remembers:
            return rollout
        return in_chunks(rollout, self._evaluate(params, rollout)[1], self.actors.chunk_length)

    def change(self, old_params: Any, new_params: Any, samples: OnPolicySamples) -> PolicyChange:
        """The change from the policy `old_params`, which drew the samples, to the policy `new_params`."""
        new = self.distribution(new_params, samples)
        return self.change_to(new, lambda: self.distribution(old_params, samples), samples)

    def change_to(
        self, new: ActionParameters, old: Callable[[], ActionParameters], samples: OnPolicySamples
    ) -> PolicyChange:
        """The change from the distributions `old()` to `new`, at samples that were drawn by the former."""
        preceding = 1.0 if samples.preceding is None else samples.preceding
        return PolicyChange(self._log_ratio(new, samples), samples.advantage, new, self.tables.layout, old, preceding)

    def log_ratio(self, params: Any, samples: OnPolicySamples) -> jax.Array:
        """log π_new/π_old of the joint action of the group's active members, `[B]` or `[B, L]`."""
        return self.log_ratios(params, samples).sum(0)

    def log_ratios(self, params: Any, samples: OnPolicySamples) -> jax.Array:
        """log π_new/π_old of every member's action, `[K, B]` or `[K, B, L]`; 0 where it is inactive."""
        return self._log_ratio(self.distribution(params, samples), samples)

    def _evaluate(self, params: Any, samples: OnPolicySamples) -> tuple[ActionParameters, Any]:
        inputs = (samples.observation, samples.action_mask, samples.memory_input)
        return self.actors.distribution(params, self.tables, *inputs)

    def _log_ratio(self, new: ActionParameters, samples: OnPolicySamples) -> jax.Array:
        log_prob = distributions.log_prob(new, self.tables.layout, samples.action)
        # The action of a sample of weight 0 may be impossible. 0 · ∞ would make the gradient NaN.
        return jnp.where(samples.weight > 0, log_prob - samples.log_prob, 0)


@dataclasses.dataclass(frozen=True)
class MirrorObjective:
    """E[r · M − D] of one group on a rollout: the sampled mirror operator (Kuba et al., 2022b, Definition 3).

    A `hajax.neighborhoods.PolicyObjective`. Its samples are `OnPolicySamples` whose `advantage` is M.
    """

    policy: GroupPolicy
    drift: Drift
    diagnostics: Callable[[PolicyChange, Any], dict[str, jax.Array]]  # elementwise, like a drift
    settings: Any
    hyperparameters: Any
    learning_rate: Any

    @property
    def minibatches(self) -> int:
        return self.settings.minibatches

    @property
    def layout(self) -> ActionLayout:
        return self.policy.tables.layout

    def samples_of(self, params: Any, rollout: OnPolicySamples) -> OnPolicySamples:
        return self.policy.samples_of(params, rollout)

    def distribution(self, params: Any, samples: OnPolicySamples) -> ActionParameters:
        return self.policy.distribution(params, samples)

    def at(self, change: PolicyChange) -> jax.Array:
        """r · M − D at every sample."""
        return change.ratio * change.advantage - self.drift(change, self.hyperparameters)

    def gain(self, key: jax.Array, new: ActionParameters, old: ActionParameters, samples: OnPolicySamples) -> jax.Array:
        return weighted_mean(self.at(self.policy.change_to(new, lambda: old, samples)), samples.weight)

    def loss(
        self, key: jax.Array, params: Any, old_params: Any, samples: OnPolicySamples
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """−E[r · M − D] − c · H.

        The entropy bonus c · H (`entropy_coef`) is PPO's. It is not part of mirror learning, whose guarantees hold for
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


class Position(NamedTuple):
    """A group's position in the order of updates."""

    agents: jax.Array  # int [], the number of agents in the group
    before: jax.Array  # int [], the number of agents updated before
    num_agents: int  # of the team
    spent: jax.Array  # [], Σ over the agents before of their mean KL(π_old ‖ π_new), if the neighborhood measures it


class AtPosition(Protocol):
    """Changes the hyperparameters of a group by its position in the order."""

    def __call__(self, hyperparameters: Any, position: Position, /) -> Any:
        """The hyperparameters with which the group at this position is updated."""


def budgeted(settings: Any, hyperparameters: Any, position: Position) -> Any:
    """With a joint `kl_budget`, `kl_radius` is an agent's share of what is left.

    The joint policy is a product, so its KL divergence is the sum of the agents' (in `docs/mirror-learning.md`).
    """
    kl_budget = getattr(settings, "kl_budget", "agent")
    if kl_budget == "agent":
        return hyperparameters
    share = hyperparameters.kl_radius / position.num_agents
    if kl_budget == "unspent":
        # No later agent has less than an equal share: what is left is positive, since steps stay within their radius.
        left = hyperparameters.kl_radius - position.spent
        share = jnp.maximum(left / (position.num_agents - position.before), share)
    return hyperparameters.replace(kl_radius=share)


def expected_gains(actors: TeamActors, learners: Learner, samples: OnPolicySamples) -> jax.Array:
    """How much each group can gain by a small step of its own, `[G]`: n · gᵀg / √(gᵀFg).

    g = E[Â ∇ log π] is the policy gradient of a member and F its Fisher matrix, means over active members and steps; n
    is the number of active members per step. A step along g with a mean KL divergence of δ improves Â per step by √(2δ)
    times this, to first order. The advantage is standardized over the group's samples, as for its update.

    A2PO orders agents by E|Â| with an advantage per agent. That of one joint advantage is the same for all.
    """

    def gain(group):
        tables, learner, rollout = group
        policy = GroupPolicy(actors, tables)
        samples = policy.samples_of(learner.params, rollout)
        total = samples.weight.sum()
        share = samples.weight / jnp.where(total > 0, total, 1)
        _, push = jax.linearize(lambda params: policy.log_ratios(params, samples), learner.params)
        (gradient,) = jax.linear_transpose(push, learner.params)(share * samples.advantage)
        score = push(gradient)
        square = jnp.sum(share * jnp.square(score))
        active = total / samples.weight[0].size
        return active * jnp.sum(share * samples.advantage * score) / jnp.sqrt(jnp.where(square > 0, square, 1))

    return jax.lax.map(gain, (actors.tables, learners, samples))


ImproveGroup = Callable[[jax.Array, GroupPolicy, Learner, OnPolicySamples, Any], tuple[Learner, dict[str, jax.Array]]]


def improve_in_sequence(
    key: jax.Array,
    actors: TeamActors,
    settings: Any,
    hyperparameters: Any,
    learners: Learner,
    samples: OnPolicySamples,
    improve: ImproveGroup,
    at_position: AtPosition | None = None,
    terms: TraceTerms | None = None,
) -> tuple[Learner, dict[str, jax.Array]]:
    """Improves every group's policy once, one after another. After each the ratio is recomputed on the full batch.

    With a memory, the new policy's memory is recomputed from the beginning of the rollout for this ratio.

    Args:
      key: the key for the permutation and for `improve`.
      settings: with `order` (`simultaneous`: no group sees another's change, M = Â; `greedy` and `semi_greedy` are by
        `expected_gains`), `guard`, one of `GUARDS`, and `center_advantage`, which subtracts a constant from the guarded
        M, so that its mean over the group's samples is that of Â. Since E[r] = 1, a constant has no effect on E[r · M].
      hyperparameters: those that the guard reads.
      learners: stacked `[G, …]`.
      samples: the samples of all groups, `[G, K, B, …]`, with standardized advantages. With a memory they are the
        rollout's sequences.
      improve: `(key, policy, learner, samples, hyperparameters) -> (learner, info)` updates one group on its samples
        `[K, B, …]`, whose `advantage` is the guarded M. With a memory, the samples are the rollout's sequences, which
        `policy.samples_of` cuts into chunks.
      at_position: changes the hyperparameters of a group, after `budgeted`.
      terms: of all groups `[G, K, E, T]`, if each group's advantage is to be corrected for the changes of the agents
        before (`corrected_advantages`).

    Returns:
      The new learners, and the groups' info stacked `[G]`, with the mean of the final `compound_ratio` over samples,
      and the `expected_gain` if groups are ordered by it. Unless updates are simultaneous also, by position in the
      order `[G]`: the group updated there (`order`), and the `guards.diagnostics` of the ratio that it was given.
    """
    order_key, improve_key = jax.random.split(key)
    groups = actors.groups
    sizes = jnp.asarray(groups.member_mask.sum(-1))
    guard = GUARDS[settings.guard]

    def update_group(learner, inputs, carry):
        key, tables, size, samples, terms = inputs
        ratio, before, spent = carry
        policy = GroupPolicy(actors, tables)
        position = Position(size, before, groups.num_agents, spent)
        current = budgeted(settings, hyperparameters, position)
        if at_position is not None:
            current = at_position(current, position)
        weights = guard(ratio, samples.weight, current)
        advantage = samples.advantage
        if terms is not None:
            advantage = corrected_advantages(terms, ratio.log, samples.weight)
        shift = weighted_mean((weights - 1) * advantage, samples.weight) if settings.center_advantage else 0.0
        weighted = samples._replace(
            advantage=weights * advantage - shift, preceding=jnp.broadcast_to(weights, samples.weight.shape)
        )
        learner, info = improve(key, policy, learner, weighted, current)
        if settings.order != "simultaneous":
            info |= diagnostics(ratio, weights, samples.weight)
        ratio = ratio.times(policy.log_ratio(learner.params, samples), current.clip)
        return learner, (ratio, before + size, spent + size * info.get("kl", 0)), info

    none = jnp.zeros_like(samples.log_prob[0, 0])
    by_score = settings.order in ORDERS_BY_SCORE and groups.num_groups > 1
    scores = expected_gains(actors, learners, samples) if by_score else None
    permutation = draw_permutation(order_key, groups.num_groups, settings.order, scores)
    learners, (ratio, *_), info = sequential_update(
        update_group,
        permutation,
        learners,
        (jax.random.split(improve_key, groups.num_groups), actors.tables, sizes, samples, terms),
        (no_ratio(settings.guard, none), jnp.zeros((), sizes.dtype), jnp.zeros((), none.dtype)),
    )
    if scores is not None:
        info |= {"expected_gain": scores}
    if permutation is not None:
        info |= {name: info[name][permutation] for name in BY_POSITION} | {"order": permutation}
    return learners, info | {"compound_ratio": jnp.exp(ratio.log).mean()}
