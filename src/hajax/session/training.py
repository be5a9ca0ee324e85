"""`hajax.train`: a training in a Python session, with progress, evaluations and Ctrl-C."""

from __future__ import annotations

import os
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hajax.core.algorithm import Algorithm
from hajax.core.settings import as_arrays
from hajax.envs.base import BatchedEnvironment, Environment
from hajax.runs.errors import SimulatorFailure, simulating
from hajax.runs.health import failures
from hajax.runs.interrupt import stop_on_interrupt
from hajax.runs.machine import use_compilation_cache
from hajax.runs.programs import compile_programs, trace, with_simulators
from hajax.runs.progress import TrainingProgress
from hajax.runs.sample_watch import SampleWatch
from hajax.runs.schedule import make_schedule
from hajax.runs.stages import Evaluator, iterations_of, mean_return, slices
from hajax.runs.team import make_team
from hajax.runs.trials import RunState, make_trials
from hajax.session.evaluations import Evaluations
from hajax.session.saving import Saved, read_training
from hajax.training.loop import make_loop, make_pair
from hajax.validation import check_number

STOPPING = "stopping as soon as what is compiling or running is done; Ctrl-C again stops without a result"


class Training(NamedTuple):
    """What `hajax.train` returns."""

    env: Environment | BatchedEnvironment
    algo: Algorithm
    seeds: tuple[int, ...]
    metrics: dict[str, np.ndarray]  # `step` int [K], of K evaluations; the columns of metrics.csv, [num_seeds, K]
    run_state: RunState  # the state of everything, from which it continues; off-policy with the replay

    @property
    def states(self) -> Any:
        """The learner states of all seeds, with a leading axis over them."""
        return self.run_state.train.algorithm

    def state(self, seed: int | None = None) -> Any:
        """The learner state of one seed, by default of the first: for `hajax.Policy`, `render` and `make_evaluate`.

        Raises:
            ValueError: the training has no such seed.
        """
        if seed is not None and seed not in self.seeds:
            raise ValueError(f"seed={seed}; allowed: the training's seeds, {', '.join(map(str, self.seeds))}")
        index = 0 if seed is None else self.seeds.index(seed)
        return jax.tree.map(lambda x: x[index], self.states)

    def __repr__(self) -> str:
        seeds, steps = ", ".join(map(str, self.seeds)), self.metrics["step"]
        done = (
            f"{steps[-1]:,} steps, return {self.metrics['eval_return_mean'][:, -1].mean():.2f}"
            if len(steps)
            else "0 steps"
        )
        return f"<Training of {self.algo.name} on {self.env.spec.name}: seeds {seeds}, {done}>"


def train(
    env: str | Environment | BatchedEnvironment,
    algo: str | Algorithm,
    *,
    total_steps: int,
    seed: int | None = None,
    num_seeds: int | None = None,
    num_envs: int = 20,
    rollout_length: int | None = None,
    lr_decay: bool = False,
    eval_episodes: int = 100,
    eval_interval: int | None = None,
    eval_max_steps: int | None = None,
    progress: bool = True,
    state: Training | str | os.PathLike[str] | None = None,
    compilation_cache: bool | str | os.PathLike[str] = False,
) -> Training:
    """Trains all seeds in one program, with progress and evaluations on the way.

        trained = hajax.train("mpe/simple_spread", "happo", total_steps=300_000, num_seeds=4)
        longer = hajax.train("mpe/simple_spread", "happo", total_steps=600_000, state=trained)

    It is `hajax train` with the same settings and seeds, number for number, without a run directory. Ctrl-C (in a
    notebook: interrupt) ends it early, and what has been trained is returned. So does a seed whose losses or parameters
    become non-finite, or a simulator that fails, with a warning.

    Args:
        env, algo: the environment and the algorithm, or their names.
        total_steps: environment steps per seed, including those of `state`, rounded up to whole iterations.
        seed: the first seed, by default 0.
        num_seeds: the number of seeds, by default 1.
        num_envs, rollout_length, lr_decay: as in `make_train`.
        eval_episodes: episodes per evaluation and seed.
        eval_interval: environment steps between evaluations; about 20 in all if `None`.
        eval_max_steps: steps after which an episode of an evaluation is cut; the environment's limit if `None`.
        progress: a bar on a terminal, and in a notebook with ipywidgets; elsewhere a line per evaluation.
        state: continue from there: what an earlier call returned, or the path where `hajax.save` put it. It has the
            seeds, and the metrics so far; `algo` has the hyperparameters from now on.
        compilation_cache: keep compiled programs on disk, for the whole process: `True` in the user's cache, or a
            directory.

    Raises:
        ValueError: a setting is not allowed, or `state` is of another training, diverged, or beyond `total_steps`.
        RunError: an episode of an evaluation outlasts the environment's own limit.
    """
    env, algo = make_pair(env, algo)
    loop = make_loop(env, algo, num_envs=num_envs, rollout_length=rollout_length)
    check_number("total_steps", total_steps, 1, whole=True)
    updates = loop.iterations(total_steps) * loop.updates_per_iteration
    decayed = algo.hyperparameters.replace(decay_updates=updates) if lr_decay else algo.hyperparameters
    check_number("eval_episodes", eval_episodes, 1, whole=True)
    if eval_interval is not None:
        check_number("eval_interval", eval_interval, 1, whole=True)
    earlier = None if state is None else _earlier(state, algo)
    seeds = _seeds(seed, num_seeds, earlier)
    if compilation_cache is not False:
        use_compilation_cache(compilation_cache if compilation_cache is True else os.fspath(compilation_cache))
    learner = algo._replace(hyperparameters=decayed)
    team = make_team(env, learner, loop, eval_episodes, max_steps=eval_max_steps)
    schedule = make_schedule(total_steps, loop.steps_per_iteration, eval_interval, warmup_steps=loop.warmup_steps)
    trials = make_trials(team, seeds)
    traced = trace(team, trials)
    given = None if earlier is None else _continued(earlier, traced.run_state, decayed, copy=env.host is None)
    done = 0 if given is None else iterations_of(given)
    if done > schedule.iterations:
        raise ValueError(f"total_steps={total_steps}, but state has {schedule.step(done)}; allowed: as many or more")
    bar = TrainingProgress(schedule.total_steps, len(seeds), progress, warmup_steps=schedule.step(done))
    log = Evaluations(seeds, {} if earlier is None else earlier.metrics)
    with stop_on_interrupt(("SIGINT",), STOPPING) as stop, bar, simulating(env, last=True):
        bar.compiling()
        programs = compile_programs(team, trials, traced)
        if given is None:
            run_state = programs.init(trials.keys, trials.hyperparameters)
        else:
            run_state = given if env.host is None else with_simulators(team, trials.keys, given, repeat=True)
        evaluator = Evaluator(team, programs, schedule, trials, eval_max_steps is None, SampleWatch())
        for target in (i for i in schedule.evaluate_after if i >= done):
            try:
                with simulating(env):
                    for after, seconds in slices(programs, run_state, target, stop):
                        run_state = after
                        bar.advance(schedule.step(iterations_of(run_state)), bar.seconds + seconds)
                    done = iterations_of(run_state)
                    failed = failures(run_state.health, programs.quantities)
                    if failed or (done == target and not log.has(schedule.step(done))):
                        rows, run_state = evaluator.evaluate(run_state, {x.trial for x in failed})
                        log.rows += rows
                        if rows:
                            bar.evaluated(mean_return(rows))
            except SimulatorFailure as failure:  # the state before it is still there
                warnings.warn(f"{failure}; the training has ended", stacklevel=2)
                break
            if failed:
                first = failed[0]
                at = f"{schedule.step(first.iteration):,} steps; the training has ended"
                warnings.warn(f"seed {seeds[first.trial]}: {first.quantity} is non-finite after {at}", stacklevel=2)
            if failed or stop.is_set():
                break
    return Training(env, algo, seeds, log.metrics(), run_state)


