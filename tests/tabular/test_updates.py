"""One exact update: maximizers against a search over the simplex, the axioms of drifts, inequality (5) by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from problems import LONG
from tabular_reference import ByHand, games_and_policies, one

from hajax import tabular
from hajax.envs.games import trap_of_heterogeneity_payoff
from hajax.tabular import solvers, tilts
from hajax.tabular.policies import LOG_LEAST, kl_divergence, log_policy, normalize

DRIFTS = {
    "none": tabular.no_drift(),
    "clip": tabular.clip_drift(0.2, softness=0.0),
    "kl": tabular.kl_drift(0.3),
    "reverse_kl": tabular.reverse_kl_drift(0.3),
    "tsallis": tabular.tsallis_drift(0.3, 0.5),
    "squared_log_ratio": tabular.squared_log_ratio_drift(0.3, 0.5),
    "squared_log_ratio, 0.8": tabular.squared_log_ratio_drift(0.3, 0.8),
}
NEIGHBORHOODS = {
    "all": tabular.no_neighborhood(),
    "kl_ball": tabular.kl_ball(0.05),
    "gradient_step": tabular.gradient_step(0.5),
}
WRONG = {
    "negative": tabular.negative_drift(0.3),
    "offset": tabular.offset_drift(0.3),
    "kinked": tabular.kinked_drift(0.3),
}


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def surrogates(number, seed=0):
    """Surrogates as they come, of three actions and one that the agent does not have, and old policies `[K, 4]`."""
    mask = jnp.array([True, True, False, True])
    keys = jax.random.split(jax.random.key(seed), 3)
    gains, losses = jax.random.uniform(keys[0], (2, number, 4)) * jax.random.bernoulli(keys[1], 0.8, (2, number, 4))
    old = normalize(2 * jax.random.normal(keys[2], (number, 4)), mask)
    return old, tabular.Surrogate(gains - losses, gains, losses, jnp.ones(number), jnp.array(1.0), mask)


def simplex(mask, resolution=60):
    """All policies on a grid, `[P, 4]`."""
    steps = np.arange(resolution + 1) / resolution
    first, second = (x.ravel() for x in np.meshgrid(steps, steps))
    third = 1 - first - second
    grid = np.stack([first, second, np.zeros_like(first), np.maximum(third, 0)], -1)
    return log_policy(jnp.array(grid[third > -1e-12]), mask)


def best_found(objective, old, surrogate, allowed=None):
    """The largest objective over a grid, then over ever smaller clouds around the best point, `[K]`."""

    def search(old, surrogate):
        def score(new):
            value = objective(new, old, surrogate)
            return value if allowed is None else jnp.where(allowed(new, old, surrogate), value, -jnp.inf)

        candidates = jnp.concatenate([simplex(surrogate.mask), old[None]])
        scores = jax.vmap(score)(candidates)
        best, value = candidates[scores.argmax()], scores.max()

        def refine(carry, inputs):
            best, value = carry
            key, width = inputs
            noise = jax.random.normal(key, (400, 4))
            weights = jnp.exp(best) + width * noise  # moves on the simplex, and in its logarithm
            near = jnp.concatenate([log_policy(jnp.maximum(weights, 0), surrogate.mask)])
            near = jnp.concatenate([near, normalize(best + 10 * width * noise, surrogate.mask)])
            scores = jax.vmap(score)(near)
            better = scores.max() > value
            return (jnp.where(better, near[scores.argmax()], best), jnp.maximum(value, scores.max())), None

        widths = 0.1 * 0.8 ** jnp.arange(60)
        keys = jax.random.split(jax.random.key(3), 60)
        return jax.lax.scan(refine, (best, value), (keys, widths))[0][1]

    return jax.jit(jax.vmap(search, in_axes=(0, surrogate_axes())), compiler_options=LONG)(old, surrogate)


def surrogate_axes():
    return tabular.Surrogate(0, 0, 0, 0, None, None)


@pytest.mark.parametrize("alpha", [0.0, 0.4])
@pytest.mark.parametrize("name", [*DRIFTS, *WRONG])
def test_maximizers_are_not_beaten_by_a_search(name, alpha):
    drift = (DRIFTS | WRONG)[name]
    old, surrogate = surrogates(40)
    if name in WRONG and alpha:
        with pytest.raises(ValueError, match="temperature"):
            drift.maximize(old, surrogate, alpha)
        return

    def objective(new, old, surrogate):
        return tabular.mirror_operator(drift, new, old, surrogate, alpha)

    within = None
    if name.startswith("squared_log_ratio"):
        limit = 0.8 if name.endswith("0.8") else 0.5

        def within(new, old, surrogate):
            return (jnp.where(surrogate.mask, jnp.abs(new - old), 0) <= limit + 1e-12).all()

    new = jax.jit(drift.maximize, static_argnums=2)(old, surrogate, alpha)
    np.testing.assert_allclose(jnp.exp(new).sum(-1), 1, rtol=1e-12)
    assert (jnp.exp(new)[:, 2] == 0).all()  # the action that the agent does not have
    if within is not None:
        assert jax.vmap(within, in_axes=(0, 0, surrogate_axes()))(new, old, surrogate).all()
    reached = objective(new, old, surrogate)
    found = best_found(objective, old, surrogate, within)
    assert (reached >= found - 1e-11).all()
    assert (reached <= found + 1e-3).all()  # the search comes near, so it would notice


def test_trust_region_and_ball_are_greedy_within_them():
    old, surrogate = surrogates(40)

    def gain(new, old, surrogate):
        return (jnp.exp(new) * surrogate.action_value).sum(-1)

    def inside(new, old, surrogate):
        return kl_divergence(old, new) <= 0.05

    new = tabular.kl_ball(0.05)(tabular.no_drift(), old, surrogate, 0.0)
    np.testing.assert_allclose(kl_divergence(old, new), 0.05, rtol=1e-8)
    found = best_found(gain, old, surrogate, inside)
    reached = gain(new, old, surrogate)
    assert (reached >= found - 1e-9).all()
    assert (reached <= found + 1e-3).all()
    # HATRPO's: the mean divergence over states is δ, and states have one multiplier, the ratio of marginal gain and
    # cost.
    weight = jnp.linspace(0.1, 3, 40)
    new = tabular.trust_region(0.05)(tabular.no_drift(), old, surrogate._replace(state_weight=weight), 0.0)
    np.testing.assert_allclose(weight @ kl_divergence(old, new) / weight.sum(), 0.05, rtol=1e-8)
    ratio = jnp.where(
        surrogate.mask, jnp.exp(old - new), 0
    )  # stationarity: g_a + λ old_a/new_a is constant over actions
    g = surrogate.action_value
    multiplier = (g[:, 0] - g[:, 1]) / (ratio[:, 1] - ratio[:, 0])
    np.testing.assert_allclose(multiplier, multiplier[0], rtol=1e-6)
    np.testing.assert_allclose((g[:, 3] - g[:, 1]) / (ratio[:, 1] - ratio[:, 3]), multiplier[0], rtol=1e-6)


@pytest.mark.parametrize("penalty", [0.3, 30.0, 3e4])
def test_max_penalty_is_the_argmax_of_algorithm_1(penalty):
    old, surrogate = surrogates(5)
    weight = jnp.array([0.5, 1.0, 4.0, 0.0, 2.0])
    g, mask = surrogate.action_value, surrogate.mask
    new = tilts.with_max_penalty(old, g, weight, jnp.array(penalty), mask)
    divergence = kl_divergence(old, new)
    np.testing.assert_allclose(divergence, divergence[0], rtol=1e-6)  # every state uses what one may

    def objective(new):
        return weight @ ((jnp.exp(new) - jnp.exp(old)) * g).sum(-1) - penalty * kl_divergence(old, new).max()

    best = objective(new)
    assert best > 0
    gap = tilts.gaps(g, mask)
    for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0):  # smaller and larger radii
        radius = factor * divergence[0]
        other = tilts.tilt(old, gap, tilts.step_of_divergence(old, gap, radius), mask)
        assert objective(other) < best
    rng = np.random.default_rng(0)
    size = jnp.sqrt(divergence[0])
    for _ in range(200):  # and any other direction
        noise = size * rng.uniform(0, 1) * rng.normal(size=old.shape)
        assert objective(normalize(new + noise, mask)) <= best + 1e-14


@pytest.mark.parametrize("name", DRIFTS)
def test_drifts_satisfy_the_axioms(name):
    drift = DRIFTS[name]
    old, surrogate = surrogates(200)
    new = normalize(old + jax.random.normal(jax.random.key(5), old.shape), surrogate.mask)
    np.testing.assert_allclose(drift.divergence(old, old, surrogate), 0, atol=1e-14)
    divergence = drift.divergence(new, old, surrogate)
    assert (divergence >= -1e-15).all()
    assert name == "none" or (divergence > 1e-3).mean() > 0.5
    # Zero gradient: along any direction the drift is of second order.
    step = 1e-4
    near = normalize(old + step * (new - old), surrogate.mask)
    assert (drift.divergence(near, old, surrogate) <= 100 * step**2).all()


def test_wrong_drifts_break_the_axiom_that_they_are_named_after():
    old, surrogate = surrogates(200)
    new = normalize(old + jax.random.normal(jax.random.key(5), old.shape), surrogate.mask)
    step = 1e-4
    near = normalize(old + step * (new - old), surrogate.mask)
    for name, drift in WRONG.items():
        far, here, close = (drift.divergence(policy, old, surrogate) for policy in (new, old, near))
        assert (far < -1e-3).any() == (name == "negative")
        assert (jnp.abs(here) > 0.1).all() == (name == "offset")
        assert (jnp.abs(close - here) > 0.1 * step).any() == (name == "kinked")


def test_clip_is_happo_s_objective():
    """E[min(r A, clip(r) A)] over samples of the earlier agents' actions, as Appendix D of haml rewrites it."""
    rng = np.random.default_rng(0)
    advantage, weight = rng.normal(size=(50, 4)), rng.dirichlet(np.ones(50))  # [earlier actions, own action]
    old, new = rng.dirichlet(np.ones(4), 2)
    ratio = new / old
    happo = weight @ np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage) @ old
    gains, losses = weight @ np.maximum(advantage, 0), weight @ np.maximum(-advantage, 0)
    surrogate = tabular.Surrogate(
        *(jnp.array(x)[None] for x in (gains - losses, gains, losses)), jnp.ones(1), jnp.array(1.0), jnp.ones(4, bool)
    )
    operator = tabular.mirror_operator(DRIFTS["clip"], jnp.log(new)[None], jnp.log(old)[None], surrogate, 0.0)
    np.testing.assert_allclose(operator, happo, rtol=1e-12)


