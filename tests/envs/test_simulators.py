"""Simulators of PettingZoo and Gymnasium: equal to driving them directly, their faults, and their worker processes."""

from __future__ import annotations

import functools
import logging
import os
import re
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from driven import play_both
from harbor import Harbor, harbor

import hajax
from hajax.envs import make_env
from hajax.envs.base import OverlappedStep
from hajax.envs.simulators import make_named
from hajax.envs.simulators.interface import SimulatorError
from hajax.envs.simulators.pool import MOST_FAILURES, Pool
from hajax.envs.simulators.team import describe, episode_seed
from hajax.envs.simulators.workers import Task
from hajax.training.rollout import count_episodes, playable, rollout, start

# What is compared at length in `make test-evidence`.
FOREIGN = {
    "gymnasium/CartPole-v1": {},
    "gymnasium/Pendulum-v1": {},
    "gymnasium/FrozenLake-v1": {},
    "gymnasium/Blackjack-v1": {},
    "mpe2/simple_spread_v3": {},
    "mpe2/simple_world_comm_v3": {},
    "pettingzoo/multiwalker_v9": {"max_cycles": 30},
    "pettingzoo/pursuit_v5": {"n_pursuers": 4, "n_evaders": 6, "max_cycles": 20},
    "pettingzoo/knights_archers_zombies_v11": {"max_cycles": 40},
    "pettingzoo/tictactoe_v3": {},
    "pettingzoo/connect_four_v3": {},
    "pettingzoo/rps_v2": {},
}

# What `benchmarks/foreign.py` trains, as it does.
TRAINED = (
    "pettingzoo/multiwalker_v9",
    "pettingzoo/pursuit_v5",
    "pettingzoo/knights_archers_zombies_v11",
    "mpe2/simple_spread_v3",
    "mpe2/simple_tag_v3",
    "pettingzoo/tictactoe_v3",
    "gymnasium/CartPole-v1",
    "gymnasium/Pendulum-v1",
    "gymnasium_robotics Ant 4x2",
)


def make_trained(name: str):
    if name == "gymnasium_robotics Ant 4x2":
        from gymnasium_robotics import mamujoco_v1

        return mamujoco_v1.parallel_env("Ant", "4x2")
    return make_named(name)


def pool(n: int, num_workers: int, timeout: float = 60.0, **options) -> Pool:
    make = functools.partial(harbor, **options)
    return Pool(Task(make, describe("harbor", harbor(), reward="individual"), num_workers, timeout), n, np.float64)


def actions(n: int) -> np.ndarray:
    return np.tile(np.array([[0, 0], [1, 2], [0.5, 1.5]]), (n, 1, 1))


