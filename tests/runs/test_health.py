"""What is non-finite, and whether it is the environment's."""

import jax
import jax.numpy as jnp
import pytest

import hajax
from hajax.envs.batching import batched
from hajax.runs.health import failures, from_environment, healthy, quantities, watch
from hajax.training.rollout import start

ENV = hajax.make_env("mpe/simple_spread")
ALGO = hajax.make_algorithm("happo", ENV, hidden_sizes=(4,))
ACTORS = start(batched(ENV), ALGO, jax.random.key(0), 4)
METRICS = {"episodes": jnp.zeros(()), "episode_return": jnp.array(jnp.nan), "loss": jnp.ones(())}


def first_failure(actors, metrics):
    found = from_environment(ENV.spec, actors, metrics) | quantities((), metrics, ("episode_return",))
    health = watch(watch(healthy(), found), found)
    return failures(jax.tree.map(lambda x: x[None], health), tuple(found))


def with_timestep(**fields):
    return ACTORS._replace(timestep=ACTORS.timestep._replace(**fields))


def test_finite_numbers_and_means_over_no_episodes_are_healthy():
    assert first_failure(ACTORS, METRICS) == []


@pytest.mark.parametrize(
    ("actors", "metrics", "quantity"),
    [
        (
            with_timestep(observation=ACTORS.timestep.observation.at[2, 1, 0].set(jnp.nan)),
            {"loss": jnp.array(jnp.nan)},
            "the environment's observation of agent_1",
        ),
        (
            ACTORS._replace(episodes=ACTORS.episodes._replace(running_return=jnp.array([0, jnp.nan, 0, 0]))),
            {"loss": jnp.array(jnp.nan)},
            "the environment's reward",
        ),
        (ACTORS, {"episodes": jnp.array(2.0)}, "the environment's reward"),
        (ACTORS, {"loss": jnp.array(-jnp.inf)}, "loss"),
    ],
    ids=["observation", "reward of an episode under way", "reward of an episode that ended", "loss"],
)
def test_the_environment_is_named_before_what_was_learned_from_it(actors, metrics, quantity):
    (failure,) = first_failure(actors, METRICS | metrics)
    assert failure == (0, 1, quantity)