def test_an_action_that_had_vanished_comes_back():
    mask = jnp.ones(3, bool)
    old = normalize(jnp.array([0.0, -300.0, LOG_LEAST]), mask)[None]
    surrogate = surrogates(1)[1]._replace(action_value=jnp.array([[0.0, 0.5, 1.0]]), mask=mask)
    for drift in (tabular.reverse_kl_drift(0.5), tabular.tsallis_drift(0.2, 0.5)):
        assert jnp.exp(drift.maximize(old, surrogate, 0.0))[0, 2] > 0.4
    ball = tabular.kl_ball(0.05)(tabular.no_drift(), old, surrogate, 0.0)
    np.testing.assert_allclose(jnp.exp(ball)[0], [np.exp(-0.05), 0, 1 - np.exp(-0.05)], rtol=0, atol=1e-9)
    for drift, coefficient, order in (
        (tabular.reverse_kl_drift(0.5), 0.5, 0.0),
        (tabular.tsallis_drift(0.2, 0.5), 0.2, 0.5),
    ):
        soft, temperature = drift.maximize(old, surrogate, 0.4), 0.4
        pull = coefficient / (1 - order) * jnp.exp((1 - order) * (old - soft))
        derivative = surrogate.action_value - temperature * soft + pull
        assert jnp.exp(soft)[0, 2] > 0.2
        np.testing.assert_allclose(derivative - derivative[:, :1], 0, rtol=0, atol=1e-9)  # equal at a maximum inside
    policy = old
    for _ in range(1100):
        policy = tabular.kl_drift(0.1).maximize(policy, surrogate, 0.0)
    assert jnp.exp(policy)[0, 2] > 0.99


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tabular.kl_drift(0.0), "coefficient=0.0"),
        (lambda: tabular.clip_drift(-1.0), "clip=-1.0"),
        (lambda: tabular.tsallis_drift(0.1, 1.0), "order=1.0"),
        (lambda: tabular.squared_log_ratio_drift(0.1, 2.0), "limit=2.0"),
        (lambda: tabular.kl_ball(0), "radius=0"),
        (lambda: tabular.gradient_step(-1), "step_size=-1"),
        (lambda: tabular.guards.truncate(0.5), "truncation=0.5"),
        (lambda: tabular.guards.clip(1.5), "clip=1.5"),
        (lambda: tabular.haspi(0.0), "temperature=0.0"),
        (lambda: tabular.haml(order="backwards"), "order='backwards'"),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(("name", "alpha"), [("clip", 0.0), ("reverse_kl", 0.0), ("none", 0.4), ("reverse_kl", 0.4)])
