"""The samples of a rollout for each group's policy and for each critic."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from hajax.core.actors import TeamActors, policy_input
from hajax.core.batches import OnPolicyBatch, critic_input
from hajax.core.groups import Groups
from hajax.core.inactive import blank
from hajax.core.on_policy.advantages import TraceTerms, generalized_advantages, standardize
from hajax.core.on_policy.critics import ValueFunctions
from hajax.nn.memory import NOTHING, MemoryInput
from hajax.sharding import divided


class Estimates(NamedTuple):
    """Values, advantages and targets per step and critic, `[T, E, V]`."""

    value: jax.Array  # in the critic's units, normalized if values are normalized
    advantage: jax.Array  # in reward units, not standardized
    target: jax.Array  # advantage + value, in reward units
    active: jax.Array  # bool: the critic's agent (for the team: any agent) was active
    terms: TraceTerms  # in reward units


class OnPolicySamples(NamedTuple):
    """One group's samples (with a leading axis G: those of all groups).

    For policies with memory a sample is a sequence of L steps, `[K, B, L, …]`: each environment's whole rollout (B = E,
    L = T), or after `in_chunks` its chunks.
    """

    observation: jax.Array  # [K, B, O]
    action_mask: jax.Array | None  # bool [K, B, D, C]; None if the environment masks no actions
    action: jax.Array  # [K, B, D]
    log_prob: jax.Array  # [K, B]
    advantage: jax.Array  # [K, B], standardized over the group's active samples
    weight: jax.Array  # [K, B], 1 where a real member was active, else 0
    memory_input: MemoryInput = NOTHING  # memory [K, B, …] before a sequence, flags [K, B, L]
    preceding: jax.Array | None = None  # [K, B], the weights by which the agents before changed `advantage`


class CriticSamples(NamedTuple):
    """One critic's samples (with a leading axis G: those of all critics), or sequences as in `OnPolicySamples`."""

    inputs: Any  # [K, B, S]; for a `TeamCritic` the list of inputs that it reads, [K, B, …]
    old_value: jax.Array  # [K, B], in the critic's units
    target: jax.Array  # [K, B], in reward units
    weight: jax.Array  # [K, B]
    memory_input: MemoryInput = NOTHING  # as in `OnPolicySamples`


def as_samples(groups: Groups, x: jax.Array, sequences: bool) -> jax.Array:
    """`[T, E, N, …]` as samples of every group, `[G, K, T·E, …]`, or as sequences, `[G, K, E, T, …]`."""
    x = groups.gather(x, axis=2)
    return divided(
        x.swapaxes(2, 3) if sequences else x.reshape(*x.shape[:2], x.shape[2] * x.shape[3], *x.shape[4:]), axis=2
    )


def sample_weight(groups: Groups, active: jax.Array, dtype: Any) -> jax.Array:
    """1 where a real member of a group was active, else 0, `[G, K, …]`, from `active` of the same shape."""
    members = groups.member_mask[(..., *[None] * (active.ndim - 2))]
    return (active & members).astype(dtype)


Sequences = TypeVar("Sequences", OnPolicySamples, CriticSamples)


