"""The compiled programs of a run: start, train for some iterations, evaluate; each over all seeds."""

from __future__ import annotations

import dataclasses
import logging
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import Mesh

from hajax.algorithms import make_algorithm
from hajax.core.algorithm import Algorithm
from hajax.core.groups import make_groups
from hajax.core.settings import TeamSettings
from hajax.envs import make_env
from hajax.envs.base import BatchedEnvironment, Environment
from hajax.envs.batching import batched
from hajax.envs.mamujoco import chosen_physics
from hajax.runs.errors import RunError, refusing
from hajax.runs.health import Health, from_environment, healthy, quantities, watch
from hajax.runs.settings import TrainSettings
from hajax.runs.totals import Totals, add, no_totals, scalars
from hajax.sharding import jit, placed
from hajax.spec import EnvSpec
from hajax.training import Loop, TrainState, make_evaluate, make_loop

# Far from the small numbers that a training loop folds into its own keys.
EVALUATION_STREAM = 0x_E7A1


class Team(NamedTuple):
    """The pure functions of a run, for one seed."""

    algorithm: Algorithm
    loop: Loop
    env: Environment | BatchedEnvironment
    evaluators: dict[str, Callable]  # column prefix -> evaluate(key, algorithm_state)
    episode_metrics: tuple[str, ...]  # names of training metrics that are means over the episodes that ended
    axes: tuple[tuple[str, ...], ...] = ()  # the names of the agents, and of the groups that share parameters


class RunState(NamedTuple):
    """What a run carries from one iteration to the next, and what a checkpoint holds."""

    train: TrainState
    totals: Totals
    health: Health


class Traced(NamedTuple):
    """Traced but not compiled programs, which give the shapes and dtypes of a run's state."""

    init: Any  # jitted (keys, hyperparameters) -> run state
    iterate: Any  # jitted, of one seed
    run_state: RunState  # shapes and dtypes, with a leading seed axis


class Programs(NamedTuple):
    """Programs compiled for `num_seeds`; every array has a leading seed axis."""

    init: Callable  # (keys, hyperparameters) -> run state
    advance: Callable  # (run state, iterations, stop at a failure) -> run state; the argument is donated, if it may be
    evaluate: Callable  # (keys, algorithm state) -> {prefix: results}
    quantities: tuple[str, ...]  # the names that `Health.quantity` indexes
    compile_seconds: float


def decided(settings: TrainSettings) -> TrainSettings:
    """The settings with what depends on the machine decided, as a run records them: the physics of a robot."""
    if settings.env.get("name", "").startswith("mamujoco/") and settings.env.get("physics") == "auto":
        return dataclasses.replace(settings, env=settings.env | {"physics": chosen_physics()})
    return settings


def make_members(settings: TrainSettings) -> tuple[Environment | BatchedEnvironment, Algorithm]:
    """The environment and the algorithm; `Refusal` if they do not accept the settings."""
    # `reward` in algo/*.yaml is the environments' default; it is not a setting of the algorithm.
    options = {name: value for name, value in settings.algo.items() if name not in ("name", "reward")}
    env_options = {name: value for name, value in settings.env.items() if name != "name"}
    with refusing((ValueError, TypeError), {name: (f"env.{name}", value) for name, value in env_options.items()}):
        env = make_env(settings.env.get("name", ""), **env_options)
    with refusing(typed=typed_settings(settings)):
        return env, make_algorithm(settings.algo.get("name", ""), env, **options)


def build(settings: TrainSettings) -> Team:
    """The environment, the algorithm and their functions; `Refusal` if they do not accept the settings."""
    env, algo = make_members(settings)
    with refusing(typed=typed_settings(settings)):
        loop = make_loop(env, algo, num_envs=settings.num_envs, rollout_length=settings.rollout_length)
        updates = loop.iterations(settings.total_steps) * loop.updates_per_iteration
        if settings.lr_decay:
            numbers = algo.hyperparameters.replace(decay_updates=updates)
            algo = algo._replace(hyperparameters=numbers)  # the programs take them as an argument
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


def seed_keys(seed: int, num_seeds: int) -> jax.Array:
    """`[num_seeds]` keys; seed k of a run has `jax.random.key(seed + k)`, independent of the other seeds."""
    return jnp.stack([jax.random.key(seed + k) for k in range(num_seeds)])


def with_simulators(team: Team, keys: jax.Array, run_state: RunState, *, repeat: bool) -> RunState:
    """The state in new simulators that repeat their episodes, or begin new ones if that fails or is known to fail."""
    host, actors = team.env.host, run_state.train.actors
    if not repeat:
        logging.getLogger("hajax.simulators").warning(
            f"{team.env.spec.name}: the run ended with an error of a simulator: new episodes begin, and results differ "
            "from those of an uninterrupted run"
        )
    elif host is not None:
        env_state = host.resumed(actors.env_state, actors.timestep)
        if env_state is not None:
            return run_state._replace(train=run_state.train._replace(actors=actors._replace(env_state=env_state)))
    keys = jax.vmap(jax.random.fold_in, (0, None))(keys, run_state.health.iterations[0])
    train_state = jax.jit(jax.vmap(team.loop.restart))(keys, run_state.train)
    return jax.block_until_ready(run_state._replace(train=train_state))


