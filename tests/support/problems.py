"""Small random learning problems, and the conversion of hajax's padded arrays to `reference.py`'s plain ones."""

from __future__ import annotations

import dataclasses
import functools
import unittest.mock
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import reference
from flax.traverse_util import flatten_dict

import hajax
from hajax.algorithms import find_algorithm
from hajax.core import optimization
from hajax.core.batches import OnPolicyBatch
from hajax.core.losses import weighted_mean
from hajax.nn import distributions
from hajax.spaces import ActionSpace, Box, Discrete, MultiDiscrete
from hajax.spec import AgentSpec, EnvSpec, Timestep

# Different from every default, and such that ratios, values and gradients are clipped and the Huber loss is linear.
NUMBERS = {
    "critic_lr": 2e-2,
    "clip": 0.1,
    "discount": 0.9,
    "gae_lambda": 0.8,
    "huber_delta": 0.7,
    "max_grad_norm": 0.3,
    "adam_eps": 1e-4,
    "value_decay": 0.9,
}
ASCENT = {"actor_lr": 1e-2, "entropy_coef": 0.05, "epochs": 3}
# Damped, because the references solve with the Fisher matrix, which is singular: logits have a common offset.
TRUST_REGION = {"kl_radius": 0.05, "accept_ratio": 0.7, "backtrack": 0.7, "damping": 0.03, "cg_iterations": 200}
TINY = {"hidden_sizes": (6,), "critic_epochs": 2, "clip_value": True, "layer_norm_min_inputs": 1}
# Takes a quarter of the time to compile; results do not depend on it.
QUICK = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}
# For programs that run longer than they compile.
LONG: Any = {"xla_backend_optimization_level": 1}

MIXED: tuple[ActionSpace, ...] = (Discrete(3), Discrete(5), Box((-1.0, 0.0), (2.0, 5.0)), MultiDiscrete((2, 4)))
MIXED_SIZES = (2, 5, 3, 4)


def make_spec(
    spaces: Sequence[ActionSpace], sizes: Sequence[int] | None = None, *, state_size: int = 4, reward: Any = "team"
) -> EnvSpec:
    """A team with these action spaces and observation widths (3 unless given)."""
    sizes = [3] * len(spaces) if sizes is None else sizes
    agents = [AgentSpec(f"agent_{i}", (o,), space) for i, (o, space) in enumerate(zip(sizes, spaces, strict=True))]
    return EnvSpec("random", tuple(agents), state_size, None, reward)


def make_algorithm(name: str, spec: EnvSpec, **settings: Any) -> Any:
    """A tiny algorithm with `NUMBERS` unless `settings` say otherwise."""
    own = TRUST_REGION if name == "hatrpo" else ASCENT
    tiny, entry = TINY | NUMBERS | own, find_algorithm(name)
    if name == "lola":  # which has few of these
        known = {f.name for part in (entry.settings, entry.hyperparameters) for f in dataclasses.fields(part)}
        tiny = {key: value for key, value in tiny.items() if key in known - {"sharing"}}
    return hajax.make_algorithm(name, spec, **(tiny | settings))


def mean_kl(policy: Any, old: Any, new: Any, samples: Any) -> jax.Array:
    """The mean KL(π_old ‖ π_new) of a `GroupPolicy` over the samples with weight."""
    old, new = (policy.distribution(params, samples) for params in (old, new))
    return weighted_mean(distributions.kl_divergence(old, new, policy.tables.layout), samples.weight)


def zeros_of(shapes: Any) -> Any:
    """Arrays of zeros, made by NumPy, because JAX compiles a program for every shape."""
    return jax.tree.map(lambda x: jnp.asarray(np.zeros(x.shape, x.dtype)), shapes)


def random_state(algo: Any, seed: int) -> Any:
    """The state of `algo` with random numbers for *all* parameters, padded entries, biases and LayerNorm's included."""
    rng = np.random.default_rng(seed)
    state = zeros_of(jax.eval_shape(algo.init, jax.random.key(0)))

    def fill(learner):
        return learner._replace(
            params=jax.tree.map(lambda x: jnp.asarray(0.4 * rng.normal(size=x.shape)), learner.params)
        )

    numbers = jax.tree.map(lambda x: jnp.asarray(x, float), algo.hyperparameters)
    learners = {name: fill(getattr(state, name)) for name in ("actors", "critics") if hasattr(state, name)}
    return state._replace(**learners, hyperparameters=numbers)


