"""IPPO in one file, in the style of PureJaxRL: the yardstick of `throughput.py`.

Independent PPO (https://arxiv.org/abs/2011.09533) with one actor and one critic for all agents, whose samples form one
batch `[T, E·N]`. It shares with hajax only the environment, through `from_hajax`, so that a comparison is of training
code and not of physics. It is written for speed: values are computed with the actions, every end of an episode counts
as terminal, nothing is masked or padded, and the only statistics are episode returns.

Shapes: T steps, E environments, N agents, O observation width.
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
    """One environment of equal agents with discrete actions; `step` starts the next episode itself."""

    num_agents: int
    observation_size: int
    num_actions: int
    reset: Callable  # key -> (state, observation [N, O])
    step: Callable  # (key, state, action int [N]) -> (state, observation [N, O], reward [N], done [])


@dataclasses.dataclass(frozen=True)
class Config:
    """Defaults: JaxMARL's `ippo_ff_mpe`. `anneal_updates`: the learning rate falls linearly to 0 over that many."""

    num_envs: int = 16
    rollout_length: int = 128
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    layer_norm: bool = False
    epochs: int = 4
    minibatches: int = 4
    learning_rate: float = 2.5e-4
    anneal_updates: int | None = None
    discount: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy_coef: float = 0.01
    value_coef: float = 0.5
    max_grad_norm: float = 0.5


class State(NamedTuple):
    """The state on which the next iteration depends."""

    params: Any
    optimizer: Any
    env_state: Any  # [E, …]
    observation: jax.Array  # [E, N, O]
    episode_return: jax.Array  # [E]: the running episodes', summed over agents
    key: jax.Array


class Transition(NamedTuple):
    """One step of all agents of all environments, `[T, E·N, …]`."""

    observation: jax.Array
    action: jax.Array
    log_prob: jax.Array
    value: jax.Array
    reward: jax.Array
    done: jax.Array


class Ippo(NamedTuple):
    """`init(key) -> State` and `iterate(State) -> (State, metrics)`, one rollout and one update.

    `loss(params, samples, advantage, target) -> (loss, info)` of a minibatch `[B, …]`.
    """

    init: Callable[[jax.Array], State]
    iterate: Callable[[State], tuple[State, dict[str, jax.Array]]]
    loss: Callable


class Network(nn.Module):
    """A multilayer perceptron `[…, O] -> […, outputs]`, orthogonal weights, optionally with layer normalization."""

    config: Config
    outputs: int
    output_gain: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        activation = getattr(nn, self.config.activation)
        if self.config.layer_norm:
            x = nn.LayerNorm(epsilon=1e-5)(x)
        for width in self.config.hidden_sizes:
            x = activation(nn.Dense(width, kernel_init=nn.initializers.orthogonal(2**0.5))(x))
            if self.config.layer_norm:
                x = nn.LayerNorm(epsilon=1e-5)(x)
        return nn.Dense(self.outputs, kernel_init=nn.initializers.orthogonal(self.output_gain))(x)


def from_hajax(env: Any) -> Env:
    """The `Env` of a hajax `Environment` from `make_env`, whose agents are equal and take one discrete action."""
    spec = env.spec

    def reset(key):
        state, timestep = env.reset(key)
        return state, timestep.observation

    def step(key, state, action):
        state, timestep = env.step(key, state, action[:, None].astype(float))
        return state, timestep.observation, timestep.reward, timestep.terminated | timestep.truncated

    return Env(spec.num_agents, spec.observation_size, spec.num_choices, reset, step)


def from_jaxmarl(env: Any) -> Env:
    """The `Env` of a jaxmarl environment whose agents are equal and take one discrete action."""
    agents = env.agents

    def stack(x):
        return jnp.stack([x[agent] for agent in agents])

    def reset(key):
        observation, state = env.reset(key)
        return state, stack(observation)

    def step(key, state, action):
        actions = dict(zip(agents, action, strict=True))
        observation, state, reward, done, _ = env.step(key, state, actions)
        return state, stack(observation), stack(reward), done["__all__"]

    observation_size = env.observation_space(agents[0]).shape[0]
    return Env(len(agents), observation_size, env.action_space(agents[0]).n, reset, step)