def _seeds(seed: int | None, num_seeds: int | None, earlier: Saved | None) -> tuple[int, ...]:
    """The seeds: those of the earlier training, which others must equal."""
    if earlier is None:
        check_number("num_seeds", num_seeds := 1 if num_seeds is None else num_seeds, 1, whole=True)
        check_number("seed", seed := 0 if seed is None else seed, 0, 2**31 - num_seeds, whole=True)
        return tuple(range(seed, seed + num_seeds))
    for name, value, its in (("seed", seed, earlier.seeds[0]), ("num_seeds", num_seeds, len(earlier.seeds))):
        if value not in (None, its):
            raise ValueError(f"{name}={value}, but state has {its}; allowed: {its}, or None")
    return earlier.seeds


def _earlier(state: Any, algo: Algorithm) -> Saved:
    """An earlier training, from memory or from disk."""
    if isinstance(state, Training):
        earlier = Saved(state.algo.name, state.algo.spec.name, state.seeds, state.metrics, state.run_state)
    elif isinstance(state, str | os.PathLike):
        earlier = read_training(state)
    else:
        kind = type(state).__name__
        raise ValueError(f"state is a {kind}; allowed: what hajax.train returned, or the path where hajax.save put it")
    made = (earlier.algorithm, earlier.team)
    if made != (algo.name, algo.spec.name):
        raise ValueError(f"state is of {made[0]} on {made[1]}; allowed: one of {algo.name} on {algo.spec.name}")
    return earlier


def _continued(earlier: Saved, wanted: RunState, numbers: Any, copy: bool) -> RunState:
    """The state from which an earlier training continues with these hyperparameters.

    A copy of it if the program reuses its memory, and if it is not from disk.
    """
    given = earlier.run_state
    if callable(given):
        given, copy = given(wanted), False
    else:
        given_shapes, shapes = ([(x.shape, x.dtype) for x in jax.tree.leaves(tree)] for tree in (given, wanted))
        structures: list[Any] = [jax.tree.structure(tree) for tree in (given, wanted)]
        if structures[0] != structures[1] or given_shapes != shapes:
            raise ValueError("state has other sizes; allowed: one with the same networks, num_envs and rollout_length")
    if (given.health.failed_at > 0).any():
        raise ValueError("state is of a training in which a seed diverged; allowed: one that is finite")
    if copy:
        given = jax.tree.map(lambda x: x.copy(), given)
    old = given.train.algorithm.hyperparameters
    new = jax.tree.map(lambda x, y: jnp.broadcast_to(x, y.shape).astype(y.dtype), as_arrays(numbers), old)
    learners = given.train.algorithm._replace(hyperparameters=new)
    return given._replace(train=given.train._replace(algorithm=learners))
