"""MAAC: its whole update in float64 against loops, and what follows from its definition."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_problems import (
    AGENTS,
    NUMBERS,
    TO_LEARN,
    B,
    actors_of,
    adam_once,
    chances,
    features,
    listed,
    made,
    random_batch,
    random_state,
    team,
)
from reference_attention import looped, table_of

import hajax
from hajax.envs.drawing import product_drawing
from hajax.envs.games import _single_state_game
from hajax.nn import distributions
from hajax.nn.attention import SHARED


@pytest.mark.parametrize("agents", [AGENTS, AGENTS[:1]], ids=["a team", "one agent, soft actor-critic"])
@jax.enable_x64(True)
def test_update_is_that_of_the_loops(agents):
    spec, n = team(*agents), len(agents)
    algo = made("maac", spec)
    state, batch, key = random_state(algo, jax.random.key(1)), random_batch(spec, jax.random.key(2)), jax.random.key(3)
    new, info = jax.jit(algo.update)(key, state, batch)
    row = jax.tree.map(lambda x: x[0], batch)
    actors, layout = actors_of(algo), spec.action_layout
    _, others_key, critic_key = jax.random.split(key, 3)

    def drawn(key, params, observation, mask):
        parameters = actors.team_distribution(params, observation, mask)[0]
        return np.asarray(distributions.sample(key, parameters, layout)), parameters.logits

    def index_of(action, i):
        return [
            listed(agents[i]).index(tuple(int(x) for x in a[: len(agents[i].action_space.choices)])) for a in action
        ]

    # Targets.
    seen, there = np.asarray(row.active), np.asarray(row.final_active)
    blank = np.where(there[..., None], row.final_observation, 0)
    final_mask = row.final_action_mask | ~there[..., None, None]
    action, logits = drawn(critic_key, state.target_actors, blank, final_mask)
    target_params = jax.tree.map(lambda x: x[0, 0], state.target_critics)
    table = table_of(target_params, blank, features(spec, action, there), there, 2, 8)
    targets = np.zeros((n, B))
    for b, i in itertools.product(range(B), range(n)):
        (k,) = index_of(action[b : b + 1, i], i)
        value = table[b, i, k] - np.log(chances(logits[b, i], agents[i])[k]) / NUMBERS["reward_scale"]
        value = value if there[b, i] and not row.terminated[b] else 0.0
        steps = int(row.steps[b])
        targets[i, b] = row.reward[b, 0, i] + 0.9 * row.reward[b, 1, i] + 0.9**steps * value

    # Critics.
    params = jax.tree.map(lambda x: x[0, 0], state.critics.params)
    blank = np.where(seen[..., None], row.observation, 0)
    taken = np.where(seen[..., None], row.action, 0)

    def critic_loss(params):
        table, logits = looped(params, blank, features(spec, taken, seen), seen, 2, 8)
        loss = 0.3 * sum(jnp.mean(jnp.array(x) ** 2) for x in logits.values() if x)
        for i in range(n):
            index = index_of(taken[:, i], i)
            errors = [(targets[i, b] - table[b, i, index[b]]) ** 2 for b in range(B) if seen[b, i]]
            loss += sum(errors) / len(errors)
        return loss

    loss, gradient = jax.jit(jax.value_and_grad(critic_loss))(params)
    gradient = {name: x / n if name in SHARED else x for name, x in gradient.items()}
    expected, norm = adam_once(params, gradient, 2e-2, n * 0.2, l2=0.1)
    assert norm > n * 0.2  # so that it is clipped
    assert float(info["value_loss"]) == pytest.approx(float(loss), rel=1e-10)
    assert float(info["critic_grad_norm"]) == pytest.approx(norm, rel=1e-9)
    for name, x in expected.items():
        np.testing.assert_allclose(new.critics.params[name][0, 0], x, atol=1e-10, err_msg=name)

    # Policies, with the new critics.
    mask = row.action_mask | ~seen[..., None, None]
    action, _ = drawn(others_key, state.actors.params, blank, mask)
    action = np.where(seen[..., None], action, 0)
    table = table_of(expected, blank, features(spec, action, seen), seen, 2, 8)
    for i, agent in enumerate(agents):
        index = index_of(action[:, i], i)

        def loss_of(own, i=i, agent=agent, index=index):
            params = jax.tree.map(lambda all_of, x: all_of.at[i].set(x), state.actors.params, own)
            logits = actors.team_distribution(params, jnp.asarray(blank), mask)[0].logits
            terms, squares = [], []
            for b in [b for b in range(B) if seen[b, i]]:
                prob = chances(logits[b, i], agent)
                log_prob, q = jnp.log(prob[index[b]]), table[b, i, : len(prob)]
                advantage = q[index[b]] - jnp.sum(prob * q)
                terms.append(log_prob * jax.lax.stop_gradient(log_prob / 3.0 - advantage))
                own_logits = jnp.concatenate([logits[b, i, d, :n] for d, n in enumerate(agent.action_space.choices)])
                finite = jnp.isfinite(own_logits)
                squares.append(jnp.sum(jnp.where(finite, own_logits, 0.0) ** 2) / finite.sum())
            return sum(terms) / len(terms) + 0.4 * sum(squares) / len(squares), sum(terms) / len(terms)

        own = jax.tree.map(lambda x, i=i: x[i], state.actors.params)
        (_, policy_loss), gradient = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(own)
        moved, norm = adam_once(own, gradient, 1e-2, 0.05)
        assert float(info["policy_loss"][i]) == pytest.approx(float(policy_loss), rel=1e-9)
        assert float(info["actor_grad_norm"][i]) == pytest.approx(norm, rel=1e-9)
        assert norm > 0.05
        jax.tree.map(lambda x, y, i=i: np.testing.assert_allclose(x[i], y, atol=1e-10), new.actors.params, moved)
    followed = jax.tree.map(lambda old, x: old + 0.3 * (x - old), state.target_actors, new.actors.params)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12), new.target_actors, followed)


REALS = (
    hajax.AgentSpec("a", (3,), hajax.Box((-1.0, 0.0), (1.0, 4.0))),
    hajax.AgentSpec("b", (2,), hajax.Discrete(3)),
    hajax.AgentSpec("c", (2,), hajax.Box((-2.0,), (2.0,))),
)


LOG_SCALES = np.array([np.log(2.0), 0.0, np.log(2.0)])  # densities are in units in which bounds are ±1


@pytest.mark.parametrize("name", ["maac", "mamd"])
@jax.enable_x64(True)
def test_with_a_box_the_baseline_is_a_mean_over_drawn_actions(name):
    """A mixed team: values read the own action too. Probabilities are of what was drawn, values of what was done."""
    spec, n, samples = team(*REALS), 3, 4
    settings = {} if name == "maac" else {"radius": 0.7, "tsallis_q": 0.3}
    algo = made(name, spec, baseline_samples=samples, **settings)
    state, batch, key = random_state(algo, jax.random.key(1)), random_batch(spec, jax.random.key(2)), jax.random.key(3)
    if name == "mamd":
        state = state._replace(extra=state.extra._replace(actors=jax.tree.map(lambda x: 0.8 * x, state.actors.params)))
    new, info = jax.jit(algo.update)(key, state, batch)
    row, actors, layout = jax.tree.map(lambda x: x[0], batch), actors_of(algo), spec.action_layout
    actor_key, others_key, critic_key = jax.random.split(key, 3)
    seen, there = np.asarray(row.active), np.asarray(row.final_active)

    def drawn(key, params, observation, mask):
        parameters = actors.team_distribution(params, observation, mask)[0]
        action = distributions.sample(key, parameters, layout)
        return np.asarray(action), np.asarray(distributions.log_prob(parameters, layout, action) + LOG_SCALES)

    def q(params, observation, joint, active, own):
        found, _ = looped(params, observation, joint, active, 2, 8, own)
        return np.asarray(found[..., 0])

    # Targets and the critics' loss.
    blank = np.where(there[..., None], row.final_observation, 0)
    action, log_prob = drawn(critic_key, state.target_actors, blank, row.final_action_mask | ~there[..., None, None])
    joint = features(spec, action, there)
    value = q(jax.tree.map(lambda x: x[0, 0], state.target_critics), blank, joint, there, joint) - log_prob / 3.0
    value = np.where(there & ~np.asarray(row.terminated)[:, None], value, 0)
    targets = row.reward[:, 0] + 0.9 * row.reward[:, 1] + 0.9 ** row.steps[:, None] * value
    blank = np.where(seen[..., None], row.observation, 0)
    joint = features(spec, np.asarray(row.action), seen)
    params = jax.tree.map(lambda x: x[0, 0], state.critics.params)
    found, logits = looped(params, blank, joint, seen, 2, 8, joint)
    errors = [np.mean((targets[seen[:, i], i] - found[seen[:, i], i, 0]) ** 2) for i in range(n)]
    penalty = 0.3 * sum(np.mean(np.array(x) ** 2) for x in logits.values() if x)
    assert float(info["value_loss"]) == pytest.approx(float(sum(errors) + penalty), rel=1e-9)

    # Policies, with the new critics.
    params, mask = jax.tree.map(lambda x: x[0, 0], new.critics.params), row.action_mask | ~seen[..., None, None]
    action, _ = drawn(others_key, state.actors.params, blank, mask)
    joint = features(spec, action, seen)
    baseline = [
        q(params, blank, joint, seen, features(spec, drawn(key, state.actors.params, blank, mask)[0], seen))
        for key in jax.random.split(jax.random.fold_in(actor_key, 3), samples)
    ]
    advantage = q(params, blank, joint, seen, joint) - np.mean(baseline, 0)
    action = jnp.where(seen[..., None], action, 0)
    for i in range(n):

        def log_probs(params):
            parameters = actors.team_distribution(params, jnp.asarray(blank), mask)[0]
            return distributions.log_prob(parameters, layout, action) + LOG_SCALES, parameters

        def loss_of(own, i=i):
            moved = jax.tree.map(lambda all_of, x: all_of.at[i].set(x), state.actors.params, own)
            log_prob, parameters = log_probs(moved)
            if name == "maac":
                cost = log_prob / 3.0
            else:
                old = jnp.exp(log_probs(state.extra.actors)[0])
                cost = (jnp.exp(log_prob) ** 0.7 - old**0.7) / 0.7 / 0.7
            surplus = jax.lax.stop_gradient(cost - advantage)
            outputs = parameters.mean if i != 1 else parameters.logits[:, :, 0]
            count = (2, 3, 1)[i]
            shown = jnp.where(jnp.isfinite(outputs[:, i, :count]), outputs[:, i, :count], 0)
            squares = jnp.sum(shown**2, -1) / jnp.isfinite(outputs[:, i, :count]).sum(-1)
            rows = np.flatnonzero(seen[:, i])
            return (log_prob * surplus)[rows, i].mean() + 0.4 * squares[rows].mean()

        own = jax.tree.map(lambda x, i=i: x[i], state.actors.params)
        moved, norm = adam_once(own, jax.jit(jax.grad(loss_of))(own), 1e-2, 0.05)
        assert float(info["actor_grad_norm"][i]) == pytest.approx(norm, rel=1e-9)
        jax.tree.map(lambda x, y, i=i: np.testing.assert_allclose(x[i], y, atol=1e-10), new.actors.params, moved)


def test_it_learns_real_actions():
    """The best actions within ±1 are ½ and −¼; the second agent's depends on the first one's."""

    def payoff(action):
        first, second = action[:, 0]
        return -((first - 0.5) ** 2) - (second + 0.5 * first) ** 2

    line = hajax.Box((-1.0,), (1.0,))
    env = _single_state_game("games/parabola", (line, line), payoff, 1, "individual", product_drawing)
    algo = hajax.make_algorithm("maac", env, reward_scale=20.0, **TO_LEARN)
    train = hajax.make_train(env, algo, total_steps=8_200, num_envs=8, rollout_length=10)
    states, _ = jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0), 3))
    evaluate = jax.jit(jax.vmap(hajax.make_evaluate(env, algo, num_episodes=8)))
    results = evaluate(jax.random.split(jax.random.key(1), 3), states)
    assert np.all(results["episode_return"] > -0.01)


@pytest.mark.parametrize("name", ["maac", "mamd", "mamt"])
@pytest.mark.parametrize(("sizes", "sharing"), [((3, 5, 5), "type"), ((4, 4, 4), (0, 1, 1))])
def test_groups_of_different_sizes(name, sizes, sharing):
    """The padding of the smaller group has another agent's action, which its own agent may not have."""
    spec = team(*(hajax.AgentSpec(f"agent_{i}", (3,), hajax.Discrete(n)) for i, n in enumerate(sizes)))
    algo = made(name, spec, sharing=sharing)
    batch = random_batch(spec, jax.random.key(2))
    new, info = jax.jit(algo.update)(jax.random.key(3), algo.init(jax.random.key(1)), batch)
    for path, x in jax.tree_util.tree_leaves_with_path((new.actors, info)):
        assert np.isfinite(x).all(), jax.tree_util.keystr(path)


