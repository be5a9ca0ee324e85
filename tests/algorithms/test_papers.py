"""The small games of the papers, with exact expectations: simultaneous updates against sequential ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import LONG

from hajax.algorithms import make_algorithm
from hajax.core.drifts import PolicyChange, ppo_clip
from hajax.core.losses import weighted_mean
from hajax.core.on_policy.settings import DriftHyperparameters
from hajax.core.sequential import sequential_update
from hajax.envs import make_env
from hajax.envs.games import hasac_payoff, trap_of_heterogeneity_payoff, trap_of_homogeneity_payoff
from hajax.nn import distributions
from hajax.nn.distributions import ActionParameters
from hajax.spec import ActionLayout
from hajax.training import make_evaluate, make_loop, make_train


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


# --- Kuba et al., 2022a, Figure 1: r(a¹, a²) = a¹ a², unit-variance Gaussians, a KL ball of δ = 0.5 ------------------


def gaussian_game_after_one_iteration(permutation):
    """Exact maximal trust-region steps on Figure 1's game, by Gauss–Hermite quadrature of every expectation."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    weights = weights / weights.sum()
    old_means = jnp.array([[-0.25], [0.25]])
    layout = ActionLayout(
        np.zeros(1, bool), np.ones(1, bool), np.ones((1, 1), bool), center=np.zeros(1), scale=np.ones(1)
    )
    # The quadrature grid over joint actions under the old policies, its weights, and the advantage there.
    first, second = jnp.meshgrid(-0.25 + nodes, 0.25 + nodes, indexing="ij")
    weight = jnp.outer(weights, weights)
    advantage = first * second - jnp.sum(weight * first * second)
    delta = 0.5

    def policy(mean):
        return ActionParameters(logits=None, mean=mean, std=jnp.ones(1))

    def update_agent(mean, action, compound_ratio):
        def ratio(new):
            new_log_prob = distributions.log_prob(policy(new), layout, action[..., None])
            return jnp.exp(new_log_prob - distributions.log_prob(policy(mean), layout, action[..., None]))

        gradient = jax.grad(lambda new: jnp.sum(weight * ratio(new) * compound_ratio * advantage))(mean)
        fisher = jax.hessian(lambda new: distributions.kl_divergence(policy(mean), policy(new), layout))(mean)
        direction = jnp.linalg.solve(fisher, gradient)
        new_mean = mean + jnp.sqrt(2 * delta / (gradient @ direction)) * direction
        kl = distributions.kl_divergence(policy(mean), policy(new_mean), layout)
        return new_mean, compound_ratio * ratio(new_mean), kl

    means, _, kls = sequential_update(
        update_agent, permutation, old_means, jnp.stack([first, second]), jnp.ones_like(first)
    )
    np.testing.assert_allclose(kls, delta, atol=1e-12)
    assert np.isclose(float(old_means[0, 0] * old_means[1, 0]), -0.0625)
    return float(means[0, 0] * means[1, 0])


@pytest.mark.parametrize(
    ("permutation", "expected"), [(None, -0.5625), ([0, 1], 0.9375), ([1, 0], 0.9375)], ids=["simultaneous", "12", "21"]
)
def test_figure_1_sequential_trust_region_steps_improve_where_simultaneous_ones_harm(permutation, expected):
    permutation = None if permutation is None else jnp.array(permutation)
    assert gaussian_game_after_one_iteration(permutation) == pytest.approx(expected, abs=1e-9)


# --- Kuba et al., 2022b, Proposition 1 (2022a, Appendix B): the trap of homogeneity ----------------------------------


@pytest.mark.parametrize(("num_agents", "best"), [(2, 0.5), (4, 0.125), (6, 0.03125)])
def test_proposition_1_best_shared_policy(num_agents, best):
    payoff = np.asarray(trap_of_homogeneity_payoff(num_agents))

    def expected_payoff(theta):
        value = payoff
        for _ in range(num_agents):  # every agent takes action 0 with probability theta
            value = theta * value[0] + (1 - theta) * value[1]
        return value

    returns = [expected_payoff(theta) for theta in np.linspace(0, 1, 1001)]
    assert max(returns) == pytest.approx(best, abs=1e-12)
    assert payoff.max() == 1


def trained_return(name, num_agents, deterministic, **settings):
    env = make_env("games/trap_of_homogeneity", num_agents=num_agents)
    algo = make_algorithm(name, env, hidden_sizes=(16,), actor_lr=5e-3, critic_lr=5e-3, entropy_coef=0.0, **settings)
    train = make_train(env, algo, total_steps=128 * 150, num_envs=128, rollout_length=1)
    state, _ = jax.jit(train)(jax.random.key(0))
    evaluate = make_evaluate(env, algo, num_episodes=4000, deterministic=deterministic)
    return float(evaluate(jax.random.key(1), state)["episode_return"].mean())


@pytest.mark.parametrize(("name", "num_agents"), [("happo", 2), ("happo", 4), ("happo", 6), ("a2po", 4)])
def test_proposition_1_unshared_policies_learn_the_optimum(name, num_agents):
    assert trained_return(name, num_agents, deterministic=True) == 1


def test_proposition_1_shared_mappo_fails_and_an_agent_id_solves_it():
    shared = trained_return("mappo", 4, deterministic=False)
    standard_error = np.sqrt(0.125 * 0.875 / 4000)
    assert shared <= 0.125 + 4 * standard_error
    assert trained_return("mappo", 4, deterministic=True, agent_id=True) == 1


