"""MAMD and MAMT: Eqs. 5, 7, 8 and 10 in float64 against loops, and what follows from them."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from attention_problems import (
    AGENTS,
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
from reference_attention import leaky, table_of

import hajax
from hajax import tabular
from hajax.algorithms.maac import attention_parts
from hajax.core.off_policy.choices import TeamChoices
from hajax.core.off_policy.decomposition import DecompositionParts, coordination
from hajax.core.off_policy.joint_actions import JointActions
from hajax.core.off_policy.joint_sequence import OffPolicySamples
from hajax.core.off_policy.mirror_descent import MirrorData, MirrorObjective, tsallis_log
from hajax.nn.distributions import ActionParameters

MIRROR = {"radius": 0.7, "tsallis_q": 0.3}
LEARNED = MIRROR | {
    "radius_min": 0.05, "radius_max": 2.0, "radius_lr": 3e-2, "decomposition_lr": 2e-2, "modeling_lr": 1e-2,
    "edge_threshold": 0.4, "decomposition_width": 5,
}  # fmt: skip


def with_old_policies(state, key):
    """The state with other random parameters for π_old."""
    leaves, structure = jax.tree.flatten(state.extra.actors)
    keys = jax.random.split(key, len(leaves))
    old = jax.tree.unflatten(
        structure, [0.5 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    )
    return state._replace(extra=state.extra._replace(actors=old))


def ln(p, q):
    p = np.maximum(p, 1e-6)
    return np.log(p) if q == 1 else (p ** (1 - q) - 1) / (1 - q)


@jax.enable_x64(True)
def test_the_tsallis_logarithm():
    p = jnp.array([1e-9, 1e-6, 0.2, 0.7, 1.0])
    for q in (0.2, 0.999999, 1.0, 2.0):
        np.testing.assert_allclose(
            tsallis_log(jnp.log(p), q, 1e-6), ln(np.array(p), q), rtol=1e-6 if q == 0.999999 else 1e-12
        )
    slope = jax.vmap(jax.grad(lambda x: tsallis_log(x, 0.2)))(jnp.log(p[2:]))
    np.testing.assert_allclose(slope, p[2:] ** 0.8, rtol=1e-12)
    slope_of_q = jax.grad(lambda q: tsallis_log(jnp.log(0.3), q))(1.0)
    assert np.isfinite(slope_of_q)


@jax.enable_x64(True)
def test_the_tsallis_distance_is_no_divergence_unless_q_is_1():
    new, old = np.array([0.6, 0.4]), np.array([0.7, 0.3])

    def distance(q):
        return float(np.sum(new * np.asarray(tsallis_log(jnp.log(new), q) - tsallis_log(jnp.log(old), q))))

    assert distance(0.2) < 0 < distance(1.0)


@pytest.mark.parametrize(
    ("agents", "pairs"),
    [(AGENTS, None), (AGENTS, (("a", "c"),)), (AGENTS[:1], None)],
    ids=["all", "two of three", "one agent, soft actor-critic near an old policy"],
)
@jax.enable_x64(True)
def test_the_policies_step_is_that_of_the_loops(agents, pairs):
    """Eq. 10, with old policies that differ from the current ones."""
    spec = team(*agents)
    algo = made("mamd", spec, dependencies=pairs, old_policy_interval=2, **MIRROR)
    state = with_old_policies(random_state(algo, jax.random.key(1)), jax.random.key(8))
    batch, key = random_batch(spec, jax.random.key(2)), jax.random.key(3)
    new, info = jax.jit(algo.update)(key, state, batch)
    row, actors = jax.tree.map(lambda x: x[0], batch), actors_of(algo)
    seen = np.asarray(row.active)
    blank, mask = np.where(seen[..., None], row.observation, 0), row.action_mask | ~seen[..., None, None]
    others_key = jax.random.split(key, 3)[1]
    distribution = actors.team_distribution(state.actors.params, blank, mask)[0]
    action = np.asarray(hajax.nn.distributions.sample(others_key, distribution, spec.action_layout))
    action = np.where(seen[..., None], action, 0)
    critics = jax.tree.map(lambda x: x[0, 0], new.critics.params)
    table = table_of(critics, blank, features(spec, action, seen), seen, 2, 8)
    old_logits = actors.team_distribution(state.extra.actors, jnp.asarray(blank), mask)[0].logits
    for i, agent in enumerate(agents):
        choices = listed(agent)
        index = [choices.index(tuple(int(x) for x in a[: len(agent.action_space.choices)])) for a in action[:, i]]

        def loss_of(own, i=i, agent=agent, index=index):
            params = jax.tree.map(lambda all_of, x, i=i: all_of.at[i].set(x), state.actors.params, own)
            logits = actors.team_distribution(params, jnp.asarray(blank), mask)[0].logits
            terms, squares, kls = [], [], []
            for b in [b for b in range(B) if seen[b, i]]:
                prob, old = chances(logits[b, i], agent), chances(old_logits[b, i], agent)
                q, taken = table[b, i, : len(prob)], index[b]
                cost = (ln_of(prob[taken]) - ln_of(old[taken])) / 0.7
                if pairs is not None and i == 1:
                    cost = jnp.log(prob[taken]) / 3.0
                advantage = q[taken] - jnp.sum(prob * q)
                terms.append(jnp.log(prob[taken]) * jax.lax.stop_gradient(cost - advantage))
                kls.append(jnp.sum(jnp.where(prob > 0, prob * jnp.log(jnp.where(prob > 0, prob / old, 1)), 0)))
                own_logits = jnp.concatenate([logits[b, i, d, :n] for d, n in enumerate(agent.action_space.choices)])
                finite = jnp.isfinite(own_logits)
                squares.append(jnp.sum(jnp.where(finite, own_logits, 0.0) ** 2) / finite.sum())
            loss, penalty, kl = (sum(x) / len(x) for x in (terms, squares, kls))
            return loss + 0.4 * penalty, (loss, kl)

        def ln_of(p):
            return (jnp.maximum(p, 1e-6) ** 0.7 - 1) / 0.7

        own = jax.tree.map(lambda x, i=i: x[i], state.actors.params)
        (_, (loss, kl)), gradient = jax.jit(jax.value_and_grad(loss_of, has_aux=True))(own)
        moved, norm = adam_once(own, gradient, 1e-2, 0.05)
        assert float(info["policy_loss"][i]) == pytest.approx(float(loss), rel=1e-9)
        assert float(info["kl_to_old"][i]) == pytest.approx(float(kl), rel=1e-9)
        assert float(info["actor_grad_norm"][i]) == pytest.approx(norm, rel=1e-9)
        jax.tree.map(lambda x, y, i=i: np.testing.assert_allclose(x[i], y, atol=1e-10), new.actors.params, moved)
    jax.tree.map(np.testing.assert_array_equal, new.extra.actors, state.extra.actors)
    later, _ = jax.jit(algo.update)(key, new, batch)
    jax.tree.map(np.testing.assert_array_equal, later.extra.actors, later.actors.params)  # after two updates


def test_without_dependencies_it_is_maac():
    spec = team(*AGENTS)
    states = {}
    for name, settings in (("maac", {}), ("mamd", {"dependencies": ()})):
        algo = made(name, spec, **settings)
        state = random_state(algo, jax.random.key(1))
        states[name], _ = jax.jit(algo.update)(jax.random.key(3), state, random_batch(spec, jax.random.key(2)))
    for part in ("actors", "critics", "target_actors", "target_critics"):
        one, other = (jax.tree.leaves(getattr(states[name], part)) for name in ("maac", "mamd"))
        for x, y in zip(one, other, strict=True):
            np.testing.assert_allclose(x, y, atol=1e-6)


@jax.enable_x64(True)
def test_with_q_of_1_its_expectation_is_mirror_learning_with_the_kl_divergence():
    """On an exact game: the gradient at any policy is that of E[A] − KL(π ‖ π_old)/δ, and 0 where that is largest."""
    delta, key = 0.7, jax.random.key(0)
    payoff = jax.random.normal(key, (3, 3))
    game = tabular.matrix_game(payoff)
    old = tabular.random_policy(jax.random.key(1), game)
    best, _ = tabular.haml(tabular.kl_drift(1 / delta), order="simultaneous")(key, game, old)
    spec = hajax.EnvSpec("game", tuple(hajax.AgentSpec(n, (1,), hajax.Discrete(3)) for n in "ab"), 1, 1)
    algo = hajax.make_algorithm("mamd", spec, radius=delta, tsallis_q=1.0)
    for agent in range(2):
        own_old, q = old[agent, 0], payoff @ jnp.exp(old[1, 0]) if agent == 0 else jnp.exp(old[0, 0]) @ payoff

        def objective(logits, own_old=own_old, q=q):
            log_prob = jax.nn.log_softmax(logits)
            return jnp.sum(jnp.exp(log_prob) * (q - (log_prob - own_old) / delta))

        somewhere = jax.random.normal(jax.random.key(agent), (3,))
        found = expected_gradient(algo, somewhere, own_old, q, delta)
        np.testing.assert_allclose(-found, jax.grad(objective)(somewhere), atol=1e-12)
        assert np.abs(found).max() > 0.01
        assert np.abs(expected_gradient(algo, best[agent, 0], own_old, q, delta)).max() < 1e-9


def expected_gradient(algo, logits, old_logits, values, delta):
    """Of the loss, with every choice as a sample that weighs as much as it is probable."""
    count = len(logits)
    layout = hajax.EnvSpec("one", (hajax.AgentSpec("a", (1,), hajax.Discrete(count)),), 1, 1).action_layout

    class Table:
        tables = type("Tables", (), {"layout": layout})

        def distribution(self, params, samples):
            return ActionParameters(jnp.broadcast_to(params, (1, count, 1, count)), None, None)

    prob = jax.nn.softmax(logits)
    data = MirrorData(old_logits, jnp.array([delta]), jnp.array([True]))
    samples = OffPolicySamples(jnp.zeros((1, count, 1)), None, prob[None], jnp.array([0]), data)
    objective = MirrorObjective(
        settings=algo.settings, hyperparameters=algo.hyperparameters.replace(logit_penalty=0.0), learning_rate=0.0,
        actor=Table(), action=jnp.arange(count, dtype=float)[None, :, None], advantage=(values - prob @ values)[None],
        attention=jnp.zeros((1, 1)), least=1e-6,
    )  # fmt: skip
    return jax.grad(lambda x: objective.loss(None, x, x, samples)[0])(logits)


@jax.enable_x64(True)
def test_coordination_coefficients_are_those_of_the_loops():
    value, expected = jax.random.normal(jax.random.key(0), (2, B, 4))
    active = jnp.ones((B, 4), bool).at[1, 2].set(False).at[2, 1:].set(False).at[3].set(False)
    found = np.asarray(coordination(value, expected, active))
    for b, j in itertools.product(range(B), range(4)):
        there = [i for i in range(4) if i != j and active[b, i] and active[b, j]]
        weights = [np.exp(abs(float(value[b, i] - expected[b, j]))) for i in there]
        wanted = np.zeros(4)
        wanted[there] = np.array(weights) / sum(weights) if there else 0
        np.testing.assert_allclose(found[b, :, j], wanted, rtol=1e-12)
    two = coordination(value[:, :2], expected[:, :2], active[:, :2])
    np.testing.assert_array_equal(two[0], [[0, 1], [1, 0]])
    large = coordination(1e4 * value, expected, active)  # no overflow
    assert np.isfinite(large).all()


def waves(x):
    return jnp.asarray(np.sin(1 + np.arange(x.size, dtype=float)).reshape(x.shape))


@pytest.fixture(scope="module")
def learned():
    """MAMT's parts, a random state, a minibatch, and what it shows."""
    with jax.enable_x64(True):
        spec = team(*AGENTS)
        algo = made("mamt", spec, **LEARNED)
        state = with_old_policies(random_state(algo, jax.random.key(1)), jax.random.key(8))
        radii = state.extra.radii._replace(params=jnp.array([0.3, 0.7, 1.9]))
        scattered = [
            learner._replace(params=jax.tree.map(waves, learner.params))
            for learner in (state.extra.network, state.extra.modeling)
        ]
        extra = state.extra._replace(radii=radii, network=scattered[0], modeling=scattered[1])
        state = state._replace(extra=extra)
        batch = jax.tree.map(lambda x: x[0], random_batch(spec, jax.random.key(2)))
        seen = batch.active
        batch = batch._replace(
            observation=jnp.where(seen[..., None], batch.observation, 0),
            action=jnp.where(seen[..., None], batch.action, 0),
            action_mask=batch.action_mask | ~seen[..., None, None],
        )
        actors, critics = attention_parts("mamt", spec, algo.settings, None, None)
        parts = DecompositionParts(actors, critics, algo.settings, (True,) * 3)
        shown = jax.jit(parts.measure)(jax.random.key(5), state, batch)
        prepared = jax.jit(parts.prepare)(jax.random.key(5), state, batch)
        return algo, parts, state, batch, shown, prepared


