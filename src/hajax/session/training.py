"""`hajax.train`: a training in a Python session, with progress, evaluations and Ctrl-C."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hajax.core.algorithm import Algorithm
from hajax.envs.base import BatchedEnvironment, Environment
from hajax.runs.errors import simulating
from hajax.runs.health import failures
from hajax.runs.interrupt import stop_on_interrupt
from hajax.runs.machine import use_compilation_cache
from hajax.runs.programs import (
    Programs,
    RunState,
    compile_programs,
    evaluation_keys,
    hyperparameters,
    make_team,
    seed_keys,
    trace,
    with_simulators,
)
from hajax.runs.progress import TrainingProgress
from hajax.runs.runner import SLICE_SECONDS, evaluation_rows
from hajax.runs.sample_watch import SampleWatch
from hajax.runs.schedule import make_schedule
from hajax.runs.totals import means, no_totals
from hajax.training.checkpoints import read_checkpoint, restore
from hajax.training.loop import make_loop, make_pair
from hajax.validation import check_number

STOPPING = "stopping as soon as what is compiling or running is done; Ctrl-C again stops at once, without a result"


class Training(NamedTuple):
    """What `hajax.train` returns: the team, its state, and how well it did."""

    env: Environment | BatchedEnvironment
    algo: Algorithm
    seeds: tuple[int, ...]
    run_state: RunState  # all that the next iteration depends on, for `hajax.train(..., state=...)`
    # `step` int [K], the environment steps per seed at K evaluations; the columns of metrics.csv, [num_seeds, K].
    metrics: dict[str, np.ndarray]

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


def train(
    env: str | Environment | BatchedEnvironment,
    algo: str | Algorithm,
    *,
    total_steps: int,
    seed: int = 0,
    num_seeds: int = 1,
    num_envs: int = 20,
    rollout_length: int | None = None,
    lr_decay: bool = False,
    eval_episodes: int = 100,
    eval_interval: int | None = None,
    progress: bool = True,
    state: RunState | str | os.PathLike[str] | None = None,
    compilation_cache: bool | str = False,
) -> Training:
    """Trains all seeds in one program, with progress and evaluations on the way.

        trained = hajax.train("mpe/simple_spread", "happo", total_steps=300_000, num_seeds=4)
        longer = hajax.train(trained.env, trained.algo, total_steps=600_000, num_seeds=4, state=trained.run_state)

    It is `hajax train` with the same settings and seeds, number for number, without a run directory. Ctrl-C (in a
    notebook: interrupt) ends it early, and what has been trained is returned. A seed whose losses or parameters become
    non-finite ends it too, with a warning.

    Args:
        env, algo: the environment and the algorithm, or their names.
        total_steps: environment steps per seed, including those of `state`, rounded up to whole iterations.
        seed: the first seed.
        num_seeds: the number of seeds.
        num_envs, rollout_length, lr_decay: as in `make_train`.
        eval_episodes: episodes per evaluation and seed.
        eval_interval: environment steps between evaluations; about 20 in all if `None`.
        progress: a bar on a terminal, and in a notebook with ipywidgets; elsewhere a line per evaluation.
        state: continue from there: the `run_state` of a training with the same team and sizes, or the path where
            `hajax.save` put it. Evaluations up to there are not repeated.
        compilation_cache: keep compiled programs on disk: `True` in the user's cache, or a directory.

    Raises:
        ValueError: a setting is not allowed, `state` is of another training, or it is beyond `total_steps`.
    """
    env, algo = make_pair(env, algo)
    for name, value in {"num_seeds": num_seeds, "eval_episodes": eval_episodes, "total_steps": total_steps}.items():
        check_number(name, value, 1, whole=True)
    check_number("seed", seed, 0, 2**31 - num_seeds, whole=True)
    if eval_interval is not None:
        check_number("eval_interval", eval_interval, 1, whole=True)
    if compilation_cache is not False:
        use_compilation_cache(compilation_cache)
    loop = make_loop(env, algo, num_envs=num_envs, rollout_length=rollout_length)
    if lr_decay:
        updates = loop.iterations(total_steps) * loop.updates_per_iteration
        algo = algo._replace(hyperparameters=algo.hyperparameters.replace(decay_updates=updates))
    team = make_team(env, algo, loop, episodes=eval_episodes)
    schedule = make_schedule(total_steps, loop.steps_per_iteration, eval_interval, warmup_steps=loop.warmup_steps)
    seeds, keys = tuple(range(seed, seed + num_seeds)), seed_keys(seed, num_seeds)
    traced = trace(team, keys)
    given = None if state is None else _continued(state, traced.run_state)
    done = 0 if given is None else int(given.health.iterations[0])
    if done > schedule.iterations:
        raise ValueError(f"total_steps={total_steps}, but state has {schedule.step(done)}; allowed: as many or more")
    bar = TrainingProgress(schedule.total_steps, num_seeds, progress, warmup_steps=schedule.step(done))
    rows: list[dict[str, Any]] = []
    with stop_on_interrupt(("SIGINT",), STOPPING) as stop, bar, simulating(env):
        bar.compiling()
        programs = compile_programs(team, keys, traced)
        if given is None:
            run_state = programs.init(keys, hyperparameters(team))
        else:
            run_state = given if env.host is None else with_simulators(team, keys, given, repeat=True)
        watch, seconds = SampleWatch(), 0.0
        for target in (i for i in schedule.evaluate_after if i > done or (i == done and given is None)):
            run_state, done, seconds = _advance(programs, run_state, done, target, stop, bar, schedule.step, seconds)
            failed = failures(run_state.health, programs.quantities, seed)
            if stop.is_set():
                break
            step = schedule.step(done)
            results = jax.device_get(programs.evaluate(evaluation_keys(keys, step), run_state.train.algorithm))
            for arrays in results.values():
                arrays.pop("finished")
            trained = means(run_state.totals, team.episode_metrics) if done else {}
            watch.warn(trained, step)
            rows += (new := evaluation_rows(seeds, step, results, trained))
            bar.evaluated(float(np.mean([row["eval_return_mean"] for row in new])))
            run_state = run_state._replace(totals=no_totals(tuple(run_state.totals.metrics), keys.shape))
            if failed:
                first = failed[0]
                at = f"{schedule.step(first.iteration):,} steps; the training has ended"
                warnings.warn(f"seed {first.seed}: {first.quantity} is non-finite after {at}", stacklevel=2)
                break
    return Training(env, algo, seeds, run_state, _columns(rows, seeds))


def _advance(
    programs: Programs,
    run_state: RunState,
    done: int,
    target: int,
    stop: threading.Event,
    bar: TrainingProgress,
    step: Any,
    seconds: float,
) -> tuple[RunState, int, float]:
    """Trains up to `target` iterations, a failure or `stop`; returns the state, its iterations and the seconds."""
    iterations = 1
    while done < target and not stop.is_set():
        iterations = min(iterations, target - done)
        began = time.perf_counter()
        run_state = jax.block_until_ready(programs.advance(run_state, jnp.asarray(iterations), jnp.asarray(True)))
        took, before = time.perf_counter() - began, done
        seconds, done = seconds + took, int(run_state.health.iterations[0])
        bar.advance(step(done), seconds)
        if done < before + iterations:
            break
        iterations = max(1, int(SLICE_SECONDS * iterations / took))
    return run_state, done, seconds


def _continued(state: Any, wanted: RunState) -> RunState:
    """A copy of the given state, since the program reuses its memory; from disk if it is a path."""
    if isinstance(state, str | os.PathLike):
        return restore(read_checkpoint(Path(state)), wanted)
    shapes = [jax.tree.map(lambda x: (jnp.shape(x), x.dtype), tree) for tree in (state, wanted)]
    if not isinstance(state, RunState) or shapes[0] != shapes[1]:
        raise ValueError(
            "state is not that of a training with the same team and sizes; allowed: the run_state of hajax.train with "
            "the same environment, algorithm, num_envs and num_seeds, or the path where hajax.save put it"
        )
    return jax.tree.map(lambda x: x.copy(), state)


def _columns(rows: Sequence[dict[str, Any]], seeds: Sequence[int]) -> dict[str, np.ndarray]:
    """`step` `[K]`, and every other column as `[num_seeds, K]`, NaN where it has no value."""
    steps = sorted({row["step"] for row in rows})
    names = list(dict.fromkeys(name for row in rows for name in row if name not in ("step", "seed")))
    found = {(row["step"], row["seed"]): row for row in rows}
    columns = {
        name: np.array([[found[step, seed].get(name, np.nan) for step in steps] for seed in seeds]) for name in names
    }
    return {"step": np.array(steps, int)} | columns
