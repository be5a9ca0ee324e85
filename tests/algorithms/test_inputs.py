"""Inputs of networks: narrow and empty observations, users' torsos, and inactive agents."""

import dataclasses
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import off_policy_problems
import problems
import pytest
from flax import nnx

import hajax
from hajax.core.inactive import blank_state
from hajax.envs.base import Environment, state_from_observations, timestep
from hajax.nn.dueling import Dueling
from hajax.nn.layers import MLP
from hajax.spaces import Box, Discrete, MultiDiscrete
from hajax.spec import AgentSpec, EnvSpec

PAIR = (Discrete(3), Discrete(2))
BOXES = (Box(-1, 1), Box(0, 2))
# One algorithm per kind of update. The others differ from these in order, drift or policy delay.
ON_POLICY = ("happo", "hatrpo", "ippo")
OFF_POLICY = {"haddpg": BOXES} | dict.fromkeys(("had3qn", "id3qn", "hasac"), PAIR)


# Narrow observations.


def signs(width: int = 1) -> Environment:
    """Two agents observe a number each, with `width` − 1 zeros, and should name its sign. The best return is 10."""
    agents = tuple(AgentSpec(name, width, Discrete(2)) for name in "ab")
    spec = EnvSpec("signs", agents, state_size=2, max_steps=10, masks_actions=False)

    def show(state, **fields):
        seen = jnp.pad(state[0][:, None], ((0, 0), (0, width - 1)))
        return state, timestep(spec, seen, state[0], **fields)

    def reset(key):
        return show((jax.random.normal(key, (2,)), jnp.zeros((), int)), first=True)

    def step(key, state, action):
        x, t = state
        reward = (action[:, 0] == (x > 0)) * 0.5
        return show((jax.random.normal(key, (2,)), t + 1), reward=reward, truncated=t + 1 >= 10)

    return Environment(spec, reset, step)


def score(env: Environment, name: str, **settings) -> float:
    algo = hajax.make_algorithm(name, env, hidden_sizes=(32,), **settings)
    state, _ = jax.jit(hajax.make_train(env, algo, total_steps=20_000, num_envs=20, rollout_length=50))(
        jax.random.key(0)
    )
    return float(hajax.make_evaluate(env, algo, num_episodes=100)(jax.random.key(1), state)["episode_return"].mean())


def test_an_agent_learns_from_an_observation_of_one_number():
    assert score(signs(), "happo", actor_lr=3e-3) > 9.5


def test_harl_s_network_does_not_and_warns_by_name():
    with pytest.warns(UserWarning, match="layer_norm_min_inputs=1 leaves a of signs nothing of the 1 number"):
        assert score(signs(), "happo", layer_norm_min_inputs=1) < 6


@pytest.mark.parametrize(
    ("settings", "widths", "named"),
    [
        (
            {"layer_norm_min_inputs": 1},
            (1, 2, 3),
            {"agent_0": "nothing of the 1", "agent_1": "only the order of the 2"},
        ),
        ({"layer_norm_min_inputs": 1, "agent_id": True}, (1, 2, 3), {}),  # with ids no input is lost
        ({"layer_norm_min_inputs": 1, "layer_norm": False}, (1, 2, 3), {}),
        ({"layer_norm_min_inputs": 3}, (1, 2, 3), {}),
        ({}, (0, 1, 2), {}),
        ({"layer_norm_min_inputs": 1}, (0, 5, 40), {}),
    ],
)
@pytest.mark.parametrize("name", ["mappo", "hasac"])
def test_warnings_name_the_agents_that_lose_their_input(name, settings, widths, named):
    spec = problems.make_spec([Discrete(2)] * 3, widths)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hajax.make_algorithm(name, spec, **{"layer_norm": True, "hidden_sizes": (4,)} | {"sharing": "none"} | settings)
    said = [str(warning.message) for warning in caught]
    assert len(said) == len(named)
    for text, (agent, left) in zip(said, named.items(), strict=True):
        assert f"leaves {agent} of random {left}" in text


