"""An extension without changes to the library: a critic whose joint value is the sum of the agents' utilities.

Value decomposition (Sunehag et al., 2018): Q(s, a) = Σ_i q_i(o_i, a_i). The critic reads the observations and actions
of all agents, and replaces the default critic of an algorithm.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hajax
from hajax.nn import TeamCritic

UTILITIES = np.array([[0.0, 1.0, 3.0], [2.0, 0.0, -1.0], [0.5, 4.0, 1.0]])  # of agent i's choices
PAYOFF = UTILITIES[0][:, None, None] + UTILITIES[1][:, None] + UTILITIES[2]


class Utility(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(nn.relu(nn.Dense(32)(x)))[..., 0]


class AdditiveMixing(TeamCritic):
    reads = ("observation", "action")

    @nn.compact
    def __call__(self, observation, action):
        own = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}, "in_axes": -2, "out_axes": -1}
        utility = nn.vmap(Utility, **own)  # separate parameters for each agent
        return utility(name="utilities")(jnp.concatenate([observation, action], -1)).sum(-1)


def train(name, critic=None, **settings):
    env = hajax.make_env("games/matrix", payoff=PAYOFF.tolist())
    algo = hajax.make_algorithm(name, env, critic=critic or AdditiveMixing(), hidden_sizes=(16,), **settings)
    options = {"total_steps": 3_000, "num_envs": 20, "rollout_length": 5}
    state, _ = jax.jit(hajax.make_train(env, algo, **options))(jax.random.key(0))
    evaluate = hajax.make_evaluate(env, algo, num_episodes=20)
    return state, evaluate(jax.random.key(1), state)["episode_return"].mean()


SMALL = {"batch_size": 100, "buffer_size": 3_000, "warmup_steps": 500, "critic_lr": 3e-3, "actor_lr": 3e-3}


@pytest.mark.parametrize("name", ["hasac", "had3qn"])
def test_it_solves_a_game_of_three_agents(name):
    state, result = train(name, **SMALL, discount=0.0)
    assert result == PAYOFF.max()
    params = jax.tree.map(lambda x: x[0, 0], state.critics.params)
    every = jax.nn.one_hot(jnp.stack(jnp.meshgrid(*[jnp.arange(3)] * 3, indexing="ij"), -1), 3)  # [3, 3, 3, N, F]
    observation = jnp.ones((*every.shape[:-1], 1))
    values = AdditiveMixing().apply({"params": params}, observation, every)
    assert values.argmax() == PAYOFF.argmax()


def test_state_values_of_a_team_are_read_agent_by_agent():
    """The same for an on-policy algorithm, whose critic does not read actions."""

    class Values(TeamCritic):
        reads = ("observation", "state")

        @nn.compact
        def __call__(self, observation, state):
            return Utility()(observation).sum(-1) + Utility()(state)

    _, result = train("happo", Values(), actor_lr=1e-2)
    assert result > 0.9 * PAYOFF.max()
    with pytest.raises(ValueError, match=r"reads action; allowed: state, observation, active"):
        train("happo")