class TestEqualToDirect:
    @pytest.mark.parametrize("reward", ["team", "individual"])
    def test_different_agents_that_leave_and_come_back(self, reward):
        env = make_env("harbor:harbor", num_workers=0, reward=reward)
        with jax.enable_x64(True):
            assert play_both(env, harbor, copies=3, steps=60, tolerance=1e-12) > 10

    @pytest.mark.parametrize("name", ["gymnasium/CartPole-v1", "pettingzoo/multiwalker_v9", "pettingzoo/tictactoe_v3"])
    def test_foreign(self, name):
        kwargs = FOREIGN[name]
        env = make_env(name, kwargs=kwargs, reward="individual", num_workers=0)
        assert play_both(env, functools.partial(make_named, name, **kwargs), copies=2, steps=70, tolerance=1e-5) >= 2

    @pytest.mark.evidence
    @pytest.mark.parametrize("name", FOREIGN)
    def test_foreign_at_length(self, name):
        kwargs = FOREIGN[name]
        env = make_env(name, kwargs=kwargs, reward="individual", num_workers=2)
        ended = play_both(env, functools.partial(make_named, name, **kwargs), copies=3, steps=300, tolerance=1e-5)
        assert ended >= 3
        env.host.close()

    @pytest.mark.evidence
    @pytest.mark.parametrize("name", TRAINED)
    def test_ten_thousand_steps_of_those_that_are_trained(self, name):
        make = functools.partial(make_trained, name)
        env = make_env(make, reward="individual", num_workers=2)
        assert play_both(env, make, copies=10, steps=1000, tolerance=1e-5) >= 10
        env.host.close()

    def test_limit_and_state_of_ones_own(self):
        env = make_env(Harbor, num_workers=0, state="observations", max_steps=6)
        assert (env.spec.max_steps, env.spec.state_size, env.spec.state_from_observations) == (6, 10, True)
        assert play_both(env, Harbor, copies=2, steps=30) > 8

    def test_processes_and_one_simulator_as_a_model(self):
        env = make_env(Harbor(), num_workers=2, metrics=["cranes_idle"])
        assert play_both(env, harbor, copies=5, steps=40) > 10
        env.host.close()

    @pytest.mark.parametrize("reward", ["team", "individual"])
    def test_joint_reward_counts_once(self, reward):
        from mpe2 import simple_spread_v3

        def together():
            return simple_spread_v3.parallel_env(local_ratio=0.0)  # all agents get the same reward

        keys, action = jax.random.split(jax.random.key(0), 2), jnp.ones((2, 3, 1))
        found = {}
        for joint in (False, True):
            env = make_env(together, num_workers=0, joint_reward=joint, reward=reward)
            found[joint] = env.step(keys, env.reset(keys)[0], action)[1].reward
        np.testing.assert_allclose(found[True], found[False] / 3, rtol=1e-6)
        env = make_env(Harbor, num_workers=0, joint_reward=True)
        with pytest.raises(
            Exception, match=r"Harbor: rewards are .*; allowed: with joint_reward=True, the same reward"
        ):
            jax.block_until_ready(env.step(keys, env.reset(keys)[0], jnp.zeros((2, 3, 2))))

    @pytest.mark.parametrize("options", [{"length": 4}, {"kwargs": {"length": 4}}, {"kwargs": {}, "length": 4}])
    @pytest.mark.parametrize("name", ["Harbor", "any_harbor"])
    def test_options_of_a_function_also_come_as_kwargs_from_the_shell(self, name, options):
        assert make_env(f"harbor:{name}", num_workers=0, **options).spec.max_steps == 4

    def test_specification(self):
        spec = make_env("harbor:harbor", num_workers=0).spec
        assert [agent.name for agent in spec.agents] == ["tug", "crane", "pilot"]
        assert [agent.observation_shape for agent in spec.agents] == [(2,), (4,), (2, 2)]
        assert (spec.max_steps, spec.state_size, spec.masks_actions) == (9, 4, True)
        assert make_env("gymnasium/CartPole-v1", num_workers=0).spec.max_steps == 500


