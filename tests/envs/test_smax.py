"""SMAX against jaxmarl's own, step by step with the same random draws, and what hajax makes of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxmarl.environments import smax
from jaxmarl.environments.smax import heuristic_enemy, smax_env
from matplotlib.figure import Figure
from matplotlib.text import Annotation

import hajax
from hajax.cli import main
from hajax.core.batches import OnPolicyBatch
from hajax.envs import make_env
from hajax.envs.batching import batched
from hajax.envs.smax import SCENARIOS, make_world
from hajax.envs.smax_world import Draws, WorldState
from hajax.training.rollout import rollout, start

CASES = [("3m", "closest"), ("2s3z", "random"), ("8m_vs_9m", "closest"), ("smacv2_5_units", "closest")]
NUM_ENVS, NUM_STEPS = 24, 90
OWN_LINE_UPS = {
    "8m_vs_9m": ("m" * 8, "m" * 9),
    "6z_vs_24zg": ("Z" * 6, "z" * 24),
    "2M7m_vs_3M8m": ("MM" + "m" * 7, "MMM" + "m" * 8),
}


def their_scenario(name):
    if name not in OWN_LINE_UPS:
        return smax.map_name_to_scenario(name)
    agents, opponents = OWN_LINE_UPS[name]
    kinds = jnp.array(["mMsZzh".index(letter) for letter in agents + opponents], jnp.uint8)
    return smax.Scenario(kinds, len(agents), len(opponents), False, False)


def as_ours(their_state, world):
    """Their state in our terms. Their opponents find their goal at the first step; ours have it from the start."""
    inner, memory = their_state.state, their_state.enemy_policy_state
    start = 32 - inner.unit_positions[world.num_agents :]
    return WorldState(
        position=inner.unit_positions,
        health=jnp.where(inner.unit_alive, inner.unit_health, 0),
        cooldown=inner.unit_weapon_cooldowns,
        kind=inner.unit_types.astype(int),
        movement=inner.prev_movement_actions,
        attack=inner.prev_attack_actions.astype(float),
        goal=jnp.where(inner.step == 0, start, memory.default_target),
        prey=memory.last_attacked_enemy,
        step=inner.step,
    )


def their_draws(key, world):
    """The numbers that their step draws from its key, wherever it does."""
    key, action_key = jax.random.split(key)
    keys = jax.vmap(jax.random.split)(jax.random.split(action_key, world.num_opponents))
    pursuit, target = jax.vmap(jax.random.uniform)(keys[:, 0]), jax.vmap(jax.random.uniform)(keys[:, 1])

    def physical_step(key, _):
        key, step_key = jax.random.split(key)
        return key, jax.vmap(jax.random.uniform)(jax.random.split(step_key, world.num_units))

    _, cooldown = jax.lax.scan(physical_step, key, None, world.physical_steps)
    return Draws(cooldown, pursuit, target if world.opponent == "random" else None)


@functools.cache
def transitions(name, opponent):
    """Their transitions under random legal actions that seek a fight, and ours from the same states: `[T, E, …]`."""
    theirs = smax.HeuristicEnemySMAX(scenario=their_scenario(name), attack_mode=opponent, max_steps=1000)
    world = make_world(name, opponent)

    def stacked(by_agent):
        return jnp.stack([by_agent[agent] for agent in theirs.agents])

    def reset(key):
        """Opponents are weak in half of the episodes, so that some are won."""
        observations, state = theirs.reset(key)
        weaker = jnp.where(jax.random.bernoulli(key) & (jnp.arange(world.num_units) >= world.num_agents), 0.2, 1)
        inner = state.state.replace(unit_health=state.state.unit_health * weaker)
        return observations, state.replace(state=inner)

    def transition(carry, key):
        observations, state = carry
        observations |= theirs.get_obs(state) | {"world_state": theirs.get_world_state(state)}
        action_key, step_key, reset_key = jax.random.split(key, 3)
        available = stacked(theirs.get_avail_actions(state)).astype(bool)
        eagerness = jnp.zeros(available.shape[-1]).at[5:].set(0.8).at[1].set(0.3)
        scores = jax.random.uniform(action_key, available.shape) + eagerness
        action = jnp.argmax(jnp.where(available, scores, -1), -1)
        actions = dict(zip(theirs.agents, action, strict=True))
        seen, after, rewards, dones, _ = theirs.step_env(step_key, state, actions)
        before = as_ours(state, world)
        ours = world.step(before, action, their_draws(step_key, world))
        record = {
            "state": (ours, as_ours(after, world)),
            "observation": (world.observe(before), stacked(observations)),
            "available": (world.available(before), available),
            "survey": (world.survey(before), observations["world_state"]),
            "reward": (world.reward(before, ours), stacked(rewards)),
            "dead": (~ours.alive[: world.num_agents], jnp.stack([dones[agent] for agent in theirs.agents])),
            "over": (world.decided(ours), dones["__all__"]),
        }
        extra = {"won": world.won(ours), "action": action, "perspective": world.perspective(before), "before": before}
        again = jax.tree.map(lambda a, b: jnp.where(dones["__all__"], a, b), reset(reset_key), (seen, after))
        return again, (record, extra)

    @jax.jit
    def run(key):
        reset_key, key = jax.random.split(key)
        opening = jax.vmap(reset)(jax.random.split(reset_key, NUM_ENVS))
        keys = jax.random.split(key, (NUM_STEPS, NUM_ENVS))
        return jax.lax.scan(jax.vmap(transition), opening, keys)[1]

    return world, *jax.tree.map(np.asarray, run(jax.random.key(5)))


def assert_agree(record, tolerance=1e-4):
    """Equal up to rounding. Rounding may decide who is in range: of a thousand transitions one may differ in that."""
    ours, theirs = (np.asarray(x, float).reshape(NUM_STEPS * NUM_ENVS, -1) for x in record)
    differing = (np.abs(ours - theirs) > tolerance).any(-1).sum()
    assert differing <= len(ours) // 1000, f"{differing} of {len(ours)}"


@pytest.mark.parametrize(("name", "opponent"), CASES)
class TestAgainstJaxmarl:
    def test_states(self, name, opponent):
        """All that there is; but where a dead opponent would go, which nobody ever sees."""
        world, record, extra = transitions(name, opponent)
        live = (extra["before"].health > 0) | (np.arange(world.num_units) < world.num_agents)
        states = [state._replace(movement=np.where(live[..., None], state.movement, 0)) for state in record["state"]]
        for field in WorldState._fields:
            assert_agree([getattr(state, field) for state in states])

    def test_observations_masks_rewards_and_ends(self, name, opponent):
        world, record, _ = transitions(name, opponent)
        for field in ("observation", "available", "dead", "over"):
            assert_agree(record[field])
        ours, theirs = record["reward"]
        assert_agree((ours[..., None] + np.zeros_like(theirs), theirs))
        assert theirs.shape[-1] == world.num_agents

    def test_the_critic_s_state_is_theirs_scaled(self, name, opponent):
        """Their rows are of health, position, cooldown and kind; teams and kinds as numbers follow, which we drop."""
        world, record, extra = transitions(name, opponent)
        ours, theirs = record["survey"]
        units = world.units(jax.tree.map(jnp.asarray, extra["before"]))
        rows = theirs[..., : 10 * world.num_units].reshape(NUM_STEPS, NUM_ENVS, world.num_units, 10).copy()
        rows[..., 1:3] /= 32
        rows[..., 3] = np.clip(rows[..., 3] / units.weapon_cooldown, 0, 1)
        assert_agree((ours, rows))
        assert ours.min() >= -0.1  # units may be pushed a little over the edge
        assert ours.max() <= 1.1
        assert theirs[..., 10 * world.num_units :].shape[-1] == 2 * world.num_units

    def test_wins_are_those_that_they_pay(self, name, opponent):
        """A win is worth 1 on top of damage, which alone is below 1 in a step of theirs."""
        _, record, extra = transitions(name, opponent)
        np.testing.assert_array_equal(extra["won"], record["reward"][1][..., 0] >= 1)
        np.testing.assert_array_equal(record["over"][0] & extra["won"], extra["won"])

    def test_the_transitions_hold_what_they_are_to_compare(self, name, opponent):
        world, record, extra = transitions(name, opponent)
        after, over, won = record["state"][1], record["over"][1], extra["won"]
        alive = after.health > 0
        assert over.sum() >= 10
        assert (over & ~won).sum() >= 3
        assert won.sum() >= 10
        assert (~alive[..., : world.num_agents] & ~over[..., None]).sum() > 100  # dead in an episode that goes on
        assert len(np.unique(extra["action"])) == world.num_actions
        at_edge = ((after.position <= 0) | (after.position >= 32)).any(-1)
        assert (at_edge & ~alive).any() or not name.startswith("smacv2")
        assert set(np.unique(extra["before"].kind)) == (set(range(6)) if world.line_up is None else set(world.line_up))


def test_the_comparison_notices_other_rules():
    """Draws in another order, or opponents that pick differently, change many transitions."""
    world, _, extra = transitions("2s3z", "random")
    before, action = jax.tree.map(
        lambda x: jnp.asarray(x).reshape(-1, *x.shape[2:]), (extra["before"], extra["action"])
    )
    other = make_world("2s3z", "closest")
    draws = jax.vmap(world.draw)(jax.random.split(jax.random.key(0), len(action)))
    flipped = draws._replace(target=1 - draws.target, pursuit=1 - draws.pursuit)
    slower = draws._replace(cooldown=1 - draws.cooldown)
    step = jax.jit(jax.vmap(world.step))
    reference = step(before, action, draws)
    for changed in (
        step(before, action, flipped),
        step(before, action, slower),
        jax.jit(jax.vmap(other.step))(before, action, draws._replace(target=None)),
    ):
        differs = [np.asarray(a != b).reshape(len(action), -1).any(-1) for a, b in zip(reference, changed, strict=True)]
        assert np.any(differs, axis=0).sum() > len(action) // 40


def test_scenarios_are_jaxmarl_s_and_three_more():
    assert set(SCENARIOS) == {*smax_env.MAP_NAME_TO_SCENARIO, *OWN_LINE_UPS}
    for name in SCENARIOS:
        world, theirs = make_world(name), their_scenario(name)
        assert (world.num_agents, world.num_opponents) == (theirs.num_allies, theirs.num_enemies)
        if world.line_up is None:
            assert theirs.smacv2_unit_type_generation
        else:
            np.testing.assert_array_equal(world.line_up, theirs.unit_types)
        env = make_env(f"smax/{name}")
        units, (agent, *_) = world.num_units, env.spec.agents
        assert agent.observation_shape == (13 * (units - 1) + 10,)
        assert agent.action_space == hajax.Discrete(5 + world.num_opponents)
        assert (env.spec.num_agents, env.spec.state_shape) == (world.num_agents, (10 * units,))
        assert env.spec.max_steps == 100


def test_agents_of_different_kinds_have_the_same_spaces():
    """2s3z: kinds differ in numbers, not in spaces, so that agents share by type unless told otherwise."""
    world, spec = make_world("2s3z"), make_env("smax/2s3z").spec
    assert [agent.observation_size for agent in spec.agents] == [13 * 9 + 10] * 5
    assert world.units(None).health[:5].tolist() == [160, 160, 150, 150, 150]
    assert world.units(None).attack_range[:5].tolist() == [6, 6, 2, 2, 2]
    state = jax.jit(world.reset)(jax.random.key(0))
    bits = jax.jit(world.observe)(state)[:, -6:]
    np.testing.assert_array_equal(np.argmax(bits, -1), [2, 2, 3, 3, 3])
    assert hajax.make_algorithm("mappo", spec).init(jax.random.key(0)).actors.params["logits"]["bias"].shape[0] == 1


@pytest.mark.parametrize("name", ["3m", "5m_vs_6m", "smacv2_5_units"])
def test_resets_are_distributed_as_theirs(name):
    """Means and spreads of positions, and frequencies of kinds, within five standard errors."""
    count = 4000
    keys = jax.random.split(jax.random.key(3), count)
    theirs = smax.SMAX(scenario=their_scenario(name))
    reference = jax.jit(jax.vmap(lambda key: theirs.reset(key)[1]))(keys)
    ours = jax.jit(jax.vmap(make_world(name).reset))(jax.random.split(jax.random.key(4), count))
    for own, other in ((ours.position, reference.unit_positions), (ours.position**2, reference.unit_positions**2)):
        own, other = np.asarray(own), np.asarray(other)
        error = np.sqrt((own.var(0) + other.var(0)) / count)
        assert (np.abs(own.mean(0) - other.mean(0)) <= 5 * error).all()
    frequencies = [np.bincount(np.ravel(kinds), minlength=6) for kinds in (ours.kind, reference.unit_types)]
    np.testing.assert_allclose(*frequencies, atol=5 * np.sqrt(2 * count * ours.kind.shape[1]))
    np.testing.assert_array_equal(ours.health, np.asarray(theirs.unit_type_health)[np.asarray(ours.kind)])
    assert not np.any(ours.cooldown)


@functools.cache
def stepping(name="3m", **options):
    env = make_env(f"smax/{name}", **options)
    return env._replace(reset=jax.jit(env.reset), step=jax.jit(env.step))


def stop(env):
    return jnp.full((env.spec.num_agents, 1), 4.0)


def test_an_episode_has_exactly_100_steps():
    """Nobody can be killed here, so that only the limit ends the episode; jaxmarl's own has 101."""
    env = stepping()
    state, _ = env.reset(jax.random.key(0))
    state = state._replace(health=state.health * 1e6)

    @jax.jit
    def run(state):
        return jax.lax.scan(lambda s, key: env.step(key, s, stop(env)), state, jax.random.split(jax.random.key(1), 205))

    after, steps = run(state)
    assert np.flatnonzero(steps.truncated)[0] == 99
    assert not steps.terminated[:100].any()
    assert steps.first[99]
    assert not steps.metrics["win"][:100].any()
    assert after.step < 105

    theirs = smax.HeuristicEnemySMAX(scenario=their_scenario("3m"))
    _, inner = theirs.reset(jax.random.key(0))
    inner = inner.replace(state=inner.state.replace(unit_health=inner.state.unit_health * 1e6, step=jnp.array(99)))
    actions = dict.fromkeys(theirs.agents, jnp.array(4))
    done = []
    for t in range(2):
        _, inner, _, dones, _ = theirs.step_env(jax.random.key(t), inner, actions)
        done.append(bool(dones["__all__"]))
    assert done == [False, True]  # their 100th and 101st


