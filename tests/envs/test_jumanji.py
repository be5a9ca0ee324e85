"""jumanji's environments through the adapter against jumanji, driven directly with the same keys and actions."""

import jax
import jax.numpy as jnp
import jumanji
import numpy as np
import pytest

import hajax
from hajax.envs import from_jumanji
from hajax.runs import config

LAST = 2
# Small problems, whose episodes end within the test: options, and those of the generator.
SMALL = {
    "RobotWarehouse-v0": ({"time_limit": 40}, {}),
    "LevelBasedForaging-v0": (
        {"time_limit": 40},
        {"grid_size": 5, "fov": 2, "num_agents": 2, "num_food": 1, "max_agent_level": 2, "force_coop": False},
    ),
    "Connector-v3": ({"time_limit": 9}, {"grid_size": 5, "num_agents": 3}),
    "Cleaner-v0": ({"time_limit": 30}, {"num_rows": 3, "num_cols": 3, "num_agents": 2}),
    "SearchAndRescue-v0": ({"time_limit": 30}, {}),
    "MultiCVRP-v0": ({}, {"num_customers": 6, "num_vehicles": 2}),
}
LIMITS = {name: kwargs.get("time_limit", 13) for name, (kwargs, _) in SMALL.items()}


def made(name):
    kwargs, generator = SMALL[name]
    rules = from_jumanji.RULES[name.rpartition("-")[0]]
    module, _, kind = rules.generator.partition(":")
    if generator:
        kwargs = kwargs | {"generator": getattr(__import__(module, fromlist=[kind]), kind)(**generator)}
    return jumanji.make(name, **kwargs)


def seen_by(name, env, seen, agent):
    """What an agent observes, from jumanji's observation, cell by cell."""
    if name in ("RobotWarehouse-v0", "LevelBasedForaging-v0"):
        return np.asarray(seen.agents_view[agent], float)
    if name == "SearchAndRescue-v0":
        parts = (seen.searcher_views[agent], seen.positions[agent], seen.targets_remaining)
        return np.concatenate([np.ravel(x) for x in parts])
    if name == "MultiCVRP-v0":
        vehicles = seen.vehicles
        own = [*vehicles.coordinates[agent] / 10, vehicles.local_times[agent], vehicles.capacities[agent]]
        return np.asarray(own[:2], float)
    grid = np.asarray(seen.grid)
    maps = np.zeros((6 if name == "Connector-v3" else 5, *grid.shape))
    for cell, value in np.ndenumerate(grid):
        if name == "Cleaner-v0":
            maps[value][cell] = 1
        elif value:
            whose, kind = divmod(value - 1, 3)
            maps[kind + 3 * (whose != agent)][cell] = 1
    for other, place in enumerate(seen.agents_locations if name == "Cleaner-v0" else ()):
        maps[3 + (other != agent)][tuple(place)] += 1
    return maps.ravel()


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name[:2] in ("Le", "Co") else pytest.mark.evidence) for name in SMALL],
)
def test_every_step_is_jumanji_s(name):
    """Observations, rewards, masks, ends and final observations; a reset begins the next episode."""
    compare(name)


@pytest.mark.evidence
@pytest.mark.parametrize("name", ["RobotWarehouse-v0", "LevelBasedForaging-v0"])
def test_ten_thousand_steps_are_jumanji_s(name):
    compare(name, 25, 400)


def compare(name, copies=3, steps=90):
    kwargs, generator = SMALL[name]
    ours = hajax.make_env(f"jumanji/{name}", kwargs=kwargs, generator=generator, reward="individual")
    spec, theirs, limit = ours.spec, made(name), LIMITS[name]
    assert spec.max_steps == limit

    def play(state, key):
        action_key, step_key = jax.random.split(key)
        env_state, shown = state
        if spec.masks_actions:
            action = jax.random.categorical(action_key, jnp.where(shown.action_mask, 0.0, -jnp.inf)).astype(float)
        else:
            action = jax.random.uniform(action_key, (spec.num_agents, spec.num_components), minval=-1.5, maxval=1.5)
        after, following = ours.step(step_key, env_state, action)
        return (after, following), (action, step_key, following)

    def played(key):
        begun = ours.reset(key)
        return begun[1], jax.lax.scan(play, begun, jax.random.split(jax.random.fold_in(key, 1), steps))[1]

    keys = jax.random.split(jax.random.key(0), copies)
    opening, (actions, step_keys, shown) = jax.device_get(jax.jit(jax.vmap(played))(keys))
    step, reset = jax.jit(theirs.step), jax.jit(theirs.reset)

    def check(seen, observation, mask):
        seen = jax.device_get(seen)
        for agent in range(spec.num_agents):
            expected = seen_by(name, theirs, seen, agent)
            np.testing.assert_allclose(observation[agent, : expected.size], expected, rtol=1e-5, atol=1e-6)
        if spec.masks_actions:
            np.testing.assert_array_equal(mask[:, 0], seen.action_mask)

    ends = []
    for copy in range(copies):
        inner, now = reset(jax.random.key_data(keys[copy]))
        check(now.observation, opening.observation[copy], opening.action_mask[copy])
        count = 0
        for t in range(steps):
            action = actions[copy, t]
            given = action[:, 0].astype(np.int32) if spec.masks_actions else np.clip(action, -1, 1)
            inner, now = step(inner, jnp.asarray(given))
            got, count = jax.tree.map(lambda x, c=copy, t=t: x[c, t], shown), count + 1
            paid = np.broadcast_to(now.reward if now.reward.ndim else now.reward / spec.num_agents, got.reward.shape)
            np.testing.assert_allclose(got.reward, paid, rtol=1e-5, atol=1e-6)
            over = int(now.step_type) == LAST or count == limit
            assert bool(got.terminated or got.truncated) == over == bool(got.first)
            assert bool(got.truncated) == (over and not got.terminated)
            if over and count < limit:
                assert got.terminated
            check(now.observation, got.final.observation, got.final.action_mask)
            if over:
                ends.append((count, bool(got.terminated)))
                _, reset_key = jax.random.split(step_keys[copy, t])
                (inner, now), count = reset(jax.random.key_data(reset_key)), 0
            check(now.observation, got.observation, got.action_mask)
    assert len(ends) >= copies
    if name[:2] in ("Le", "Co", "Cl", "Mu"):
        assert any(told for _, told in ends)
    if name[:2] in ("Le", "Co", "Ro", "Se"):
        assert any(count == limit and not told for count, told in ends)


