"""The batches that `update` takes: rollouts and sampled transitions, and functions that make them of your own data."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hajax.spec import EnvSpec


class CriticInput(NamedTuple):
    """The inputs of critics at a step, beside the actions; see `hajax.nn.TeamCritic`."""

    state: jax.Array  # [..., S], or [..., N, S] if every agent has its own
    observation: jax.Array  # [..., N, O]
    active: jax.Array  # bool [..., N]


class OnPolicyBatch(NamedTuple):
    """A rollout of T steps in E environments: the batch of an on-policy update.

    Row t holds the observations at step t, the actions taken, and the rewards that followed. `final_*` are the
    observations, states and flags that step t led to *before* any automatic reset. Inside an episode they equal row
    t + 1.
    """

    observation: jax.Array  # [T, E, N, O], padded with zeros
    state: jax.Array  # [T, E, S], or [T, E, N, S] if every agent has its own
    action_mask: jax.Array  # bool [T, E, N, D, C]
    active: jax.Array  # bool [T, E, N]: the agent was active when it acted
    first: jax.Array  # bool [T, E]: step t opens an episode
    action: jax.Array  # [T, E, N, D], as sampled (not clipped)
    log_prob: jax.Array  # [T, E, N], under the policy that acted
    reward: jax.Array  # [T, E, N]
    terminated: jax.Array  # bool [T, E]
    truncated: jax.Array  # bool [T, E]
    final_observation: jax.Array  # [T, E, N, O]
    final_state: jax.Array  # as `state`
    final_active: jax.Array  # bool [T, E, N]
    memory: Any  # the actors' memory before step 0, [E, N, H]; empty for feed-forward policies


def on_policy_batch(
    spec: EnvSpec,
    *,
    observation: jax.Array,
    state: jax.Array,
    action: jax.Array,
    log_prob: jax.Array,
    reward: jax.Array,
    final_observation: jax.Array,
    final_state: jax.Array,
    terminated: jax.Array | None = None,
    truncated: jax.Array | None = None,
    action_mask: jax.Array | None = None,
    active: jax.Array | None = None,
    final_active: jax.Array | None = None,
    first: jax.Array | None = None,
    memory: Any = (),
) -> OnPolicyBatch:
    """An `OnPolicyBatch` of your own data, checked against the specification.

    The arguments are the fields of `OnPolicyBatch`. Defaults: no step ends an episode, every choice is available, and
    every agent is active. `final_active` is the next row's `active`, or the same row's at the end of an episode and of
    the rollout. A step opens an episode (`first`) if it is step 0 or if the step before it ended an episode.

    `reward` is the team reward `[T, E]` if the specification has `reward="team"`, or else the individual rewards
    `[T, E, N]`. Policies with memory need both the memory before step 0 (`memory`) and `first`.

    Raises:
        ValueError: an array does not have the shape of the specification, action masks are given although the
            specification has none, or a memory is given without `first`.
    """
    if first is None and jax.tree.leaves(memory):
        raise ValueError("first is None, but a memory is given; allowed: bool [T, E], whether a step opens an episode")
    if action_mask is not None and not spec.masks_actions:
        raise ValueError(f"action_mask is given, but {spec.name} has masks_actions=False; allowed: None")
    steps, envs = observation.shape[:2]
    layout = spec.action_layout
    agents, ends = (steps, envs, spec.num_agents), jnp.zeros((steps, envs), bool)
    terminated = ends if terminated is None else terminated
    truncated = ends if truncated is None else truncated
    if spec.reward == "team":
        if reward.shape != agents[:2]:
            raise ValueError(f"reward has shape {reward.shape}; allowed: {agents[:2]}, the team's, for {spec.name}")
        reward = jnp.broadcast_to(reward[..., None], agents)
    active = jnp.ones(agents, bool) if active is None else active
    if final_active is None and active.shape == agents:
        goes_on = ~(terminated | truncated)[:-1, :, None]
        final_active = jnp.concatenate([jnp.where(goes_on, active[1:], active[:-1]), active[-1:]])
    batch = OnPolicyBatch(
        observation=observation,
        state=state,
        action_mask=jnp.broadcast_to(layout.choices, (*agents[:2], *layout.choices.shape))
        if action_mask is None
        else action_mask,
        active=active,
        first=jnp.concatenate([jnp.ones((1, envs), bool), (terminated | truncated)[:-1]]) if first is None else first,
        action=action,
        log_prob=log_prob,
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        final_observation=final_observation,
        final_state=final_state,
        final_active=active if final_active is None else final_active,
        memory=memory,
    )
    widths = {
        "observation": (spec.num_agents, spec.observation_size),
        "state": spec.state_shape,
        "action_mask": layout.choices.shape,
        "action": (spec.num_agents, spec.num_components),
        "final_observation": (spec.num_agents, spec.observation_size),
        "final_state": spec.state_shape,
        **dict.fromkeys(("active", "log_prob", "reward", "final_active"), (spec.num_agents,)),
        **dict.fromkeys(("terminated", "truncated", "first"), ()),
    }
    for name, width in widths.items():
        shape, allowed = getattr(batch, name).shape, (steps, envs, *width)
        if shape != allowed:
            raise ValueError(f"{name} has shape {shape}; allowed: {allowed} for {spec.name}")
    return batch


class OffPolicyBatch(NamedTuple):
    """P minibatches of B transitions of up to n steps: the batch of an off-policy update. P is the `policy_delay`.

    A transition holds the observations and actions of its first step, the rewards of its k ≤ n steps, and what the
    k-th step led to *before* any automatic reset (`final_*`). It does not extend beyond its episode: if one of the n
    steps ends the episode, that step is the k-th.
    """

    observation: jax.Array  # [P, B, N, O], padded with zeros
    state: jax.Array  # [P, B, S]
    active: jax.Array  # bool [P, B, N]: the agent was active when it acted
    action_mask: jax.Array  # bool [P, B, N, D, C]
    action: jax.Array  # [P, B, N, D]
    reward: jax.Array  # [P, B, n, N], 0 beyond `steps`
    steps: jax.Array  # int [P, B], k from 1 to n
    terminated: jax.Array  # bool [P, B]: the k-th step ended the episode for good, so nothing is bootstrapped
    final_observation: jax.Array  # [P, B, N, O]: after the k-th step
    final_state: jax.Array  # [P, B, S]
    final_active: jax.Array  # bool [P, B, N]
    final_action_mask: jax.Array  # bool [P, B, N, D, C]


def off_policy_batch(
    spec: EnvSpec,
    *,
    observation: jax.Array,
    state: jax.Array,
    action: jax.Array,
    reward: jax.Array,
    final_observation: jax.Array,
    final_state: jax.Array,
    steps: jax.Array | None = None,
    terminated: jax.Array | None = None,
    action_mask: jax.Array | None = None,
    active: jax.Array | None = None,
    final_action_mask: jax.Array | None = None,
    final_active: jax.Array | None = None,
) -> OffPolicyBatch:
    """An `OffPolicyBatch` of your own transitions, checked against the specification.

    The arguments are the fields of `OffPolicyBatch`. Defaults: all n steps count, no step ends an episode, every choice
    is available, and every agent is active. `reward` is the team reward `[P, B, n]` if the specification has
    `reward="team"`, or else the individual rewards `[P, B, n, N]`.

    Raises:
        ValueError: an array does not have the shape of the specification, or action masks are given although the
            specification has none.
    """
    if observation.ndim != 4:
        raise ValueError(f"observation has shape {observation.shape}; allowed: [P, B, N, O]")
    rows = observation.shape[:2]
    agents = (*rows, spec.num_agents)
    choices = (*agents, *spec.action_layout.choices.shape[1:])
    shown = (*agents, spec.observation_size)
    if spec.reward == "team" and reward.ndim == 3:
        reward = jnp.broadcast_to(reward[..., None], (*reward.shape, spec.num_agents))
    given = {
        "observation": (observation, shown),
        "state": (state, (*rows, *spec.state_shape)),
        "action": (action, (*agents, spec.num_components)),
        "reward": (reward, (*rows, *reward.shape[2:3], spec.num_agents)),
        "final_observation": (final_observation, shown),
        "final_state": (final_state, (*rows, *spec.state_shape)),
        "steps": (steps, rows),
        "terminated": (terminated, rows),
        "action_mask": (action_mask, choices),
        "active": (active, agents),
        "final_action_mask": (final_action_mask, choices),
        "final_active": (final_active, agents),
    }
    for name, (array, shape) in given.items():
        if array is not None and array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}; allowed: {shape}, as {spec.name} says")
    for name in ("action_mask", "final_action_mask"):
        if given[name][0] is not None and not spec.masks_actions:
            raise ValueError(f"{name} is given, but {spec.name} has masks_actions=False; allowed: None")
    everything = jnp.broadcast_to(jnp.asarray(spec.action_layout.choices), choices)
    return OffPolicyBatch(
        observation=observation,
        state=state,
        active=jnp.ones(agents, bool) if active is None else active,
        action_mask=everything if action_mask is None else action_mask,
        action=action,
        reward=reward,
        steps=jnp.full(rows, reward.shape[2]) if steps is None else steps,
        terminated=jnp.zeros(rows, bool) if terminated is None else terminated,
        final_observation=final_observation,
        final_state=final_state,
        final_active=jnp.ones(agents, bool) if final_active is None else final_active,
        final_action_mask=everything if final_action_mask is None else final_action_mask,
    )


def example_critic_input(spec: EnvSpec) -> CriticInput:
    """Zeros with the shapes of a single step, for the initialization of critics."""
    team = spec.num_agents
    observation = jnp.zeros((team, spec.observation_size))
    return CriticInput(jnp.zeros(spec.state_shape), observation, jnp.ones(team, bool))


def critic_input(batch: OnPolicyBatch | OffPolicyBatch) -> CriticInput:
    """The critics' inputs at the steps at which the agents acted."""
    return CriticInput(batch.state, batch.observation, batch.active)


def final_critic_input(batch: OnPolicyBatch | OffPolicyBatch) -> CriticInput:
    """The critics' inputs after those steps, before any automatic reset."""
    return CriticInput(batch.final_state, batch.final_observation, batch.final_active)
