"""Spread-3: who depends on whom, and the rewards written again as loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hajax
from hajax.envs import spread_3
from hajax.envs.mpe import simple_spread

GROUPS = {"sep": [[0], [1], [2]], "mix": [[0, 2], [1]], "ful": [[0, 1, 2]]}


def made(variant, **options):
    return getattr(spread_3, f"spread_3_{variant}")(**{"reward": "individual"} | options)


def placed(env, positions, **others):
    """The environment's state with these positions of three agents and three landmarks."""
    state, _ = env.reset(jax.random.key(0))
    return state.replace(p_pos=jnp.asarray(positions, float), **others)


def looped(positions, groups):
    """Every agent's reward: minus the way from its group's landmarks to the nearest member, minus its collisions."""
    agents, landmarks = positions[:3], positions[3:]
    rewards = np.zeros(3)
    for group in groups:
        for i in group:
            for landmark in group:
                rewards[i] -= min(np.hypot(*(agents[j] - landmarks[landmark])) for j in group)
            for j in group:
                if j != i and np.hypot(*(agents[i] - agents[j])) < 0.3:
                    rewards[i] -= 1
    return rewards


@pytest.mark.parametrize("variant", GROUPS)
@jax.enable_x64(True)
def test_rewards_are_those_of_the_groups(variant):
    env, team = made(variant), made(variant, reward="team")
    rng, collisions = np.random.default_rng(0), 0
    steps = [jax.jit(e.step) for e in (env, team)]
    for _ in range(40):
        state = placed(env, rng.uniform(-0.4, 0.4, (6, 2)))
        action = jnp.asarray(rng.integers(0, 5, (3, 1)), float)
        after, shown = steps[0](jax.random.key(0), state, action)
        expected = looped(np.asarray(after.p_pos), GROUPS[variant])
        np.testing.assert_allclose(shown.reward, expected, atol=1e-12)
        _, shared = steps[1](jax.random.key(0), state, action)
        np.testing.assert_allclose(shared.reward, np.full(3, expected.sum()), atol=1e-12)
        collisions += int(sum(looped(np.asarray(after.p_pos), GROUPS[variant]) < -2))
    assert variant == "sep" or collisions > 0


@jax.enable_x64(True)
def test_the_whole_team_is_simple_spread_with_twice_its_rewards():
    ours, usual = made("ful"), simple_spread(reward="individual")
    for seed in range(3):
        states = [env.reset(jax.random.key(seed)) for env in (ours, usual)]
        np.testing.assert_array_equal(states[0][1].observation, states[1][1].observation)
        first, second = (state for state, _ in states)
        first, second = (state.replace(p_pos=state.p_pos * 0.3) for state in (first, second))  # so that agents collide
        for t in range(25):
            action = jax.random.randint(jax.random.key(100 * seed + t), (3, 1), 0, 5).astype(float)
            (first, one), (second, other) = (
                jax.jit(env.step)(jax.random.key(0), state, action) for env, state in ((ours, first), (usual, second))
            )
            np.testing.assert_array_equal(one.observation, other.observation)
            np.testing.assert_allclose(one.reward, 2 * other.reward, atol=1e-12)
            assert bool(one.truncated) == bool(other.truncated) == (t == 24)


@pytest.mark.parametrize("variant", GROUPS)
def test_only_agents_of_a_group_push_and_reward_each_other(variant):
    """All three overlap. Agent j's move and place matter to agent i if and only if they are in a group."""
    env = made(variant)
    together = {(i, j) for group in GROUPS[variant] for i in group for j in group}
    positions = np.array([[0, 0], [0.1, 0.05], [-0.08, 0.1], [0.5, 0], [0, 0.6], [-0.7, 0.1]])
    for j in range(3):
        moved = positions.copy()
        moved[j] += [0.03, -0.02]
        steps = []
        for places in (positions, moved):
            after, shown = env.step(jax.random.key(0), placed(env, places), jnp.zeros((3, 1)))
            steps.append(np.column_stack([after.p_pos[:3], after.p_vel[:3], shown.reward]))
        for i in set(range(3)) - {j}:
            same = np.array_equal(steps[0][i], steps[1][i])
            assert same == ((i, j) not in together), (i, j)


def test_they_are_found_by_name():
    for variant in GROUPS:
        spec = hajax.make_env(f"mpe/spread_3_{variant}", actions="continuous").spec
        assert (spec.name, spec.num_agents, spec.max_steps) == (f"mpe/spread_3_{variant}", 3, 25)
    with pytest.raises(ValueError, match="actions='both'; allowed: discrete, continuous"):
        made("sep", actions="both")
