"""Spaces and specifications as users write them: converted where the meaning is clear, else refused in one line."""

import dataclasses
import math

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces as gymnax_spaces
from jaxmarl.environments import spaces as jaxmarl_spaces

import hajax
import hajax.spaces
import hajax.spec
from hajax.envs.base import clip_action
from hajax.spaces import Box, Discrete, MultiDiscrete, as_space
from hajax.spec import AgentSpec, EnvSpec

INF = math.inf


class Spec:
    """Another library's space, of which only the attributes are known."""

    def __init__(self, **fields):
        self.__dict__ |= fields


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (lambda: Box(-1, 1), Box((-1.0,), (1.0,))),
        (lambda: Box(low=-1, high=1, shape=(3,)), Box((-1.0,) * 3, (1.0,) * 3)),
        (lambda: Box(0, 1, shape=2), Box((0.0, 0.0), (1.0, 1.0))),
        (lambda: Box(-np.ones((2, 2)), 1), Box((-1.0,) * 4, (1.0,) * 4)),
        (lambda: Box([0, -2], [1, 2]), Box((0.0, -2.0), (1.0, 2.0))),
        (lambda: Box(-3.4e38, 3.4e38), Box((-INF,), (INF,))),
        (lambda: Box(np.finfo(np.float64).min, np.finfo(np.float32).max), Box((-INF,), (INF,))),
        (lambda: MultiDiscrete([[2], [3]]), MultiDiscrete((2, 3))),
        (lambda: MultiDiscrete(np.array([2, 3])), MultiDiscrete((2, 3))),
        (lambda: Discrete(np.int64(3)), Discrete(3)),
        (lambda: gymnasium.spaces.Discrete(3), Discrete(3)),
        (lambda: gymnasium.spaces.MultiDiscrete([2, 5]), MultiDiscrete((2, 5))),
        (lambda: gymnasium.spaces.MultiBinary(3), MultiDiscrete((2, 2, 2))),
        (lambda: gymnasium.spaces.MultiBinary((2, 2)), MultiDiscrete((2,) * 4)),
        (lambda: gymnasium.spaces.Box(-1, 2, (2,)), Box((-1.0, -1.0), (2.0, 2.0))),
        (lambda: gymnasium.spaces.Box(0, np.inf, (1,)), Box((0.0,), (INF,))),
        (lambda: gymnax_spaces.Discrete(4), Discrete(4)),
        (lambda: gymnax_spaces.Box(-2, 2, (1,)), Box((-2.0,), (2.0,))),
        (lambda: jaxmarl_spaces.Discrete(5), Discrete(5)),
        (lambda: jaxmarl_spaces.MultiDiscrete([3, 4]), MultiDiscrete((3, 4))),
        (lambda: jaxmarl_spaces.Box(0.0, 1.0, (2,)), Box((0.0, 0.0), (1.0, 1.0))),
        (lambda: Spec(num_values=6, minimum=0, maximum=5, dtype=np.int32), Discrete(6)),  # Jumanji's DiscreteArray
        (lambda: Spec(num_values=np.array([2, 3]), dtype=np.int32), MultiDiscrete((2, 3))),
        (lambda: Spec(minimum=-1.0, maximum=1.0, shape=(2,), dtype=np.float32), Box((-1.0, -1.0), (1.0, 1.0))),
    ],
)
def test_spaces_mean_what_they_say(space, expected):
    assert as_space(space()) == expected
    assert AgentSpec("a", 2, space()) == AgentSpec("a", (2,), expected)
    assert hash(as_space(space())) == hash(expected)


@pytest.mark.parametrize(
    ("make", "parts"),
    [
        (lambda: Box(1, 1), ["Box.low=1.0 and Box.high=1.0", "low < high"]),
        (lambda: Box(0, 1e-60), ["Box.high=1e-60", "low < high"]),
        (lambda: Box((0, 1), (1, 2, 3)), ["Box.low=(0, 1)", "one for each of 3 dimensions"]),
        (lambda: Box(math.nan, 1), ["Box.low=nan"]),
        (lambda: Box("low", "high"), ["Box.low='low'", "a number"]),
        (lambda: Box((), ()), ["Box.low=()"]),
        (lambda: Box(0, 1, (2, -1)), ["Box.shape=(2, -1)", "whole numbers >= 0"]),
        (lambda: Discrete(0), ["Discrete.n=0", ">= 1"]),
        (lambda: Discrete(2.5), ["Discrete.n=2.5", "a whole number"]),
        (lambda: Discrete([3]), ["Discrete.n=[3]", "a whole number"]),
        (lambda: Discrete(True), ["Discrete.n=True"]),
        (lambda: MultiDiscrete(()), ["MultiDiscrete.nvec=()", "one per component"]),
        (lambda: MultiDiscrete([[2], [3, 4]]), ["MultiDiscrete.nvec=[[2], [3, 4]]"]),
        (lambda: MultiDiscrete((2, 0)), ["MultiDiscrete.nvec=(2, 0)", ">= 1"]),
        (lambda: as_space(gymnasium.spaces.Discrete(3, start=1)), ["begins at 1", "numbered from 0"]),
        (lambda: as_space(gymnasium.spaces.Box(0, 9, (2,), np.int64)), ["int64", "Box of real numbers"]),
        (lambda: as_space(gymnasium.spaces.Text(4)), ["action_space=Text", "Discrete(n)"]),
        (lambda: as_space(3), ["action_space=3", "Box(low, high)"]),
        (lambda: AgentSpec("", (2,), Discrete(2)), ["AgentSpec.name=''", "a text"]),
        (lambda: AgentSpec(7, (2,), Discrete(2)), ["AgentSpec.name=7"]),
        (lambda: AgentSpec("a", (2, -1), Discrete(2)), ["agent 'a'", "observation_shape=(2, -1)", ">= 0"]),
        (lambda: AgentSpec("a", "wide", Discrete(2)), ["observation_shape='wide'", "4 or (4,)"]),
        (lambda: AgentSpec("a", (2,), None), ["agent 'a'", "action_space=None"]),
    ],
)
def test_what_means_nothing_is_refused_by_name(make, parts):
    with pytest.raises(ValueError, match=r"allowed: ") as error:
        make()
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