def evaluation_keys(keys: jax.Array, steps: int) -> jax.Array:
    """Keys for the evaluation after `steps` environment steps, other than those of training and other evaluations."""
    words = [steps % 2**32, *([steps // 2**32] if steps >= 2**32 else [])]  # a key takes 32 bits at a time

    def of_seed(key: jax.Array) -> jax.Array:
        for word in (EVALUATION_STREAM, *words):
            key = jax.random.fold_in(key, word)
        return key

    return jax.vmap(of_seed)(keys)


def fresh_keys(seeds: Sequence[int], steps: int) -> jax.Array:
    """Keys for an evaluation after training: other episodes than those of the run's evaluations."""
    keys = jnp.stack([jax.random.key(seed) for seed in seeds])
    return jax.vmap(lambda key: jax.random.fold_in(key, 1))(evaluation_keys(keys, steps))


def check_finished(spec: EnvSpec, finished: Any) -> None:
    """Raises `RunError` if episodes did not end at the environment's step limit."""
    if not finished.all():
        raise RunError(
            f"{(~finished).sum()} of {finished.size} episodes of {spec.name} went on after max_steps={spec.max_steps}, "
            "the limit in its EnvSpec; allowed: `truncated` or `terminated` by then (eval.max_steps cuts them earlier)"
        )


def trace(team: Team, keys: jax.Array, mesh: Mesh | None = None) -> Traced:
    """Traces a run's start and its iteration for as many seeds as there are keys, on the devices of `mesh`."""
    numbers = hyperparameters(team)
    iterate = jax.jit(team.loop.iterate)  # traced once, used twice
    shapes = jax.eval_shape(team.loop.init, keys[0], numbers)
    metrics = jax.eval_shape(lambda state: scalars(iterate(state)[1], team.axes), shapes)

    def init(key: jax.Array, numbers: Any) -> RunState:
        return RunState(team.loop.init(key, numbers), no_totals(tuple(metrics)), healthy())

    init_all = jit(jax.vmap(init, in_axes=(0, None)), mesh, (False, True))
    return Traced(init_all, iterate, jax.eval_shape(init_all, keys, numbers))


def compile_programs(team: Team, keys: jax.Array, traced: Traced, mesh: Mesh | None = None) -> Programs:
    """Compiles for as many seeds as there are keys, divided among the devices of `mesh`.

    The number of iterations and the hyperparameters are arguments, so that another schedule of evaluations or another
    learning rate does not recompile.
    """
    started = time.perf_counter()
    names: list[str] = []

    @jax.vmap
    def iterate(state: RunState) -> RunState:
        train_state, metrics = traced.iterate(state.train)
        found = quantities(train_state.algorithm, metrics, team.episode_metrics)
        if team.loop.rollouts_per_iteration == 1:  # its actions were those of a policy that was finite
            found = from_environment(team.env.spec, train_state.actors, metrics) | found
        names[:] = found
        totals = add(state.totals, scalars(metrics, team.axes), team.episode_metrics)
        return RunState(train_state, totals, watch(state.health, found))

    def advance(run_state: RunState, iterations: jax.Array, stop_at_failure: jax.Array) -> RunState:
        """All seeds of a device stop after the iteration in which the first of them fails: runs are reproducible."""

        def going_on(carry):
            done, state = carry
            return (done < iterations) & ~(stop_at_failure & (state.health.failed_at > 0).any())

        return lax.while_loop(going_on, lambda carry: (carry[0] + 1, iterate(carry[1])), (0, run_state))[1]

    def evaluate(key: jax.Array, algorithm_state: Any) -> dict[str, dict[str, jax.Array]]:
        return {prefix: evaluator(key, algorithm_state) for prefix, evaluator in team.evaluators.items()}

    # A simulator may fail: the state before is then saved.
    advance_all = jit(advance, mesh, (False, True, True), donate_argnums=() if team.env.host else 0)
    evaluate_all = jit(jax.vmap(evaluate), mesh, (False, False))
    quick = rarely_run()
    with ThreadPoolExecutor() as threads:  # the longest first, so that the others compile meanwhile
        advancing = threads.submit(advance_all.lower(traced.run_state, jnp.zeros((), int), jnp.zeros((), bool)).compile)
        starting = threads.submit(traced.init.lower(keys, hyperparameters(team)).compile, quick)
        evaluating = threads.submit(evaluate_all.lower(keys, traced.run_state.train.algorithm).compile, quick)
    init, advance, evaluate = (on_devices(each.result(), mesh) for each in (starting, advancing, evaluating))
    return Programs(init, advance, evaluate, tuple(names), time.perf_counter() - started)


def on_devices(program: Callable, mesh: Mesh | None) -> Callable:
    """The program, whose arguments are moved to its devices if they are elsewhere, as restored ones are."""
    return program if mesh is None else lambda *args: program(*placed(args, mesh))


def rarely_run() -> Any:
    """XLA's options for programs that run rarely, for which LLVM's last optimizations are not worthwhile.

    A level that the user chose in `XLA_FLAGS` is kept.
    """
    level = "xla_backend_optimization_level"
    chosen = level in os.environ.get("XLA_FLAGS", "")
    return {level: 1} if jax.default_backend() == "cpu" and not chosen else None


def hyperparameters(team: Team) -> Any:
    """The default hyperparameters as arrays, which are passed to programs instead of being compiled into them."""
    return jax.tree.map(lambda x: jnp.asarray(x, float), team.algorithm.hyperparameters)