def random_batch(
    algo: Any,
    state: Any,
    seed: int,
    *,
    steps: int | None = None,
    num_envs: int = 3,
    inactive: float = 0.0,
    noise: float = 0.15,
) -> OnPolicyBatch:
    """A valid random rollout, with terminations, truncations, action masks and a share of `inactive` agents.

    The log-probabilities of the behavior policy differ from those of the state by `noise`, so that ratios differ from 1
    from the start. For a policy with memory the rollout is longer, and some environments begin within an episode.
    """
    rng, spec = np.random.default_rng(seed), algo.spec
    recurrent = getattr(algo.settings, "memory", "none") != "none"
    steps = steps or (6 if recurrent else 4)
    lead, layout = (steps, num_envs), spec.action_layout
    shape = (*lead, spec.num_agents)

    def follow(x):
        """The final array of step t: row t + 1 inside an episode, another value where the episode ended."""
        fresh = np.where(x[0] == 0, 0, rng.normal(size=x.shape))
        inside = (~done).reshape(*lead, *[1] * (x.ndim - 2))
        return np.concatenate([np.where(inside[:-1], x[1:], fresh[:-1]), fresh[-1:]])

    terminated = rng.random(lead) < 0.2
    truncated = (rng.random(lead) < 0.25) & ~terminated
    done = terminated | truncated
    observation = rng.normal(size=(*shape, spec.observation_size)) * spec.observation_mask
    critic_state = rng.normal(size=(*lead, spec.state_size))
    keep = rng.integers(spec.num_choices, size=shape + layout.discrete.shape[1:2])
    keep = keep % layout.choices.sum(-1)  # one choice is always available
    mask = (rng.random((*shape, *layout.choices.shape[1:])) < 0.6) | (np.arange(spec.num_choices) == keep[..., None])
    mask &= layout.choices
    scores = np.where(mask, rng.random(mask.shape), -1)
    own = rng.normal(size=shape)
    reward = own if spec.reward == "individual" else np.broadcast_to(own[..., :1], shape)
    active = rng.random(shape) >= inactive
    batch = OnPolicyBatch(
        observation=observation,
        state=critic_state,
        action_mask=mask,
        active=active,
        first=np.concatenate([np.ones((1, num_envs), bool), done[:-1]]),
        action=np.where(layout.discrete, scores.argmax(-1), 0.0),
        log_prob=np.zeros(shape),
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        final_observation=follow(observation),
        final_state=follow(critic_state),
        final_active=np.where(done[..., None], rng.random(shape) >= inactive, np.roll(active, -1, axis=0)),
        memory=(),
    )
    if recurrent:
        batch.first[0] = rng.random(num_envs) < 0.5
        batch = batch._replace(memory=0.5 * rng.normal(size=algo.initial_memory((num_envs,)).shape))
    for i, agent in enumerate(spec.agents):
        if isinstance(agent.action_space, Box):
            p = view_of(algo, state, i).read().params
            rows = samples(algo, state, batch, i)
            features, _ = reference.body(p, rows.observation, rows.sequences, [])
            mean, std, center, scale = reference.gaussian(
                p, bounds(algo, i), features, [], getattr(algo.settings, "std_scale", 0.5)
            )
            drawn = center + scale * (mean + std * rng.normal(size=mean.shape))
            batch.action[:, :, i, : drawn.shape[-1]] = drawn.reshape(*lead, -1)
    log_prob = [policy(algo, state, batch, i)[0].reshape(lead) for i in range(spec.num_agents)]
    log_prob = np.stack(log_prob, -1) + noise * rng.normal(size=shape)
    return jax.tree.map(jnp.asarray, batch._replace(log_prob=log_prob))


class Recorder:
    """The compiled `algo.update`, which also records the permutations drawn: of groups, then of samples, in order."""

    def __init__(self, algo: Any):
        self._drawn: list[np.ndarray] = []
        # A new function, because JAX caches traces by function.
        self._update = jax.jit(lambda *args: algo.update(*args), compiler_options=QUICK)

    def __call__(self, key: jax.Array, state: Any, batch: Any) -> tuple[Any, Any, list[np.ndarray]]:
        def recording(draw):
            def permutation(key, x, *args, **kwargs):
                drawn = draw(key, x, *args, **kwargs)
                jax.debug.callback(lambda p: self._drawn.append(np.asarray(p)), drawn, ordered=True)
                return drawn

            return permutation

        self._drawn.clear()
        with (
            unittest.mock.patch("jax.random.permutation", recording(jax.random.permutation)),
            unittest.mock.patch.object(optimization, "shuffle", recording(optimization.shuffle)),
        ):
            state, info = jax.block_until_ready(self._update(key, state, batch))
        jax.effects_barrier()
        return state, info, list(self._drawn)


