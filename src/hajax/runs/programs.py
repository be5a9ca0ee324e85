"""The compiled programs of a run: start, train for some iterations, evaluate; each over all seeds."""

from __future__ import annotations

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

from hajax.runs.errors import RunError
from hajax.runs.health import from_environment, healthy, quantities, watch
from hajax.runs.team import Team
from hajax.runs.totals import add, no_totals, scalars
from hajax.runs.trials import Population, RunState, Trials, selection
from hajax.sharding import jit, jit_together, placed
from hajax.spec import EnvSpec

# Far from the small numbers that a training loop folds into its own keys.
EVALUATION_STREAM = 0x_E7A1


class Traced(NamedTuple):
    """Traced but not compiled programs, which give the shapes and dtypes of a run's state."""

    init: Any  # jitted (keys, hyperparameters) -> run state
    iterate: Any  # jitted, of one seed
    run_state: RunState  # shapes and dtypes, with a leading axis of trials


class Programs(NamedTuple):
    """Programs compiled for a number of trials, the leading axis of every array."""

    init: Callable  # (keys, hyperparameters) -> run state
    advance: Callable  # (run state, iterations, stop at a failure) -> run state; the argument is donated, if it may be
    evaluate: Callable  # (keys, algorithm state) -> {prefix: results}
    select: Callable | None  # of a population: (keys, run state, scores) -> (run state, parents)
    quantities: tuple[str, ...]  # the names that `Health.quantity` indexes
    compile_seconds: float


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


def selection_keys(keys: jax.Array, steps: int) -> jax.Array:
    """Keys for the selection of a population after the evaluation at that step."""
    return jax.vmap(lambda key: jax.random.fold_in(key, 2))(evaluation_keys(keys, steps))


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


def trace(team: Team, trials: Trials, mesh: Mesh | None = None) -> Traced:
    """Traces the start of the trials and their iteration, on the devices of `mesh`."""
    keys, hyperparameters = trials.keys, trials.hyperparameters
    iterate = jax.jit(team.loop.iterate)  # traced once, used twice
    shapes = jax.eval_shape(team.loop.init, keys[0], jax.tree.map(lambda x: x[0], hyperparameters))
    metrics = jax.eval_shape(lambda state: scalars(iterate(state)[1], team.axes), shapes)

    def init(key: jax.Array, hyperparameters: Any) -> RunState:
        return RunState(team.loop.init(key, hyperparameters), no_totals(tuple(metrics)), healthy())

    init_all = jit(jax.vmap(init), mesh, (False, False))
    return Traced(init_all, iterate, jax.eval_shape(init_all, keys, hyperparameters))


def compile_programs(
    team: Team, trials: Trials, traced: Traced, mesh: Mesh | None = None, population: Population | None = None
) -> Programs:
    """Compiles for so many trials, divided among the devices of `mesh`, and the selection of a population.

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
        """All trials of a device stop after the iteration in which the first of them fails: runs are reproducible."""

        def going_on(carry):
            done, state = carry
            return (done < iterations) & ~(stop_at_failure & (state.health.failed_at > 0).any())

        return lax.while_loop(going_on, lambda carry: (carry[0] + 1, iterate(carry[1])), (0, run_state))[1]

    def evaluate(key: jax.Array, algorithm_state: Any) -> dict[str, dict[str, jax.Array]]:
        return {prefix: evaluator(key, algorithm_state) for prefix, evaluator in team.evaluators.items()}

    keys = trials.keys
    # A simulator may fail: the state before is then saved.
    advance_all = jit(advance, mesh, (False, True, True), donate_argnums=() if team.env.host else 0)
    evaluate_all = jit(jax.vmap(evaluate), mesh, (False, False))
    quick = rarely_run()
    with ThreadPoolExecutor() as threads:  # the longest first, so that the others compile meanwhile
        advancing = threads.submit(advance_all.lower(traced.run_state, jnp.zeros((), int), jnp.zeros((), bool)).compile)
        starting = threads.submit(traced.init.lower(keys, trials.hyperparameters).compile, quick)
        evaluating = threads.submit(evaluate_all.lower(keys, traced.run_state.train.algorithm).compile, quick)
        selecting = None
        if population is not None:
            select_all = jit_together(selection(population), mesh, donate_argnums=1)
            scores = jnp.zeros(keys.shape)
            selecting = threads.submit(select_all.lower(keys, traced.run_state, scores).compile, quick)
    init, advance, evaluate = (on_devices(each.result(), mesh) for each in (starting, advancing, evaluating))
    selected = None if selecting is None else on_devices(selecting.result(), mesh)
    return Programs(init, advance, evaluate, selected, tuple(names), time.perf_counter() - started)


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