def test_gains_are_inequality_5_by_its_definition(name, alpha):
    """The reported gains against sums over joint actions, which see the earlier agents' new policies."""
    games, policies = games_and_policies(4, num_agents=(2, 3), num_actions=(2, 3), num_states=(1, 2))
    update = tabular.mehaml(DRIFTS[name], temperature=alpha, order="fixed")
    new, info = jax.jit(jax.vmap(update))(jax.random.split(jax.random.key(0), 4), games, policies)
    assert (info.gain >= -1e-12).all()
    assert info.gain.max() > 0.05
    for k in range(4):
        hand = ByHand(one(games, k), policies[k], new[k])
        before, after = ([np.maximum(own, 1e-300) for own in joint] for joint in hand.policies)
        q = np.asarray(info.values.q[k])
        for m in range(len(hand.widths)):
            for s in range(hand.states):
                gain = hand.mirror_gain(before, after, q, range(4), m, s, alpha=alpha)
                if name == "reverse_kl":
                    gain -= 0.3 * before[m][s] @ np.log(before[m][s] / after[m][s])
                if name == "clip":
                    gain -= clip_penalty(hand, before, after, q, m, s)
                np.testing.assert_allclose(info.gain[k, m, s], gain, rtol=0, atol=1e-10)


def test_simultaneous_agents_answer_the_old_policies():
    """Each updates as if it were the first; in sequence the later ones answer what has changed."""
    games, policies = games_and_policies(1)
    game, policy = one(games, 0), policies[0]
    drift, key = DRIFTS["reverse_kl"], jax.random.key(0)
    at_once, in_turn = (
        jax.jit(tabular.haml(drift, order=order))(key, game, policy)[0] for order in ("simultaneous", "fixed")
    )
    values = jax.jit(tabular.evaluate)(game, policy)

    @jax.jit
    def answer(agent):
        surrogate = tabular.make_surrogate(game, values, policy, jnp.zeros(4, bool), agent, False)
        return drift.maximize(policy[agent], surrogate, 0.0)

    for agent in range(4):
        np.testing.assert_allclose(at_once[agent], answer(agent), rtol=1e-12)
    np.testing.assert_allclose(in_turn[0], at_once[0], rtol=1e-12)
    assert jnp.abs(jnp.exp(in_turn) - jnp.exp(at_once)).max() > 1e-2


