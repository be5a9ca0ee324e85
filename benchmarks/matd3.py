"""MATD3 in one file, in the style of PureJaxRL: the yardstick of `off_policy.py`.

Twin critics on all observations and actions, and an actor for every agent, updated simultaneously by one vmapped
gradient (https://arxiv.org/abs/1910.01465). It shares with hajax only the environment, through `from_hajax`, so that a
comparison is of training code and not of physics. It is written for speed: transitions are in a flat ring with their
next observations, every end of an episode counts as terminal, nothing is masked or padded, no statistics are kept.

Shapes: E environments, N agents, O observation width, A action width, B samples, C rows of the ring.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax


class Env(NamedTuple):
    """One environment of equal agents with actions in [−1, 1]; `step` starts the next episode itself."""

    num_agents: int
    observation_size: int
    action_size: int
    reset: Callable  # key -> (state, observation [N, O])
    step: Callable  # (key, state, action [N, A]) -> (state, observation [N, O], the team's reward [], done [])


@dataclasses.dataclass(frozen=True)
class Config:
    """Defaults: HARL's for MPE, with one step of the critics per step of all environments."""

    num_envs: int = 20
    rollout_length: int = 50
    warmup_steps: int = 10_000
    buffer_size: int = 1_000_000
    batch_size: int = 1000
    hidden_sizes: tuple[int, ...] = (128, 128)
    actor_lr: float = 5e-4
    critic_lr: float = 1e-3
    discount: float = 0.99
    target_rate: float = 0.005
    policy_delay: int = 2
    exploration_noise: float = 0.1
    target_noise: float = 0.2
    target_noise_clip: float = 0.5


class Ring(NamedTuple):
    """Transitions, `[C, …]`."""

    observation: jax.Array  # [C, N, O]
    action: jax.Array  # [C, N, A]
    reward: jax.Array
    next_observation: jax.Array
    done: jax.Array


class State(NamedTuple):
    """The state on which the next iteration depends."""

    actors: Any  # [N, …]
    critics: Any  # [2, …]
    target_actors: Any
    target_critics: Any
    actor_optimizer: Any
    critic_optimizer: Any
    env_state: Any
    observation: jax.Array  # [E, N, O]
    ring: Ring
    stored: jax.Array
    key: jax.Array


class Matd3(NamedTuple):
    """`init(key) -> State`, which takes the warm-up's random steps, and `iterate(State) -> State`.

    `targets(state, batch, noise) -> [B]` and `actor_loss(actors, critics, batch)` are of a minibatch of the ring.
    """

    init: Callable[[jax.Array], State]
    iterate: Callable[[State], State]
    targets: Callable
    actor_loss: Callable


class Network(nn.Module):
    """A multilayer perceptron `[…, I] -> […, outputs]`."""

    hidden_sizes: tuple[int, ...]
    outputs: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for width in self.hidden_sizes:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(self.outputs)(x)


def from_hajax(env: Any) -> Env:
    """The `Env` of a hajax `Environment` from `make_env`, whose agents are equal and take one Box action each."""
    spec = env.spec
    layout = spec.action_layout

    def reset(key):
        state, timestep = env.reset(key)
        return state, timestep.observation

    def step(key, state, action):
        state, timestep = env.step(key, state, layout.center + layout.scale * action)
        return state, timestep.observation, timestep.reward[0], timestep.terminated | timestep.truncated

    return Env(spec.num_agents, spec.observation_size, spec.num_components, reset, step)