def nearly_won(env):
    """The agents' opponents are in range, ready to be killed by one attack each; the agents cannot be killed."""
    state, _ = env.reset(jax.random.key(0))
    n = env.spec.num_agents
    place = jnp.stack([jnp.full(2 * n, 16.0), 12.0 + 2 * jnp.arange(2 * n) % (2 * n)], -1).at[n:, 0].add(3)
    return state._replace(position=place, health=state.health.at[:n].mul(1e6).at[n:].set(1.0))


def test_a_win_and_the_reset_after_it():
    env = stepping()
    attack = jnp.arange(3.0)[:, None] + 5
    after, shown = env.step(jax.random.key(2), nearly_won(env), attack)
    assert shown.terminated
    assert not shown.truncated
    assert shown.metrics["win"] == 1
    np.testing.assert_allclose(shown.reward, 1 + 3 * (1 / 45) / 3, rtol=1e-5)
    assert not shown.final.action_mask[:, 0, 5:].any()  # nobody left to attack
    assert shown.final.active.all()
    assert shown.first
    assert after.step == 0
    np.testing.assert_array_equal(after.health, 45)
    np.testing.assert_array_equal(shown.observation, jax.jit(make_world("3m").observe)(after))


def test_a_loss_shows_the_dead_at_its_end_and_the_living_after_it():
    env = stepping()
    state = nearly_won(env)
    state = state._replace(health=jnp.full(6, 1.0).at[3:].set(1e6))
    _, shown = env.step(jax.random.key(2), state, stop(env))
    assert shown.terminated
    assert shown.metrics["win"] == 0
    assert not shown.final.active.any()
    np.testing.assert_array_equal(shown.final.action_mask[:, 0], np.arange(8) == 4 + np.zeros((3, 1)))
    assert not shown.final.observation.any()
    assert shown.active.all()
    assert shown.action_mask[:, 0, :5].all()