def clip_penalty(hand, old, new, q, m, s):
    """E[ReLU((r − clip(r)) A^{i_1:m})], a^{i_1:m−1} ~ new, a^{i_m} ~ old."""
    total, seen = 0.0, set()
    for action in hand.joint_actions:
        own = action[: m + 1]
        if own in seen:
            continue
        seen.add(own)
        weight = hand.probability(new, s, action, range(m)) * old[m][s, action[m]]
        ratio = new[m][s, action[m]] / old[m][s, action[m]]
        advantage = hand.advantage(old, q, [], list(range(m + 1)), s, action)
        total += weight * max(0.0, (ratio - np.clip(ratio, 0.8, 1.2)) * advantage)
    return total


GUARDED = {
    "truncate": (tabular.guards.truncate(1.1), lambda ratios: min(np.prod(ratios), 1.1)),
    "clip": (tabular.guards.clip(0.3), lambda ratios: np.prod([min(max(r, 0.7), 1.3) for r in ratios])),
    "interval": (tabular.guards.interval(0.3), lambda ratios: min(max(np.prod(ratios), 0.85), 1.15)),
}


@pytest.mark.parametrize("name", GUARDED)
def test_a_guard_weights_the_old_policies_joint_actions(name):
    """Agents 0 and 2 are updated, agent 1 is next and agent 3 later: sums over joint actions, one at a time."""
    guard, weight_of = GUARDED[name]
    drawn = games_and_policies(1, policies=2, num_agents=(4, 4), num_actions=(2, 3), num_states=(1, 2))
    game, old, new = one(drawn, 0)
    updated = jnp.array([True, False, True, False])
    values = jax.jit(tabular.evaluate)(game, old)
    mixed = jnp.where(updated[:, None, None], new, old)
    before = (jnp.where(updated[:, None, None], jnp.exp(x), 1.0) for x in (old, new))
    surrogate = tabular.make_surrogate(game, values, mixed, updated, jnp.array(1), True, guard(*before))
    was, now, advantage = np.exp(old), np.exp(new), np.asarray(values.advantage)
    actions, states = range(was.shape[-1]), range(was.shape[1])
    expected, weights = np.zeros((3, len(states), len(actions))), []
    for s, first, own, third in itertools.product(states, actions, actions, actions):
        if min(was[0, s, first], was[2, s, third]) < 1e-12:  # actions that the agents do not have
            continue
        later = advantage[s, first, own, third] @ was[3, s]
        weights.append(weight_of([now[0, s, first] / was[0, s, first], now[2, s, third] / was[2, s, third]]))
        probability = was[0, s, first] * was[2, s, third] * weights[-1]
        expected[:, s, own] += probability * np.array([later, max(later, 0), max(-later, 0)])
    mask = np.asarray(game.action_mask[1])
    actual = np.stack([surrogate.action_value, surrogate.gains, surrogate.losses])
    np.testing.assert_allclose(actual[..., mask], expected[..., mask], rtol=0, atol=1e-12)
    assert min(weights) < 0.9
    assert max(weights) > 1.05