def all_chances(algo, params, batch):
    """π of every agent's choices, by row and agent."""

    @jax.jit
    def found(params):
        logits = actors_of(algo).team_distribution(params, batch.observation, batch.action_mask)[0].logits
        return [[chances(logits[b, i], agent) for i, agent in enumerate(AGENTS)] for b in range(B)]

    return jax.tree.map(np.asarray, found(params))


def models(modeling, batch, algo, policies):
    """log π̂_i(·|o_i, j) of all choices of j and the logits of its available ones, by row, i and j."""
    found = {}
    there = np.isfinite(policies.logits)
    for b, i, j in itertools.product(range(B), range(3), range(3)):
        p = {name: x[i] for name, x in modeling.items()}
        hidden = leaky(batch.observation[b, i] @ p["first"] + p["first_bias"] + p["whom"][j])
        hidden = leaky(hidden @ p["second"] + p["second_bias"])
        logits = (hidden @ p["logits"] + p["logits_bias"]).reshape(there.shape[2:])
        parts, own = [], []
        for d, n in enumerate(AGENTS[j].action_space.choices):
            parts.append(jax.nn.log_softmax(jnp.where(there[b, j, d, :n], logits[d, :n], -jnp.inf)))
            own.append(logits[d, :n][there[b, j, d, :n]])
        log_prob = [sum(parts[d][c] for d, c in enumerate(choice)) for choice in listed(AGENTS[j])]
        found[b, i, j] = jnp.stack(log_prob), jnp.concatenate(own)
    return found


