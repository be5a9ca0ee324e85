"""The off-policy loop: a warm-up with random actions; then steps that are stored, and updates on samples of them."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from hajax.core.algorithm import Algorithm
from hajax.envs.base import Environment
from hajax.spec import EnvSpec
from hajax.training.iteration import Loop, TrainState, check_metrics, in_turn_on_cpu
from hajax.training.replay import Replay, add, init_replay, replay_bytes, sample
from hajax.training.rollout import Actors, count_episodes, playable, report_episodes, start


def random_action(spec: EnvSpec, key: jax.Array, action_mask: jax.Array) -> jax.Array:
    """Uniform among available choices and within bounds, `[…, N, D]`; standard normal where there are no bounds."""
    layout = spec.action_layout
    choice_key, real_key, normal_key = jax.random.split(key, 3)
    shape = action_mask.shape[:-1]
    available = action_mask & layout.choices
    available = jnp.where(available.any(-1, keepdims=True), available, layout.choices)
    choice = jax.random.categorical(choice_key, jnp.where(available, 0.0, -jnp.inf)).astype(float)
    unit = jax.random.uniform(real_key, shape, minval=-1, maxval=1)
    real = layout.center + layout.scale * jnp.where(layout.bounded, unit, jax.random.normal(normal_key, shape))
    return jnp.where(layout.discrete, choice, jnp.where(layout.continuous, real, 0))


def make_off_policy_loop(env: Environment, algo: Algorithm, *, num_envs: int, rollout_length: int) -> Loop:
    """`rollout_length` steps in `num_envs` environments, then `rollout_length · updates_per_step` critic steps.

    `init` takes the warm-up's steps, in whole steps of all environments.

    Raises ValueError for a replay, a warm-up and minibatches that do not fit each other, updates that are no whole
    number, an algorithm made for another team, or an environment whose metrics have names that are taken.
    """
    settings, spec = algo.settings, env.spec
    env, update = playable(env, algo), in_turn_on_cpu(algo.update)
    check_metrics(env)
    capacity = check_replay(settings, num_envs)
    warmup = math.ceil(settings.warmup_steps / num_envs)
    num_updates = count_updates(settings, rollout_length)
    minibatches = (settings.policy_delay, settings.batch_size)

    def play(state: Any, carry: tuple[Actors, Replay], key: jax.Array, random: bool = False):
        """One step of every environment, stored."""
        actors, replay = carry
        seen = actors.timestep
        act_key, env_key = jax.random.split(key)
        if random:
            action, memory = random_action(spec, act_key, seen.action_mask), actors.memory
        else:
            action, _, memory = algo.act(act_key, state, seen, actors.memory)
        env_state, timestep = jax.vmap(env.step)(jax.random.split(env_key, num_envs), actors.env_state, action)
        episodes = count_episodes(spec, actors.episodes, timestep)
        return Actors(env_state, timestep, memory, episodes), add(replay, seen, action, timestep)

    def init(key: jax.Array, hyperparameters: Any = None) -> TrainState:
        algo_key, env_key, warmup_key, key = jax.random.split(key, 4)
        state = algo.init(algo_key, hyperparameters)
        carry = start(env, algo, env_key, num_envs), init_replay(spec, num_envs, capacity)

        def step(carry, key):
            return play(state, carry, key, random=True), None

        (actors, replay), _ = lax.scan(step, carry, jax.random.split(warmup_key, warmup))
        episodes, _ = report_episodes(actors.episodes)  # those of random actions are not training's
        return TrainState(state, actors._replace(episodes=episodes), key, replay)

    def iterate(train_state: TrainState) -> tuple[TrainState, dict[str, jax.Array]]:
        key, rollout_key, update_key = jax.random.split(train_state.key, 3)

        def step(carry, key):
            return play(train_state.algorithm, carry, key), None

        carry = (train_state.actors, train_state.replay)
        (actors, replay), _ = lax.scan(step, carry, jax.random.split(rollout_key, rollout_length))

        def learn(state, key):
            sample_key, update_key = jax.random.split(key)
            return update(update_key, state, sample(spec, replay, sample_key, minibatches, settings.n_step))

        state, info = lax.scan(learn, train_state.algorithm, jax.random.split(update_key, num_updates))
        episodes, metrics = report_episodes(actors.episodes)
        info = jax.tree.map(lambda x: x.mean(0), info)
        return TrainState(state, actors._replace(episodes=episodes), key, replay), metrics | info

    memory = replay_bytes(spec, num_envs, capacity)
    return Loop(init, iterate, num_envs * rollout_length, num_updates, warmup * num_envs, memory)


def check_replay(settings: Any, num_envs: int) -> int:
    """The rows of the replay per environment; ValueError unless replay, warm-up and minibatches fit each other."""
    size, batch, n_step = settings.buffer_size, settings.batch_size, settings.n_step
    if size < batch:
        raise ValueError(f"buffer_size={size} is less than batch_size={batch}; allowed: at least {batch}")
    # In the worst case every step ends an episode and takes two rows, and the two to be written next are taken.
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


def count_updates(settings: Any, rollout_length: int) -> int:
    """Calls of `update` per iteration; ValueError if that is no whole number, or none."""
    steps = rollout_length * settings.updates_per_step
    whole = round(steps)
    if abs(steps - whole) > 1e-9 * steps or whole % settings.policy_delay or not whole:
        delay = settings.policy_delay
        multiple = "a whole number" if delay == 1 else f"a multiple of policy_delay={delay}"
        raise ValueError(
            f"updates_per_step={settings.updates_per_step} gives {steps:g} critic steps after every "
            f"rollout_length={rollout_length} steps; allowed: {multiple}"
        )
    return whole // settings.policy_delay