def test_reward_is_the_team_s_or_an_equal_share():
    shown = [
        stepping(reward=reward).step(jax.random.key(2), nearly_won(stepping()), jnp.arange(3.0)[:, None] + 5)[1].reward
        for reward in ("team", "individual")
    ]
    np.testing.assert_allclose(shown[0], 3 * shown[1], rtol=1e-6)
    np.testing.assert_allclose(shown[1].sum(), 1 + 1 / 45, rtol=1e-5)


def test_each_agent_s_own_state_is_the_map_without_its_fog():
    world, record, extra = transitions("2s3z", "random")
    shape = (NUM_STEPS, NUM_ENVS, world.num_agents, world.num_units - 1)
    own, seen = extra["perspective"], record["observation"][0]
    np.testing.assert_array_equal(own[..., -10:], seen[..., -10:])
    own, seen = own[..., :-10].reshape(*shape, 14), seen[..., :-10].reshape(*shape, 13)
    in_sight = own[..., 1] == 1
    assert 0.05 < in_sight.mean() < 0.8
    np.testing.assert_array_equal(in_sight, seen[..., 0] > 0)
    same = [0, *range(4, 14)]  # all but the flag and the position, which is in other units
    np.testing.assert_array_equal(own[in_sight][:, same], seen[in_sight][:, [0, *range(3, 13)]])
    sight = np.asarray(world.units(None).sight_range)[:5].reshape(5, 1, 1) + np.zeros((*shape, 1))
    np.testing.assert_allclose(32 * own[..., 2:4][in_sight], (sight * seen[..., 1:3])[in_sight], atol=1e-4)
    others = np.array([[j for j in range(world.num_units) if j != i] for i in range(world.num_agents)])
    np.testing.assert_array_equal(own[..., 0] > 0, extra["before"].health[..., others] > 0)
    assert stepping("2s3z", state="fp").spec.state_shape == (5, 14 * 9 + 10)


