"""Making, listing and registering environments, and what is said when that fails."""

import dataclasses
import importlib
import inspect
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import hajax.envs
from hajax.envs import list_envs, make_env, register_env
from hajax.envs.base import Environment, pad_observations, timestep
from hajax.spaces import Discrete
from hajax.spec import AgentSpec, EnvSpec


@pytest.mark.parametrize(
    ("name", "options", "parts"),
    [
        ("mpe/simple_sprad", {}, ["'mpe/simple_sprad'", "did you mean mpe/simple_spread", "games/gaussian"]),
        ("nothing", {}, ["'nothing'", "allowed", "games/matrix", "mpe/simple_reference"]),
        ("mpe/simple_spread", {"num_agent": 4}, ["num_agent=4", "mpe/simple_spread", "did you mean num_agents"]),
        ("games/gaussian", {"speed": 4}, ["speed=4", "allowed: max_steps, reward, state"]),
        ("games/matrix", {"payoff": "high"}, ["payoff='high'", "tensor"]),
        ("games/matrix", {"payoff": [[1, np.nan]]}, ["payoff", "finite"]),
        ("games/matrix", {"payoff": 3.0}, ["payoff", "one axis per agent"]),
        ("games/trap_of_homogeneity", {"num_agents": 3}, ["num_agents=3", "even"]),
        ("games/gaussian", {"max_steps": 0}, ["max_steps=0", "whole number"]),
        ("games/gaussian", {"reward": "shared"}, ["reward='shared'", "team, individual"]),
        ("games/gaussian", {"state": "pixels"}, ["state='pixels'", "environment, observations"]),
        ("mpe/simple_spread", {"state": "pixels"}, ["state='pixels'", "observations, environment"]),
        ("mpe/simple_spread", {"actions": "Discrete"}, ["actions='Discrete'", "discrete, continuous"]),
        ("mpe/simple_spread", {"num_agents": 2.5}, ["num_agents=2.5", "whole number"]),
        ("mpe/simple_reference", {"local_ratio": 1.5}, ["local_ratio=1.5", "<= 1"]),
        ("mpe/simple_reference", {"max_steps": None}, ["max_steps=None", "whole number"]),
    ],
)
def test_errors_name_the_option_the_value_and_what_is_allowed(name, options, parts):
    with pytest.raises(ValueError, match=re.escape(parts[0])) as error:
        make_env(name, **options)
    for part in parts:
        assert part in str(error.value)


def test_every_environment_is_listed_documented_and_takes_a_reward():
    assert list_envs() == tuple(sorted(list_envs()))
    for name, home in hajax.envs._BUILT_IN.items():
        module, function = home.split(":")
        factory = getattr(importlib.import_module(module), function)
        assert name in list_envs()
        assert factory.__doc__
        assert "reward" in inspect.signature(factory).parameters


@pytest.fixture
def own_registry(monkeypatch):
    monkeypatch.setattr(hajax.envs, "_registered", {})


def countdown(*, steps: int = 3) -> Environment:
    """A lone agent that sees how many steps are left; terminates at zero."""
    spec = EnvSpec("own/countdown", (AgentSpec("counter", (1,), Discrete(2)),), state_size=1, max_steps=None)

    def show(left, **fields):
        return left, timestep(spec, left * jnp.ones((1, 1)), left * jnp.ones(1), **fields)

    def reset(key):
        return show(jnp.asarray(steps), first=True)

    def step(key, left, action):
        return show(left - 1, reward=action[:, 0], terminated=left <= 1)

    return Environment(spec, reset, step)


def test_users_register_their_own(own_registry):
    register_env("own/countdown", countdown)
    assert "own/countdown" in list_envs()
    env = make_env("own/countdown", steps=2, state="observations")
    state, opening = env.reset(jax.random.key(0))
    assert opening.state.tolist() == [2.0]
    state, _ = env.step(jax.random.key(0), state, jnp.zeros((1, 1)))
    state, shown = env.step(jax.random.key(0), state, jnp.ones((1, 1)))
    assert shown.terminated
    assert shown.first
    assert shown.reward.tolist() == [1.0]
    assert shown.state.tolist() == [2.0]
    assert shown.final.state.tolist() == [0.0]

    register_env("own/gaussian", "hajax.envs.games:gaussian")
    assert make_env("own/gaussian", max_steps=2).spec.max_steps == 2
    register_env("own/gaussian", countdown)
    assert make_env("own/gaussian").spec.num_agents == 1


