"""The programs timed by `throughput.py`: each has a start and an iteration of `num_envs · rollout_length` steps.

random   random actions in hajax's simple_spread, nothing stored
policy   HAPPO's rollout: the actors act, the batch is stored
happo    HAPPO, rollout and update: unshared actors in sequence, one critic on all observations
hatrpo   HATRPO: a natural-gradient step for every actor instead of the epochs
haa2c    HAA2C: HAPPO without the clip
mappo    MAPPO: one actor for all agents, one critic on all observations
ippo     the yardstick of ippo.py in the same environment: one actor and one critic for all agents, on individual
         observations
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ippo import Config, from_hajax, make_ippo
from jax import lax

import hajax
from hajax.runs import config
from hajax.training.rollout import playable, rollout, start

ROWS = ("random", "policy", "happo", "hatrpo", "haa2c", "mappo", "ippo")

ALGORITHMS = ("happo", "hatrpo", "haa2c", "mappo")
ASCENT = ("epochs", "actor_lr", "entropy_coef")


class Iteration(NamedTuple):
    """`init(key) -> state` and `iterate(state) -> state`, of one seed; pure, to be vmapped over seeds."""

    init: Callable[[jax.Array], Any]
    iterate: Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """The size of a rollout, and the networks and epochs, equal for hajax and the yardstick."""

    num_envs: int
    rollout_length: int
    settings: dict[str, Any]  # of hajax's algorithms

    @property
    def steps(self) -> int:
        """Environment steps of one iteration."""
        return self.num_envs * self.rollout_length

    def yardstick(self) -> Config:
        """The configuration of ippo.py, whose value loss is always JaxMARL's (squared, clipped, not normalized)."""
        names = ("activation", "layer_norm", "epochs", "minibatches", "max_grad_norm", "clip", "entropy_coef")
        return Config(
            num_envs=self.num_envs,
            rollout_length=self.rollout_length,
            hidden_sizes=tuple(self.settings["hidden_sizes"]),
            learning_rate=self.settings["actor_lr"],
            **{name: self.settings[name] for name in names},
        )


def harl_mpe() -> Schedule:
    """`preset=harl/mpe`: 20 x 200, ReLU 128-128 with layer normalization, 5 epochs of one minibatch."""
    preset = config.compose(["preset=harl/mpe"])
    choices = (
        "name",
        "reward",
        "order",
        "sharing",
        "centralized",
        "agent_id",
    )  # these define the algorithm, not the schedule
    settings = {name: value for name, value in preset["algo"].items() if name not in choices}
    return Schedule(preset["num_envs"], preset["rollout_length"], settings)


def jaxmarl_mpe(num_envs: int = 16, rollout_length: int = 128, hidden_size: int = 64) -> Schedule:
    """JaxMARL's `ippo_ff_mpe`: 16 x 128, tanh 64-64, 4 epochs of 4 minibatches, squared and clipped value loss."""
    settings = {
        "hidden_sizes": (hidden_size, hidden_size),
        "activation": "tanh",
        "layer_norm": False,
        "epochs": 4,
        "critic_epochs": 4,
        "minibatches": 4,
        "actor_lr": 2.5e-4,
        "critic_lr": 2.5e-4,
        "clip": 0.2,
        "entropy_coef": 0.01,
        "max_grad_norm": 0.5,
        "value_loss": "squared",
        "clip_value": True,
        "normalize_values": False,
    }
    return Schedule(num_envs, rollout_length, settings)


def make_row(name: str, schedule: Schedule, num_agents: int) -> Iteration:
    """The row `name` on simple_spread with `num_agents` agents."""
    env = hajax.make_env("mpe/simple_spread", num_agents=num_agents)
    if name == "ippo":
        ippo = make_ippo(from_hajax(env), schedule.yardstick())
        return Iteration(ippo.init, lambda state: ippo.iterate(state)[0])
    algo = make_algorithm(name if name in ALGORITHMS else "happo", env, schedule)
    if name == "random":
        return random_rollout(playable(env, algo), algo, schedule)
    if name == "policy":
        return policy_rollout(playable(env, algo), algo, schedule)
    sizes = {"num_envs": schedule.num_envs, "rollout_length": schedule.rollout_length}
    loop = hajax.make_loop(env, algo, **sizes)
    return Iteration(loop.init, lambda state: loop.iterate(state)[0])


def make_algorithm(name: str, env: Any, schedule: Schedule) -> Any:
    """The algorithm with the schedule's settings (for HATRPO without those of gradient ascent)."""
    settings = {key: value for key, value in schedule.settings.items() if name != "hatrpo" or key not in ASCENT}
    return hajax.make_algorithm(name, env, **settings)


def random_rollout(envs: Any, algo: Any, schedule: Schedule) -> Iteration:
    """Uniform actions. The state keeps the last timestep, so that no step is compiled out."""
    shape = (schedule.num_envs, envs.spec.num_agents, 1)

    def init(key):
        start_key, key = jax.random.split(key)
        actors = start(envs, algo, start_key, schedule.num_envs)
        return actors.env_state, actors.timestep, key

    def step(carry, key):
        act_key, env_key = jax.random.split(key)
        action = jax.random.randint(act_key, shape, 0, envs.spec.num_choices).astype(float)
        return envs.step(jax.random.split(env_key, schedule.num_envs), carry[0], action), None

    def iterate(state):
        env_state, timestep, key = state
        key, rollout_key = jax.random.split(key)
        keys = jax.random.split(rollout_key, schedule.rollout_length)
        return *lax.scan(step, (env_state, timestep), keys)[0], key

    return Iteration(init, iterate)


def policy_rollout(envs: Any, algo: Any, schedule: Schedule) -> Iteration:
    """The rollout of a training. The state keeps the batch, so that nothing is compiled out."""

    def once(key, algo_state, actors):
        return rollout(envs, algo, key, algo_state, actors, schedule.rollout_length)

    def init(key):
        algo_key, start_key, key = jax.random.split(key, 3)
        algo_state, actors = algo.init(algo_key), start(envs, algo, start_key, schedule.num_envs)
        _, batch = jax.eval_shape(once, key, algo_state, actors)
        return algo_state, actors, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), batch), key

    def iterate(state):
        algo_state, actors, _, key = state
        key, rollout_key = jax.random.split(key)
        return algo_state, *once(rollout_key, algo_state, actors), key

    return Iteration(init, iterate)