@jax.enable_x64(True)
def test_what_a_minibatch_shows_is_that_of_the_loops(learned):
    algo, parts, state, batch, shown, (_, info) = learned
    active = np.asarray(batch.active)
    prob, old = (all_chances(algo, p, batch) for p in (state.actors.params, state.extra.actors))
    action = np.asarray(parts.actions(jax.random.split(jax.random.key(5))[0], state, batch))
    joint = np.array(
        [
            [
                listed(agent).index(tuple(action[b, i, : len(agent.action_space.choices)].astype(int)))
                for i, agent in enumerate(AGENTS)
            ]
            for b in range(B)
        ]
    )
    critics = jax.tree.map(lambda x: x[0, 0], state.critics.params)
    table = table_of(critics, batch.observation, features(algo.spec, action, active), active, 2, 8)
    value = np.array([[table[b, i, joint[b, i]] for i in range(3)] for b in range(B)])
    expected = np.array([[np.sum(prob[b][i] * table[b, i, : len(prob[b][i])]) for i in range(3)] for b in range(B)])
    np.testing.assert_allclose(shown.coordination, coordination(value, expected, batch.active), rtol=1e-9)

    for i in range(3):
        rows = [b for b in range(B) if active[b, i]]
        change = [np.sum(prob[b][i] * (ln(prob[b][i], 0.3) - ln(old[b][i], 0.3))) for b in rows]
        assert float(shown.divergence[i]) == pytest.approx(np.mean(change), rel=1e-9)

    modeled = models(state.extra.modeling.params, batch, algo, shown.policies)
    sums = np.asarray(shown.coordination).sum(0)
    for i in range(3):
        j = max((j for j in range(3) if j != i), key=lambda j: sums[i, j])
        kls = {}
        for b in range(B):
            p, m = np.asarray(prob[b][j]), np.asarray(modeled[b, i, j][0])
            kls[b] = sum(p[c] * (np.log(p[c]) - m[c]) for c in range(len(p)) if p[c] > 0) / len(modeled[b, i, j][1])
            assert bool(shown.counts[b, i]) == bool(active[b, i] and active[b, j])
            assert float(shown.distance[b, i]) == pytest.approx(kls[b], rel=1e-9)
        counted = [kls[b] for b in range(B) if active[b, i] and active[b, j]]
        assert float(info["non_stationarity"][i]) == pytest.approx(np.mean(counted), rel=1e-9)
        weights = [
            shown.coordination[b, i, k] for b in range(B) for k in range(3) if k != i and active[b, i] and active[b, k]
        ]
        assert float(info["coordination"][i]) == pytest.approx(np.mean(weights), rel=1e-9)
        assert float(info["coordination_std"][i]) == pytest.approx(np.std(weights), rel=1e-9)