@pytest.mark.parametrize(("width", "wide"), [(1, False), (15, False), (16, True), (40, True)])
@pytest.mark.parametrize("padding", [0, 3, 16])
def test_the_agent_s_own_width_decides_and_not_the_padded_one(width, wide, padding):
    """Padding has no influence. For wide inputs the network is HARL's."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, width)) * 3 + 7
    padded, mask = np.pad(x, ((0, 0), (0, padding))), jnp.arange(width + padding) < width if padding else None
    with jax.enable_x64(True):
        drawn = MLP((8, 6)).init(jax.random.key(0), padded, mask)["params"]
        assert bool(drawn["Dense_0"]["bias"].any()) != wide
        assert not drawn["Dense_1"]["bias"].any()
        params = jax.tree.map(lambda leaf: leaf + rng.normal(size=leaf.shape), drawn)
        found = MLP((8, 6)).apply({"params": params}, padded, mask)
        own = {name: dict(layer) for name, layer in params.items()}
        own["Dense_0"]["kernel"] = own["Dense_0"]["kernel"][:width]
        if (first := own.pop("MaskedLayerNorm_0", None)) and wide:
            own["MaskedLayerNorm_0"] = jax.tree.map(lambda leaf: leaf[:width], first)
        expected = MLP((8, 6), layer_norm_min_inputs=1 if wide else 99).apply({"params": own}, x)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_narrow_input_is_distinguished_from_its_multiples():
    """At initialization, by every layer: with biases of 0 the hidden LayerNorms would remove the scale."""
    x = np.array([[1.0, -2.0]])
    narrow, streams = MLP((64, 64)), Dueling(MLP((64,)), 4, (64,), layer_norm=True, output_gain=1.0)
    for network in (narrow, streams):
        params = network.init(jax.random.key(0), x)
        assert np.abs(network.apply(params, 2 * x) - network.apply(params, x)).max() > 0.1
    blind = MLP((64, 64), layer_norm_min_inputs=1)
    params = blind.init(jax.random.key(0), x)
    np.testing.assert_allclose(blind.apply(params, 2 * x), blind.apply(params, x), atol=1e-4)


# Observations without entries.


def empty_spec(spaces, widths, state_size):
    return dataclasses.replace(problems.make_spec(spaces, widths), state_size=state_size, max_steps=4)


@pytest.mark.parametrize(("memory", "state"), [("none", "environment"), ("gru", "observations")])
def test_an_agent_that_observes_nothing_learns_by_its_bias(memory, state):
    """There are two actions with different rewards, and nothing to observe."""
    agents = tuple(AgentSpec(name, 0, Discrete(2)) for name in "ab")
    spec = EnvSpec("blind", agents, state_size=0, max_steps=1, masks_actions=False)
    shown = (jnp.zeros((2, 0)), jnp.zeros(0))

    def step(key, state, action):
        return state, timestep(spec, *shown, reward=action[:, 0], terminated=True)

    env = Environment(spec, lambda key: (jnp.zeros(()), timestep(spec, *shown, first=True)), step)
    env = state_from_observations(env) if state == "observations" else env
    settings = {
        "hidden_sizes": (4,),
        "actor_lr": 0.02,
        "memory": memory,
        "chunk_length": 5,
        "normalize_observations": True,
    }
    algo = hajax.make_algorithm("happo", env, **settings)
    state_, _ = jax.jit(hajax.make_train(env, algo, total_steps=4_000, num_envs=8, rollout_length=10))(
        jax.random.key(0)
    )
    results = hajax.make_evaluate(env, algo, num_episodes=5)(jax.random.key(1), state_)
    assert results["episode_return"].tolist() == [2.0] * 5


@pytest.mark.parametrize(
    ("name", "widths", "state_size"),
    [(name, (0, 0), 0) for name in ("hatrpo", "ippo", "haddpg", "hasac", "id3qn")]
    + [(name, (0, 3), 4) for name in ("ippo", "hasac")],
)
def test_updates_are_finite_without_observations(name, widths, state_size):
    spec = empty_spec(OFF_POLICY.get(name, PAIR), widths, state_size)
    own = {"batch_size": 6, "n_step": 2} if name in OFF_POLICY else {}
    algo = hajax.make_algorithm(name, spec, hidden_sizes=(4,), layer_norm=True, sharing="none", **own)
    state = jax.jit(algo.init)(jax.random.key(0))
    if name in OFF_POLICY:
        batch = jax.tree.map(
            lambda x: x.astype(jnp.float32) if x.dtype == float else x, off_policy_problems.random_batch(algo, 1)
        )
    else:
        batch = on_policy_batch(spec, np.random.default_rng(1))
    new, info = jax.jit(algo.update, compiler_options=problems.QUICK)(jax.random.key(1), state, batch)
    for leaf in jax.tree.leaves((new.actors.params, new.critics, info)):
        assert np.isfinite(leaf).all()
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), new.actors.params, state.actors.params)
    assert any(jax.tree.leaves(moved))


def on_policy_batch(spec, rng, steps=4, envs=3):
    """Random data as an `OnPolicyBatch`."""
    lead = (steps, envs)
    agents = (*lead, spec.num_agents)
    layout = spec.action_layout
    observation = rng.normal(size=(*agents, spec.observation_size)) * spec.observation_mask
    index = rng.integers(0, layout.choices.sum(-1), size=(*agents, spec.num_components))
    real = layout.center + layout.scale * rng.uniform(-1, 1, size=(*agents, spec.num_components))
    given = {
        "observation": observation,
        "state": rng.normal(size=(*lead, *spec.state_shape)),
        "action": np.where(layout.discrete, index, np.where(layout.continuous, real, 0)),
        "log_prob": rng.normal(size=agents) - 2,
        "reward": rng.normal(size=lead if spec.reward == "team" else agents),
        "final_observation": rng.normal(size=observation.shape) * spec.observation_mask,
        "final_state": rng.normal(size=(*lead, *spec.state_shape)),
    }
    return hajax.on_policy_batch(spec, **{name: jnp.asarray(x, jnp.float32) for name, x in given.items()})


# Inactive agents.

MIXED = (Discrete(3), Box((-1.0, 2.0), (1.0, 5.0)), MultiDiscrete((2, 3)))
TEAMS = dict.fromkeys((*ON_POLICY, "hasac"), MIXED) | {
    **{name: (Discrete(3), Discrete(2), MultiDiscrete((2, 3))) for name in ("had3qn", "id3qn")},
    "haddpg": (Box(-1, 1), Box((0, 0), (1, 2)), Box(-1, 1)),
}
GARBAGE = {"NaN": np.nan, "infinite": np.inf, "huge": 1e30}


def with_garbage(batch, spec, value):
    """The observations and actions of inactive agents replaced by garbage, and their masks by none and all."""

    def spoil(x, active):
        gone = ~np.asarray(active)[(..., *[None] * (x.ndim - active.ndim))]
        return jnp.asarray(np.where(gone, value, np.asarray(x)))

    def spoil_state(x, active):
        if not spec.state_from_observations:
            return x
        owner = np.repeat(np.arange(spec.num_agents), [agent.observation_size for agent in spec.agents])
        return jnp.asarray(np.where(np.asarray(active)[..., owner], x, value))

    changed = {
        "observation": spoil(batch.observation, batch.active),
        "action": spoil(batch.action, batch.active),
        "state": spoil_state(batch.state, batch.active),
        "final_observation": spoil(batch.final_observation, batch.final_active),
        "final_state": spoil_state(batch.final_state, batch.final_active),
    }
    for prefix in ("", "final_"):
        if hasattr(batch, f"{prefix}action_mask"):
            mask, active = getattr(batch, f"{prefix}action_mask"), getattr(batch, f"{prefix}active")
            changed[f"{prefix}action_mask"] = mask & active[..., None, None]
    if hasattr(batch, "log_prob"):
        changed["log_prob"] = spoil(batch.log_prob, batch.active)
    return batch._replace(**changed)


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(
    ("name", "normalize", "joined"),
    [*((name, True, True) for name in TEAMS), *((name, False, False) for name in ("happo", "haddpg", "hasac"))],
)
def test_what_is_shown_of_an_inactive_agent_does_not_matter(name, normalize, joined, float64):
    """The update is equal bit for bit: parameters, optimizers, statistics and diagnostics."""
    spec = problems.make_spec(TEAMS[name], (2, 3, 1))
    if joined:
        spec = dataclasses.replace(spec, state_size=6, state_from_observations=True)
    off_policy = name in OFF_POLICY
    own = {"batch_size": 7, "n_step": 2, "policy_delay": 2} if off_policy else {}
    algo = hajax.make_algorithm(name, spec, hidden_sizes=(4,), sharing="none", normalize_observations=normalize, **own)
    if off_policy:
        state = off_policy_problems.random_state(algo, 0)
        batch = off_policy_problems.random_batch(algo, 1, inactive=0.4)
    else:
        state = problems.random_state(algo, 0)
        batch = problems.random_batch(algo, state, 1, inactive=0.4)
    assert not np.asarray(batch.active).all()
    update = jax.jit(algo.update, compiler_options=problems.QUICK)
    expected = jax.device_get(update(jax.random.key(2), state, batch))
    for what, value in GARBAGE.items():
        found = jax.device_get(update(jax.random.key(2), state, with_garbage(batch, spec, value)))
        jax.tree.map(lambda a, b, what=what: np.testing.assert_array_equal(a, b, err_msg=what), expected, found)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((expected[0].actors, expected[1])))


@pytest.mark.parametrize("name", ["happo", "hasac", "had3qn", "haddpg"])
def test_an_inactive_agent_does_not_change_the_actions_of_others(name):
    spec = problems.make_spec(TEAMS[name], (2, 3, 1))
    algo = hajax.make_algorithm(name, spec, hidden_sizes=(4,), sharing="none")
    state = jax.jit(algo.init)(jax.random.key(0))
    seen = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)) * spec.observation_mask, jnp.float32)
    shown = timestep(spec, seen, jnp.zeros(4), active=jnp.array([True, False, True]))
    spoiled = shown._replace(
        observation=shown.observation.at[1].set(jnp.nan), action_mask=shown.action_mask.at[1].set(False)
    )
    act = jax.jit(algo.act, static_argnums=4)
    for deterministic in (True, False):
        one, other = (
            act(jax.random.key(1), state, x, algo.initial_memory(()), deterministic) for x in (shown, spoiled)
        )
        jax.tree.map(np.testing.assert_array_equal, one, other)
        assert np.isfinite(other[0]).all()


def test_states_per_agent_are_blanked_and_the_team_s_state_is_not():
    spec = problems.make_spec(PAIR, (1, 2))
    active = jnp.array([True, False])
    assert blank_state(spec, jnp.ones(4), active).tolist() == [1, 1, 1, 1]
    joined = dataclasses.replace(spec, state_size=3, state_from_observations=True)
    assert blank_state(joined, jnp.ones(3), active).tolist() == [1, 0, 0]
    own = dataclasses.replace(spec, state_size=2, state_per_agent=True)
    assert blank_state(own, jnp.ones((2, 2)), active).tolist() == [[1, 1], [0, 0]]


@pytest.mark.parametrize("name", ["happo", "hasac"])
def test_a_whole_training_is_finite_if_inactive_agents_observe_nan(name):
    spec = dataclasses.replace(problems.make_spec(PAIR, (2, 2)), max_steps=6)

    def show(t, **fields):
        alive = jnp.array([True, t < 3])
        seen = jnp.where(alive[:, None], 1.0, jnp.nan) * jnp.ones((2, 2))
        return t, timestep(spec, seen, jnp.ones(4), active=alive, **fields)

    def step(key, t, action):
        return show(t + 1, reward=jnp.where(t < 3, action[:, 0], 1.0), truncated=t + 1 >= 6)

    env = state_from_observations(Environment(spec, lambda key: show(jnp.zeros((), int), first=True), step))
    own = {"buffer_size": 200, "warmup_steps": 40, "batch_size": 20, "n_step": 2} if name == "hasac" else {}
    algo = hajax.make_algorithm(name, env, hidden_sizes=(4,), **own)
    state, _ = jax.jit(hajax.make_train(env, algo, total_steps=200, num_envs=4, rollout_length=10))(jax.random.key(0))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.actors.params, state.critics)))


# A user's torso.


class Torso(nn.Module):
    """Correct and incorrect torsos: `output(x)` after a linear layer."""

    output: object = staticmethod(lambda x: x)

    @nn.compact
    def __call__(self, x):
        return self.output(nn.Dense(5)(x))


class Masked(nn.Module):
    @nn.compact
    def __call__(self, x, mask=None):
        return nn.Dense(5)(x if mask is None else jnp.where(mask, x, 0))


class Normalized(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.BatchNorm(use_running_average=False)(nn.Dense(5)(x))


class Dropped(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dropout(0.5, deterministic=False)(nn.Dense(5)(x))


class Experimental(nnx.Module):
    def __init__(self, width, *, rngs):
        self.linear = nnx.Linear(width, 5, rngs=rngs)

    def __call__(self, x):
        return self.linear(x)


def torso(output):
    return Torso(output)


WRONG = {
    "a class": (Torso, "=Torso, a class; allowed: an instance of a flax.linen module, such as Torso()"),
    "a class of nnx": (Experimental, "=Experimental, a class"),
    "a module of nnx": (Experimental(3, rngs=nnx.Rngs(0)), "=Experimental(...), a flax.nnx module"),
    "a function": (jnp.tanh, "allowed: an instance of a flax.linen module"),
    "a flat batch": (torso(lambda x: x.reshape(-1)), "to (10,); allowed: a map of inputs [..., O]"),
    "no features": (torso(lambda x: x.sum(-1)), "to (); allowed"),
    "one axis more": (torso(lambda x: x[..., None]), "to (5, 1); allowed"),
    "a batch of one axis alone": (torso(lambda x: x.reshape(x.shape[0], -1)), "allowed"),
    "a mean over the batch": (torso(lambda x: x.mean(0)), "allowed"),
    "two results": (torso(lambda x: (x, x)), "returns tuple"),
    "whole numbers": (torso(lambda x: x.astype(int)), "returns int32; allowed: real features"),
    "a batch that is centered": (torso(lambda x: x - x.mean(tuple(range(x.ndim - 1)))), "mixes the entries of a batch"),
    "a batch in another order": (torso(lambda x: x[::-1] if x.ndim > 1 else x), "mixes the entries of a batch"),
    "another number of inputs": (torso(lambda x: x @ jnp.ones((4, 2))), "fails on an input of shape (3,): TypeError"),
    "running statistics": (Normalized(), "has variables batch_stats beside its parameters"),
    "random numbers": (Dropped(), "InvalidRngError"),
}


@pytest.mark.parametrize("role", ["actor", "critic"])
@pytest.mark.parametrize("case", WRONG)
def test_a_torso_that_cannot_be_trained_is_refused_by_name(case, role):
    given, message = WRONG[case]
    spec = dataclasses.replace(problems.make_spec(PAIR), state_size=3)
    with pytest.raises(ValueError, match=rf"^{role}=") as error:
        hajax.make_algorithm("happo", spec, **{role: given})
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["mappo", "ippo", "haddpg", "hasac", "had3qn"])
def test_every_kind_of_algorithm_checks_its_torsos(name):
    spec = problems.make_spec(BOXES if name == "haddpg" else PAIR)
    for role in ("actor", "critic"):
        with pytest.raises(ValueError, match=rf"^{role}=Torso, a class"):
            hajax.make_algorithm(name, spec, **{role: Torso})


@pytest.mark.parametrize("given", [Torso(), Masked(), MLP((4,)), nnx.bridge.ToLinen(Experimental, args=(3,))])
def test_valid_torsos_are_trained(given):
    """The widths differ, so that a mask is passed to torsos that have the parameter."""
    spec = problems.make_spec(PAIR, (3, 2))
    algo = hajax.make_algorithm("happo", spec, actor=given)
    state = jax.jit(algo.init)(jax.random.key(0))
    batch = on_policy_batch(spec, np.random.default_rng(0))
    new, _ = jax.jit(algo.update)(jax.random.key(1), state, batch)
    one, other = state.actors.params["torso"], new.actors.params["torso"]
    assert all(bool((a != b).any()) for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))


def test_torsos_are_checked_where_the_caller_is_traced():
    def parameters(key):
        algo = hajax.make_algorithm("happo", problems.make_spec(PAIR), actor=Torso())
        return algo.init(key).actors.params["torso"]["Dense_0"]["kernel"]

    assert jax.jit(parameters)(jax.random.key(0)).shape == (2, 3, 5)