def test_registering_what_cannot_be_built(own_registry):
    with pytest.raises(ValueError, match="games/gaussian"):
        register_env("games/gaussian", countdown)
    with pytest.raises(TypeError, match="module:function"):
        register_env("own/text", "countdown")
    register_env("own/sized", lambda *, size: countdown(steps=size))
    with pytest.raises(ValueError, match="setting 'size' of own/sized is missing; it has no default"):
        make_env("own/sized")
    register_env("own/number", lambda: 3)
    with pytest.raises(TypeError, match=r"own/number.*int"):
        make_env("own/number")


def test_environments_can_be_made_while_tracing():
    @jax.jit
    def first_observation(key):
        return make_env("mpe/simple_spread").reset(key)[1].observation

    assert first_observation(jax.random.key(0)).shape == (3, 18)


def test_unknown_reward_of_a_spec():
    spec = make_env("games/gaussian").spec
    with pytest.raises(ValueError, match="team, individual"):
        dataclasses.replace(spec, reward="mean")


def test_importing_jaxmarl_prints_nothing_and_leaves_the_streams():
    """In a fresh process, since jaxmarl is imported once; the stream stands for a notebook's."""
    program = (
        "import io, sys; mine = sys.stdout = io.StringIO(); errors = sys.stderr\n"
        "from hajax.envs import make_env; make_env('mpe/simple_spread')\n"
        "assert sys.stdout is mine and sys.stderr is errors and not mine.getvalue()\n"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout) == (0, ""), finished.stderr


def broken(**wrong):
    """A two-agent environment that is right but for what is given."""
    right = {"state_size": 3, "observation": (2, 4), "reward": (2,), "truncated": (), "count": jnp.zeros((), int)}
    given = right | wrong
    agents = (AgentSpec("a", (4,), Discrete(2)), AgentSpec("b", (4,), Discrete(2)))
    spec = EnvSpec("own/broken", agents, state_size=given["state_size"], max_steps=5)

    def show(state, **fields):
        return state, timestep(spec, jnp.zeros(given["observation"]), jnp.zeros(3), **fields)

    def reset(key):
        return show({"count": jnp.zeros((), int)}, first=True)

    def step(key, state, action):
        _, shown = show(state, truncated=jnp.zeros(given["truncated"], bool))
        return {"count": given["count"]}, shown._replace(reward=jnp.zeros(given["reward"]))

    return Environment(spec, reset, step)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"state_size": 2}, r"state of own/broken has shape \(3,\) in reset; allowed: \(2,\), as its EnvSpec says"),
        ({"observation": (2, 5)}, r"observation of own/broken has shape \(2, 5\) in reset; allowed: \(2, 4\)"),
        ({"reward": ()}, r"reward of own/broken has shape \(\) in step; allowed: \(2,\)"),
        ({"truncated": (2,)}, r"truncated of own/broken has shape \(2,\) in step; allowed: \(\)"),
        (
            {"count": jnp.zeros(())},
            r"count in the state of own/broken is int32\[\] after reset and float32\[\] after step",
        ),
    ],
)
def test_what_does_not_fit_its_specification_is_named(wrong, message, monkeypatch):
    monkeypatch.setattr(hajax.envs, "_registered", {})
    register_env("own/broken", lambda: broken(**wrong))
    with pytest.raises(ValueError, match=message):
        make_env("own/broken")


def test_an_agent_s_own_observation_is_checked():
    spec = broken().spec
    with pytest.raises(ValueError, match="observation of b has 3 entries; allowed: 4, as its AgentSpec in own/broken"):
        pad_observations(spec, [jnp.zeros(4), jnp.zeros(3)])
