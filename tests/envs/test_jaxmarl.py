"""jaxmarl's environments through the adapter against jaxmarl, driven directly with the same keys and actions."""

import io
from contextlib import redirect_stdout

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hajax
from hajax.envs import auto_reset
from hajax.envs.from_jaxmarl import RULES
from hajax.runs import config

with redirect_stdout(io.StringIO()):  # it tells of its optional parts
    import jaxmarl

ROBOTS = ("ant_4x2", "halfcheetah_6x1", "hopper_3x1", "humanoid_9|8", "walker2d_2x3")
SHARED = {"switch_riddle", "HeuristicEnemySMAX", "hanabi", "overcooked", "overcooked_v2", *ROBOTS}
# Smaller than the defaults, so that episodes end within the test; the step limits that follow.
SMALL = {
    "overcooked": ({"max_steps": 40}, 40),
    "overcooked_v2": ({"max_steps": 30, "layout": "asymm_advantages"}, 30),
    "storm": ({"num_inner_steps": 12, "num_outer_steps": 2}, 24),
    "storm_2p": ({"num_inner_steps": 12, "num_outer_steps": 2}, 24),
    "storm_np": ({"num_inner_steps": 12, "num_outer_steps": 2}, 24),
    "coin_game": ({"num_inner_steps": 6, "num_outer_steps": 3}, 18),
    "jaxnav": ({"max_steps": 20, "num_agents": 3, "evaporating": True}, 20),
    "HeuristicEnemySMAX": ({"max_steps": 30}, 30),
    "SMAX": ({"max_steps": 20}, 20),
    "switch_riddle": ({"num_agents": 4}, 10),
    **dict.fromkeys(ROBOTS, ({"episode_length": 20}, 20)),
    "hanabi": ({"num_colors": 2, "num_ranks": 3, "hand_size": 2, "num_cards_of_rank": np.array([3, 2, 1])}, 34),
}
FAST = ("MPE_simple_tag_v3", "switch_riddle", "hanabi", "overcooked", "coin_game")


def limited(name):
    return SMALL.get(name, ({}, 25))


def flat(parts):
    return jnp.concatenate([jnp.ravel(x).astype(float) for x in jax.tree.leaves(parts)])


def observations(name, shown, agents):
    """What jaxmarl shows to the agents, in its own forms."""
    if name == "storm":
        return [flat({key: x[i] for key, x in shown.items()}) for i in agents]
    if name == "storm_2p":
        return [flat(x) for x in shown]
    return [flat(shown[agent]) for agent in agents]


def individual(rewards, agents):
    if isinstance(rewards, dict):
        rewards = [rewards[agent] for agent in agents]
    return jnp.stack([jnp.asarray(x, float) for x in rewards])


def mask_of(env, name, inner):
    if name == "hanabi":
        return env.get_legal_moves(inner)
    return env.get_avail_actions(inner) if "SMAX" in name else None


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in FAST else pytest.mark.evidence)
        for name in RULES
        if name != "LearnedPolicyEnemySMAX"
    ],
)
def test_every_step_is_jaxmarl_s(name):
    """Observations, states, rewards, masks, ends and final observations; a reset begins the next episode.

    What has contacts in double precision: they amplify rounding errors, which differ between two compiled programs.
    """
    with jax.enable_x64(name in ROBOTS or name.startswith("MPE")):
        compare(name)


def test_every_environment_that_jaxmarl_registers_has_rules():
    absent = "JaxRobotarium_"  # which jaxmarl's package does not contain
    assert set(RULES) == {name for name in jaxmarl.registered_envs if not name.startswith(absent)}


@pytest.mark.evidence
def test_ten_thousand_steps_of_overcooked_are_jaxmarl_s():
    compare("overcooked", 25, 400)


