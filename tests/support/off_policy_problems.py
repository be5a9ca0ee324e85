"""Small random off-policy problems, and their conversion to the plain arrays of `reference_off_policy.py`."""

from __future__ import annotations

import dataclasses
import functools
import unittest.mock
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import problems
import reference_off_policy as reference
from flax.traverse_util import flatten_dict

import hajax
from hajax.core.batches import OffPolicyBatch

# Different from every default, and such that gradients and target noise are clipped.
NUMBERS = {
    "actor_lr": 1e-2,
    "critic_lr": 2e-2,
    "discount": 0.9,
    "target_rate": 0.3,
    "max_grad_norm": 0.3,
    "adam_eps": 1e-4,
}
NOISE = {"target_noise": 0.7, "target_noise_clip": 0.4}
TINY = {"hidden_sizes": (6, 5), "batch_size": 7, "layer_norm_min_inputs": 1}


def make_algorithm(name: str, spec: Any, **settings: Any) -> Any:
    """A tiny algorithm with `NUMBERS` unless `settings` say otherwise."""
    numbers = NUMBERS | (NOISE if name.endswith("td3") else {})
    if name == "id3qn":  # it has no critic
        del numbers["critic_lr"]
    return hajax.make_algorithm(name, spec, **(TINY | numbers | settings))


def random_state(algo: Any, seed: int) -> Any:
    """The state of `algo` with random numbers for all parameters, padded entries and targets included."""
    rng = np.random.default_rng(seed)

    def fill(x):
        return jnp.asarray(0.4 * rng.normal(size=x.shape))

    state = problems.zeros_of(jax.eval_shape(algo.init, jax.random.key(0)))
    for part in ("actors", "critics"):
        if (learner := getattr(state, part)) is None:
            continue
        state = state._replace(**{part: learner._replace(params=jax.tree.map(fill, learner.params))})
        if getattr(state, f"target_{part}") is not None:
            state = state._replace(**{f"target_{part}": jax.tree.map(fill, learner.params)})
    if state.extra is not None:
        state = state._replace(extra=jax.jit(algo.init)(jax.random.key(seed)).extra)
    if state.temperatures is not None:
        state = state._replace(temperatures=state.temperatures._replace(params=fill(state.temperatures.params)))
    return state._replace(hyperparameters=jax.tree.map(lambda x: jnp.asarray(x, float), algo.hyperparameters))


class Recorder:
    """The compiled `algo.update`, which also records the permutation of groups and the noise that were drawn."""

    def __init__(self, algo):
        self.noise, self.gumbel, self.orders = [], [], []
        self._update = jax.jit(lambda *args: algo.update(*args), compiler_options=problems.QUICK)

    def __call__(self, *args):
        def recording(draw, into):
            def recorded(*given, **kwargs):
                drawn = draw(*given, **kwargs)
                # As pairs of words, because callbacks run in another thread, where float64 is not enabled.
                words = jax.lax.bitcast_convert_type(drawn, jnp.uint32)
                jax.debug.callback(lambda x: into.append(np.array(x).view(drawn.dtype)[..., 0]), words, ordered=True)
                return drawn

            return recorded

        self.noise.clear(), self.gumbel.clear(), self.orders.clear()
        with (
            unittest.mock.patch("jax.random.permutation", recording(jax.random.permutation, self.orders)),
            unittest.mock.patch("jax.random.normal", recording(jax.random.normal, self.noise)),
            unittest.mock.patch("jax.random.gumbel", recording(jax.random.gumbel, self.gumbel)),
        ):
            result = jax.block_until_ready(self._update(*args))
        jax.effects_barrier()
        return result, list(self.noise), list(self.orders)


def random_batch(algo: Any, seed: int, inactive: float = 0.0) -> OffPolicyBatch:
    """Valid random transitions: padded observations, actions within bounds, episodes that end within n steps."""
    rng, spec, settings = np.random.default_rng(seed), algo.spec, algo.settings
    rows = (settings.policy_delay, settings.batch_size)
    agents = (*rows, spec.num_agents)
    steps = rng.integers(1, settings.n_step + 1, rows)
    reward = rng.normal(size=(*rows, settings.n_step, spec.num_agents))
    if spec.reward == "team":
        reward = np.broadcast_to(reward[..., :1], reward.shape)
    reward = np.where((np.arange(settings.n_step) < steps[..., None])[..., None], reward, 0)
    unit = rng.uniform(-1, 1, size=(*agents, spec.num_components))
    layout = spec.action_layout
    shape = (*agents, spec.observation_size)

    def masks():
        """Some choices are not available, but at least one is."""
        kept = rng.integers(spec.num_choices, size=unit.shape) % layout.choices.sum(-1)
        one = np.arange(spec.num_choices) == kept[..., None]
        return ((rng.random((*unit.shape, spec.num_choices)) < 0.6) | one) & layout.choices

    mask, final_mask = masks(), masks()
    chosen = np.where(mask, rng.random(mask.shape), -1).argmax(-1)
    batch = hajax.off_policy_batch(
        spec,
        observation=rng.normal(size=shape) * spec.observation_mask,
        state=rng.normal(size=(*rows, spec.state_size)),
        action=np.where(layout.discrete, chosen, np.where(layout.continuous, layout.center + layout.scale * unit, 0)),
        action_mask=mask if spec.masks_actions else None,
        final_action_mask=final_mask if spec.masks_actions else None,
        reward=reward,
        steps=steps,
        terminated=rng.random(rows) < 0.4,
        active=rng.random(agents) >= inactive,
        final_active=rng.random(agents) >= inactive,
        final_observation=rng.normal(size=shape) * spec.observation_mask,
        final_state=rng.normal(size=(*rows, spec.state_size)),
    )
    return jax.tree.map(jnp.asarray, batch)


