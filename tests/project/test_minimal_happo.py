"""`examples/minimal_happo.py` stands alone, makes hajax's own update, and learns its problem."""

from __future__ import annotations

import ast
import itertools
import runpy
import sys
import types
from pathlib import Path
from typing import Any

import expected
import jax
import jax.numpy as jnp
import numpy as np
import problems
import pytest

import hajax
from hajax.core.batches import OnPolicyBatch

PATH = Path(__file__).parents[2] / "examples" / "minimal_happo.py"
minimal = types.SimpleNamespace(**runpy.run_path(str(PATH)))
NUM_AGENTS, WIDTH, NUM_ACTIONS = minimal.NUM_AGENTS, minimal.CELLS, minimal.NUM_ACTIONS
CONFIG = minimal.Config(num_envs=8, rollout_length=24, hidden_size=6, epochs=5, learning_rate=2e-2, clip=0.05)


def test_it_is_short_and_imports_nothing_of_hajax():
    source = PATH.read_text(encoding="utf-8")
    imported = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module)
    assert {name.split(".")[0] for name in imported} - sys.stdlib_module_names == {"jax", "optax"}
    assert len(source.splitlines()) <= 170


# The update, in float64.


@pytest.fixture
def float64():
    with jax.enable_x64(True):
        yield


def make_algorithm(order: str) -> Any:
    """hajax's HAPPO with the example's networks and numbers."""
    return problems.make_algorithm(
        "happo",
        problems.make_spec(
            [hajax.Discrete(NUM_ACTIONS)] * NUM_AGENTS, [WIDTH] * NUM_AGENTS, state_size=NUM_AGENTS * WIDTH
        ),
        order=order,
        guard="none",
        hidden_sizes=(CONFIG.hidden_size,),
        activation="tanh",
        layer_norm=False,
        epochs=CONFIG.epochs,
        critic_epochs=CONFIG.epochs,
        actor_lr=CONFIG.learning_rate,
        critic_lr=CONFIG.learning_rate,
        adam_eps=1e-8,
        max_grad_norm=1e9,
        clip=CONFIG.clip,
        entropy_coef=0.0,
        discount=CONFIG.discount,
        gae_lambda=CONFIG.gae_lambda,
        value_loss="squared",
        clip_value=False,
        normalize_values=False,
    )


def random_team(key: jax.Array) -> Any:
    """The example's team before its first update, with random biases too."""
    *actor_keys, critic_key, bias_key = jax.random.split(key, NUM_AGENTS + 2)
    actors = jax.vmap(lambda key: minimal.init_learner(key, CONFIG, WIDTH, NUM_ACTIONS))(jnp.stack(actor_keys))
    team = minimal.Team(actors, minimal.init_learner(critic_key, CONFIG, NUM_AGENTS * WIDTH, 1))

    def fill(learner):
        params = [(kernel, 0.3 * jax.random.normal(bias_key, bias.shape)) for kernel, bias in learner.params]
        return learner._replace(params=params)

    return minimal.Team(*map(fill, team))


def as_hajax(params: list, head: str) -> dict:
    """The example's parameters under hajax's names."""
    layers = [{"kernel": kernel, "bias": bias} for kernel, bias in params]
    return {"torso": {"Dense_0": layers[0]}, head: layers[1]}


def hajax_state(algo: Any, team: Any) -> Any:
    """A fresh state of hajax with the parameters of the example's team, which has made no step yet."""
    state = problems.random_state(algo, 0)
    actors = state.actors._replace(params=as_hajax(team.actors.params, "logits"))
    critic = jax.tree.map(lambda x: x[None], as_hajax(team.critic.params, "value"))
    new = state._replace(actors=actors, critics=state.critics._replace(params=critic))
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)
    return new


def random_rollout(key: jax.Array, team: Any) -> Any:
    """A rollout of the example with random rewards and terminations; some episodes are cut off at its end."""
    rollout = minimal.collect(key, CONFIG, team.actors.params)
    reward_key, end_key = jax.random.split(key)
    terminated = jax.random.bernoulli(end_key, 0.15, rollout.reward.shape)
    assert terminated[:-1].any()
    assert not terminated[-1].all()
    return rollout._replace(reward=jax.random.normal(reward_key, rollout.reward.shape), terminated=terminated)