@pytest.mark.parametrize(("name", "opponent"), [("3m", "closest"), ("2s3z", "random"), ("smacv2_5_units", "closest")])
def test_mirrored_views(name, opponent):
    """Every fight is the same as its reflection, and is what it would be without, by other names in the upper half."""
    _, _, extra = transitions(name, opponent)
    before: WorldState = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), extra["before"])
    action = extra["action"].reshape(len(before.step), -1)
    n = action.shape[-1]
    upper = before.position[:, :n, 1] > 16
    assert 0.3 < upper.mean() < 0.7
    keys = jax.random.split(jax.random.key(0), len(action))

    def results(state, action, **options):
        env = make_env(f"smax/{name}", opponent=opponent, state="fp", **options)
        return jax.jit(jax.vmap(env.step))(keys, state, action[..., None])

    upside_down = before._replace(
        position=np.where([True, False], before.position, 32 - before.position),
        movement=before.movement * [1, -1],
        goal=np.where([True, False], before.goal, 32 - before.goal),
    )
    inner, seen = results(before, action, mirrored=True)
    other, also_seen = results(upside_down, action, mirrored=True)
    assert_agree((seen.reward, also_seen.reward))
    assert_agree((seen.terminated, also_seen.terminated))
    for ours, theirs in zip(seen.final, also_seen.final, strict=True):
        assert_agree((ours, theirs))
    over = np.asarray(seen.terminated)[:, None]  # and begun anew, from starts that are no reflections
    assert 0 < over.mean() < 0.5
    assert_agree([np.where(over, 0, state.position[..., 0]) for state in (inner, other)])
    assert_agree([np.where(over, 16, y) for y in (inner.position[..., 1], 32 - other.position[..., 1])])

    swapped = np.where(upper, np.take([2, 1, 0, *range(3, 30)], action), action)
    plain, shown = results(before, swapped)
    assert (swapped != action).any(0).all()
    for ours, theirs in zip(jax.tree.leaves(inner), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(seen.action_mask, shown.action_mask)
    np.testing.assert_array_equal(seen.reward, shown.reward)
    turn = np.asarray(inner.position[:, :n, 1]) > 16
    for ours, theirs, y, width in (
        (seen.observation, shown.observation, [2, 4], 13),
        (seen.state, shown.state, [3, 5], 14),
    ):
        expected = np.array(theirs)
        others, own = expected[turn][:, :-10], expected[turn][:, -10:]
        others = others.reshape(len(own), -1, width)
        others[..., y] *= -1
        own[:, 2] = np.where(own[:, 0] > 0, 1 - own[:, 2], 0)
        expected[turn] = np.concatenate([others.reshape(len(own), -1), own], -1)
        np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_what_else_is_mirrored():
    """The critic's views of all agents and a film's arrows, not its map."""
    env, plain = stepping(mirrored=True), stepping()
    state, shown = env.reset(jax.random.key(0))
    upper = np.asarray(state.position[:3, 1]) > 16
    assert set(upper) == {True, False}
    _, unturned = plain.reset(jax.random.key(0))
    np.testing.assert_array_equal(shown.state, unturned.state)
    assert (shown.observation != unturned.observation).any(-1).tolist() == upper.tolist()
    _, ends = stepping(mirrored=True, state="observations").reset(jax.random.key(0))
    np.testing.assert_array_equal(ends.state, shown.observation.ravel())

    axes = Figure().subplots()
    north = jnp.zeros((3, 1))
    env.viewer.draw(axes, state, north, shown)
    arrows = np.array([np.subtract(text.xy, text.xyann) for text in axes.texts if isinstance(text, Annotation)])
    after, _ = env.step(jax.random.key(1), state, north)
    went = np.sign(np.asarray(after.position - state.position)[:3, 1])
    assert arrows[:, 1].tolist() == went.tolist() == np.where(upper, -1, 1).tolist()


TINY = {"hidden_sizes": (16,), "critic_epochs": 2}


@functools.cache
def fought(state="ep", name="happo", **settings):
    """An algorithm on 3m, its state, and a rollout in which agents die, by actors that have strong opinions."""
    env = make_env("smax/3m", state=state, max_steps=40)
    envs = batched(env)
    algo = hajax.make_algorithm(name, env, normalize_observations=True, **TINY | settings)

    @jax.jit
    def run(key):
        own = algo.init(key)
        bold = jax.tree.map(lambda x: 30 * x, own.actors.params["logits"])
        own = own._replace(actors=own.actors._replace(params=own.actors.params | {"logits": bold}))
        return own, rollout(envs, algo, key, own, start(envs, algo, key, 32), 45)[1]

    return algo, *run(jax.random.key(1))


def test_a_dead_agent_is_inactive_and_only_stops():
    _, _, batch = fought()
    dead = ~batch.active
    assert dead.mean() > 0.05
    np.testing.assert_array_equal(batch.action_mask[dead][:, 0], (np.arange(8) == 4) & np.ones((dead.sum(), 1), bool))
    np.testing.assert_array_equal(batch.action[dead], 4)
    assert not batch.observation[dead].any()
    assert batch.action_mask[batch.active][:, 0, :5].all()


@pytest.mark.parametrize(("state", "name"), [("ep", "happo"), ("fp", "happo"), ("ep", "hatrpo")])
def test_what_a_dead_agent_did_changes_nothing(state, name):
    """Not a bit of any parameter, moment or statistic, whatever stands in the batch for it."""
    algo, own, batch = fought(state, name)
    dead = ~batch.active

    def spoil(x, value):
        return jnp.where(dead.reshape(*dead.shape, *[1] * (x.ndim - 3)), value, x)

    spoiled: OnPolicyBatch = batch._replace(
        observation=spoil(batch.observation, jnp.nan),
        action=spoil(batch.action, 7.0),
        action_mask=spoil(batch.action_mask, False),
        log_prob=spoil(batch.log_prob, jnp.nan),
        # `fp`: a state of its own, which no living agent's values are of
        state=spoil(batch.state, jnp.nan) if state == "fp" else batch.state,
    )
    update = jax.jit(algo.update)
    for _ in range(2):  # the second one reads the statistics of the first
        learnt, _ = update(jax.random.key(3), own, batch)
        otherwise, _ = update(jax.random.key(3), own, spoiled)
        for one, other in zip(jax.tree.leaves(learnt), jax.tree.leaves(otherwise), strict=True):
            np.testing.assert_array_equal(one, other)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(learnt.actors.params))
        own = learnt
    # It can fail: the same for the living does change the parameters.
    other = spoil(batch.action, 4.0)[:, :, ::-1]
    changed, _ = update(jax.random.key(3), own, batch._replace(action=other))
    reference, _ = update(jax.random.key(3), own, batch)
    assert (changed.actors.params["logits"]["bias"] != reference.actors.params["logits"]["bias"]).any()