def test_a_time_limit_that_jumanji_calls_an_end_truncates():
    env = hajax.make_env("jumanji/Cleaner-v0", kwargs={"time_limit": 4})
    state, shown = jax.jit(env.reset)(jax.random.key(0))
    step, their = jax.jit(env.step), jumanji.make("Cleaner-v0", time_limit=4)
    inner, _ = their.reset(jax.random.key_data(jax.random.key(0)))
    for t in range(4):
        action = jnp.argmax(shown.action_mask, -1).astype(float)
        inner, now = their.step(inner, action[:, 0].astype(int))
        state, shown = step(jax.random.key(t), state, action)
        assert (bool(shown.terminated), bool(shown.truncated)) == (False, t == 3)
    assert (int(now.step_type), float(now.discount)) == (LAST, 0.0)
    state, shown = jax.jit(env.reset)(jax.random.key(0))
    wrong = jnp.argmin(shown.action_mask, -1).astype(float)  # into a wall, which ends the episode
    _, shown = step(jax.random.key(0), state, wrong)
    assert (bool(shown.terminated), bool(shown.truncated)) == (True, False)
    assert set(shown.metrics) == {"num_dirty_tiles", "ratio_dirty_tiles"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Cleaner-v9", {}, r"env=jumanji/Cleaner-v9 is unknown; did you mean jumanji/Cleaner-v0"),
        ("TSP-v1", {}, r"env=jumanji/TSP-v1 is unknown; .*allowed: .*jumanji/Connector-v"),
        ("Cleaner-v0", {"kwargs": {"size": 3}}, r"kwargs=\{'size': 3\} of jumanji/Cleaner-v0: .*'size'"),
        ("Cleaner-v0", {"generator": {"rows": 3}}, r"generator=\{'rows': 3\} of jumanji/Cleaner-v0: .*'rows'"),
        ("Cleaner-v0", {"generator": 3}, r"generator=3; allowed: options by their names"),
        ("Cleaner-v0", {"reward": "shared"}, r"reward='shared'; allowed: team, individual"),
    ],
)
def test_options_are_checked(name, options, message):
    with pytest.raises(ValueError, match=message):
        hajax.make_env(f"jumanji/{name}", **options)


def test_without_the_extra_one_line_says_so(monkeypatch):
    monkeypatch.setattr(from_jumanji, "find_spec", lambda package: None)
    with pytest.raises(ValueError, match=r"^env=jumanji/Cleaner-v0 needs jumanji, .*; pip install 'hajax\[jumanji\]'$"):
        hajax.make_env("jumanji/Cleaner-v0")


def test_the_shell_sets_jumanji_s_options_and_trains():
    given = ["env=jumanji/LevelBasedForaging-v0", "env.kwargs.time_limit=20"]
    settings = config.compose([*given, "env.generator={num_rows: 4, num_cols: 4, num_agents: 2}"])["env"]
    assert settings["generator"] == {"num_rows": 4, "num_cols": 4, "num_agents": 2}
    settings = config.compose([*given, "algo=ippo"])["env"]
    env = hajax.make_env(settings.pop("name"), **settings)
    train = hajax.make_train(env, hajax.make_algorithm("ippo", env), total_steps=400, num_envs=4, rollout_length=50)
    _, metrics = jax.jit(train)(jax.random.key(0))
    assert np.isfinite(np.asarray(metrics["episode_return"])).all()
    assert (np.asarray(metrics["percent_eaten"]) >= 0).all()