def compare(name, copies=3, steps=60):
    close = 1e-9 if jax.config.jax_enable_x64 else 1e-6
    kwargs, limit = limited(name)
    ours = hajax.make_env(f"jaxmarl/{name}", kwargs=kwargs, reward="individual")
    fixed = {"auto_reset": False} if name in ROBOTS else {}
    spec, theirs = ours.spec, jaxmarl.make(name, **kwargs, **fixed)
    assert spec.max_steps == limit

    def play(state, key):
        action_key, step_key = jax.random.split(key)
        env_state, shown = state
        choice_key, real_key = jax.random.split(action_key)
        open_ = jnp.where(shown.action_mask, 0.0, -jnp.inf)
        index = jax.random.categorical(choice_key, jnp.where(shown.action_mask.any(-1, keepdims=True), open_, 0.0))
        layout = spec.action_layout
        real = layout.center + 1.5 * layout.scale * jax.random.uniform(real_key, index.shape, minval=-1)
        action = jnp.where(layout.discrete, index, real)
        after, following = ours.step(step_key, env_state, action)
        return (after, following), (action, step_key, following)

    def played(key):
        begun = ours.reset(key)
        return begun[1], jax.lax.scan(play, begun, jax.random.split(jax.random.fold_in(key, 1), steps))[1]

    keys = jax.random.split(jax.random.key(0), copies)
    opening, (actions, step_keys, shown) = jax.device_get(jax.jit(jax.vmap(played))(keys))

    bounds = {agent: theirs.action_space(agent) for agent in theirs.agents}

    @jax.jit
    def direct(key, inner, action):
        step_key, reset_key = jax.random.split(key)
        given = {}
        for i, (agent, space) in enumerate(bounds.items()):
            if hasattr(space, "n"):
                given[agent] = action[i, 0].astype(int)
            else:
                given[agent] = jnp.clip(action[i, : space.shape[0]], space.low, space.high)
        seen, after, rewards, dones, _ = theirs.step_env(step_key, inner, given)
        opened = theirs.reset(reset_key)
        return seen, after, individual(rewards, theirs.agents), dones, opened

    def check(seen, inner, ts_observation, ts_state, ts_mask):
        for own, expected in zip(ts_observation, observations(name, seen, theirs.agents), strict=True):
            np.testing.assert_allclose(own[: expected.size], expected, rtol=close, atol=close)
            assert not own[expected.size :].any()
        world = theirs.get_world_state(inner) if hasattr(theirs, "get_world_state") else None
        if isinstance(world, dict):
            world = flat([world[agent] for agent in theirs.agents])
        if world is not None:
            np.testing.assert_allclose(ts_state, world, rtol=close, atol=close)
        legal = mask_of(theirs, name, inner)
        for i, agent in enumerate(theirs.agents) if legal is not None else ():
            np.testing.assert_array_equal(ts_mask[i, 0, : len(legal[agent])], np.asarray(legal[agent]) > 0)

    ends = []
    for copy in range(copies):
        seen, inner = theirs.reset(keys[copy])
        check(seen, inner, opening.observation[copy], opening.state[copy], opening.action_mask[copy])
        count = 0
        for t in range(steps):
            seen, after, rewards, dones, opened = direct(step_keys[copy, t], inner, actions[copy, t])
            now, count = jax.tree.map(lambda x, c=copy, t=t: x[c, t], shown), count + 1
            share = rewards / len(rewards) if name in SHARED else rewards
            np.testing.assert_allclose(now.reward, share, rtol=close, atol=close)
            over = bool(dones["__all__"]) or count == limit
            assert bool(now.terminated or now.truncated) == over == bool(now.first)
            assert not (now.terminated and now.truncated)
            check(seen, after, now.final.observation, now.final.state, now.final.action_mask)
            if over:
                ends.append((count, bool(now.terminated)))
                (seen, after), count = opened, 0
            check(seen, after, now.observation, now.state, now.action_mask)
            inner = after
    assert len(ends) >= copies
    if name.startswith(("MPE", "overcooked")):
        assert set(ends) == {(limit, False)}
    if name.startswith(("storm", "coin")):
        assert set(ends) == {(limit, True)}
    if name == "hanabi":
        assert all(told and count < limit for count, told in ends)


def test_the_riddle_ends_when_someone_tells_and_is_cut_when_nobody_does():
    env = hajax.make_env("jaxmarl/switch_riddle")
    assert env.spec.max_steps == 6
    step = jax.jit(env.step)
    state, _ = jax.jit(env.reset)(jax.random.key(0))
    for t in range(6):
        state, shown = step(jax.random.key(t), state, jnp.zeros((3, 1)))
        assert (bool(shown.terminated), bool(shown.truncated)) == (False, t == 5)
    _, shown = step(jax.random.key(9), state, jnp.full((3, 1), 2.0))
    assert (bool(shown.terminated), bool(shown.truncated)) == (True, False)
    np.testing.assert_array_equal(shown.reward, [-1, -1, -1])  # once, and not for each of three


