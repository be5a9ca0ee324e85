"""The compiled programs of a run: start, train for some iterations, evaluate; each over all seeds at once."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hajax.algorithms import Algorithm, make_algorithm
from hajax.cli.errors import Refusal
from hajax.cli.settings import TrainSettings
from hajax.envs import Environment, make_env
from hajax.training import Loop, make_evaluate, make_loop

# Far from the small numbers that a training loop folds into its own keys.
EVALUATION_STREAM = 0x_E7A1


class Team(NamedTuple):
    """What a run is made of: pure functions for one seed."""

    algorithm: Algorithm
    loop: Loop
    evaluators: dict[str, Callable]  # column prefix -> evaluate(key, algorithm_state)
    episode_metrics: tuple[str, ...]  # names of training metrics that are means over the episodes that ended


class Totals(NamedTuple):
    """Sums of training metrics since the last evaluation."""

    metrics: dict[str, jax.Array]
    iterations: jax.Array
    episodes: jax.Array


class Programs(NamedTuple):
    """Compiled for `num_seeds` at once; every array has a leading seed axis."""

    init: Callable  # (keys, hyperparameters) -> train state
    advance: Callable  # (train state, totals, iterations) -> (train state, totals); the first two are donated
    evaluate: Callable  # (keys, algorithm state) -> {prefix: results}
    no_totals: Callable[[], Totals]
    compile_seconds: float


def build(settings: TrainSettings) -> Team:
    """The environment, the algorithm and the functions made of them; `Refusal` if they don't accept their settings."""
    # `reward` in algo/*.yaml is what environments take as their default; it is no setting of the algorithm.
    options = {name: value for name, value in settings.algo.items() if name not in ("name", "reward")}
    if settings.lr_decay:
        options["decay_updates"] = math.ceil(settings.total_steps / (settings.num_envs * settings.rollout_length))
    env_options = {name: value for name, value in settings.env.items() if name != "name"}
    try:
        env = make_env(settings.env.get("name", ""), **env_options)
        algo = make_algorithm(settings.algo.get("name", ""), env, **options)
        loop = make_loop(env, algo, num_envs=settings.num_envs, rollout_length=settings.rollout_length)
        evaluators = {"eval_": _evaluator(env, algo, settings, deterministic=True)}
        if settings.eval.stochastic:
            evaluators["eval_stochastic_"] = _evaluator(env, algo, settings, deterministic=False)
    except ValueError as error:
        raise Refusal(str(error)) from error
    _, timestep = jax.eval_shape(env.reset, jax.random.key(0))
    return Team(algo, loop, evaluators, ("episode_return", "episode_length", *timestep.metrics))


def _evaluator(env: Environment, algo: Algorithm, settings: TrainSettings, deterministic: bool) -> Callable:
    return make_evaluate(
        env,
        algo,
        num_episodes=settings.eval.episodes,
        max_steps=settings.eval.max_steps,
        deterministic=deterministic,
    )


def seed_keys(seed: int, num_seeds: int) -> jax.Array:
    """`[num_seeds]` keys; seed k of a run has `jax.random.key(seed + k)`, whatever the other seeds are."""
    return jnp.stack([jax.random.key(seed + k) for k in range(num_seeds)])


def evaluation_keys(keys: jax.Array, steps: int) -> jax.Array:
    """Keys for the evaluation after `steps` environment steps: fresh episodes every time, and none of training's."""
    return jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, EVALUATION_STREAM), steps))(keys)


def compile_programs(team: Team, keys: jax.Array) -> Programs:
    """Compiles for as many seeds as there are keys.

    The number of iterations and the hyperparameters are arguments, so that neither an evaluation at another moment nor
    another learning rate needs another program.
    """
    started = time.perf_counter()
    iterate = jax.jit(team.loop.iterate)  # traced once, though used twice
    init = jax.jit(jax.vmap(team.loop.init, in_axes=(0, None)))
    numbers = hyperparameters(team)
    train_state = jax.eval_shape(init, keys, numbers)
    _, metrics = jax.eval_shape(jax.vmap(iterate), train_state)

    def no_totals() -> Totals:
        def zeros():  # arrays of their own, for they are donated
            return jnp.zeros(keys.shape)

        return Totals({name: zeros() for name in metrics}, zeros(), zeros())

    def advance(train_state: Any, totals: Totals, iterations: jax.Array) -> tuple[Any, Totals]:
        def body(_, carry):
            train_state, totals = carry
            train_state, metrics = iterate(train_state)
            return train_state, _add(totals, metrics, team.episode_metrics)

        return lax.fori_loop(0, iterations, body, (train_state, totals))

    def evaluate(key: jax.Array, algorithm_state: Any) -> dict[str, dict[str, jax.Array]]:
        return {prefix: evaluator(key, algorithm_state) for prefix, evaluator in team.evaluators.items()}

    advance_all = jax.jit(jax.vmap(advance, in_axes=(0, 0, None)), donate_argnums=(0, 1))
    evaluate_all = jax.jit(jax.vmap(evaluate))
    # What runs rarely isn't worth LLVM's last optimisations.
    quick: Any = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
    with ThreadPoolExecutor() as threads:  # the longest first, so that the others compile beside it
        totals = jax.eval_shape(no_totals)
        advancing = threads.submit(advance_all.lower(train_state, totals, jnp.zeros((), int)).compile)
        starting = threads.submit(init.lower(keys, numbers).compile, quick)
        evaluating = threads.submit(evaluate_all.lower(keys, train_state.algorithm).compile, quick)
    programs = (starting.result(), advancing.result(), evaluating.result())
    return Programs(*programs, no_totals, time.perf_counter() - started)


def hyperparameters(team: Team) -> Any:
    """The algorithm's numbers as arrays, to be passed to programs instead of being compiled into them."""
    return jax.tree.map(lambda x: jnp.asarray(x, float), team.algorithm.hyperparameters)


def _add(totals: Totals, metrics: dict[str, jax.Array], episode_metrics: tuple[str, ...]) -> Totals:
    """Adds one iteration; means over episodes count as often as there were episodes, `[G]` metrics by their mean."""
    episodes = metrics["episodes"]

    def weighted(name: str, value: jax.Array) -> jax.Array:
        value = value.mean()
        return jnp.where(episodes > 0, value * episodes, 0) if name in episode_metrics else value

    sums = {name: total + weighted(name, metrics[name]) for name, total in totals.metrics.items()}
    return Totals(sums, totals.iterations + 1, totals.episodes + episodes)


def means(totals: Totals, episode_metrics: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Means `[num_seeds]` over the iterations, or over the episodes that ended in them (NaN if none did).

    `episodes` stays a sum.
    """
    metrics, iterations, episodes = jax.device_get(totals)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = {name: x / (episodes if name in episode_metrics else iterations) for name, x in metrics.items()}
    return mean | {"episodes": episodes}


def use_compilation_cache(setting: bool | str) -> None:
    """Keeps compiled programs between runs, in `JAX_COMPILATION_CACHE_DIR` or the user's cache."""
    if setting is False:
        jax.config.update("jax_enable_compilation_cache", False)
        return
    jax.config.update("jax_enable_compilation_cache", True)
    if isinstance(setting, str):
        jax.config.update("jax_compilation_cache_dir", str(Path(setting).expanduser()))
    elif "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(home) / "hajax" / "jax"))