class TestPrograms:
    """Callbacks in compiled programs, which may be vmapped and run again."""

    def test_vmapped_seeds_are_those_alone(self):
        env = make_env("harbor:harbor", num_workers=0)

        def play(key):
            state, timestep = env.reset(jax.random.split(key, 3))

            def step(carry, _):
                state, _ = carry
                action = jnp.ones((3, 3, 2)) * jax.random.uniform(key)
                state, timestep = env.step(jax.random.split(key, 3), state, action)
                return (state, timestep), timestep

            return jax.lax.scan(step, (state, timestep), None, 20)[1]

        keys = jax.random.split(jax.random.key(0), 4)
        together, alone = jax.jit(jax.vmap(play))(keys), jax.jit(play)
        for k in range(4):
            one = jax.tree.map(lambda x, k=k: x[k], together)
            jax.tree.map(np.testing.assert_array_equal, one, alone(keys[k]))
        nested = jax.jit(jax.vmap(jax.vmap(play)))(keys.reshape(2, 2))
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a.reshape(b.shape), b), nested, together)

    def test_resets_equal_episodes(self):
        env = make_env(Harbor, num_workers=0)
        state, _ = env.reset(jax.random.split(jax.random.key(0), 4))
        step, ended = jax.jit(env.step), 0
        for _ in range(30):
            state, timestep = step(jax.random.split(jax.random.key(0), 4), state, jnp.zeros((4, 3, 2)))
            ended += int((timestep.terminated | timestep.truncated).sum())
        (batch,) = env.host.batches.values()
        assert sum(copy.env.episodes for copy in batch.pool.share.copies.values()) == ended + 4

    def test_rollout_whose_halves_overlap_is_a_rollout(self, monkeypatch):
        """It is the rollout without overlap; its actions lead to its steps; its statistics count episodes that end."""
        env, plain = make_env("harbor:harbor", num_workers=2), make_env("harbor:harbor", num_workers=0)
        algo = hajax.make_algorithm("happo", env, memory="gru", chunk_length=4, actor_lr=1e-12, epochs=1, minibatches=1)
        keys = jax.random.split(jax.random.key(0), 2)

        def play(key):
            state, envs = algo.init(key), playable(env, algo)
            begun = start(envs, algo, key, 6)
            after, one = rollout(envs, algo, jax.random.key(1), state, begun, 12)
            end, two = rollout(envs, algo, jax.random.key(2), state, after, 16)
            return begun, after, end, one, two, algo.update(key, state, two)[1]

        played = {}
        for num_cores in (1, 3):
            monkeypatch.setattr("hajax.envs.simulators.bridge.cores", lambda n=num_cores: n)
            assert playable(env, algo).step.is_faster(6) == (num_cores == 3)
            played[num_cores] = jax.jit(jax.vmap(lambda key: play(key)))(keys)
        np.testing.assert_array_equal(played[1][3].action, played[3][3].action)
        np.testing.assert_array_equal(played[1][4].observation, played[3][4].observation)
        assert not isinstance(playable(plain, algo).step, OverlappedStep)

        @jax.jit
        @jax.vmap
        def again(key, actions):
            envs = playable(plain, algo)
            begun = start(envs, algo, key, 6)

            def step(carry, action):
                state, seen, episodes = carry
                state, timestep = envs.step(jax.random.split(key, 6), state, action)
                episodes = count_episodes(env.spec, episodes, timestep)
                return (state, timestep, episodes), (seen, timestep)

            (_, last, episodes), steps = jax.lax.scan(step, (begun.env_state, begun.timestep, begun.episodes), actions)
            return last, episodes, *steps

        begun, after, end, one, two, info = played[3]
        batch = jax.tree.map(lambda x, y: jnp.concatenate([x, y], 1), one._replace(memory=()), two._replace(memory=()))
        last, episodes, seen, following = again(keys, batch.action)
        assert batch.first.sum() > 30
        for name in ("observation", "state", "action_mask", "active", "first"):
            np.testing.assert_array_equal(getattr(batch, name), getattr(seen, name), name)
        for name in ("reward", "terminated", "truncated"):
            np.testing.assert_array_equal(getattr(batch, name), getattr(following, name), name)
        for name in ("observation", "state", "active"):
            np.testing.assert_array_equal(getattr(batch, f"final_{name}"), getattr(following.final, name), name)
        jax.tree.map(np.testing.assert_array_equal, end.timestep, last)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), end.episodes, episodes)
        jax.tree.map(np.testing.assert_array_equal, (one.memory, two.memory), (begun.memory, after.memory))
        # The log-probabilities are those of the actions with the memory that the actors had.
        np.testing.assert_allclose(info["approx_kl"], 0, atol=1e-6)
        env.host.close()

    def test_loop_over_rollouts_of_several_lengths_steps_those_that_go_on(self, monkeypatch):
        monkeypatch.setattr("hajax.envs.simulators.bridge.cores", lambda: 3)
        env = make_env("harbor:harbor", num_workers=1)
        algo = hajax.make_algorithm("happo", env)

        def play(key, rounds):
            state, envs = algo.init(key), playable(env, algo)

            def again(carry):
                actors, done = carry
                return rollout(envs, algo, jax.random.key(1), state, actors, 3)[0], done + 1

            return jax.lax.while_loop(lambda carry: carry[1] < rounds, again, (start(envs, algo, key, 2), 0))[0]

        keys, rounds = jax.random.split(jax.random.key(0), 2), jnp.array([2, 5])
        actors = jax.jit(jax.vmap(play))(keys, rounds)
        (batch,) = env.host.batches.values()
        np.testing.assert_array_equal(batch.steps, [9, 9, 15, 15])  # the round whose result is not used, once
        np.testing.assert_array_equal(actors.env_state.ticket[..., 2], [[6, 6], [15, 15]])
        env.host.close()

    def test_resumed_states_are_the_same_or_none(self, caplog):
        """Also in double precision; what is too long, or another simulator's, is refused with its reason."""
        env = make_env("harbor:harbor", num_workers=1)
        keys = jax.random.split(jax.random.key(0), 3)
        for x64 in (False, True):
            with jax.enable_x64(x64):
                step = jax.jit(env.step)
                state, timestep = jax.jit(env.reset)(keys)
                for _ in range(14):
                    state, timestep = step(keys, state, jnp.ones((3, 3, 2)))
                again = env.host.resumed(state, timestep)
                assert again.past is state.past
                expected, found = (step(keys, one, jnp.ones((3, 3, 2)))[1] for one in (state, again))
                jax.tree.map(np.testing.assert_array_equal, expected, found)
        with caplog.at_level(logging.WARNING, "hajax.simulators"):
            long = again._replace(past=again.past._replace(step=again.past.step + 9))
            assert env.host.resumed(long, timestep) is None
            assert env.host.resumed(again, timestep._replace(state=timestep.state + 1)) is None
        assert "steps long, of which 9 are kept): new ones begin" in caplog.messages[0]
        assert "the same actions led to another state" in caplog.messages[1]
        env.host.close()

    def test_state_is_used_once(self):
        env = make_env(Harbor, num_workers=0)
        keys, still = jax.random.split(jax.random.key(0), 2), jnp.zeros((2, 3, 2))
        opening, _ = env.reset(keys)
        _, once = env.step(keys, opening, still)
        _, again = env.step(keys, opening, still)  # the same call, as XLA may repeat it
        jax.tree.map(np.testing.assert_array_equal, once, again)
        with pytest.raises(Exception, match="stepped before; a simulator cannot go back"):
            jax.block_until_ready(env.step(keys, opening, still + 1))
        state, _ = env.reset(keys)
        with pytest.raises(Exception, match="stepped twice, as by vmap over hyperparameters but not over keys"):
            jax.block_until_ready(jax.vmap(lambda share: env.step(keys, state, still + share)[1].reward)(jnp.arange(2)))

    def test_later_reset_of_one_program_ends_its_episodes(self):
        env = make_env(Harbor, num_workers=0)
        keys, still = jax.random.split(jax.random.key(0), 2), jnp.zeros((2, 3, 2))
        reset = jax.jit(env.reset)
        first, _ = reset(keys)
        other, _ = jax.jit(lambda keys: env.reset(keys))(keys)  # another program: other copies
        jax.block_until_ready(env.step(keys, first, still))
        reset(keys)
        jax.block_until_ready(env.step(keys, other, still))
        with pytest.raises(Exception, match="ended by a later reset of the same program"):
            jax.block_until_ready(env.step(keys, first, still))

    def test_a_loop_over_seeds_stops_to_step_those_that_have_ended(self):
        """A vmapped loop runs until all have ended, and discards what follows in those that ended before."""
        env = make_env(Harbor, num_workers=0)

        def length(key):
            def going_on(carry):
                return ~(carry[1].terminated | carry[1].truncated).any()

            def step(carry):
                state, _, steps = carry
                return *env.step(key[None], state, jnp.zeros((1, 3, 2))), steps + 1

            return jax.lax.while_loop(going_on, step, (*env.reset(key[None]), 0))[2]

        lengths = jax.jit(jax.vmap(length))(jax.random.split(jax.random.key(3), 5))
        assert lengths.min() + 2 < lengths.max() == 9
        (batch,) = env.host.batches.values()
        np.testing.assert_array_equal(batch.steps, np.minimum(lengths + 1, 9))

    def test_steps_of_one_program_are_in_order_even_if_nothing_of_them_is_used(self):
        env = make_env(Harbor, num_workers=0)
        keys, still = jax.random.split(jax.random.key(0), 2), jnp.zeros((2, 3, 2))

        def skip(state, _):
            return env.step(keys, state, still)[0], None

        @jax.jit
        def play(keys):
            state, _ = jax.lax.scan(skip, env.reset(keys)[0], None, 4)
            return env.step(keys, state, still)[1]

        (batch,) = (play(keys), env.host.batches.values())[1]
        np.testing.assert_array_equal(batch.steps, 5)

    def test_after_a_failed_step_nothing_is_taken_for_its_result(self):
        env = make_env("harbor:harbor", fault="nan", num_workers=0)
        keys, still = jax.random.split(jax.random.key(0), 1), jnp.zeros((1, 3, 2))
        state, _ = env.reset(keys)
        for _ in range(2):
            state, _ = env.step(keys, state, still)
        for message in ("observation of pilot is nan", "these simulators failed before; allowed: a new reset"):
            with pytest.raises(Exception, match=message):
                jax.block_until_ready(env.step(keys, state, still))

    def test_reset_after_close(self):
        env = make_env(Harbor, num_workers=1)
        reset, keys = jax.jit(env.reset), jax.random.split(jax.random.key(0), 1)
        for _ in range(2):
            jax.block_until_ready(reset(keys))
            env.host.close()

    def test_action_that_is_not_finite_is_no_fault_of_the_simulator(self):
        env = make_env("gymnasium/Pendulum-v1", num_workers=0)
        keys = jax.random.split(jax.random.key(0), 2)
        _, timestep = env.step(keys, env.reset(keys)[0], jnp.full((2, 1, 1), jnp.nan))
        assert np.isfinite(timestep.observation).all()

    def test_turns_that_are_cut(self):
        """Whoever is not on turn has an empty mask when a board game is cut."""
        env = make_env("pettingzoo/tictactoe_v3", num_workers=0, max_steps=3, reward="individual")
        assert play_both(env, functools.partial(make_named, "pettingzoo/tictactoe_v3"), copies=2, steps=12) == 8

    def test_fails_with_the_simulators_error_last(self):
        env = make_env("harbor:harbor", fault="raises", num_workers=0)
        keys = jax.random.split(jax.random.key(0), 1)

        def play():
            state, _ = env.reset(keys)
            for _ in range(40):
                state, timestep = env.step(keys, state, jnp.zeros((1, 3, 2)))
                jax.block_until_ready(timestep)

        with pytest.raises(jax.errors.JaxRuntimeError) as caught:
            play()
        last = str(caught.value).strip().splitlines()[-1]
        assert (
            last
            == "SimulatorError: harbor:harbor: copy 0 raised RuntimeError at step 2 of episode 2: the crane is stuck"
        )
        assert "harbor.py" in env.host.fault.details

    def test_pictures(self):
        env = make_env("harbor:harbor", num_workers=0).host.with_frames()
        keys = jax.random.split(jax.random.key(0), 2)
        state, _ = env.reset(keys)
        assert state.frame.shape == (2, 40, 60, 3)
        assert not np.any(state.frame)
        state, _ = env.step(keys, state, jnp.zeros((2, 3, 2)))
        assert np.all(state.frame[:, :, :6] == 255)
        with pytest.raises(ValueError, match="render_mode='rgb_array'"):
            make_env(Harbor(), num_workers=0).host.with_frames()