def estimates(params, radii, algo, batch, shown):
    """The decomposition network of Figure 11 as loops over rows and agents, `[B][N]`."""
    out = []
    for b in range(B):
        taken = [jnp.concatenate([batch.observation[b, i], shown.features[b, i]]) for i in range(3)]

        def layer(name, i, x, bias=True):
            return leaky(x @ params[name][i] + (params[f"{name}_bias"][i] if bias else 0))

        def encoded(factor, i, taken=taken, layer=layer):
            stacked = i if factor == "k" else 3 + i
            radius = layer("radius_more", stacked, layer("radius", stacked, radii[i : i + 1]), bias=False)
            joined = jnp.concatenate([layer("taken", stacked, taken[i]), radius])
            kernel = jnp.concatenate([params["joined"][stacked], params["joined_radius"][stacked]])
            return leaky(joined @ kernel + params["joined_bias"][stacked])

        weights = np.asarray(shown.coordination)[b]
        active = np.asarray(batch.active)[b]
        senders = {
            j: [i for i in range(3) if i != j and active[i] and active[j] and weights[i, j] >= 0.4] for j in range(3)
        }
        degree = {j: 1 + len(senders[j]) for j in range(3)}
        messages = [encoded("k", i) @ params["graph"] + params["graph_bias"] for i in range(3)]
        row = []
        for j in range(3):
            passed = messages[j] / degree[j]
            for i in senders[j]:
                passed += weights[i, j] * messages[i] / np.sqrt(degree[i] * degree[j])
            k = layer("k_output", j, layer("k_hidden", j, passed), bias=False)
            row.append((k * layer("lambda_output", j, encoded("lambda", j), bias=False))[0])
        out.append(row)
    return out