# --- Kuba et al., 2022b, Proposition 2: the trap of heterogeneity ----------------------------------------------------


@pytest.mark.parametrize(
    ("permutation", "expected"), [(None, -1.0), ([0, 1], 2.0), ([1, 0], 2.0)], ids=["simultaneous", "12", "21"]
)
def test_proposition_2_exact_arg_max(permutation, expected):
    payoff = jnp.asarray(trap_of_heterogeneity_payoff())
    old = jnp.array([[0.7, 0.3], [0.7, 0.3]])
    joint = jnp.outer(old[0], old[1])
    assert float(jnp.sum(joint * payoff)) == pytest.approx(0.75, abs=1e-12)
    advantage = payoff - jnp.sum(joint * payoff)

    def update_agent(policy, own_action, compound_ratio):
        # E[r · M] is linear in the new policy, so its arg max is the action with the largest coefficient.
        coefficients = jnp.sum(own_action * joint * compound_ratio * advantage, axis=(1, 2)) / policy
        new = jax.nn.one_hot(jnp.argmax(coefficients), 2)
        return new, compound_ratio * jnp.tensordot(new / policy, own_action, 1), coefficients

    # own_action[i, k] marks the joint actions in which agent i takes action k.
    eye, ones = jnp.eye(2), jnp.ones(2)
    own_action = jnp.stack([jnp.einsum("ka,b->kab", eye, ones), jnp.einsum("kb,a->kab", eye, ones)])
    permutation = None if permutation is None else jnp.array(permutation)
    new, _, _ = sequential_update(update_agent, permutation, old, own_action, jnp.ones((2, 2)))
    assert float(new[0] @ payoff @ new[1]) == expected


# --- Liu et al., 2024, Appendix B: the matrix game at (0.6, 0.2, 0.2) ------------------------------------------------


def test_appendix_b_value_advantages_and_first_coefficients():
    policy = jnp.array([0.6, 0.2, 0.2])
    first, second = (index.ravel() for index in jnp.meshgrid(jnp.arange(3), jnp.arange(3), indexing="ij"))
    env = make_env("games/hasac_matrix")
    actions = jnp.stack([first, second], -1)[..., None].astype(float)
    env_state, _ = env.reset(jax.random.key(0))
    reward = jax.vmap(lambda action: env.step(jax.random.key(0), env_state, action)[1].reward)(actions)[:, 0]
    np.testing.assert_allclose(reward, np.asarray(hasac_payoff()).ravel(), atol=1e-12)
    weight = policy[first] * policy[second]  # the nine joint actions, as a batch weighted by their probabilities

    value = weighted_mean(reward, weight)
    assert float(value) == pytest.approx(-8.2, abs=1e-12)
    advantage = reward - value
    np.testing.assert_allclose(advantage.reshape(3, 3).diagonal(), [13.2, 18.2, 28.2], atol=1e-12)
    np.testing.assert_allclose(advantage.reshape(3, 3)[~np.eye(3, dtype=bool)], -11.8, atol=1e-12)

    def surrogate(new_policy):
        ratio = new_policy[first] / policy[first]
        change = PolicyChange(jnp.log(ratio), advantage, None, None, None)
        return weighted_mean(ratio * advantage - ppo_clip(change, DriftHyperparameters(clip=0.2)), weight)

    np.testing.assert_allclose(jax.grad(surrogate)(policy), [3.2, -5.8, -3.8], atol=1e-12)


@pytest.mark.parametrize("name", ["happo", "mappo"])
def test_sampled_ppo_stays_at_the_local_optimum_of_the_hasac_game(name):
    """Figure 3a of Liu et al., 2024: from policies (0.6, 0.2, 0.2) both end at (A, A), with reward 5; (C, C) has 20."""
    with jax.enable_x64(False):
        env = make_env("games/hasac_matrix")
        algo = make_algorithm(name, env, hidden_sizes=(16,), actor_lr=2e-3, sharing="none")
        loop = make_loop(env, algo, num_envs=200, rollout_length=1)

        def train(key):
            start = loop.init(key)
            params = start.algorithm.actors.params
            head = {
                "kernel": jnp.zeros_like(params["logits"]["kernel"]),
                "bias": jnp.broadcast_to(jnp.log(jnp.array([0.6, 0.2, 0.2])), params["logits"]["bias"].shape),
            }
            actors = start.algorithm.actors._replace(params=params | {"logits": head})
            start = start._replace(algorithm=start.algorithm._replace(actors=actors))
            final, metrics = jax.lax.scan(lambda state, _: loop.iterate(state), start, None, 500)
            return final.algorithm, metrics["episode_return"]

        train = jax.jit(jax.vmap(train), compiler_options=LONG)
        states, returns = train(jax.random.split(jax.random.key(0), 3))
        evaluate = make_evaluate(env, algo, num_episodes=1)
        final = jax.vmap(evaluate)(jax.random.split(jax.random.key(1), 3), states)["episode_return"]
    np.testing.assert_allclose(returns[:, 0], -8.2, atol=4)  # E[r] of the first policies; 200 samples
    np.testing.assert_allclose(returns[:, -50:].mean(1), 5, atol=0.25)  # and of the last, almost deterministic ones
    np.testing.assert_array_equal(np.ravel(final), 5)