def make_ippo(env: Env, config: Config) -> Ippo:
    """IPPO for `env`."""
    actor, critic = Network(config, env.num_actions, 0.01), Network(config, 1, 1.0)
    num_envs, num_actors = config.num_envs, config.num_envs * env.num_agents
    num_samples = config.rollout_length * num_actors
    learning_rate: Any = config.learning_rate
    if config.anneal_updates is not None:
        steps_per_update = config.epochs * config.minibatches
        learning_rate = lambda count: config.learning_rate * (1 - count // steps_per_update / config.anneal_updates)  # noqa: E731
    optimizer = optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(learning_rate, eps=1e-5))

    def init(key: jax.Array) -> State:
        actor_key, critic_key, env_key, key = jax.random.split(key, 4)
        example = jnp.zeros(env.observation_size)
        params = {"actor": actor.init(actor_key, example), "critic": critic.init(critic_key, example)}
        env_state, observation = jax.vmap(env.reset)(jax.random.split(env_key, num_envs))
        return State(params, optimizer.init(params), env_state, observation, jnp.zeros(num_envs), key)

    def act(params, key, observation):
        log_probs = nn.log_softmax(actor.apply(params["actor"], observation))
        action = jax.random.categorical(key, log_probs)
        return action, select(log_probs, action), critic.apply(params["critic"], observation)[..., 0]

    def step(carry, key):
        params, env_state, observation, running_return = carry
        act_key, env_key = jax.random.split(key)
        flat = observation.reshape(num_actors, -1)
        action, log_prob, value = act(params, act_key, flat)
        env_keys = jax.random.split(env_key, num_envs)
        env_state, observation, reward, done = jax.vmap(env.step)(env_keys, env_state, action.reshape(num_envs, -1))
        running_return = running_return + reward.sum(-1)
        row = Transition(flat, action, log_prob, value, reward.ravel(), jnp.repeat(done, env.num_agents))
        ended = (done.sum(), jnp.where(done, running_return, 0).sum())
        return (params, env_state, observation, jnp.where(done, 0, running_return)), (row, ended)

    def advantages(rollout, last_value):
        def backwards(carry, row):
            advantage, next_value = carry
            delta = row.reward + config.discount * next_value * (1 - row.done) - row.value
            advantage = delta + config.discount * config.gae_lambda * (1 - row.done) * advantage
            return (advantage, row.value), advantage

        carry = (jnp.zeros_like(last_value), last_value)
        return lax.scan(backwards, carry, rollout, reverse=True, unroll=8)[1]

    def loss(params, samples: Transition, advantage: jax.Array, target: jax.Array):
        log_probs = nn.log_softmax(actor.apply(params["actor"], samples.observation))
        value = critic.apply(params["critic"], samples.observation)[..., 0]
        clipped_value = samples.value + jnp.clip(value - samples.value, -config.clip, config.clip)
        value_loss = jnp.maximum(jnp.square(value - target), jnp.square(clipped_value - target)).mean() / 2
        ratio = jnp.exp(select(log_probs, samples.action) - samples.log_prob)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        clipped_ratio = jnp.clip(ratio, 1 - config.clip, 1 + config.clip)
        policy_loss = -jnp.minimum(ratio * advantage, clipped_ratio * advantage).mean()
        entropy = -(jnp.exp(log_probs) * log_probs).sum(-1).mean()
        total = policy_loss + config.value_coef * value_loss - config.entropy_coef * entropy
        return total, {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}

    def update(key, params, optimizer_state, batch):
        def on_minibatch(carry, minibatch):
            params, optimizer_state = carry
            gradient, info = jax.grad(loss, has_aux=True)(params, *minibatch)
            updates, optimizer_state = optimizer.update(gradient, optimizer_state)
            return (optax.apply_updates(params, updates), optimizer_state), info

        def epoch(carry, key):
            if config.minibatches == 1:  # means do not depend on the order
                return on_minibatch(carry, batch)
            permutation = jax.random.permutation(key, num_samples)
            shuffled = jax.tree.map(lambda x: jnp.take(x, permutation, axis=0), batch)
            minibatches = jax.tree.map(lambda x: x.reshape(config.minibatches, -1, *x.shape[1:]), shuffled)
            return lax.scan(on_minibatch, carry, minibatches)

        carry, info = lax.scan(epoch, (params, optimizer_state), jax.random.split(key, config.epochs))
        return *carry, jax.tree.map(jnp.mean, info)

    def iterate(state: State) -> tuple[State, dict[str, jax.Array]]:
        key, rollout_key, update_key = jax.random.split(state.key, 3)
        carry = (state.params, state.env_state, state.observation, state.episode_return)
        step_keys = jax.random.split(rollout_key, config.rollout_length)
        (params, env_state, observation, episode_return), (rollout, ended) = lax.scan(step, carry, step_keys)
        last_value = critic.apply(params["critic"], observation.reshape(num_actors, -1))[..., 0]
        advantage = advantages(rollout, last_value)
        batch = (rollout, advantage, advantage + rollout.value)
        batch = jax.tree.map(lambda x: x.reshape(num_samples, *x.shape[2:]), batch)
        params, optimizer_state, info = update(update_key, params, state.optimizer, batch)
        info["episode_return"] = ended[1].sum() / ended[0].sum()  # NaN if no episode ended
        return State(params, optimizer_state, env_state, observation, episode_return, key), info

    return Ippo(init, iterate, loss)


def select(log_probs: jax.Array, action: jax.Array) -> jax.Array:
    """The entry `action` `[B]` of `log_probs` `[B, A]`."""
    return jnp.take_along_axis(log_probs, action[:, None], axis=-1)[:, 0]


def make_train(env: Env, config: Config, updates: int) -> Callable[[jax.Array], tuple[State, dict[str, jax.Array]]]:
    """`train(key) -> (state, metrics)` of `updates` iterations, one program."""
    ippo = make_ippo(env, config)
    return lambda key: lax.scan(lambda state, _: ippo.iterate(state), ippo.init(key), None, updates)
