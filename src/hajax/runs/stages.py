"""What alternates in a training on the host, `hajax train` or `hajax.train`: training in slices, and evaluations."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence, Set
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hajax.runs.programs import Programs, RunState, Team, check_finished, evaluation_keys
from hajax.runs.sample_watch import SampleWatch
from hajax.runs.schedule import Schedule
from hajax.runs.totals import means, no_totals
from hajax.sharding import fetched

# Seconds of device work between two checks of Ctrl-C and updates of the progress bar.
SLICE_SECONDS = 1.0


def iterations_of(run_state: RunState) -> int:
    """The iterations that all seeds of a state have behind them."""
    return int(fetched(run_state.health.iterations).min())


def same_iterations(run_state: RunState) -> bool:
    """Whether no seed is ahead of the others, as those of other devices are of one that failed."""
    return len(set(fetched(run_state.health.iterations).tolist())) == 1


def slices(
    programs: Programs,
    run_state: RunState,
    target: int,
    stop: threading.Event,
    stop_at_failure: bool = True,
    agree: Callable[[int], int] = lambda number: number,
) -> Iterator[tuple[RunState, float]]:
    """Trains up to `target` iterations, `stop`, or a failure that ends it; yields states and the seconds between them.

    Only the last state exists: the program reuses the memory of the ones before. With several processes, `agree` is
    that of `hosts.agreement`, and gives all of them the same number of iterations.
    """
    done, iterations = iterations_of(run_state), 1
    while done < target and not stop.is_set():
        iterations = min(iterations, target - done)
        began = time.perf_counter()
        run_state = programs.advance(run_state, jnp.asarray(iterations), jnp.asarray(stop_at_failure))
        before, done = done, iterations_of(jax.block_until_ready(run_state))
        seconds = time.perf_counter() - began
        yield run_state, seconds
        if done < before + iterations:
            return
        iterations = agree(max(1, int(SLICE_SECONDS * iterations / seconds)))


class Evaluator(NamedTuple):
    """Evaluates the states of a training."""

    team: Team
    programs: Programs
    schedule: Schedule
    keys: jax.Array  # [num_seeds]
    seeds: Sequence[int]
    whole_episodes: bool  # an episode that is cut is an error
    samples: SampleWatch

    def evaluate(self, run_state: RunState, failed: Set[int]) -> tuple[list[dict[str, Any]], RunState]:
        """A row of `metrics.csv` per seed that has not failed, and the state with the training metrics reset.

        Raises:
            RunError: an episode outlasts the environment's own limit.
        """
        step = self.schedule.step(iterations_of(run_state))
        results = fetched(self.programs.evaluate(evaluation_keys(self.keys, step), run_state.train.algorithm))
        for arrays in results.values():
            finished = arrays.pop("finished")
            if self.whole_episodes and not failed:
                check_finished(self.team.env.spec, finished)
        trained = means(run_state.totals, self.team.episode_metrics) if step > self.schedule.warmup_steps else {}
        self.samples.warn(trained, step)
        rows = [row for row in evaluation_rows(self.seeds, step, results, trained) if row["seed"] not in failed]
        return rows, run_state._replace(totals=no_totals(tuple(run_state.totals.metrics), self.keys.shape))


def mean_return(rows: Sequence[dict[str, Any]]) -> float:
    """The mean over seeds of an evaluation's returns, for the progress."""
    return float(np.mean([row["eval_return_mean"] for row in rows]))


def evaluation_rows(
    seeds: Sequence[int],
    step: int,
    results: dict[str, dict[str, np.ndarray]],
    training_means: dict[str, np.ndarray],
) -> list[dict[str, Any]]:
    """One row of `metrics.csv` per seed, from evaluation results `[num_seeds, num_episodes]` and training means."""
    rows = []
    for k, seed in enumerate(seeds):
        row: dict[str, Any] = {"step": step, "seed": seed}
        for prefix, arrays in results.items():
            row[f"{prefix}return_mean"] = float(arrays["episode_return"][k].mean())
            row[f"{prefix}return_std"] = float(arrays["episode_return"][k].std())
            row[f"{prefix}length"] = float(arrays["episode_length"][k].mean())
            others = [name for name in arrays if name not in ("episode_return", "episode_length")]
            row |= {f"{prefix}{name}": float(arrays[name][k].mean()) for name in others}
        row |= {f"train_{name}": float(value[k]) for name, value in training_means.items()}
        rows.append(row)
    return rows