# From hajax's arrays to the reference's.


def assignment(spec: EnvSpec, sharing: Any) -> list[int]:
    """The group of every agent, from the definition of `sharing`."""
    kinds = [(agent.observation_shape, agent.action_space) for agent in spec.agents]
    by_name = {"none": range(spec.num_agents), "all": [0] * spec.num_agents}
    if sharing == "type":
        return [list(dict.fromkeys(kinds)).index(kind) for kind in kinds]
    return list(by_name[sharing] if isinstance(sharing, str) else sharing)


def groups_of(spec: EnvSpec, sharing: Any) -> list[list[int]]:
    """The members of every group."""
    numbers = assignment(spec, sharing)
    return [[i for i, g in enumerate(numbers) if g == group] for group in range(max(numbers) + 1)]


def own_entries(name: str, shape: Sequence[int], spec: EnvSpec, agent_id: bool, agent: int | None) -> tuple:
    """The index of the entries of parameter `name` that the agent has; `agent=None` is the centralized critic."""
    index = [np.arange(n) for n in shape]
    if agent is not None:
        space = spec.agents[agent].action_space
        if name.startswith(("torso/MaskedLayerNorm_0/", "torso/Dense_0/kernel")):
            ids = spec.observation_size + np.arange(spec.num_agents if agent_id else 0)
            index[0] = np.concatenate([np.arange(spec.agents[agent].observation_size), ids])
        elif name.startswith("logits/"):
            index[-1] = np.array([d * spec.num_choices + c for d, n in enumerate(space.choices) for c in range(n)], int)
        elif name.startswith(("mean/", "log_std")):
            index[-1] = np.arange(space.num_components if isinstance(space, Box) else 0)
    return np.ix_(*index)


@dataclasses.dataclass
class View:
    """One group's learner in the library's state, and the entries that the group has."""

    learner: Any
    group: int
    own: functools.partial

    def read(self) -> reference.Learner:
        """The unpadded learner."""
        trees = []
        adam = self.learner.optimizer
        for tree in (self.learner.params, *((adam.mu, adam.nu) if adam else ())):
            flat = {name: np.asarray(x)[self.group] for name, x in flatten_dict(tree, sep="/").items()}
            own = {name: x[self.own(name, x.shape)] for name, x in flat.items()}
            trees.append({name: x for name, x in own.items() if x.size})
        return reference.Learner(*trees, int(adam.count[self.group])) if adam else reference.Learner(*trees, {}, {}, 0)

    def assert_equals(self, expected: reference.Learner, before: Any, tolerance: float) -> None:
        """Asserts that own entries are as expected, and that all others have kept their values and have no gradient."""
        actual = self.read()
        assert actual.count == expected.count
        for field in ("params", "mu", "nu"):
            one, other = getattr(actual, field), getattr(expected, field)
            assert one.keys() == other.keys()
            for name in other:
                np.testing.assert_allclose(one[name], other[name], 0, tolerance, err_msg=f"{field} {name}")
        adam = self.learner.optimizer
        moments = [(adam.mu, None), (adam.nu, None)] if adam else []
        for padded, wanted in ((self.learner.params, before.params), *moments):
            old = flatten_dict(wanted or jax.tree.map(np.zeros_like, padded), sep="/")
            for name, x in flatten_dict(padded, sep="/").items():
                rest = (np.asarray(x) - np.asarray(old[name]))[self.group]
                rest[self.own(name, rest.shape)] = 0
                assert not rest.any(), f"padding of {name} changed"


def actor_views(algo: Any, state: Any) -> list[View]:
    groups = groups_of(algo.spec, algo.settings.sharing)
    own = functools.partial(own_entries, spec=algo.spec, agent_id=algo.settings.agent_id)
    return [View(state.actors, g, functools.partial(own, agent=members[0])) for g, members in enumerate(groups)]


def view_of(algo: Any, state: Any, agent: int) -> View:
    """The view of the agent's group."""
    return actor_views(algo, state)[assignment(algo.spec, algo.settings.sharing)[agent]]


def critic_views(algo: Any, state: Any) -> list[View]:
    groups = [[None]] if algo.settings.centralized else groups_of(algo.spec, algo.settings.sharing)
    own = functools.partial(own_entries, spec=algo.spec, agent_id=algo.settings.agent_id)
    return [View(state.critics, g, functools.partial(own, agent=members[0])) for g, members in enumerate(groups)]


