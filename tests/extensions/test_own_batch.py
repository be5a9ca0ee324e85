"""An extension without changes to the library: an environment that owns its batch, and resets only ended episodes.

The simulator is NumPy code outside of JAX that counts its resets, in place of a simulator whose resets are expensive.
Training calls it once per step of the whole batch.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

import hajax
from hajax.envs import BatchedEnvironment, timestep
from hajax.spaces import Discrete
from hajax.spec import AgentSpec, EnvSpec

LENGTH, SPEC = 4, EnvSpec("own/echo", (AgentSpec("one", (3,), Discrete(3)), AgentSpec("two", (3,), Discrete(3))), 3, 4)


class Simulator:
    """Both agents observe a number, which is redrawn in every episode, and are rewarded for naming it."""

    def __init__(self):
        self.resets, self.rng = 0, np.random.default_rng(0)

    def reset(self, number, t, which):
        for i in np.flatnonzero(which):  # one by one, as a slow simulator would
            number[i], t[i] = self.rng.integers(3), 0
            self.resets += 1

    def begin(self, keys):
        number, t = np.zeros(len(keys), np.int32), np.zeros(len(keys), np.int32)
        self.reset(number, t, np.ones(len(keys), bool))
        return number, t

    def advance(self, number, t, action):
        number, t = np.array(number), np.array(t) + 1
        reward = (action[..., 0] == number[:, None]).astype(np.float32)
        done, before = t == LENGTH, number.copy()
        self.reset(number, t, done)
        return number, t, reward, done, before


def echo(simulator):
    def shown(number, **fields):
        observation = jnp.broadcast_to(jax.nn.one_hot(number, 3), (2, 3))
        return timestep(SPEC, observation, observation[0], **fields)

    def like(keys, *more):
        whole = jax.ShapeDtypeStruct((len(keys),), np.int32)
        return (whole, whole, *more)

    def reset(keys):
        number, t = io_callback(simulator.begin, like(keys), jax.random.key_data(keys), ordered=True)
        return (number, t), jax.vmap(lambda n: shown(n, first=True))(number)

    def step(keys, state, action):
        reward, done = jax.ShapeDtypeStruct((len(keys), 2), np.float32), jax.ShapeDtypeStruct((len(keys),), bool)
        result = like(keys, reward, done, jax.ShapeDtypeStruct((len(keys),), np.int32))
        number, t, reward, done, before = io_callback(simulator.advance, result, *state, action, ordered=True)
        last = jax.vmap(lambda n, r, d: shown(n, reward=r, truncated=d))(before, reward, done)
        now = jax.vmap(shown)(number)
        return (number, t), last._replace(observation=now.observation, state=now.state, first=done)

    return BatchedEnvironment(SPEC, reset, step)


def test_training_resets_as_often_as_episodes_begin(monkeypatch):
    monkeypatch.setattr(hajax.envs, "_registered", {})
    simulator = Simulator()
    hajax.register_env("own/echo", lambda: echo(simulator))
    env = hajax.make_env("own/echo")
    algo = hajax.make_algorithm("happo", env, hidden_sizes=(16,), actor_lr=1e-2)
    train = hajax.make_train(env, algo, total_steps=20 * 8 * 30, num_envs=8, rollout_length=20)
    state, metrics = jax.jit(train)(jax.random.key(0))
    assert metrics["episodes"].sum() == 8 * 20 * 30 / LENGTH
    assert simulator.resets == 8 + metrics["episodes"].sum()
    result = jax.jit(hajax.make_evaluate(env, algo, num_episodes=10))(jax.random.key(1), state)
    assert result["episode_return"].mean() == 2 * LENGTH
