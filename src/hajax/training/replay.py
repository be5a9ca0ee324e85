"""The replay on the device: every observation is stored once, and sampled in transitions of up to n steps.

Every environment has a ring buffer of rows. A row holds the observations of a step, the actions, and the rewards and
flags that followed; the next row holds the observations that the step led to. The last step of an episode is followed
by a row with the final observations and without actions, and then by the first row of the next episode. An episode of
T steps takes T + 1 rows. Because not every row is a step, the row index of the k-th step of every environment is stored
separately. All environments step together, so these lists have equal lengths.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from hajax.core.batches import OffPolicyBatch
from hajax.envs.base import concatenate_observations
from hajax.spec import EnvSpec, FinalStep, Timestep


class Rows(NamedTuple):
    """The contents, `[E · R, …]`: R rows of environment 0, then those of environment 1, …"""

    observation: jax.Array  # [N, O]
    state: jax.Array | None  # [S]; None if it is the concatenation of the observations
    active: jax.Array  # bool [N]
    action_mask: jax.Array | None  # bool [N, D, C]; None if the environment has none
    action: jax.Array  # [N, D]
    reward: jax.Array  # [N], or [1] for a team reward
    terminated: jax.Array  # bool []
    truncated: jax.Array  # bool []


class Replay(NamedTuple):
    """The stored rows and their indices. Rows and steps are counted from the beginning of the training."""

    rows: Rows
    row_of: jax.Array  # int [E, R]: the row of step k, at index k mod R
    head: jax.Array  # int [E]: the row of the next step
    steps: jax.Array  # int []: the steps taken by every environment
    oldest: jax.Array  # int []: the first step that is still stored in every environment


def init_replay(spec: EnvSpec, num_envs: int, capacity: int) -> Replay:
    """An empty replay of `capacity` rows for each of `num_envs` environments."""

    def zeros(*shape: int, dtype: Any = float) -> jax.Array:
        return jnp.zeros((num_envs * capacity, *shape), dtype)

    team = spec.num_agents
    rows = Rows(
        observation=zeros(team, spec.observation_size),
        state=None if spec.state_from_observations else zeros(*spec.state_shape),
        active=zeros(team, dtype=bool),
        action_mask=zeros(*spec.action_layout.choices.shape, dtype=bool) if spec.masks_actions else None,
        action=zeros(team, spec.num_components),
        reward=zeros(1 if spec.reward == "team" else team),
        terminated=zeros(dtype=bool),
        truncated=zeros(dtype=bool),
    )
    row_of = jnp.zeros((num_envs, capacity), int)
    return Replay(rows, row_of, jnp.zeros(num_envs, int), jnp.zeros((), int), jnp.zeros((), int))


def replay_bytes(spec: EnvSpec, num_envs: int, capacity: int) -> int:
    """The size of the replay of `init_replay`, in bytes."""
    shapes = jax.eval_shape(lambda: init_replay(spec, num_envs, capacity))
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shapes))


def add(replay: Replay, seen: Timestep, action: jax.Array, after: Timestep) -> Replay:
    """Stores one step of every environment, from timestep `seen` to `after` (with automatic reset), both `[E, …]`."""
    num_envs, capacity = replay.row_of.shape
    start = jnp.arange(num_envs) * capacity
    done = after.terminated | after.truncated
    rows = replay.rows
    shown = {name: getattr(seen, name) for name in FinalStep._fields}
    answered = {
        "action": action,
        "reward": after.reward[:, : rows.reward.shape[1]],
        "terminated": after.terminated,
        "truncated": after.truncated,
    }
    rows = _write(rows, start + replay.head % capacity, shown | answered)
    rows = _write(rows, start + (replay.head + 1) % capacity, after.final._asdict())
    row_of = replay.row_of.at[:, replay.steps % capacity].set(replay.head)
    return _moved(replay._replace(rows=rows, row_of=row_of, steps=replay.steps + 1), replay.head + 1 + done)


def end_episodes(replay: Replay) -> Replay:
    """The replay as if the last step of every environment had been truncated, unless it ended its episode."""
    num_envs, capacity = replay.row_of.shape
    last = jnp.arange(num_envs) * capacity + replay.row_of[:, (replay.steps - 1) % capacity] % capacity
    goes_on = ~(replay.rows.terminated[last] | replay.rows.truncated[last])
    rows = replay.rows._replace(truncated=replay.rows.truncated.at[last].max(goes_on))
    return _moved(replay._replace(rows=rows), replay.head + goes_on)


def _moved(replay: Replay, head: jax.Array) -> Replay:
    """The replay with the next rows at `head` `[E]`."""
    capacity = replay.row_of.shape[1]
    # Row a is overwritten by row a + R. A head moves by at most two rows, so at most two steps are lost.
    oldest = replay.oldest
    for _ in range(2):
        oldest = oldest + (replay.row_of[:, oldest % capacity] <= head - capacity).any()
    return replay._replace(head=head, oldest=oldest)


def sample(spec: EnvSpec, replay: Replay, key: jax.Array, shape: tuple[int, int], num_steps: int) -> OffPolicyBatch:
    """Transitions `[P, B]` of up to `num_steps` steps, sampled uniformly with replacement from those stored.

    A step can be sampled as soon as `num_steps` − 1 further steps have been stored, of any episode.
    """
    num_envs, capacity = replay.row_of.shape
    rows = replay.rows
    env_key, step_key = jax.random.split(key)
    env = jax.random.randint(env_key, shape, 0, num_envs)
    step = jax.random.randint(step_key, shape, replay.oldest, replay.steps - num_steps + 1)
    row = replay.row_of[env, step % capacity]

    following = (env * capacity)[..., None] + (row[..., None] + jnp.arange(num_steps + 1)) % capacity  # [P, B, n + 1]

    def take(field: jax.Array, index: jax.Array) -> jax.Array:
        return jnp.take(field, index, axis=0, mode="clip")  # indices are in range, so they need no check

    ends = take(rows.terminated, following[..., :-1]) | take(rows.truncated, following[..., :-1])
    goes_on = jnp.cumprod(~ends[..., :-1], axis=-1, dtype=bool)
    counts = jnp.concatenate([jnp.ones((*shape, 1), bool), goes_on], -1)  # [P, B, n]: the step is one of the k
    steps = counts.sum(-1)
    first = following[..., 0]
    last, final = (jnp.take_along_axis(following, (steps - i)[..., None], -1)[..., 0] for i in (1, 0))
    reward = jnp.where(counts[..., None], take(rows.reward, following[..., :-1]), 0)

    def shown(index: jax.Array) -> dict[str, jax.Array]:
        observation = take(rows.observation, index)
        choices = jnp.asarray(spec.action_layout.choices)
        return {
            "observation": observation,
            "state": concatenate_observations(spec, observation) if rows.state is None else take(rows.state, index),
            "active": take(rows.active, index),
            "action_mask": (
                jnp.broadcast_to(choices, (*shape, *choices.shape))
                if rows.action_mask is None
                else take(rows.action_mask, index)
            ),
        }

    return OffPolicyBatch(
        **shown(first),
        **{f"final_{name}": value for name, value in shown(final).items()},
        action=take(rows.action, first),
        reward=jnp.broadcast_to(reward, (*reward.shape[:-1], spec.num_agents)),
        steps=steps,
        terminated=take(rows.terminated, last),
    )


def _write(rows: Rows, index: jax.Array, values: dict[str, jax.Array]) -> Rows:
    """`rows` with `values` written at the indices `index` `[E]`. Fields that are not stored are ignored."""
    options: dict[str, Any] = {"mode": "promise_in_bounds", "unique_indices": True, "indices_are_sorted": True}
    kept = {name: getattr(rows, name) for name in values if getattr(rows, name) is not None}
    return rows._replace(**{name: field.at[index].set(values[name], **options) for name, field in kept.items()})