FAULTS = {
    "nan": "harbor: observation of pilot is nan at step 3 of episode 1; allowed: finite numbers",
    "infinite reward": "harbor: reward of pilot is inf at step 3 of episode 1; allowed: finite numbers",
    "missing reward": "harbor: rewards lacks tug at step 3 of episode 1; allowed: every agent that acted",
    "missing observation": "harbor: observations lacks tug at step 3 of episode 1; allowed: every agent in `agents`",
    "shape": r"harbor: observation of pilot has 3 entries at step 3 .*; allowed: its space, Box\(",
    "no choice": "harbor: action_mask of tug leaves no choice at step 3 .*; allowed: at least one that is available",
    "spaces change": "harbor: action_space of crane changed from MultiDiscrete.* to MultiDiscrete.*; allowed: the same",
    "four values": "harbor: step returned 4 values; allowed: .observations, rewards, terminations, truncations, infos",
    "raises": "harbor: copy 0 raised RuntimeError at step 2 of episode 2: the crane is stuck",
}


class TestFaults:
    @pytest.mark.parametrize("fault", FAULTS)
    def test_one_line_names_agent_and_field(self, fault):
        broken = pool(1, 0, fault=fault)
        broken.reset(np.array([3]))
        with pytest.raises(SimulatorError, match=FAULTS[fault]) as caught:
            _ = [broken.step(actions(1)) for _ in range(40)]
        assert "\n" not in str(caught.value)
        assert "Traceback" in caught.value.details

    def test_outside_of_its_space_is_a_warning_once(self, caplog):
        outside = pool(2, 0, fault="outside")
        outside.reset(np.arange(2))
        with caplog.at_level(logging.WARNING, "hajax.simulators"):
            for _ in range(40):
                outside.step(actions(2))
        expected = r"harbor: observation of pilot is \d+ in entry 1, outside of its space, which allows -9 to 9"
        assert [re.fullmatch(expected, record.message) is not None for record in caplog.records] == [True]

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            (
                "harbor:old_harbor",
                {},
                r"harbor:old_harbor: .*unexpected keyword argument 'seed'; allowed: reset\(seed=…\)",
            ),
            (
                "harbor:harbor",
                {"fault": "no agents"},
                "possible_agents of harbor:harbor is empty; allowed: at least one",
            ),
            ("harbor:harbor", {"fualt": ""}, "unknown setting fualt='' of harbor:harbor; did you mean fault?"),
            ("harbor:harbor", {"num_workers": -1}, "num_workers=-1"),
            ("harbor:harbor", {"timeout": 0}, "timeout=0"),
            ("harbor:harbor", {"metrics": "win"}, "metrics='win'; allowed: a list of names"),
            ("gymnasium/CartPol-v1", {}, "did you mean gymnasium/CartPole-v1"),
            ("gymnasium/FrozenLake-v0", {}, "env=gymnasium/FrozenLake-v0: "),
            ("pettingzoo/pursuit_v4", {}, "env=pettingzoo/pursuit_v4 is unknown; did you mean pettingzoo/pursuit_v5"),
            ("pettingzoo/chess_v6", {}, "needs chess, which is not installed; pip install 'pettingzoo.classic.'"),
            (
                "pettingzoo/multiwalker_v9",
                {"kwargs": {"walkers": 2}},
                "kwargs={'walkers': 2} of pettingzoo/multi.*walkers",
            ),
            ("mpe/simple_spread", {"num_workers": 2}, "unknown setting num_workers=2 of mpe/simple_spread"),
        ],
    )
    def test_refused_before_anything_compiles(self, name, options, message):
        with pytest.raises((ValueError, SimulatorError), match=message):
            make_env(name, **options)

    def test_what_is_no_simulator(self):
        import gymnasium

        with pytest.raises(TypeError, match="name=3 is int; allowed: the name of an environment, a simulator of Pett"):
            make_env(3)
        vector = gymnasium.make_vec("CartPole-v1", 2)
        with pytest.raises(ValueError, match="makes a vector of environments; allowed: a ParallelEnv or AECEnv"):
            make_env(lambda: vector)
        with pytest.raises(TypeError, match="returned int; it must return an Environment, or a simulator"):
            make_env(lambda: 3)

    def test_missing_package(self, monkeypatch):
        monkeypatch.setattr("hajax.envs.simulators.find_spec", lambda name: None)
        with pytest.raises(
            ValueError, match=r"needs pettingzoo, which is not installed; pip install 'hajax\[simulators\]'"
        ):
            make_env("pettingzoo/multiwalker_v9")


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