def own_input(algo: Any, observation: Any, agent: int) -> np.ndarray:
    """`[…, N, O] -> […, Oᵢ]`, with the one-hot agent id appended if the algorithm has `agent_id`."""
    own = np.asarray(observation)[..., agent, : algo.spec.agents[agent].observation_size]
    if not algo.settings.agent_id:
        return own
    return np.concatenate(
        [own, np.broadcast_to(np.eye(algo.spec.num_agents)[agent], (*own.shape[:-1], algo.spec.num_agents))], -1
    )


def normalized_input(algo: Any, state: Any, observation: Any, agent: int) -> np.ndarray:
    """`own_input`, normalized by the running moments of the agent's group; the agent id is unchanged."""
    if state.moments is None:
        return own_input(algo, observation, agent)
    own = np.arange(algo.spec.agents[agent].observation_size)
    shown = np.array(observation)
    group = assignment(algo.spec, algo.settings.sharing)[agent]
    shown[..., agent, own] = normalized(state.moments.observation, group, shown[..., agent, own], own)
    return own_input(algo, shown, agent)


def normalized(moments: Any, group: int, x: np.ndarray, own: Any) -> np.ndarray:
    """(x − mean)/std, clipped to ±10, by the running moments of a group; `x` itself before the first update."""
    if moments is None or not moments.weight[group]:
        return x
    mean, deviation = (np.asarray(m)[group][own] for m in (moments.mean, moments.deviation))
    return np.clip((x - mean) / np.sqrt(deviation / float(moments.weight[group]) + 1e-8), -10, 10)


def samples(algo: Any, state: Any, batch: Any, agent: int) -> reference.Samples:
    """One agent's rows `[T·E, …]` without padding."""
    space = algo.spec.agents[agent].action_space
    x = normalized_input(algo, state, batch.observation, agent)
    mask = np.asarray(batch.action_mask)[:, :, agent]

    def rows(x):
        return np.asarray(x).reshape(-1, *x.shape[2:])

    return reference.Samples(
        rows(x),
        [rows(mask[:, :, d, :n]) for d, n in enumerate(space.choices)],
        rows(np.asarray(batch.action)[:, :, agent, : space.num_components]),
        rows(np.asarray(batch.log_prob)[:, :, agent]),
        rows(np.asarray(batch.active)[:, :, agent]),
        sequences(algo, batch, np.asarray(batch.active)[:, :, agent], np.asarray(batch.memory)[:, agent])
        if getattr(algo.settings, "memory", "none") == "gru"
        else None,
    )


def sequences(algo: Any, batch: Any, active: np.ndarray, memory: np.ndarray) -> reference.Sequences:
    """The environments' rollouts, row t·E + e being step t of sequence e, with `memory` `[E, H]` before step 0."""
    of = np.broadcast_to(np.arange(active.shape[1]), active.shape)
    return reference.Sequences(of.ravel(), np.asarray(batch.first).ravel(), active.ravel(), memory)


def own_columns(algo: Any, agent: int) -> np.ndarray:
    """The columns of `own_input` in the padded input."""
    spec = algo.spec
    ids = spec.observation_size + np.arange(spec.num_agents if algo.settings.agent_id else 0)
    return np.concatenate([np.arange(spec.agents[agent].observation_size), ids])


def bounds(algo: Any, agent: int) -> Any:
    """The bounds that correspond to ±1 of the policy's Gaussian; `None` for native units."""
    space = algo.spec.agents[agent].action_space
    if not isinstance(space, Box) or not getattr(algo.settings, "action_scaling", True):
        return None
    low, high = np.array(space.low), np.array(space.high)
    return np.where(np.isfinite(low), low, -1.0), np.where(np.isfinite(high), high, 1.0)


def policy(algo: Any, state: Any, batch: Any, agent: int) -> tuple[np.ndarray, np.ndarray, Any]:
    """The reference's log-probabilities and entropies of one agent's rows, with the parameters of `state`."""
    rows = samples(algo, state, batch, agent)
    return reference.policy(
        view_of(algo, state, agent).read().params, bounds(algo, agent), rows, getattr(algo.settings, "std_scale", 0.5)
    )


def timestep_of(batch) -> Timestep:
    """The first row of a batch as a timestep for the actors, `[E, N, …]`."""
    fields = {name: getattr(batch, name)[0] for name in ("observation", "state", "action_mask", "active")}
    no = jnp.zeros_like(batch.terminated[0])
    flags = {"terminated": no, "truncated": no, "first": no}
    reward = jnp.zeros(fields["active"].shape)
    return Timestep(**fields, **flags, reward=reward, final=None, metrics={})  # type: ignore[arg-type]
