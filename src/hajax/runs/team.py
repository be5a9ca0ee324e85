"""The pure functions of a run: its environment, its algorithm, and the loop and evaluations that are made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from hajax.algorithms import make_algorithm
from hajax.core.algorithm import Algorithm
from hajax.core.groups import make_groups
from hajax.core.settings import TeamSettings
from hajax.envs import make_env
from hajax.envs.base import BatchedEnvironment, Environment
from hajax.envs.batching import batched
from hajax.envs.mamujoco import chosen_physics
from hajax.runs.errors import refusing
from hajax.runs.settings import TrainSettings
from hajax.training import Loop, make_evaluate, make_loop


class Team(NamedTuple):
    """The pure functions of a run, for one seed."""

    algorithm: Algorithm
    loop: Loop
    env: Environment | BatchedEnvironment
    evaluators: dict[str, Callable]  # column prefix -> evaluate(key, algorithm_state)
    episode_metrics: tuple[str, ...]  # names of training metrics that are means over the episodes that ended
    axes: tuple[tuple[str, ...], ...] = ()  # the names of the agents, and of the groups that share parameters


def decided(settings: TrainSettings) -> TrainSettings:
    """The settings with what depends on the machine decided, as a run records them: the physics of a robot."""
    if settings.env.get("name", "").startswith("mamujoco/") and settings.env.get("physics") == "auto":
        return dataclasses.replace(settings, env=settings.env | {"physics": chosen_physics()})
    return settings


def make_members(settings: TrainSettings) -> tuple[Environment | BatchedEnvironment, Algorithm]:
    """The environment and the algorithm; `Refusal` if they do not accept the settings."""
    env_options = {name: value for name, value in settings.env.items() if name != "name"}
    with refusing((ValueError, TypeError), {name: (f"env.{name}", value) for name, value in env_options.items()}):
        env = make_env(settings.env.get("name", ""), **env_options)
    with refusing(typed=typed_settings(settings)):
        return env, make_algorithm(settings.algo.get("name", ""), env, **algorithm_options(settings))


def algorithm_options(settings: TrainSettings) -> dict[str, Any]:
    """The settings of the algorithm, for `make_algorithm`."""
    # `reward` in algo/*.yaml is the environments' default; it is not a setting of the algorithm.
    return {name: value for name, value in settings.algo.items() if name not in ("name", "reward")}


def build(settings: TrainSettings) -> Team:
    """The environment, the algorithm and their functions; `Refusal` if they do not accept the settings."""
    env, algo = make_members(settings)
    with refusing(typed=typed_settings(settings)):
        loop = make_loop(env, algo, num_envs=settings.num_envs, rollout_length=settings.rollout_length)
        updates = loop.iterations(settings.total_steps) * loop.updates_per_iteration
        if settings.lr_decay:
            decayed = algo.hyperparameters.replace(decay_updates=updates)
            algo = algo._replace(hyperparameters=decayed)  # the programs take them as an argument
        evaluation = settings.eval
        return make_team(
            env, algo, loop, evaluation.episodes, max_steps=evaluation.max_steps, stochastic=evaluation.stochastic
        )


def make_team(
    env: Environment | BatchedEnvironment,
    algo: Algorithm,
    loop: Loop,
    episodes: int,
    *,
    max_steps: int | None = None,
    stochastic: bool = False,
) -> Team:
    """The functions of a run, with evaluations of so many episodes; if `stochastic`, also with sampled actions."""
    modes = {"eval_": True} | ({"eval_stochastic_": False} if stochastic else {})
    evaluators = {
        prefix: make_evaluate(env, algo, num_episodes=episodes, max_steps=max_steps, deterministic=deterministic)
        for prefix, deterministic in modes.items()
    }
    _, timestep = jax.eval_shape(batched(env).reset, jax.random.split(jax.random.key(0), 1))
    episode_metrics = ("episode_return", "episode_length", *timestep.metrics)
    return Team(algo, loop, env, evaluators, episode_metrics, axis_names(algo))


def axis_names(algo: Algorithm) -> tuple[tuple[str, ...], ...]:
    """The names of the agents, and of the groups: the agent's of a group of one, otherwise `group_K`.

    There are none if every agent is a group but in another order: an array does not say which of the two it follows.
    """
    agents = tuple(agent.name for agent in algo.spec.agents)
    if not isinstance(algo.settings, TeamSettings):  # an algorithm of another kind
        return (agents,)
    made = make_groups(algo.spec, algo.settings.sharing)
    sizes = made.member_mask.sum(1)
    groups = tuple(agents[first] if sizes[k] == 1 else f"group_{k}" for k, first in enumerate(made.first_member))
    if len(groups) == len(agents):
        return (agents,) if groups == agents else ()
    return agents, groups


def typed_settings(settings: TrainSettings) -> dict[str, tuple[str, Any]]:
    """The names of the library's settings at the command line, and their values."""
    typed = {name: (f"algo.{name}", value) for name, value in settings.algo.items() if name != "name"}
    typed |= {name: (name, getattr(settings, name)) for name in ("total_steps", "num_envs", "rollout_length")}
    typed |= {name: (f"eval.{name}", value) for name, value in vars(settings.eval).items()}
    # An environment's reward follows the algorithm's, unless it was set.
    reward = settings.env.get("reward")
    if reward is not None and reward != settings.algo.get("reward"):
        typed["reward"] = ("env.reward", reward)
    return typed