class TestWorkers:
    def test_rows_do_not_depend_on_the_number_of_workers(self):
        every = []
        for num_workers in (0, 1, 3):
            one = pool(5, num_workers)
            rows = [one.reset(np.arange(5))]
            rows += [one.step(actions(5)) for _ in range(12)]
            rows += [one.step(actions(2), [1, 4])]
            every.append(np.concatenate(rows))
            one.close()
        np.testing.assert_array_equal(every[0], every[1])
        np.testing.assert_array_equal(every[0], every[2])

    def test_killed_worker_is_named_and_started_again(self, caplog):
        watched, undisturbed = pool(4, 2), pool(4, 0)
        watched.reset(np.arange(4))
        undisturbed.reset(np.arange(4))
        before = watched.step(actions(4))
        undisturbed.step(actions(4))
        victim = watched.workers[1].process
        os.kill(victim.pid, signal.SIGKILL)
        with caplog.at_level(logging.WARNING, "hajax.simulators"):
            rows = watched.step(actions(4))
        expected = (
            f"harbor: worker 1 (process {victim.pid}) was killed by SIGKILL; it is started again, and its 2 "
            "episodes are truncated"
        )
        assert [record.message for record in caplog.records] == [expected]
        np.testing.assert_array_equal(rows[::2], undisturbed.step(actions(4))[::2])  # of the other worker
        layout, fields = watched.task.layout, watched.task.layout.fields(rows[1::2])
        assert fields["truncated"].tolist() == [1, 1]
        assert fields["terminated"].tolist() == [0, 0]
        assert not fields["reward"].any()
        np.testing.assert_array_equal(rows[1::2, layout.final], before[1::2, layout.shown])  # what was seen last
        assert fields["state"].tolist() == [[0, 0, 0, 0]] * 2  # new episodes
        assert len({*fields["observation"][:, 2, 1], *before[:, layout.columns["observation"].place][:, 9]}) == 6
        pids = [worker.process.pid for worker in watched.workers]
        watched.close()
        assert all(gone(pid) for pid in pids)

    def test_halves_whose_steps_overlap_are_stepped_as_the_whole(self):
        overlapping, plain = pool(6, 2), pool(6, 0)
        for one in (overlapping, plain):
            one.reset(np.arange(6))
        overlapping.begin(actions(3), [0, 1, 2])
        for _ in range(12):
            overlapping.begin(actions(3), [3, 4, 5])
            first = overlapping.end()
            overlapping.begin(actions(3), [0, 1, 2])
            np.testing.assert_array_equal(np.concatenate([first, overlapping.end()]), plain.step(actions(6)))
        # A reset while a step is under way.
        np.testing.assert_array_equal(overlapping.reset(np.arange(1, 7)), plain.reset(np.arange(1, 7)))
        np.testing.assert_array_equal(overlapping.step(actions(6)), plain.step(actions(6)))
        overlapping.close()

    def test_failures_are_counted_while_steps_overlap(self):
        """What the other half showed when the worker failed is no episode that ended since."""
        watched = pool(4, 1, fault="always dies", at=2, after=0)
        watched.reset(np.arange(4))
        watched.begin(actions(2), [0, 1])

        def play():
            for half in [[2, 3], [0, 1]] * 10:
                watched.begin(actions(2), half)
                watched.end()

        with pytest.raises(SimulatorError, match="was killed by SIGKILL, after 2 other failures without an episode"):
            play()
        watched.close()

    def test_a_worker_that_is_killed_leads_to_the_next_episodes(self):
        """A seed and a number are the whole of an episode, before and after."""
        watched, other = pool(3, 1), pool(3, 0)
        watched.reset(np.arange(3))
        watched.step(actions(3))
        os.kill(watched.workers[0].process.pid, signal.SIGKILL)
        cut = watched.step(actions(3))
        layout = watched.task.layout
        opening = other.reset(np.arange(3), np.ones(3, int))
        np.testing.assert_array_equal(cut[:, layout.shown], opening[:, layout.shown])
        np.testing.assert_array_equal(watched.step(actions(3)), other.step(actions(3)))
        watched.close()

    def test_pictures_are_those_of_their_copies(self):
        moved, expected = [], []
        for num_workers, found in ((2, moved), (0, expected)):
            one = pool(4, num_workers, render_mode="rgb_array")
            one.reset(np.arange(4))
            for copies in ([1], [1, 2], [1, 2, 3]):
                one.step(actions(len(copies)), copies)
            found += [*one.frames()]
            one.close()
        assert len({picture.sum() for picture in expected}) == 4
        np.testing.assert_array_equal(moved, expected)

    @pytest.mark.parametrize("both_under_way", [True, False])
    def test_killed_worker_truncates_each_of_its_episodes_once_while_steps_overlap(self, both_under_way):
        watched, undisturbed = pool(4, 2), pool(4, 0)
        undisturbed.reset(np.arange(4))
        watched.reset(np.arange(4))
        layout, before = watched.task.layout, watched.step(actions(4))
        expected = [undisturbed.step(actions(4)) for _ in range(3)]
        os.kill(watched.workers[1].process.pid, signal.SIGKILL)
        watched.begin(actions(2), [0, 1])
        if both_under_way:
            watched.begin(actions(2), [2, 3])
            rows = np.concatenate([watched.end(), watched.end()])
        else:
            rows = np.concatenate([watched.end(), watched.step(actions(2), [2, 3])])
        following = watched.step(actions(4))
        watched.close()
        np.testing.assert_array_equal(rows[::2], expected[1][::2])  # of the other worker
        np.testing.assert_array_equal(following[::2], expected[2][::2])
        cut, after = layout.fields(rows[1::2]), layout.fields(following[1::2])
        assert cut["truncated"].tolist() == [1, 1]
        assert not cut["reward"].any()
        np.testing.assert_array_equal(rows[1::2, layout.final], before[1::2, layout.shown])
        assert cut["state"][:, 0].tolist() == [0, 0]
        assert after["truncated"].tolist() == [0, 0]
        assert after["state"][:, 0].tolist() == [1, 1]

    @pytest.mark.parametrize("fault", ["dies", "hangs"])
    def test_one_that_fails_in_a_step(self, fault, tmp_path, caplog):
        watched = pool(2, 1, timeout=5.0, fault=fault, marker=str(tmp_path / "marker"))
        watched.reset(np.arange(2))
        with caplog.at_level(logging.WARNING, "hajax.simulators"):
            for _ in range(20):
                watched.step(actions(2))
        (record,) = caplog.records
        how = "was killed by SIGKILL" if fault == "dies" else "did not answer for 5 s"
        assert how in record.message
        watched.close()

    def test_one_that_always_dies_ends_the_run(self, tmp_path):
        watched = pool(1, 1, fault="dies", at=1, marker=str(tmp_path / "nowhere" / "marker"))
        watched.task = watched.task._replace(make=None)
        watched.reset(np.arange(1))
        watched.packed = b"not a task"
        os.kill(watched.workers[0].process.pid, signal.SIGKILL)
        with pytest.raises(SimulatorError, match="a worker raised UnpicklingError"):
            watched.step(actions(1))
        watched.close()

    def test_failures_in_a_row_are_counted(self):
        watched = pool(1, 1)
        watched.reset(np.arange(1))
        for failure in range(MOST_FAILURES):
            os.kill(watched.workers[0].process.pid, signal.SIGKILL)
            if failure < MOST_FAILURES - 1:
                watched.step(actions(1))
                continue
            with pytest.raises(
                SimulatorError, match="was killed by SIGKILL, after 2 other failures without an episode"
            ):
                watched.step(actions(1))
        watched.close()

    def test_workers_ignore_ctrl_c_and_end_with_their_parent(self):
        watched = pool(2, 2)
        watched.reset(np.arange(2))
        for worker in watched.workers:
            os.kill(worker.process.pid, signal.SIGINT)
        watched.step(actions(2))
        pids = [worker.process.pid for worker in watched.workers]
        began = time.monotonic()
        del watched  # as at the end of the program
        assert time.monotonic() - began < 10
        assert all(gone(pid) for pid in pids)

    def test_interrupted_command_leaves_no_answer_behind(self, monkeypatch):
        watched = pool(2, 2)
        watched.reset(np.arange(2))

        def interrupted(*arguments):
            raise KeyboardInterrupt

        monkeypatch.setattr("hajax.envs.simulators.pool.wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            watched.step(actions(2))
        with pytest.raises(SimulatorError, match="these simulators failed before; allowed: a new reset"):
            watched.step(actions(2))
        assert not any(worker.process.is_alive() for worker in watched.workers)

    def test_workers_do_without_jax(self):
        import subprocess
        import sys

        code = "import sys, hajax.envs.simulators.workers; sys.exit('jax' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_a_script_needs_no_guard(self, tmp_path):
        """Workers do not run the program's main file again, and functions of that file reach them."""
        import subprocess
        import sys

        script = tmp_path / "train.py"
        script.write_text(
            "import os, jax, hajax, gymnasium\n"
            "print('main', flush=True)\n"
            "def make():\n"
            "    return gymnasium.make('CartPole-v1')\n"
            "env = hajax.make_env(make, num_workers=2)\n"
            "state, timestep = env.reset(jax.random.split(jax.random.key(0), 4))\n"
            "print(timestep.observation.shape)\n"
        )
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout == "main\n(4, 1, 4)\n"


def test_seeds_of_episodes_differ():
    seeds = {episode_seed(seed, episode) for seed in range(50) for episode in range(50)}
    assert len(seeds) == 2500
    assert max(seeds) < 2**31
