"""An extension without changes to the library: HATRPO with a KL radius per agent, set from the whole team.

The team has one budget of KL divergence. A hook divides it before the first agent is updated, in proportion to the
sampled entropies of the agents' policies: agents that explore more get a larger radius. Only public names are used.
"""

import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest

import hajax
from hajax.neighborhoods import Learner, kl_ball, with_hyperparameters
from hajax.settings import TrustRegionHyperparameters, TrustRegionSettings
from hajax.spaces import Discrete


def init(params, hyperparameters):
    return Learner(params, extra=hyperparameters.kl_radius)


def prepare(key, hyperparameters, learners, samples):
    """The radii of all groups `[G]`, from their samples `[G, K, B]`; their sum is G · `kl_radius`."""
    entropy = -jnp.sum(samples.weight * samples.log_prob, (1, 2)) / samples.weight.sum((1, 2))
    radius = len(entropy) * hyperparameters.kl_radius * entropy / entropy.sum()
    return learners._replace(extra=radius)


def improve(key, objective, learner, samples):
    new, info = kl_ball.improve(key, with_hyperparameters(objective, kl_radius=learner.extra), learner, samples)
    return new, info | {"kl_radius": learner.extra}


one_budget = kl_ball._replace(init=init, improve=improve, prepare=prepare)


def hatrpo_of_one_budget(spec, settings, hyperparameters=None):
    return hajax.haml("one_budget", spec, settings, hyperparameters, neighborhood=one_budget)


@pytest.mark.parametrize("order", ["random", "simultaneous"])
def test_every_agent_keeps_to_its_share_of_the_budget(order):
    spec = problems.make_spec([Discrete(2), Discrete(5), Discrete(9)])
    settings = TrustRegionSettings(hidden_sizes=(6,), order=order)
    algo = hatrpo_of_one_budget(spec, settings, TrustRegionHyperparameters(kl_radius=0.02))
    state = problems.random_state(algo, 0)
    batch = problems.random_batch(algo, state, 0, inactive=0.2, noise=0)
    new, info = jax.jit(algo.update)(jax.random.key(0), state, batch)
    active = np.asarray(batch.active)
    entropy = -np.sum(np.where(active, batch.log_prob, 0), (0, 1)) / active.sum((0, 1))
    radius = 3 * 0.02 * entropy / entropy.sum()
    np.testing.assert_allclose(info["kl_radius"], radius, 1e-5)
    np.testing.assert_allclose(new.actors.extra, radius, 1e-5)
    assert radius.max() > 1.5 * radius.min()
    assert (info["kl"] <= radius * 1.001).all()
    assert (np.asarray(info["kl"]) > 0.5 * radius)[np.asarray(info["accepted"]) > 0].any()


def test_it_solves_the_trap_of_homogeneity():
    env = hajax.make_env("games/trap_of_homogeneity", num_agents=2)
    algo = hatrpo_of_one_budget(env.spec, TrustRegionSettings(hidden_sizes=(16,)))
    train = hajax.make_train(env, algo, total_steps=128 * 100, num_envs=128, rollout_length=1)
    state, _ = jax.jit(train)(jax.random.key(0))
    evaluate = hajax.make_evaluate(env, algo, num_episodes=100)
    assert evaluate(jax.random.key(1), state)["episode_return"].mean() == 1