def views(algo, state, part: str) -> Any:
    """The library's learners as views, of groups or of critics `[V][copies]`."""
    if part == "actors":
        return problems.actor_views(algo, state)
    shape = jax.tree.leaves(state.critics.params)[0].shape[:2]
    own = functools.partial(problems.own_entries, spec=algo.spec, agent_id=False, agent=None)
    return [[problems.View(state.critics, (v, c), own) for c in range(shape[1])] for v in range(shape[0])]


def read(algo, state) -> reference.Team:
    """The state without padding."""

    def parameters(view, tree):
        flat = {name: np.asarray(x)[view.group] for name, x in flatten_dict(tree, sep="/").items()}
        own = {name: x[view.own(name, x.shape)] for name, x in flat.items()}
        return {name: x for name, x in own.items() if x.size}

    actors, critics = views(algo, state, "actors"), views(algo, state, "critics")
    return reference.Team(
        [view.read() for view in actors],
        [[view.read() for view in twins] for twins in critics],
        [parameters(view, state.target_actors) for view in actors],
        [[parameters(view, state.target_critics) for view in twins] for twins in critics],
    )


def transitions(algo, batch: OffPolicyBatch, p: int) -> reference.Transitions:
    """The p-th minibatch without padding."""
    spec, one = algo.spec, jax.tree.map(lambda x: np.asarray(x)[p], batch)
    agents = range(spec.num_agents)
    return reference.Transitions(
        observation=[problems.own_input(algo, one.observation, i) for i in agents],
        state=one.state,
        action=[one.action[:, i, : spec.agents[i].action_space.num_components] for i in agents],
        active=[one.active[:, i] for i in agents],
        reward=one.reward,
        steps=one.steps,
        terminated=one.terminated,
        final_observation=[problems.own_input(algo, one.final_observation, i) for i in agents],
        final_state=one.final_state,
        final_active=[one.final_active[:, i] for i in agents],
    )


def numbers_of(state) -> Any:
    """The state's hyperparameters as a dataclass of floats."""
    numbers = {k: float(v) for k, v in vars(state.hyperparameters).items()}
    return dataclasses.make_dataclass("Numbers", numbers)(**numbers)


def expectation(algo, state, batch, noise, orders) -> reference.Team:
    """The reference's result for the same state, minibatches and random draws."""
    spec, settings = algo.spec, algo.settings
    groups = problems.groups_of(spec, settings.sharing)
    boxes = [reference.Bounds(np.array(a.action_space.low), np.array(a.action_space.high)) for a in spec.agents]
    noises: list[Any] = [None] * settings.policy_delay
    if noise:
        noises = [[x[:, i, : len(box.low)] for i, box in enumerate(boxes)] for x in noise]
    order = {"simultaneous": None, "fixed": range(len(groups))}.get(settings.order, orders[0] if orders else [0])
    hp = numbers_of(state)
    rows = [transitions(algo, batch, p) for p in range(settings.policy_delay)]
    team = read(algo, state)
    return reference.update(team, groups, boxes, rows, noises, order, settings.others, settings.epochs, hp)


def assert_team_equals(algo, old, new, expected: reference.Team, tolerance: float = 1e-10) -> None:
    for view, learner in zip(views(algo, new, "actors"), expected.actors, strict=True):
        view.assert_equals(learner, old.actors, tolerance)
    for twins, learners in zip(views(algo, new, "critics"), expected.critics, strict=True):
        for view, learner in zip(twins, learners, strict=True):
            view.assert_equals(learner, old.critics, tolerance)
    actual = read(algo, new)
    found = [*actual.target_actors, *(p for twins in actual.target_critics for p in twins)]
    wanted = [*expected.target_actors, *(p for twins in expected.target_critics for p in twins)]
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_allclose(one[name], other[name], 0, tolerance, err_msg=name)