def test_an_unavailable_action_is_never_taken():
    """A million samples of our policy with SMAX's masks, and its modes; unmasked it would take many of them."""
    algo, own, batch = fought()
    num_keys = 1 + 10**6 // batch.log_prob.size
    shown = hajax.Timestep(
        batch.observation, batch.state, batch.action_mask, batch.active, *[None] * 4, final=None, metrics={}
    )

    def unavailable(action):
        taken = jnp.take_along_axis(batch.action_mask[..., 0, :], action.astype(int), -1)
        return jnp.sum(~taken)

    @jax.jit
    def count(key):
        def sample(key):
            action, extras, _ = algo.act(key, own, shown, (), False)
            return unavailable(action), jnp.isfinite(extras.log_prob).all()

        counts, finite = jax.lax.map(sample, jax.random.split(key, num_keys))
        mode, _, _ = algo.act(key, own, shown, (), True)
        free = shown._replace(action_mask=jnp.ones_like(batch.action_mask))
        return counts.sum(), unavailable(mode), finite.all(), unavailable(algo.act(key, own, free, (), False)[0])

    sampled, modes, finite, unmasked = count(jax.random.key(7))
    assert num_keys * batch.log_prob.size >= 10**6
    assert (sampled, modes) == (0, 0)
    assert finite
    assert unmasked > batch.log_prob.size / 10