def test_the_trap_of_heterogeneity_in_one_update():
    """Proposition 2 of haml: simultaneous greedy updates land on −1, sequential ones on 2."""
    game = tabular.matrix_game(trap_of_heterogeneity_payoff())
    start = log_policy(jnp.broadcast_to(jnp.array([0.7, 0.3]), (2, 1, 2)), game.action_mask[:, None])
    for order, expected in (("simultaneous", -1.0), ("fixed", 2.0), ("random", 2.0)):
        history = tabular.iterate(tabular.haml(order=order), game, start, jax.random.key(0), 1)
        np.testing.assert_allclose(history.expected_return, [0.75, expected], atol=1e-12)


def test_mehaml_at_zero_temperature_is_haml():
    """The solvers for a temperature, as it vanishes, against the closed forms that HAML uses."""
    old, surrogate = surrogates(60)
    for name in ("kl", "reverse_kl", "tsallis", "squared_log_ratio", "squared_log_ratio, 0.8"):
        general = jax.jit(DRIFTS[name].maximize)(old, surrogate, jnp.array(1e-13))
        closed = DRIFTS[name].maximize(old, surrogate, 0.0)
        np.testing.assert_allclose(jnp.exp(general), jnp.exp(closed), rtol=0, atol=1e-10)
    games, policies = games_and_policies(8)
    keys = jax.random.split(jax.random.key(0), 8)
    # Candidates of equal value, as the clip has, are told apart by any temperature but zero.
    for name, place, small in (("reverse_kl", "all", 1e-13), ("kl", "gradient_step", 0.0), ("clip", "kl_ball", 0.0)):

        def play(alpha, name=name, place=place):
            update = tabular.mehaml(DRIFTS[name], NEIGHBORHOODS[place], temperature=alpha)
            return jnp.exp(jax.vmap(update)(keys, games, policies)[0])

        policy = jax.jit(play)(small), jax.jit(lambda play=play: play(0.0))()
        np.testing.assert_allclose(*policy, rtol=0, atol=1e-10, err_msg=f"{name}, {place}")
    policy = [
        update(keys[0], one(games, 0), policies[0])[0]
        for update in (
            jax.jit(tabular.haml(DRIFTS["reverse_kl"], order="fixed")),
            jax.jit(tabular.mehaml(DRIFTS["reverse_kl"], temperature=jnp.array(0.0), order="fixed")),  # known to be 0
        )
    ]
    np.testing.assert_array_equal(*policy)


