"""An extension without changes to the library: an attention torso, and a small causal transformer as memory.

The torso reads an observation as tokens, one per entry, with self-attention. The memory stores the features of the last
steps of the episode, to which the current step attends. Both are flax modules, passed as arguments.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

import hajax
from hajax.nn import Memory

HEADS, WIDTH = 2, 16


class AttentionTorso(nn.Module):
    """Features `[…, H]` of observations `[…, O]`. Every entry is a token, embedded with its value."""

    @nn.compact
    def __call__(self, x):
        embedding = self.param("embedding", nn.initializers.normal(0.5), (x.shape[-1], WIDTH))
        tokens = nn.Dense(WIDTH)(embedding + x[..., None] * jnp.flip(embedding, -1))
        attended = nn.MultiHeadDotProductAttention(HEADS)(tokens)
        return nn.relu(nn.Dense(WIDTH)((tokens + attended).reshape(*x.shape[:-1], -1)))


class CausalTransformer(Memory):
    """One transformer block with the current step as query and the last `window` steps as keys.

    The memory holds their features `[…, window, F]`, and whether they belong to the episode, bool `[…, window]`.
    """

    window: int

    def initial_memory(self, batch_shape):
        return jnp.zeros((*batch_shape, self.window, WIDTH)), jnp.zeros((*batch_shape, self.window), bool)

    @nn.compact
    def step(self, x, memory):
        past, exists = memory
        past = jnp.concatenate([past[..., 1:, :], x[..., None, :]], -2)
        exists = jnp.concatenate([exists[..., 1:], jnp.ones_like(exists[..., :1])], -1)
        positions = self.param("positions", nn.initializers.normal(0.5), (self.window, WIDTH))
        keys, mask = past + positions, exists[..., None, None, :]
        attended = nn.MultiHeadDotProductAttention(HEADS)(keys[..., -1:, :], keys, mask=mask)[..., 0, :]
        features = x + attended
        return features + nn.Dense(WIDTH)(nn.relu(nn.Dense(2 * WIDTH)(nn.LayerNorm()(features)))), (past, exists)


def test_it_solves_the_game_of_memory():
    """The optimum is 1. A policy without memory has 1/2 on average."""
    env = hajax.make_env("games/memory", num_agents=2, delay=3)
    algo = hajax.make_algorithm(
        "happo", env, actor=AttentionTorso(), critic=AttentionTorso(), memory=CausalTransformer(4), chunk_length=4
    )
    train = hajax.make_train(env, algo, total_steps=40_000, num_envs=16, rollout_length=16)
    state, _ = jax.jit(train)(jax.random.key(0))
    evaluate = jax.jit(hajax.make_evaluate(env, algo, num_episodes=200))
    assert evaluate(jax.random.key(1), state)["episode_return"].mean() > 0.95


def test_a_sequence_is_its_steps_one_after_another():
    """The memory is reset where an episode begins, and unchanged by inactive steps."""
    memory = CausalTransformer(3)
    x = jax.random.normal(jax.random.key(0), (2, 5, WIDTH))
    first, active = jnp.zeros((2, 5), bool).at[0, 2].set(True), jnp.ones((2, 5), bool).at[1, 1].set(False)
    given = memory.select(memory.initial_memory((2,)), first, active)
    params = memory.init(jax.random.key(1), x, given)
    features, after = memory.apply(params, x, given)
    kept = memory.initial_memory((2,))
    for t in range(5):
        one, kept = memory.apply(params, x[:, t], memory.select(kept, first[:, t], active[:, t]))
        assert jnp.allclose(features[:, t], one, atol=1e-5)
        assert all(jax.tree.leaves(jax.tree.map(lambda a, b, t=t: jnp.array_equal(a[:, t], b), after, kept)))
    assert kept[1].sum(-1).tolist() == [3, 3]
    assert after[1][0, 2].sum() == 1