@jax.enable_x64(True)
def test_the_steps_are_those_of_the_loops(learned):
    """Eq. 8: the radii and the network; and the models' cross-entropy."""
    algo, _, state, batch, shown, (new, info) = learned
    active, radii = np.asarray(batch.active), state.extra.radii.params

    def radii_loss(radii):
        rows = estimates(state.extra.network.params, radii, algo, batch, shown)
        there = [rows[b][i] for b in range(B) for i in range(3) if np.asarray(shown.counts)[b, i] > 0]
        return sum(shown.divergence[i] / radii[i] for i in range(3)) + sum(there) / len(there)

    gradient = jax.jit(jax.grad(radii_loss))(radii)
    for i in range(3):
        step = 1e-6 * jnp.eye(3)[i]
        difference = (radii_loss(radii + step) - radii_loss(radii - step)) / 2e-6
        assert float(gradient[i]) == pytest.approx(float(difference), rel=1e-6)
    moved, _ = adam_once(radii, gradient, 3e-2, 0.05)
    np.testing.assert_allclose(new.extra.radii.params, jnp.clip(moved, 0.05, 2.0), rtol=1e-9)
    np.testing.assert_array_equal(info["radius"], new.extra.radii.params)

    def network_loss(params):
        rows = estimates(params, radii, algo, batch, shown)
        errors = [
            (rows[b][i] - shown.distance[b, i]) ** 2
            for b in range(B)
            for i in range(3)
            if np.asarray(shown.counts)[b, i] > 0
        ]
        return sum(errors) / len(errors)

    params = state.extra.network.params
    loss, gradient = jax.jit(jax.value_and_grad(network_loss))(params)
    assert float(info["decomposition_loss"]) == pytest.approx(float(loss), rel=1e-9)
    moved, _ = adam_once(params, gradient, 2e-2, 3 * 0.2, l2=0.1)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-9), new.extra.network.params, moved)

    def cross_entropies(modeling):
        modeled = models(modeling, batch, algo, shown.policies)
        found, squares = [], []
        for i in range(3):
            pairs = [(b, j) for b in range(B) for j in range(3) if j != i and active[b, i] and active[b, j]]
            terms, sizes = [], []
            for b, j in pairs:
                choice = tuple(int(x) for x in np.asarray(batch.action)[b, j, : len(AGENTS[j].action_space.choices)])
                log_prob, logits = modeled[b, i, j]
                terms.append(-log_prob[listed(AGENTS[j]).index(choice)])
                sizes.append(jnp.mean(logits**2))
            found.append(sum(terms) / len(terms))
            squares.append(sum(sizes) / len(sizes))
        return found, squares

    def modeling_loss(modeling):
        found, squares = cross_entropies(modeling)
        return sum(found) + 0.4 * sum(squares)

    params = state.extra.modeling.params
    np.testing.assert_allclose(info["modeling_loss"], cross_entropies(params)[0], rtol=1e-9)
    gradient = jax.jit(jax.grad(modeling_loss))(params)
    for i in range(3):
        own, slope = (jax.tree.map(lambda x, i=i: x[i], tree) for tree in (params, gradient))
        moved, norm = adam_once(own, slope, 1e-2, 0.05)
        assert norm > 0.05
        jax.tree.map(lambda x, y, i=i: np.testing.assert_allclose(x[i], y, atol=1e-9), new.extra.modeling.params, moved)