@jax.enable_x64(True)
def test_in_a_sequence_later_agents_see_the_new_actions_of_earlier_ones():
    spec = team(*AGENTS)
    states = {}
    for order in ("simultaneous", "fixed"):
        algo = made("maac", spec, order=order, actor_lr=2.0)
        state, batch = random_state(algo, jax.random.key(1)), random_batch(spec, jax.random.key(2))
        states[order] = jax.jit(algo.update)(jax.random.key(3), state, batch)[0]
    one, other = (jax.tree.leaves(states[order].actors.params) for order in ("simultaneous", "fixed"))
    same = [[bool(jnp.allclose(x[i], y[i], atol=1e-12)) for x, y in zip(one, other, strict=True)] for i in range(3)]
    assert all(same[0])
    assert not all(same[1])
    assert not all(same[2])
    one, other = (jax.tree.leaves(states[order].critics.params)[0] for order in states)  # of two programs
    np.testing.assert_allclose(one, other, atol=1e-14)


def test_it_learns_to_agree():
    """Of a payoff of 1 for equal choices, an agent's share is ½; who attends to the other learns to agree."""
    env = hajax.make_env("games/matrix", payoff=np.eye(3), reward="individual")
    algo = hajax.make_algorithm("maac", env, reward_scale=20.0, **TO_LEARN)
    train = hajax.make_train(env, algo, total_steps=6_200, num_envs=8, rollout_length=10)
    states, _ = jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0), 3))
    evaluate = jax.jit(jax.vmap(hajax.make_evaluate(env, algo, num_episodes=8)))
    results = evaluate(jax.random.split(jax.random.key(1), 3), states)
    np.testing.assert_array_equal(results["episode_return"], np.ones((3, 8)))
    np.testing.assert_array_equal(results["return_of_agent_0"], np.full((3, 8), 0.5))


def test_what_does_not_suit_is_refused():
    spec = team(*AGENTS)
    with pytest.raises(ValueError, match="attention_heads=3; allowed: a divisor of attention_width=8"):
        made("maac", spec, attention_heads=3)
    with pytest.raises(ValueError, match="others='replay' of maac; allowed: policy, which defines it"):
        made("maac", spec, others="replay")
    with pytest.raises(ValueError, match="epochs=2 of maac; allowed: 1, which defines it"):
        made("maac", spec, epochs=2)
    with pytest.raises(ValueError, match="critic of maac; allowed: None, because its critics attend"):
        made("maac", spec, critic=hajax.nn.MLP((8,)))