def test_small_temperatures_approach_the_hard_updates():
    old, surrogate = surrogates(60)
    best = jnp.sort(jnp.where(surrogate.mask, surrogate.action_value, -jnp.inf), -1)
    clear = best[:, -1] - best[:, -2] > 0.05
    soft = DRIFTS["none"].maximize(old, surrogate, 1e-4)
    hard = DRIFTS["none"].maximize(old, surrogate, 0.0)
    np.testing.assert_allclose(jnp.exp(soft)[clear], jnp.exp(hard)[clear], atol=1e-12)
    operators = [
        tabular.mirror_operator(DRIFTS["clip"], DRIFTS["clip"].maximize(old, surrogate, alpha), old, surrogate, 0.0)
        for alpha in (1e-7, 0.0)
    ]
    np.testing.assert_allclose(*operators, rtol=0, atol=1e-6)  # α log 3 at most


def test_divergences_of_tiny_steps_are_exact():
    old = normalize(jnp.array([0.3, -1.0, 0.5]), jnp.ones(3, bool))
    direction = jnp.array([1.0, -2.0, 0.5])
    mean = jnp.exp(old) @ direction
    for size in (1e-3, 1e-6, 1e-8):
        new = normalize(old + size * direction, jnp.ones(3, bool))
        exact = size**2 / 2 * (jnp.exp(old) @ (direction - mean) ** 2)
        np.testing.assert_allclose(kl_divergence(old, new), exact, rtol=1e-2 if size > 1e-4 else 1e-5)


def test_the_logarithm_of_wright_s_omega():
    x = jnp.concatenate([jnp.linspace(-700, 3000, 4001), jnp.linspace(-3, 5, 4001), 10 ** jnp.linspace(-3, 13, 1001)])
    z = solvers.log_omega(x)
    residual = (z + jnp.exp(z) - x) / (1 + jnp.exp(z))
    np.testing.assert_allclose(residual / jnp.maximum(1, jnp.abs(z)), 0, rtol=0, atol=1e-15)


def test_projection_is_the_nearest_point():
    mask = jnp.array([True, True, False, True])
    points = 2 * jax.random.normal(jax.random.key(0), (30, 4))
    projected = solvers.project(points, mask)
    np.testing.assert_allclose(projected.sum(-1), 1, rtol=1e-12)
    grid = jnp.exp(simplex(mask, 100))
    distance = jnp.where(mask, (points[:, None] - grid) ** 2, 0).sum(-1).min(1)
    own = jnp.where(mask, (points - projected) ** 2, 0).sum(-1)
    assert (own <= distance + 1e-12).all()
    assert (own >= distance - 0.1).all()