def test_shaping_pays_each_cook_for_its_own_work():
    """With a team's reward both receive the sum."""
    rewards = {}
    for reward, shaped in (("team", False), ("individual", False), ("team", True), ("individual", True)):
        env = hajax.make_env("jaxmarl/overcooked", reward=reward, shaped=shaped)

        def play(key, env=env):
            state, _ = env.reset(key)

            def step(state, key):
                action_key, key = jax.random.split(key)
                state, shown = env.step(key, state, jax.random.randint(action_key, (2, 1), 0, 6).astype(float))
                return state, shown.reward

            return jax.lax.scan(step, state, jax.random.split(key, 399))[1]

        rewards[reward, shaped] = np.asarray(jax.jit(jax.vmap(play))(jax.random.split(jax.random.key(1), 4)))
    own, parts = rewards["individual", False], rewards["individual", True] - rewards["individual", False]
    np.testing.assert_array_equal(own[..., 0], own[..., 1])
    np.testing.assert_allclose(
        rewards["team", False], np.broadcast_to(own.sum(-1, keepdims=True), own.shape), atol=1e-5
    )
    assert (parts > 0).any(axis=(0, 1)).all()
    assert (parts[..., 0] != parts[..., 1]).any()
    total = (own + parts).sum(-1, keepdims=True)
    np.testing.assert_allclose(rewards["team", True], np.broadcast_to(total, own.shape), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("overcokked", {}, r"env=jaxmarl/overcokked is unknown; did you mean jaxmarl/overcooked"),
        ("hopper_3x1", {"kwargs": {"auto_reset": True}}, "kwargs={'auto_reset': True} of jaxmarl/hopper_3x1: "),
        ("chess", {}, r"env=jaxmarl/chess is unknown; .*allowed: jaxmarl/MPE_simple_v3, "),
        ("MPE_simple_tag_v3", {}, r"reward='team' of jaxmarl/MPE_simple_tag_v3, in which .*; allowed: individual"),
        (
            "overcooked",
            {"kwargs": {"layout": "cramped"}},
            r"unknown kwargs.layout 'cramped'; .*allowed: cramped_room, ",
        ),
        ("HeuristicEnemySMAX", {"kwargs": {"scenario": "4m"}}, r"unknown kwargs.scenario '4m'; .*allowed: 3m, "),
        ("overcooked", {"kwargs": {"size": 3}}, r"kwargs=\{'size': 3\} of jaxmarl/overcooked: .*'size'"),
        ("LearnedPolicyEnemySMAX", {}, r"kwargs=\{\} of jaxmarl/LearnedPolicyEnemySMAX: .*'policy' and 'params'"),
        ("hanabi", {"shaped": True}, r"shaped=true of jaxmarl/hanabi; allowed: false"),
        ("overcooked", {"kwargs": 3}, r"kwargs=3; allowed: options by their names"),
        (
            "overcooked",
            {"seed": 3},
            r"unknown setting seed=3 of jaxmarl/overcooked; .*allowed: kwargs, reward, shaped, state",
        ),
    ],
)
def test_options_are_checked(name, options, message):
    with pytest.raises(ValueError, match=message):
        hajax.make_env(f"jaxmarl/{name}", **options)


def test_the_shell_sets_jaxmarl_s_options():
    settings = config.compose(["env=jaxmarl/overcooked", "env.kwargs.layout=coord_ring", "env.shaped=true"])["env"]
    name = settings.pop("name")
    env = hajax.make_env(name, **settings)
    assert (name, env.spec.name, env.spec.agents[0].observation_size) == ("jaxmarl/overcooked",) * 2 + (5 * 5 * 26,)


class Still:
    """A learned opponent that has learned to stop, which its parameters say."""

    def apply(self, params, observations):
        assert observations.shape == (3, 75)
        return distrax.Categorical(jnp.where(jnp.arange(8) == params["choice"], 0.0, -1e9) * jnp.ones((3, 1))), None


def test_agents_play_a_learned_opponent():
    """One that stands still, where the scripted one comes and shoots: nobody is hurt."""
    healths = {}
    for name, kwargs in (
        ("LearnedPolicyEnemySMAX", {"policy": Still(), "params": {"choice": jnp.array(4)}}),
        ("HeuristicEnemySMAX", {}),
    ):
        env = hajax.make_env(f"jaxmarl/{name}", kwargs={"scenario": "3m", **kwargs})
        step, (state, _) = jax.jit(env.step), jax.jit(env.reset)(jax.random.key(0))
        for t in range(40):
            state, shown = step(jax.random.key(t), state, jnp.full((3, 1), 4.0))
            if shown.first:
                break
        healths[name] = shown.final.state[::10][:3], t
    np.testing.assert_array_equal(healths["LearnedPolicyEnemySMAX"][0], [1, 1, 1])
    assert healths["LearnedPolicyEnemySMAX"][1] == 39
    assert (healths["HeuristicEnemySMAX"][0] < 1).any()


def test_training_in_jax_and_a_state_of_observations():
    env = hajax.make_env("jaxmarl/coin_game", reward="individual", state="observations")
    assert auto_reset(env) is env
    train = hajax.make_train(env, hajax.make_algorithm("ippo", env), total_steps=400, num_envs=4, rollout_length=50)
    _, metrics = jax.jit(jax.vmap(train))(jax.random.split(jax.random.key(0), 2))
    assert np.isfinite(np.asarray(metrics["episode_return"])[:, -1]).all()