def hajax_batch(team: Any, rollout: Any) -> OnPolicyBatch:
    """The same rollout as hajax takes it."""
    logits = jax.vmap(minimal.network, (0, 2), 2)(team.actors.params, rollout.observation)
    log_prob = jnp.take_along_axis(jax.nn.log_softmax(logits), rollout.action[..., None], -1)[..., 0]
    shape = rollout.action.shape
    return OnPolicyBatch(
        observation=rollout.observation,
        state=rollout.state,
        action_mask=jnp.ones((*shape, 1, NUM_ACTIONS), bool),
        active=jnp.ones(shape, bool),
        first=jnp.roll(rollout.terminated, 1, axis=0).at[0].set(True),
        action=rollout.action[..., None].astype(float),
        log_prob=log_prob,
        reward=jnp.broadcast_to(rollout.reward[..., None], shape),
        terminated=rollout.terminated,
        truncated=(~rollout.terminated).at[:-1].set(False),
        final_observation=rollout.next_state.reshape(rollout.observation.shape),
        final_state=rollout.next_state,
        final_active=jnp.ones(shape, bool),
        memory=(),
    )


def assert_same_parameters(team: Any, state: Any) -> None:
    expected.assert_trees_close(as_hajax(team.actors.params, "logits"), state.actors.params, 1e-12)
    critic = jax.tree.map(lambda x: x[0], state.critics.params)
    expected.assert_trees_close(as_hajax(team.critic.params, "value"), critic, 1e-12)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("order", ["fixed", "random"])
def test_its_updates_are_those_of_hajax(order):
    """Several in a row: every parameter of all actors and of the critic, so Adam's moments too."""
    algo, team = make_algorithm(order), random_team(jax.random.key(1))
    state, hajax_update = hajax_state(algo, team), problems.Recorder(algo)
    update, orders = jax.jit(minimal.update, static_argnums=0), set()
    for i in range(4):
        rollout = random_rollout(jax.random.key(10 + i), team)
        state, info, drawn = hajax_update(jax.random.key(i), state, hajax_batch(team, rollout))
        permutation = drawn[0] if order == "random" else np.arange(NUM_AGENTS)
        team = update(CONFIG, jnp.asarray(permutation), team, rollout)
        assert_same_parameters(team, state)
        assert (info["clip_fraction"] > 0).all()
        orders.add(tuple(permutation.tolist()))
    assert len(orders) == 1 if order == "fixed" else len(orders) > 1


@pytest.mark.usefixtures("float64")
def test_every_order_gives_another_update_and_the_same_critic():
    team = random_team(jax.random.key(1))
    rollout = random_rollout(jax.random.key(2), team)
    update = jax.jit(minimal.update, static_argnums=0)
    orders = list(itertools.permutations(range(NUM_AGENTS)))
    updated = [update(CONFIG, jnp.array(order), team, rollout) for order in orders]
    for one, other in itertools.combinations(updated, 2):
        gaps = jax.tree.map(
            lambda a, b: np.abs(np.asarray(a) - np.asarray(b)).max(), one.actors.params, other.actors.params
        )
        assert max(jax.tree.leaves(gaps)) > 1e-4
        expected.assert_trees_close(one.critic, other.critic, 0)


# Training.


def optimal_return() -> float:
    """Minus the steps until the agents, on their best posts, have all arrived; the mean over starts."""
    steps = [
        min(max(abs(start - post) for post in posts) for posts in itertools.permutations(minimal.POSTS))
        for start in range(minimal.CELLS)
    ]
    return -float(np.mean(steps))


@pytest.mark.evidence
def test_every_seed_learns_the_optimum():
    train = jax.jit(jax.vmap(minimal.make_train(minimal.Config())))
    _, returns = train(jax.random.split(jax.random.key(5), 3))
    assert optimal_return() == pytest.approx(-33 / 7)
    assert (returns[:, 0] < -20).all()
    np.testing.assert_allclose(returns[:, -10:].mean(1), optimal_return(), rtol=0, atol=0.3)
