"""What alternates in a training on the host, `hajax train` or `hajax.train`: training in slices, and evaluations."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from hajax.runs.programs import Programs, check_finished, evaluation_keys
from hajax.runs.sample_watch import SampleWatch
from hajax.runs.schedule import Schedule
from hajax.runs.team import Team
from hajax.runs.totals import means, no_totals
from hajax.runs.trials import RunState, Trials
from hajax.sharding import fetched

# Seconds of device work between two checks of Ctrl-C and updates of the progress bar.
SLICE_SECONDS = 1.0


def iterations_of(run_state: RunState) -> int:
    """The iterations that all trials of a state have behind them."""
    return int(fetched(run_state.health.iterations).min())


def same_iterations(run_state: RunState) -> bool:
    """Whether no trial is ahead of the others, as those of other devices are of one that failed."""
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
    trials: Trials
    whole_episodes: bool  # an episode that is cut is an error
    samples: SampleWatch

    def evaluate(self, run_state: RunState, failed: Set[int]) -> tuple[list[dict[str, Any]], RunState]:
        """A row of `metrics.csv` per trial that has not failed, and the state with the training metrics reset.

        Raises:
            RunError: an episode outlasts the environment's own limit.
        """
        step = self.schedule.step(iterations_of(run_state))
        results = fetched(self.programs.evaluate(evaluation_keys(self.trials.keys, step), run_state.train.algorithm))
        for arrays in results.values():
            finished = arrays.pop("finished")
            if self.whole_episodes and not failed:
                check_finished(self.team.env.spec, finished)
        trained = means(run_state.totals, self.team.episode_metrics) if step > self.schedule.warmup_steps else {}
        self.samples.warn(trained, step)
        rows = evaluation_rows(self.labels(run_state), step, results, trained)
        fresh = no_totals(tuple(run_state.totals.metrics), self.trials.keys.shape)
        return [row for k, row in enumerate(rows) if k not in failed], run_state._replace(totals=fresh)

    def labels(self, run_state: RunState) -> list[dict[str, Any]]:
        """The labels of the trials, with their hyperparameters at present, which a population changes."""
        names = [name for name in self.trials.labels[0] if name not in ("seed", "point")]
        values = {name: fetched(getattr(run_state.train.algorithm.hyperparameters, name)) for name in names}
        # The shortest number that is the same in this precision.
        return [
            label | {name: float(str(values[name][k])) for name in names} for k, label in enumerate(self.trials.labels)
        ]


def mean_return(rows: Sequence[dict[str, Any]]) -> float:
    """The mean over trials of an evaluation's returns, for the progress."""
    return float(np.mean([row["eval_return_mean"] for row in rows]))


def evaluation_rows(
    labels: Sequence[Mapping[str, Any]],
    step: int,
    results: dict[str, dict[str, np.ndarray]],
    training_means: dict[str, np.ndarray],
) -> list[dict[str, Any]]:
    """One row of `metrics.csv` per trial, from results `[trials, num_episodes]` and training means `[trials]`."""
    rows = []
    for k, label in enumerate(labels):
        row: dict[str, Any] = {"step": step, **label}
        for prefix, arrays in results.items():
            row[f"{prefix}return_mean"] = float(arrays["episode_return"][k].mean())
            row[f"{prefix}return_std"] = float(arrays["episode_return"][k].std())
            row[f"{prefix}length"] = float(arrays["episode_length"][k].mean())
            others = [name for name in arrays if name not in ("episode_return", "episode_length")]
            row |= {f"{prefix}{name}": float(arrays[name][k].mean()) for name in others}
        row |= {f"train_{name}": float(value[k]) for name, value in training_means.items()}
        rows.append(row)
    return rows