def test_no_weapon_fires_twice_in_a_step():
    """Which is why a step draws one number per unit: from one attack to the next ready one it takes longer."""
    world = make_world("3m")
    for pause in world.kinds.weapon_cooldown - world.time_step:  # the shortest that can be drawn
        ready = [pause - world.time_step * passed <= 0 for passed in range(world.physical_steps - 1)]
        assert not any(ready)


def test_opponents_remember_their_prey():
    """As jaxmarl's heuristic starts: nobody, and at the very first step the goal is the start turned by 180 degrees."""
    blank = heuristic_enemy.get_heuristic_policy_initial_state()
    state = jax.jit(make_world("3m").reset)(jax.random.key(0))
    assert set(np.asarray(state.prey)) == {blank.last_attacked_enemy}
    np.testing.assert_allclose(state.goal + state.position[3:], 32, rtol=1e-6)


@pytest.mark.parametrize(
    ("option", "value", "allowed"),
    [
        ("state", "global", "ep, fp, observations, environment"),
        ("opponent", "clever", "closest, random"),
        ("reward", "own", "team, individual"),
        ("mirrored", "yes", "true, false"),
        ("max_steps", 0, "a whole number >= 1"),
        ("scenario", "3m", "reward, state, opponent, mirrored, max_steps"),
    ],
)
def test_refusals(option, value, allowed):
    with pytest.raises(ValueError, match=f"{option}={value!r}.*{allowed}"):
        make_env("smax/3m", **{option: value})
    with pytest.raises(ValueError, match=r"unknown environment 'smax/3n'; did you mean smax/3m"):
        make_env("smax/3n")


@pytest.mark.evidence
def test_training_from_the_command_line(tmp_path):
    """Smoke: `hajax train` on 3m with each agent's own state, and the win rate among its columns."""
    out = tmp_path / "run"
    small = ["num_seeds=2", "num_envs=4", "rollout_length=10", "total_steps=80", "eval.episodes=3", "progress=false"]
    tiny = ["algo.hidden_sizes=[8]", "algo.epochs=1", "algo.critic_epochs=1", "env.max_steps=12", "env.state=fp"]
    assert main(["train", "env=smax/3m", *small, *tiny, f"out_dir={out}"]) == 0
    header, *rows = (out / "metrics.csv").read_text().splitlines()
    assert "eval_win" in header.split(",")
    assert len(rows) >= 2