@jax.enable_x64(True)
def test_radii_stay_within_their_limits(learned):
    _, parts, state, _, shown, _ = learned
    fast = state._replace(hyperparameters=state.hyperparameters.replace(radius_lr=jnp.asarray(10.0)))
    radii = parts.step_radii(fast, shown).params
    assert set(radii.tolist()) <= {0.05, 2.0}


@jax.enable_x64(True)
def test_the_policies_use_the_new_radii(learned):
    """MAMT's policy step is MAMD's with the radii that its slow step gave."""
    _, parts, _, batch, _, (new, _) = learned
    samples = parts.samples(new, batch)
    np.testing.assert_array_equal(samples.objective_data.radius[:, 0], new.extra.radii.params)


@jax.enable_x64(True)
def test_what_is_padded_has_no_effect():
    """Other weights of observations and choices that an agent does not have: the same update of all else."""
    spec = team(*AGENTS)
    algo = made("mamt", spec, **LEARNED)
    state, batch = random_state(algo, jax.random.key(1)), random_batch(spec, jax.random.key(2))
    critics = algo.init(jax.random.key(0)).critics.params
    own = JointActions(spec).own
    inputs = np.concatenate([spec.observation_mask, own], -1)
    exists = TeamChoices(spec).table.exists

    def changed(params, masks):
        """With noise where a mask `[…, N, rows or columns]` is false."""
        noise = {name: jax.random.normal(jax.random.key(9), x.shape) for name, x in params.items() if name in masks}
        return params | {name: params[name] + jnp.where(masks[name], 0, x) for name, x in noise.items()}

    rows = {"observer": spec.observation_mask[..., None], "encoder": inputs[..., None]}
    of_critics = rows | {"output": exists[:, None], "output_bias": exists}
    of_critics = {name: jnp.asarray(mask)[None, None] for name, mask in of_critics.items()}
    other = state._replace(
        critics=state.critics._replace(params=changed(state.critics.params, of_critics)),
        target_critics=changed(state.target_critics, of_critics),
        extra=state.extra._replace(
            network=state.extra.network._replace(
                params=changed(state.extra.network.params, {"taken": jnp.asarray(np.tile(inputs, (2, 1)))[..., None]})
            ),
            modeling=state.extra.modeling._replace(
                params=changed(state.extra.modeling.params, {"first": jnp.asarray(spec.observation_mask)[..., None]})
            ),
        ),
    )
    assert set(of_critics) < set(critics)
    update = jax.jit(algo.update)
    (one, info), (two, again) = (update(jax.random.key(3), x, batch) for x in (state, other))
    for name in info:
        np.testing.assert_allclose(info[name], again[name], rtol=1e-10, err_msg=name)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-12), one.actors, two.actors)
    for name, mask in of_critics.items():
        x, y = (jnp.where(mask, state.critics.params[name], 0) for state in (one, two))
        np.testing.assert_allclose(x, y, atol=1e-12)
    np.testing.assert_allclose(one.extra.radii.params, two.extra.radii.params, rtol=1e-12)