SPEC = EnvSpec("town", (AgentSpec("a", (4,), Discrete(3)), AgentSpec("b", 2, Box(-1, 1))), 6, 5)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"max_steps": 0}, ["max_steps=0", ">= 1"]),
        ({"max_steps": 2.5}, ["max_steps=2.5", "a whole number"]),
        ({"max_steps": 2**40}, ["max_steps=1099511627776", "<= 2147483647"]),
        ({"state_size": -1}, ["state_size=-1", ">= 0"]),
        ({"state_size": (6,)}, ["state_size=(6,)", "a whole number"]),
        ({"reward": "shared"}, ["reward='shared'", "team, individual"]),
        ({"reward": ["team"]}, ["reward=['team']", "team, individual"]),
        ({"masks_actions": "no"}, ["masks_actions='no'", "true, false"]),
        ({"agents": ()}, ["agents=()", "at least one"]),
        ({"agents": SPEC.agents[0]}, ["at least one AgentSpec"]),
        ({"agents": (SPEC.agents[0], "b")}, ["at least one AgentSpec"]),
        ({"agents": SPEC.agents[:1] * 2}, ["agents has 2 of the name 'a'", "a name for each agent"]),
        ({"agents": (*SPEC.agents, AgentSpec("b", 1, Discrete(2)))}, ["2 of the name 'b'"]),
    ],
)
def test_specifications_are_checked_when_they_are_made(change, parts):
    with pytest.raises(ValueError, match=r"EnvSpec of 'town': .*allowed: ") as error:
        dataclasses.replace(SPEC, **change)
    for part in parts:
        assert part in str(error.value)


def test_numbers_of_a_specification_may_be_numpy_s_and_agents_a_list():
    spec = EnvSpec("town", list(SPEC.agents), np.int64(6), np.int32(5))
    assert spec == SPEC
    assert [type(x) for x in (spec.state_size, spec.max_steps, spec.agents)] == [int, int, tuple]


def test_a_bound_on_one_side_is_kept_by_the_environment_alone():
    """Policies treat the dimension as unbounded: their Gaussian is in native units, and nothing is squashed."""
    spec = EnvSpec("town", (AgentSpec("a", 1, Box((0.0, -1.0, -INF), (INF, 1.0, 3.0))),), 1, 5)
    assert spec.action_layout.bounded.tolist() == [[False, True, False]]
    assert spec.action_layout.scale.tolist() == [[1, 1, 1]]
    assert spec.action_layout.center.tolist() == [[0, 0, 0]]
    assert clip_action(spec, jnp.full((1, 3), -7.0)).tolist() == [[0, -1, -7]]
    assert clip_action(spec, jnp.full((1, 3), 7.0)).tolist() == [[7, 1, 3]]


@pytest.mark.parametrize("name", ["happo", "hatrpo", "hasac", "hatd3"])
@pytest.mark.parametrize("space", [Box(-3.4e38, 3.4e38), Box(0, INF), Box(-INF, INF)], ids=["huge", "one side", "none"])
def test_actions_are_finite_whatever_the_bounds(name, space):
    """A smoke test of every kind of policy: what it does before any learning, and how likely that is."""
    spec = EnvSpec("town", (AgentSpec("a", 2, space),), 2, 5, masks_actions=False)
    algo = hajax.make_algorithm(name, spec, hidden_sizes=(4,))
    state = jax.jit(algo.init)(jax.random.key(0))
    shown = hajax.envs.base.timestep(spec, jnp.ones((1, 2)), jnp.ones(2))
    action, extras, _ = jax.jit(algo.act)(jax.random.key(1), state, shown, algo.initial_memory(()))
    assert np.isfinite(action).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(extras))


@pytest.mark.parametrize("name", ["Box", "Discrete", "MultiDiscrete", "ActionSpace"])
def test_spaces_are_found_beside_the_specification_too(name):
    assert getattr(hajax.spec, name) is getattr(hajax.spaces, name)