def in_chunks(samples: Sequences, memory: Any, length: int) -> Sequences:
    """One group's sequences `[K, E, T, …]`, cut into chunks `[K, E · T/L, L, …]` of `length` L.

    Chunks are the samples of truncated back-propagation through time. Each starts from the sequence's memory at that
    step; `memory` `[K, E, T, …]` is the memory after every step.

    Raises:
      ValueError: T is not divisible by L.
    """
    before, first, active = samples.memory_input
    steps = first.shape[-1]
    if steps % length:
        raise ValueError(f"chunk_length={length}; allowed: a divisor of the {steps} steps of the rollout")
    if steps == length:
        return samples

    def cut(x):
        return x.reshape(x.shape[0], x.shape[1] * steps // length, length, *x.shape[3:])

    def at_chunks(before, after):
        begins = jnp.concatenate([before[:, :, None], after[:, :, length - 1 : -1 : length]], axis=2)
        return begins.reshape(begins.shape[0], -1, *begins.shape[3:])

    memory_input = MemoryInput(jax.tree.map(at_chunks, before, memory), cut(first), cut(active))
    return jax.tree.map(cut, samples._replace(memory_input=NOTHING))._replace(memory_input=memory_input)


def check_initial_memory(actors: TeamActors, batch: OnPolicyBatch) -> None:
    """Raises ValueError unless the batch holds a memory of the actors' structure and shapes."""
    wanted = jax.eval_shape(lambda: actors.initial_memory(batch.log_prob.shape[1:2]))
    shapes = [jax.tree.map(jnp.shape, memory) for memory in (batch.memory, wanted)]
    if shapes[0] != shapes[1]:
        found = f"has shape {shapes[0]}" if jax.tree.leaves(batch.memory) else "is missing"
        raise ValueError(f"memory {found}; allowed: shape {shapes[1]}, before step 0")


def group_samples(actors: TeamActors, batch: OnPolicyBatch, estimates: Estimates) -> OnPolicySamples:
    """The policy samples of every group, `[G, K, B, …]`, with standardized advantages."""
    groups = actors.groups

    def grouped(x):
        return as_samples(groups, x, sequences=actors.memory.remembers)

    advantage = grouped(jnp.broadcast_to(estimates.advantage, batch.log_prob.shape))
    weight = sample_weight(groups, grouped(batch.active), advantage.dtype)
    check_initial_memory(actors, batch)
    memory = jax.tree.map(lambda x: groups.gather(x, axis=1), batch.memory)
    first = grouped(jnp.broadcast_to(batch.first[..., None], batch.active.shape))
    return OnPolicySamples(
        observation=blank(grouped(policy_input(actors.spec, batch.observation, actors.agent_id)), weight),
        action_mask=grouped(batch.action_mask) if actors.spec.masks_actions else None,
        action=blank(grouped(batch.action), weight),
        log_prob=blank(grouped(batch.log_prob), weight),
        advantage=blank(jax.vmap(standardize)(advantage, weight), weight),
        weight=weight,
        memory_input=actors.memory.select(memory, first, weight > 0),
    )


def group_trace_terms(actors: TeamActors, batch: OnPolicyBatch, estimates: Estimates) -> TraceTerms:
    """The terms of the advantages of every group's members, as sequences `[G, K, E, T]`."""

    def grouped(x):
        return as_samples(actors.groups, jnp.broadcast_to(x, batch.log_prob.shape), sequences=True)

    return TraceTerms(*map(grouped, estimates.terms))


def corrected_advantages(terms: TraceTerms, log_ratio: jax.Array, weight: jax.Array) -> jax.Array:
    """One group's standardized advantages with traces cut by R, the ratio of the agents updated before, as `weight`.

        A_t = δ_t + γ λ min(1, R_{t+1}) A_{t+1}

    The policies of these agents have changed since the rollout: a later step counts only as far as they would still
    act as they did (Wang et al., 2023, *Order Matters: Agent-by-agent Policy Optimization*:
    https://arxiv.org/abs/2302.06205). With R = 1 it is the GAE.

    Args:
      terms: `[K, E, T]`.
      log_ratio: log R, `[B]` with B = T · E; with a memory `[E, T]`.
      weight: of the group's samples `[K, B]`, or `[K, E, T]`.
    """
    envs, steps = terms.delta.shape[1:]
    sequences = weight.ndim == 3
    trace = jnp.exp(jnp.minimum(log_ratio.T if sequences else log_ratio.reshape(steps, envs), 0))
    in_time = TraceTerms(*(jnp.moveaxis(x, -1, 0) for x in terms))
    advantage = generalized_advantages(in_time, trace[:, None])  # [T, K, E]
    ordered = jnp.moveaxis(advantage, 0, -1) if sequences else advantage.swapaxes(0, 1).reshape(weight.shape)
    return blank(standardize(ordered, weight), weight)


def critic_samples(critics: ValueFunctions, batch: OnPolicyBatch, estimates: Estimates) -> CriticSamples:
    """The critics' samples, `[G, K, B, …]`."""

    groups = critics.groups

    def grouped(x):
        return as_samples(groups, x, sequences=critics.memory.remembers)

    weight = sample_weight(groups, grouped(estimates.active), estimates.value.dtype)
    memory = critics.memory.initial_memory(weight.shape[:3])
    first = grouped(jnp.broadcast_to(batch.first[..., None], estimates.active.shape))
    return CriticSamples(
        inputs=jax.tree.map(lambda x: blank(grouped(x), weight), critics.inputs(critic_input(batch))),
        old_value=blank(grouped(estimates.value), weight),
        target=blank(grouped(estimates.target), weight),
        weight=weight,
        memory_input=critics.memory.select(memory, first, weight > 0),
    )