@jax.enable_x64(True)
def test_vmapped_seeds_and_hyperparameters_update_as_each_alone():
    """And every hyperparameter has an influence."""
    spec = team(*AGENTS)
    algo = made("mamt", spec, **LEARNED)
    single, vmapped = jax.jit(algo.update), jax.jit(jax.vmap(algo.update))
    keys = jax.random.split(jax.random.key(3), 2)
    batches = [random_batch(spec, jax.random.key(k)) for k in range(2)]
    base = algo.hyperparameters.replace(decay_updates=4.0)

    def ready(seed, hyperparameters):
        """A second update, whose learning rates have decayed, with policies that differ from the old ones."""
        state = with_old_policies(random_state(algo, jax.random.key(seed)), jax.random.key(8))
        numbers = jax.tree.map(lambda x: jnp.asarray(x, float), hyperparameters)
        return state._replace(hyperparameters=numbers, updates=jnp.ones_like(state.updates))

    alone = single(keys[0], ready(0, base), batches[0])
    for name, value in vars(base).items():
        run = base.replace(**{name: 0.9 * value})
        states = [ready(0, run), ready(1, base)]
        together, infos = vmapped(keys, *(jax.tree.map(lambda *x: jnp.stack(x), *each) for each in (states, batches)))
        for i, state in enumerate(states):
            new, info = single(keys[i], state, batches[i])
            pairs = ((together, new), (infos, info))
            for found, wanted in pairs:
                found = jax.tree.map(lambda x, i=i: x[i], found)
                jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-10, rtol=1e-10), found, wanted)
        changed = single(keys[0], states[0], batches[0])[0]._replace(hyperparameters=None)
        differences = jax.tree.map(
            lambda x, y: float(jnp.abs(x - y).max()), changed, alone[0]._replace(hyperparameters=None)
        )
        assert max(jax.tree.leaves(differences)) > 1e-8 or name in ("radius", "radius_min", "radius_max"), name


