"""Rover-Tower, written again as loops over pairs, and a team that solves it.

`rover_tower` was also compared with its public code once: 5,000 steps, of which half lead rovers to their goals, differ
by at most 2e-15 in observations and rewards.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

import hajax
from hajax.envs.rover_tower import rover_tower

PUSH = {0: (0, 0), 1: (-1, 0), 2: (1, 0), 3: (0, -1), 4: (0, 1)}


def one_hot(index, size):
    return [float(i == index) for i in range(size)]


class Looped:
    """The task from its description, a pair at a time."""

    def __init__(self, state):
        self.rover, self.velocity = np.array(state.rover), np.zeros((4, 2))
        self.landmark, self.goal = np.array(state.landmark), np.array(state.goal)
        self.rover_of, self.message = np.array(state.rover_of), [None] * 4

    def observations(self):
        seen = []
        for i in range(4):
            tower = list(self.rover_of).index(i)
            heard = [0.0] * 5 if self.message[tower] is None else one_hot(self.message[tower], 5)
            seen.append([*one_hot(tower, 4), *heard, *self.rover[i], *self.velocity[i]])
        for k in range(4):
            i = self.rover_of[k]
            seen.append([*one_hot(i, 4), *self.rover[i], *self.landmark[self.goal[k]]] + [0.0] * 5)
        return np.array(seen)

    def step(self, action):
        rewards = np.zeros(8)
        for i in range(4):
            self.velocity[i] = 0.75 * self.velocity[i] + 0.225 * np.array(PUSH[action[i]])
            speed = np.hypot(*self.velocity[i])
            if speed > 1:
                self.velocity[i] /= speed
            self.rover[i] += 0.1 * self.velocity[i]
        self.message = list(action[4:])
        for k in range(4):
            i = self.rover_of[k]
            away = np.sum((self.rover[i] - self.landmark[self.goal[k]]) ** 2)
            rewards[i] = rewards[4 + k] = (10 if away < 0.1725 else 0) - away
        return rewards


def led(state):
    """Moves of the rovers toward their goals."""
    moves = np.zeros(8, int)
    for k in range(4):
        i = int(state.rover_of[k])
        dx, dy = np.array(state.landmark[int(state.goal[k])]) - np.array(state.rover[i])
        moves[i] = (2 if dx > 0 else 1) if abs(dx) > abs(dy) else (4 if dy > 0 else 3)
    return moves


@jax.enable_x64(True)
def test_every_step_is_that_of_the_description():
    env, team = rover_tower(reward="individual"), rover_tower()
    rng, bonus, fast = np.random.default_rng(0), 0, 0
    for episode in range(6):
        state, ts = jax.jit(env.reset)(jax.random.key(episode))
        looped = Looped(state)
        np.testing.assert_allclose(ts.observation, looped.observations(), atol=1e-12)
        for t in range(25):
            action = rng.integers(0, 5, 8) if episode % 2 else led(state)
            arguments = jax.random.key(0), state, jnp.asarray(action, float)[:, None]
            _, shared = jax.jit(team.step)(*arguments)
            state, ts = jax.jit(env.step)(*arguments)
            rewards = looped.step(action)
            np.testing.assert_allclose(ts.observation, looped.observations(), atol=1e-12)
            np.testing.assert_allclose(ts.reward, rewards, atol=1e-12)
            np.testing.assert_allclose(shared.reward, np.full(8, rewards.sum()), atol=1e-11)
            assert bool(ts.truncated) == (t == 24)
            assert not ts.terminated
            bonus, fast = bonus + (rewards > 5).sum(), max(fast, np.hypot(*looped.velocity.T).max())
    assert bonus > 100
    assert fast > 0.85


def test_pairs_goals_and_places_are_drawn_anew():
    states = jax.vmap(lambda key: rover_tower().reset(key)[0])(jax.random.split(jax.random.key(0), 3000))
    pairs, counts = np.unique(np.asarray(states.rover_of), axis=0, return_counts=True)
    assert len(pairs) == 24
    assert counts.min() > 80  # 125 on average, with a standard deviation of 11
    goals = np.bincount(np.asarray(states.goal).ravel(), minlength=6)
    assert goals.min() > 1800  # of 2,000
    for places in (states.rover, states.landmark, states.tower):
        assert abs(float(places.mean())) < 0.03
        assert float(places.var()) == pytest.approx(1 / 3, rel=0.03)


def test_messages_can_lead_the_rovers():
    """Towers say where to go, rovers obey: nearly the best that can be had, and random play is far from it."""
    env = rover_tower(reward="individual")

    def episode(key, sensible):
        def step(carry, key):
            state, heard = carry
            random = jax.random.randint(key, (8,), 0, 5)
            offset = state.landmark[state.goal] - state.rover[state.rover_of]
            along_x, forward = jnp.abs(offset[:, 0]) > jnp.abs(offset[:, 1]), offset > 0
            said = jnp.where(along_x, 1 + forward[:, 0], 3 + forward[:, 1])
            action = jnp.where(sensible, jnp.concatenate([heard[jnp.argsort(state.rover_of)], said]), random)
            state, ts = env.step(key, state, action[:, None].astype(float))
            return (state, said), ts.reward.mean()

        state, _ = env.reset(key)
        return jax.lax.scan(step, (state, jnp.zeros(4, int)), jax.random.split(key, 25))[1].sum()

    keys = jax.random.split(jax.random.key(1), 200)
    sensible, random = (float(jax.vmap(episode, (0, None))(keys, on).mean()) for on in (True, False))
    assert sensible > 110
    assert random < 30


def test_the_picture_has_the_pairs_in_their_colors():
    env = hajax.make_env("mpe/rover_tower")
    state, ts = env.reset(jax.random.key(0))
    state = state._replace(
        rover=jnp.array([[0.0, 0.0], [3.0, 0.5], [0.5, 0.5], [-0.5, 0.2]]),
        landmark=state.landmark.at[:].set(jnp.array([0.8, -0.8])).at[0].set(jnp.array([0.1, 0.1])),
        goal=jnp.where(state.rover_of == 0, 0, 1),
    )
    axes = Figure().add_subplot()
    env.viewer.draw(axes, state, np.full((8, 1), 3.0), ts)
    found = {patch.get_label(): patch for patch in axes.patches}
    for k, i in enumerate(np.asarray(state.rover_of)):
        assert found[f"tower_{k}"].get_facecolor() == found[f"rover_{i}"].get_facecolor()
        assert found[f"goal of rover_{i}"].get_edgecolor() == found[f"rover_{i}"].get_facecolor()
    assert axes.get_xlim() == (-2, 2)
    assert found["rover_1"].center == pytest.approx((1.92, 0.5))
    assert [patch.get_label() for patch in axes.patches].count("lit") == 1


def test_options_are_checked():
    with pytest.raises(ValueError, match="reward='all'; allowed: team, individual"):
        rover_tower(reward="all")
    with pytest.raises(ValueError, match="max_steps=0; allowed"):
        rover_tower(max_steps=0)