def make_matd3(env: Env, config: Config, learn_sequentially: Callable = lambda learn: learn) -> Matd3:
    """MATD3 for `env`; `learn_sequentially` may run the updates of vmapped seeds one after another."""
    actor, critic = Network(config.hidden_sizes, env.action_size), Network(config.hidden_sizes, 1)
    num_agents, num_envs = env.num_agents, config.num_envs
    rows = config.buffer_size // num_envs * num_envs
    actor_optimizer, critic_optimizer = optax.adam(config.actor_lr), optax.adam(config.critic_lr)

    def act(params, observation):
        """`[B, N, O] -> [B, N, A]`."""
        return jnp.tanh(jax.vmap(actor.apply, in_axes=(0, 1), out_axes=1)(params, observation))

    def value(params, observation, action):
        """One critic's values `[B]`."""
        inputs = (observation.reshape(len(observation), -1), action.reshape(len(action), -1))
        return critic.apply(params, jnp.concatenate(inputs, -1))[:, 0]

    values = jax.vmap(value, in_axes=(0, None, None))

    def play(state: State, action: jax.Array, key: jax.Array) -> State:
        keys = jax.random.split(key, num_envs)
        env_state, observation, reward, done = jax.vmap(env.step)(keys, state.env_state, action)
        new = Ring(state.observation, action, reward, observation, done)
        ring = jax.tree.map(
            lambda old, x: lax.dynamic_update_slice_in_dim(old, x, state.stored % rows, 0), state.ring, new
        )
        return state._replace(env_state=env_state, observation=observation, ring=ring, stored=state.stored + num_envs)

    def init(key: jax.Array) -> State:
        actor_key, critic_key, env_key, warmup_key, key = jax.random.split(key, 5)
        example = jnp.zeros((num_agents, env.observation_size))
        actors = jax.vmap(actor.init, in_axes=(0, 0))(jax.random.split(actor_key, num_agents), example)
        width = num_agents * (env.observation_size + env.action_size)
        critics = jax.vmap(critic.init, in_axes=(0, None))(jax.random.split(critic_key), jnp.zeros(width))
        env_state, observation = jax.vmap(env.reset)(jax.random.split(env_key, num_envs))
        agents = (rows, num_agents)
        ring = Ring(
            jnp.zeros((*agents, env.observation_size)),
            jnp.zeros((*agents, env.action_size)),
            jnp.zeros(rows),
            jnp.zeros((*agents, env.observation_size)),
            jnp.zeros(rows, bool),
        )
        optimizers = actor_optimizer.init(actors), critic_optimizer.init(critics)
        stored = jnp.zeros((), int)
        state = State(actors, critics, actors, critics, *optimizers, env_state, observation, ring, stored, key)

        def step(state, key):
            action = jax.random.uniform(key, (num_envs, num_agents, env.action_size), minval=-1, maxval=1)
            return play(state, action, key), None

        return lax.scan(step, state, jax.random.split(warmup_key, -(-config.warmup_steps // num_envs)))[0]

    def targets(state: State, batch: Ring, noise: jax.Array) -> jax.Array:
        noise = jnp.clip(config.target_noise * noise, -config.target_noise_clip, config.target_noise_clip)
        next_action = jnp.clip(act(state.target_actors, batch.next_observation) + noise, -1, 1)
        after = values(state.target_critics, batch.next_observation, next_action).min(0)
        return batch.reward + config.discount * jnp.where(batch.done, 0, after)

    def critic_loss(params, batch: Ring, target):
        return jnp.square(values(params, batch.observation, batch.action) - target).mean(1).sum()

    def actor_loss(params, critics, batch: Ring):
        """Minus the critic at every agent's new action and the others' replayed ones."""
        own = act(params, batch.observation)
        first = jax.tree.map(lambda x: x[0], critics)

        def of_agent(agent):
            mine = (jnp.arange(num_agents) == agent)[:, None]
            return -value(first, batch.observation, jnp.where(mine, own, batch.action)).mean()

        return jax.vmap(of_agent)(jnp.arange(num_agents)).sum()

    def draw(state: State, key: jax.Array) -> Ring:
        index = jax.random.randint(key, (config.batch_size,), 0, jnp.minimum(state.stored, rows))
        return jax.tree.map(lambda x: jnp.take(x, index, axis=0, mode="clip"), state.ring)

    def learn_critics(learned: State, inputs: tuple[Ring, jax.Array]) -> tuple[State, None]:
        batch, key = inputs
        noise = jax.random.normal(key, batch.action.shape)
        gradient = jax.grad(critic_loss)(learned.critics, batch, targets(learned, batch, noise))
        updates, optimizer = critic_optimizer.update(gradient, learned.critic_optimizer)
        critics = optax.apply_updates(learned.critics, updates)
        return learned._replace(critics=critics, critic_optimizer=optimizer), None

    @learn_sequentially
    def learn(learned: State, batches: Ring, keys: jax.Array) -> State:
        """One update of the networks, on `policy_delay` minibatches."""
        learned, _ = lax.scan(learn_critics, learned, (batches, keys))
        last = jax.tree.map(lambda x: x[-1], batches)
        gradient = jax.grad(actor_loss)(learned.actors, learned.critics, last)
        updates, optimizer = actor_optimizer.update(gradient, learned.actor_optimizer)
        learned = learned._replace(actors=optax.apply_updates(learned.actors, updates), actor_optimizer=optimizer)
        rate = config.target_rate
        return learned._replace(
            target_actors=optax.incremental_update(learned.actors, learned.target_actors, rate),
            target_critics=optax.incremental_update(learned.critics, learned.target_critics, rate),
        )

    def iterate(state: State) -> State:
        key, rollout_key, update_key = jax.random.split(state.key, 3)

        def step(state, key):
            act_key, env_key = jax.random.split(key)
            action = act(state.actors, state.observation)
            action = action + config.exploration_noise * jax.random.normal(act_key, action.shape)
            return play(state, jnp.clip(action, -1, 1), env_key), None

        state, _ = lax.scan(step, state, jax.random.split(rollout_key, config.rollout_length))

        def update(learned, key):
            draw_key, noise_key = jax.random.split(key)
            batches = jax.vmap(lambda key: draw(state, key))(jax.random.split(draw_key, config.policy_delay))
            return learn(learned, batches, jax.random.split(noise_key, config.policy_delay)), None

        # Only the networks are carried through the updates, without the ring.
        learned = state._replace(env_state=(), observation=(), ring=(), stored=(), key=())
        learned, _ = lax.scan(
            update, learned, jax.random.split(update_key, config.rollout_length // config.policy_delay)
        )
        kept = {name: getattr(state, name) for name in ("env_state", "observation", "ring", "stored")}
        return learned._replace(**kept, key=key)

    return Matd3(init, iterate, targets, actor_loss)