@pytest.mark.parametrize("name", ["mamd", "mamt"])
def test_they_learn_to_agree(name):
    env = hajax.make_env("games/matrix", payoff=np.eye(3), reward="individual")
    settings = {"radius": 5.0, "tsallis_q": 1.0} | ({"decomposition_width": 8} if name == "mamt" else {})
    algo = hajax.make_algorithm(name, env, **TO_LEARN, old_policy_interval=20, **settings)
    train = hajax.make_train(env, algo, total_steps=6_200, num_envs=8, rollout_length=10)
    states, _ = jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0), 3))
    evaluate = jax.jit(jax.vmap(hajax.make_evaluate(env, algo, num_episodes=8)))
    results = evaluate(jax.random.split(jax.random.key(1), 3), states)
    np.testing.assert_array_equal(results["episode_return"], np.ones((3, 8)))


def test_models_learn_the_others_policies():
    """Between policies that stand still, the non-stationarity falls to almost nothing, and its estimate follows."""
    spec = hajax.EnvSpec("pair", tuple(hajax.AgentSpec(n, (1,), hajax.Discrete(3)) for n in "ab"), 1, 1)
    algo = made(
        "mamt",
        spec,
        actor_lr=0.0,
        modeling_lr=1e-2,
        decomposition_lr=1e-2,
        logit_penalty=0.0,
        critic_l2=0.0,
        decomposition_width=8,
    )
    state = random_state(algo, jax.random.key(1))
    observation = jnp.ones((1, 500, 2, 1))
    policies = actors_of(algo).team_distribution(state.actors.params, observation[0], None)[0]
    action = hajax.nn.distributions.sample(jax.random.key(2), policies, spec.action_layout)
    batch = hajax.off_policy_batch(
        spec, observation=observation, state=jnp.zeros((1, 500, 1)), action=action[None], reward=jnp.zeros((1, 500, 1)),
        final_observation=observation, final_state=jnp.zeros((1, 500, 1)), steps=jnp.ones((1, 500), int),
    )  # fmt: skip

    def step(state, key):
        state, info = algo.update(key, state, batch)
        return state, {name: info[name] for name in ("non_stationarity", "decomposition_loss")}

    _, info = jax.jit(lambda: jax.lax.scan(step, state, jax.random.split(jax.random.key(3), 400)))()
    assert np.all(info["non_stationarity"][0] > 0.01)
    assert np.all(info["non_stationarity"][-1] < 0.003)
    assert info["decomposition_loss"][-1] < 1e-4


def test_what_does_not_suit_is_refused():
    spec = team(*AGENTS)
    for wrong in ("agent_0", 3, [["a"]], [["a", "a"]], [["a", "b", "c"]]):
        with pytest.raises(ValueError, match="allowed: pairs of names of different agents"):
            made("mamd", spec, dependencies=wrong)
    with pytest.raises(
        ValueError, match=r"dependencies=.*names 'walker', which is not an agent of team; allowed: a, b, c"
    ):
        made("mamd", spec, dependencies=[["a", "walker"]])
    with pytest.raises(ValueError, match=r"radius=0; allowed: a number > 0"):
        made("mamd", spec, radius=0)
    with pytest.raises(ValueError, match=r"radius=5\.0; allowed: a number from radius_min=0\.01 to radius_max=2\.0"):
        made("mamt", spec, radius=5.0, radius_max=2.0)
