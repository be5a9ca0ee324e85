"""The off-policy loop: a warm-up with random actions; then steps stored in the replay, and updates on its samples."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hajax.core.algorithm import Algorithm
from hajax.envs.base import BatchedEnvironment, Environment
from hajax.sharding import divided
from hajax.spec import EnvSpec
from hajax.training.iteration import Loop, TrainState, check_metrics, sequential_on_cpu
from hajax.training.replay import Replay, add, end_episodes, init_replay, replay_bytes, sample
from hajax.training.rollout import Actors, count_episodes, playable, report_episodes, start


def random_action(spec: EnvSpec, key: jax.Array, action_mask: jax.Array) -> jax.Array:
    """Random actions `[…, N, D]`: uniform over available choices and within bounds, standard normal if unbounded."""
    layout = spec.action_layout
    choice_key, real_key, normal_key = jax.random.split(key, 3)
    shape = action_mask.shape[:-1]
    available = action_mask & layout.choices
    available = jnp.where(available.any(-1, keepdims=True), available, layout.choices)
    choice = jax.random.categorical(choice_key, jnp.where(available, 0.0, -jnp.inf)).astype(float)
    unit = jax.random.uniform(real_key, shape, minval=-1, maxval=1)
    real = layout.center + layout.scale * jnp.where(layout.bounded, unit, jax.random.normal(normal_key, shape))
    return jnp.where(layout.discrete, choice, jnp.where(layout.continuous, real, 0))


def make_off_policy_loop(
    env: Environment | BatchedEnvironment, algo: Algorithm, *, num_envs: int, rollout_length: int
) -> Loop:
    """A loop of `rollout_length` steps in `num_envs` environments and `rollout_length · updates_per_step` critic steps.

    `init` takes the warm-up steps, rounded up to whole steps of all environments. If `policy_delay` does not divide the
    critic steps of a rollout, an iteration consists of the least number of rollouts whose critic steps it divides.
    Critic steps that do not complete an update are done after the next rollout.

    Raises:
      ValueError: replay, warm-up, minibatches and episodes do not suit each other, the critic steps of a rollout are
        not a whole number, the algorithm was made for another team, or a metric has a name that hajax uses.
    """
    settings, spec = algo.settings, env.spec
    envs, update = playable(env, algo), sequential_on_cpu(algo.update)
    check_metrics(envs)
    capacity = check_replay(settings, spec, num_envs)
    warmup = math.ceil(settings.warmup_steps / num_envs)
    due = plan_updates(settings, rollout_length)
    minibatches = (settings.policy_delay, settings.batch_size)

    def play(state: Any, carry: tuple[Actors, Replay], key: jax.Array, random: bool = False):
        """Takes one step in every environment and stores it."""
        actors, replay = carry
        seen = actors.timestep
        act_key, env_key = jax.random.split(key)
        if random:
            action, memory = random_action(spec, act_key, seen.action_mask), actors.memory
        else:
            action, _, memory = algo.act(act_key, state, seen, actors.memory)
        env_state, timestep = envs.step(jax.random.split(env_key, num_envs), actors.env_state, action)
        episodes = count_episodes(spec, actors.episodes, timestep)
        return divided((Actors(env_state, timestep, memory, episodes), add(replay, seen, action, timestep)))

    def init(key: jax.Array, hyperparameters: Any = None) -> TrainState:
        algo_key, env_key, warmup_key, key = jax.random.split(key, 4)
        state = algo.init(algo_key, hyperparameters)
        carry = start(envs, algo, env_key, num_envs), divided(init_replay(spec, num_envs, capacity))

        def step(carry, key):
            return play(state, carry, key, random=True), None

        (actors, replay), _ = lax.scan(step, carry, jax.random.split(warmup_key, warmup))
        episodes, _ = report_episodes(actors.episodes)  # episodes of the warm-up are not reported
        return TrainState(state, actors._replace(episodes=episodes), key, replay)

    def play_and_learn(train_state: TrainState, due: np.ndarray | jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        """A rollout and the updates after it, and the sums of their diagnostics.

        Updates that are not `due` are skipped. If `due` is a NumPy array, all are due, and no condition is compiled.
        """
        key, rollout_key, update_key = jax.random.split(train_state.key, 3)

        def step(carry, key):
            return play(train_state.algorithm, carry, key), None

        carry = (train_state.actors, train_state.replay)
        (actors, replay), _ = lax.scan(step, carry, jax.random.split(rollout_key, rollout_length))

        def learn(state, key):
            sample_key, update_key = jax.random.split(key)
            minibatch = divided(sample(spec, replay, sample_key, minibatches, settings.n_step), axis=1)
            return update(update_key, state, minibatch)

        def learn_if_due(state, inputs):
            key, due = inputs
            nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(learn, state, key)[1])
            return lax.cond(due, learn, lambda state, key: (state, nothing), state, key)

        keys = jax.random.split(update_key, due.size)
        if isinstance(due, np.ndarray):
            state, info = lax.scan(learn, train_state.algorithm, keys)
        else:
            state, info = lax.scan(learn_if_due, train_state.algorithm, (keys, due))
        return TrainState(state, actors, key, replay), jax.tree.map(lambda x: x.sum(0), info)

    def iterate(train_state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
        if due.all():
            train_state, sums = play_and_learn(train_state, due[0])
        else:
            train_state, sums = lax.scan(play_and_learn, train_state, jnp.asarray(due))
            sums = jax.tree.map(lambda x: x.sum(0), sums)
        episodes, metrics = report_episodes(train_state.actors.episodes)
        info = jax.tree.map(lambda x: x / num_updates, sums)
        return train_state._replace(actors=train_state.actors._replace(episodes=episodes)), metrics | info

    def restart(key: jax.Array, train_state: TrainState) -> TrainState:
        actors, replay = start(envs, algo, key, num_envs), end_episodes(train_state.replay)
        return train_state._replace(actors=actors, replay=replay)

    num_updates = int(due.sum())
    memory = replay_bytes(spec, num_envs, capacity)
    steps = len(due) * rollout_length
    return Loop(
        init,
        iterate,
        restart,
        steps_per_iteration=steps * num_envs,
        updates_per_iteration=num_updates,
        warmup_steps=warmup * num_envs,
        replay_bytes=memory,
        rows_per_iteration=2 * steps,
        rollouts_per_iteration=len(due),
    )


def check_replay(settings: Any, spec: EnvSpec, num_envs: int) -> int:
    """The replay's rows per environment. Raises ValueError if replay, warm-up, minibatch and episode sizes conflict."""
    size, batch, n_step = settings.buffer_size, settings.batch_size, settings.n_step
    if spec.max_steps is not None and n_step > spec.max_steps:
        raise ValueError(
            f"n_step={n_step} is longer than an episode of {spec.name}, which is over after {spec.max_steps} steps; "
            f"allowed: at most {spec.max_steps}"
        )
    if size < batch:
        raise ValueError(f"buffer_size={size} is less than batch_size={batch}; allowed: at least {batch}")
    # In the worst case every step ends an episode and takes two rows. Two more are reserved for the next step.
    least = num_envs * (2 * n_step + 2)
    if size < least:
        raise ValueError(
            f"buffer_size={size} leaves {size // num_envs} observations to each of num_envs={num_envs} environments; "
            f"allowed with n_step={n_step}: at least {least}"
        )
    least = max(batch, num_envs * n_step)
    if settings.warmup_steps < least:
        raise ValueError(
            f"warmup_steps={settings.warmup_steps} ends before there is a minibatch to learn from; allowed with "
            f"batch_size={batch}, n_step={n_step} and num_envs={num_envs}: at least {least}"
        )
    return size // num_envs


def plan_updates(settings: Any, rollout_length: int) -> np.ndarray:
    """The updates that are due after each rollout of an iteration, bool `[rollouts, updates]`.

    With c critic steps per rollout, ⌊k c / `policy_delay`⌋ updates of `policy_delay` critic steps are due in the first
    k rollouts.

    Raises:
      ValueError: c is not a whole number, or is 0.
    """
    steps, delay = rollout_length * settings.updates_per_step, settings.policy_delay
    whole = round(steps)
    if abs(steps - whole) > 1e-9 * steps or not whole:
        raise ValueError(
            f"updates_per_step={settings.updates_per_step} gives {steps:g} critic steps after every "
            f"rollout_length={rollout_length} steps; allowed: a whole number"
        )
    updates = np.diff(np.arange(delay // math.gcd(delay, whole) + 1) * whole // delay)
    return np.arange(updates.max()) < updates[:, None]
