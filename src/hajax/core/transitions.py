"""Off-policy data: sampled transitions as `update` takes them."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from hajax.spec import EnvSpec


class OffPolicyBatch(NamedTuple):
    """P minibatches of B transitions of up to n steps, as `update` takes them; P is the `policy_delay`.

    What the agents saw and did at a step, the rewards of that step and of those after it, and where the last of these
    led *before* any automatic reset. A transition ends where its episode does, so that it may have fewer than n steps;
    the step that ended the episode, if one did, is then the last.
    """

    observation: jax.Array  # [P, B, N, O], padded with zeros
    state: jax.Array  # [P, B, S]
    active: jax.Array  # bool [P, B, N]: the agent was active when it acted
    action_mask: jax.Array  # bool [P, B, N, D, C]
    action: jax.Array  # [P, B, N, D]
    reward: jax.Array  # [P, B, n, N], 0 beyond `steps`
    steps: jax.Array  # int [P, B], k from 1 to n
    terminated: jax.Array  # bool [P, B]: the k-th step ended the episode for good, so that nothing is to come
    final_observation: jax.Array  # [P, B, N, O]: where the k-th step led
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
    """One's own transitions as `update` takes them, checked against the specification.

    The fields are those of `OffPolicyBatch`. What is left out has its usual value: all n steps count, none ends the
    episode, every choice is available, every agent active. The `reward` is `[P, B, n]`, the team's, if the
    specification says `reward="team"`, else `[P, B, n, N]`, each agent's own.

    Raises:
        ValueError: an array has another shape than the specification asks for, or there are action masks though it
            says that there are none.
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


def discounted(batch: OffPolicyBatch, value: jax.Array, discount: float | jax.Array) -> jax.Array:
    """The n-step targets Σ_{j<k} γʲ rʲ + γᵏ (1 − terminated) · `value`, `[V, B]`, of one minibatch `[B, …]`.

    `value` `[V, B]` is of where the k-th step led. V = N takes each agent's own reward, V = 1 the team's, which every
    agent has been given.
    """
    powers = jnp.power(discount, jnp.arange(batch.reward.shape[-2]))
    reward = jnp.einsum("bkv,k->vb", batch.reward[..., : len(value)], powers)
    return reward + jnp.power(discount, batch.steps) * jnp.where(batch.terminated, 0, value)
