"""Pursuit against PettingZoo's, step by step from the same cells and with the same moves of evaders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pettingzoo.sisl import pursuit_v5

import hajax
from hajax.envs.pursuit import MOVES, building_of, pursuit

# In the small ones, random play catches evaders.
CASES = {
    "default": {},
    "caught": {"num_agents": 7, "num_evaders": 4, "x_size": 6, "y_size": 6},
    "own rewards": {"num_agents": 7, "num_evaders": 5, "x_size": 7, "y_size": 6, "shared_reward": False},
    "in one cell": {"surround": False, "num_agents": 7, "num_evaders": 4, "x_size": 7, "y_size": 6, "obs_range": 5},
    "frozen": {"freeze_evaders": True, "num_agents": 6, "num_evaders": 3, "x_size": 6, "y_size": 5},
}
THEIRS = {"num_agents": "n_pursuers", "num_evaders": "n_evaders", "max_steps": "max_cycles"}


class Scripted:
    """An evader controller that takes given moves."""

    def __init__(self):
        self.moves = []

    def act(self, state):
        return self.moves.pop(0)


def theirs(state, options):
    """PettingZoo's environment in our state at the start of an episode."""
    script = Scripted()
    named = {THEIRS.get(name, name): value for name, value in options.items() if name != "freeze_evaders"}
    env = pursuit_v5.parallel_env(**named, evader_controller=script)
    env.reset(seed=0)
    game = env.aec_env.unwrapped.env
    for layer, cells in ((game.pursuer_layer, state.pursuers), (game.evader_layer, state.evaders)):
        for i, cell in enumerate(np.asarray(cells)):
            layer.set_position(i, *cell)
    game.model_state[1] = game.pursuer_layer.get_state_matrix()
    game.model_state[2] = game.evader_layer.get_state_matrix()
    return env, game, script


@pytest.mark.parametrize("episodes", [3, pytest.param(20, marks=pytest.mark.evidence)])
@pytest.mark.parametrize("case", CASES)
def test_every_step_is_pettingzoo_s(case, episodes):
    """Observations, states, rewards and ends of whole episodes with random actions."""
    options = {"max_steps": 100} | CASES[case]
    env = pursuit(reward="individual", **options)
    reset, step = jax.jit(env.reset), jax.jit(env.step)
    rng, caught, ends = np.random.default_rng(0), 0, []
    names = [agent.name for agent in env.spec.agents]
    for episode in range(episodes):
        state, ts = reset(jax.random.key(episode))
        other, game, script = theirs(state, options)
        assert other.possible_agents == names
        for t in range(options["max_steps"]):
            action = rng.integers(5, size=len(names))
            key = jax.random.key(1000 * episode + t)
            before = np.asarray(state.free)
            state, ts = step(key, state, jnp.asarray(action)[:, None])
            free, moves = np.asarray(state.free), np.asarray(jax.random.randint(key, before.shape, 0, 5))
            script.moves = [4] * free.sum() if options.get("freeze_evaders") else moves[free].tolist()
            shown, reward, terminated, truncated, _ = other.step(dict(zip(names, action, strict=True)))
            caught += before.sum() - free.sum()
            assert game.evader_layer.n_agents() == free.sum()
            assert not script.moves
            np.testing.assert_array_equal(ts.observation, [shown[name].ravel() for name in names])
            np.testing.assert_array_equal(ts.state, game.state().ravel())
            np.testing.assert_allclose(ts.reward, [reward[name] for name in names], atol=1e-5)
            over = bool(terminated[names[0]]), bool(truncated[names[0]])
            # All caught in the last step is an end of the game here and a cut by the time limit there.
            assert (bool(ts.terminated), bool(ts.truncated)) == ((True, False) if not free.any() else over)
            if any(over):
                ends.append(over)
                break
    assert len(ends) == episodes
    assert case == "default" or caught >= episodes


@pytest.mark.parametrize("window", [1.0, 0.7])
def test_all_begin_apart_in_the_window(window):
    """Neither pursuers nor evaders are next to each other. Coordinates are distributed as PettingZoo's."""
    reset = jax.jit(jax.vmap(pursuit(constraint_window=window, num_evaders=8).reset))
    state, _ = reset(jax.random.split(jax.random.key(0), 2000))
    building = building_of(16, 16)
    for cells in (np.asarray(state.pursuers), np.asarray(state.evaders)):
        assert not building[cells[..., 0], cells[..., 1]].any()
        apart = np.abs(cells[:, :, None] - cells[:, None]).sum(-1) + 9 * np.eye(cells.shape[1], dtype=int)
        assert (apart > 1).all()
        assert (np.ptp(cells, axis=1) < np.ceil(16 * window)).all()
    other = pursuit_v5.parallel_env(constraint_window=window, n_evaders=8).aec_env.unwrapped.env
    drawn = []
    for seed in range(500):
        other._seed(seed)
        other.reset()
        drawn.append([agent.current_position().copy() for agent in other.pursuers])
    share = [np.bincount(np.ravel(x), minlength=16) / np.size(x) for x in (state.pursuers, drawn)]
    np.testing.assert_allclose(*share, atol=0.02)


def test_moves_and_options():
    assert MOVES.tolist() == [[-1, 0], [1, 0], [0, 1], [0, -1], [0, 0]]
    for options, message in (
        ({"obs_range": 4}, "obs_range=4; allowed: an odd number"),
        ({"constraint_window": 0.01}, r"constraint_window=0\.01; allowed: at least one cell"),
        ({"num_evaders": 0}, "num_evaders=0; allowed: a whole number >= 1"),
        ({"surround": "no"}, "surround='no'; allowed: true, false"),
        ({"tag_reward": np.nan}, "tag_reward=nan; allowed: a"),
    ):
        with pytest.raises(ValueError, match=message):
            hajax.make_env("sisl/pursuit", **options)
