"""LOLA: its objective's derivatives by enumeration, its directions against second derivatives, and what it learns."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hajax
from hajax.core.actors import TeamActors, policy_torso
from hajax.core.groups import make_groups
from hajax.core.on_policy.anticipation import dice_returns, lola_directions
from hajax.envs.iterated_games import PRISONERS_DILEMMA
from hajax.nn import distributions

ROUNDS, DISCOUNT = 2, 0.8


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def play(logits, actions):
    """Log-probabilities and rewards `[T, N]` of joint actions `[T, N]`; policies `[N, 5]` see the last round."""
    logits, log_prob, seen = jnp.asarray(logits), [], jnp.zeros(2, int)
    for row in actions:
        for_all = jax.nn.log_softmax(jnp.stack([logits[jnp.arange(2), seen], jnp.zeros(2)], -1))
        log_prob.append(for_all[jnp.arange(2), row])
        seen = 1 + 2 * row + row[::-1]
    reward = jnp.moveaxis(jnp.asarray(PRISONERS_DILEMMA)[:, actions[:, 0], actions[:, 1]], 0, -1)
    return jnp.stack(log_prob), reward


SEQUENCES = np.array(list(itertools.product(itertools.product(range(2), repeat=2), repeat=ROUNDS)))
LOGITS = np.random.default_rng(0).normal(size=(2, 5))
OPENS = jnp.array([[True], [False]])


def exact(logits):
    """E[Σ γᵗ rⁱ_t] by enumeration."""
    total = jnp.zeros(2)
    for actions in SEQUENCES:
        log_prob, reward = play(logits, actions)
        total += jnp.exp(log_prob.sum()) * (DISCOUNT ** jnp.arange(ROUNDS) @ reward)
    return total


def test_derivatives_of_any_order_are_right_in_expectation():
    """Over all courses of the game, weighted by their probabilities; one environment has no baseline."""

    def estimates(logits, actions):
        log_prob, reward = play(logits, actions)
        return dice_returns(log_prob[:, None], reward[:, None], OPENS, DISCOUNT)

    derivatives = (lambda f: f, jax.jacrev, lambda f: jax.jacrev(jax.jacrev(f)))
    wanted = [jax.jit(d(exact))(LOGITS) for d in derivatives]
    weights = jax.vmap(lambda actions: jnp.exp(play(LOGITS, actions)[0].sum()))(SEQUENCES)
    for d, exactly in zip(derivatives, wanted, strict=True):
        of_all = jax.jit(jax.vmap(d(estimates), in_axes=(None, 0)))(LOGITS, SEQUENCES)
        np.testing.assert_allclose(jnp.tensordot(weights, of_all, 1), exactly, atol=1e-12)
    assert np.abs(wanted[2][0][:, :, 1]).max() > 0.01  # a mixed second derivative


def test_the_baseline_leaves_the_gradient_s_expectation():
    """Over all pairs of courses in two environments."""
    opens = jnp.repeat(OPENS, 2, 1)
    played = [play(LOGITS, actions) for actions in SEQUENCES]
    gradients, weights = [], []

    @jax.jit
    def gradient(*actions):
        def estimates(logits):
            pair = [play(logits, x) for x in actions]
            return dice_returns(*(jnp.stack(x, 1) for x in zip(*pair, strict=True)), opens, DISCOUNT)

        return jax.jacrev(estimates)(jnp.asarray(LOGITS))

    for one, other in itertools.product(range(len(SEQUENCES)), repeat=2):
        gradients.append(np.asarray(gradient(SEQUENCES[one], SEQUENCES[other])))
        weights.append(float(jnp.exp(played[one][0].sum() + played[other][0].sum())))
    gradients, weights = np.array(gradients), np.array(weights)
    mean = np.tensordot(weights, gradients, 1)
    np.testing.assert_allclose(mean, jax.jacrev(exact)(LOGITS), atol=1e-12)


def test_episodes_of_a_rollout_are_averaged():
    keys = jax.random.split(jax.random.key(0), 2)
    log_prob, reward = -jax.random.uniform(keys[0], (5, 3, 2)), jax.random.normal(keys[1], (5, 3, 2))
    first = jnp.zeros((5, 3), bool).at[0].set(True).at[2, 1].set(True)
    found = dice_returns(log_prob, reward, first, 0.9)
    discounts = np.array([[0.9**t if e != 1 or t < 2 else 0.9 ** (t - 2) for e in range(3)] for t in range(5)])
    np.testing.assert_allclose(found, np.sum(discounts[..., None] * reward, (0, 1)) / 4, rtol=1e-12)
    # An action makes a difference in its own episode alone.
    slope = jax.grad(lambda x: dice_returns(x, reward, first, 0.9)[0])(log_prob)
    later = jax.grad(lambda x: dice_returns(x, reward.at[2:, 1].set(7.0), first, 0.9)[0])(log_prob)
    np.testing.assert_allclose(slope[:2, 1], later[:2, 1], rtol=1e-12)


@pytest.mark.parametrize("lookahead", [0.0, 0.7])
def test_directions_are_those_of_the_hessian(lookahead):
    """Of three agents with two numbers each, in two arrays, and functions that are no sum of theirs."""
    matrices = jax.random.normal(jax.random.key(0), (3, 6, 6))

    def of_numbers(x):  # [6], those of agent i at 2i and 2i + 1
        return jnp.sin(matrices @ x) @ x

    def returns(params):
        return of_numbers(jnp.concatenate([params["a"], params["b"][:, None]], 1).reshape(-1))

    params = {"a": jax.random.normal(jax.random.key(1), (3, 1)), "b": jax.random.normal(jax.random.key(2), (3,))}
    x = jnp.concatenate([params["a"], params["b"][:, None]], 1).reshape(-1)
    first, second = jax.jacobian(of_numbers)(x), jax.jacobian(jax.jacobian(of_numbers))(x)
    found = lola_directions(returns, params, lookahead)
    for i in range(3):
        own = slice(2 * i, 2 * i + 2)
        wanted = first[i, own]
        for j in (j for j in range(3) if j != i):
            other = slice(2 * j, 2 * j + 2)
            wanted += lookahead * second[j, own, other] @ first[i, other]
        np.testing.assert_allclose([found["a"][i, 0], found["b"][i]], wanted, rtol=1e-10)


def test_the_update_is_a_step_of_adam_in_these_directions():
    env = hajax.make_env("games/iterated_prisoners_dilemma", max_steps=4)
    algo = hajax.make_algorithm(
        "lola", env, hidden_sizes=(3,), lookahead=0.6, actor_lr=0.01, discount=0.9, adam_eps=1e-3, output_gain=1.0
    )
    torso = policy_torso(env.spec, algo.settings, None)
    actors = TeamActors(env.spec, make_groups(env.spec, "none"), torso, False, True, 1.0)
    state, keys = algo.init(jax.random.key(0)), jax.random.split(jax.random.key(1), 3)
    shape = (4, 6, 2)
    action = jax.random.bernoulli(keys[0], shape=(*shape, 1)).astype(float)
    seen = jax.nn.one_hot(jax.random.randint(keys[1], shape, 0, 5), 5)
    reward = jax.random.normal(keys[2], shape)
    batch = hajax.on_policy_batch(
        env.spec, observation=seen, state=seen[..., 0, :], action=action, log_prob=jnp.zeros(shape), reward=reward,
        final_observation=seen, final_state=seen[..., 0, :], first=jnp.zeros(shape[:2], bool).at[0].set(True),
    )  # fmt: skip
    new, info = jax.jit(algo.update)(jax.random.key(2), state, batch)
    to_go = np.array([[sum(0.9**t * reward[t, e] for t in range(s, 4)) for e in range(6)] for s in range(4)])

    def box(x):
        return jnp.exp(x - jax.lax.stop_gradient(x))

    def returns(params):
        parameters = actors.team_distribution(params, seen, None)[0]
        log_prob = distributions.log_prob(parameters, env.spec.action_layout, action)
        total = 0.0
        for e, t in itertools.product(range(6), range(4)):
            baseline = (to_go[t].sum(0) - to_go[t, e]) / 5
            total += box(log_prob[: t + 1, e].sum()) * 0.9**t * reward[t, e]
            total += (1 - box(log_prob[t, e].sum())) * baseline
        return total / 6

    directions = jax.jit(lambda x: lola_directions(returns, x, 0.6))(state.actors.params)
    for x, old, g in zip(*map(jax.tree.leaves, (new.actors.params, state.actors.params, directions)), strict=True):
        np.testing.assert_allclose(x, old + 0.01 * g / (jnp.abs(g) + 1e-3), atol=1e-9)
    np.testing.assert_allclose(info["discounted_return"], returns(state.actors.params), rtol=1e-10)


def test_those_who_look_ahead_learn_to_cooperate_and_naive_ones_to_defect():
    with jax.enable_x64(False):
        env = hajax.make_env("games/iterated_prisoners_dilemma", max_steps=40)
        algo = hajax.make_algorithm("lola", env, hidden_sizes=(16,), actor_lr=0.1)
        train = hajax.make_train(env, algo, total_steps=60 * 64 * 40, num_envs=64, rollout_length=40)
        keys = jax.random.split(jax.random.key(0), 4)
        learn = jax.jit(
            jax.vmap(lambda key, eta: train(key, algo.hyperparameters.replace(lookahead=eta))[1], (0, None))
        )
        rewards = [np.asarray(learn(keys, eta)["episode_return"])[:, -5:].mean(1) / 80 for eta in (0.0, 1.0)]
    assert rewards[0].max() < -1.9
    assert np.sum(rewards[1] > -1.2) >= 2, rewards[1]


def test_what_does_not_suit_is_refused():
    env = hajax.make_env("games/matching_pennies")
    for settings, message in (
        ({"sharing": "all"}, "sharing='all' of lola; allowed: none, which defines it"),
        ({"order": "random"}, "order='random' of lola; allowed: simultaneous, which defines it"),
        ({"lookahead": -1.0}, r"lookahead=-1\.0; allowed: a number >= 0"),
        ({"critic": hajax.nn.MLP((8,))}, "critic of lola; allowed: None, because it has none"),
    ):
        with pytest.raises(ValueError, match=message):
            hajax.make_algorithm("lola", env, **settings)
