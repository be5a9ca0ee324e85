"""`hajax.save` and `hajax.load`: states on disk, verified when they are read."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from hajax.core.algorithm import Algorithm
from hajax.training.checkpoints import (
    Checkpoint,
    CheckpointError,
    list_checkpoints,
    read_checkpoint,
    restore,
    save_checkpoint,
)

LEARNER = "train/algorithm/"  # within the state of a training


class Saved(NamedTuple):
    """A training from which another call of `hajax.train` continues."""

    algorithm: str
    team: str
    seeds: tuple[int, ...]
    metrics: Mapping[str, np.ndarray]
    run_state: Any  # the state, or a function that reads it in the structure of its argument


def save(path: str | os.PathLike[str], algo: Algorithm, state: Any) -> Path:
    """Writes a state to the directory `path`, in place of one that it holds: a checkpoint with checksums.

    Args:
        path: the directory. Other files in it are left alone.
        algo: the algorithm of the state.
        state: a learner state, or several with leading axes; or what `hajax.train` returned, from which it can be
            continued. Off-policy that includes the replay.

    Raises:
        ValueError: `path` is a file, or the state is not one of `algo`.
        CheckpointError: what was read back differs from the state. A state that was there before is kept.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ValueError(f"path={path} is a file; allowed: a directory, or a new name")
    facts: dict[str, Any] = {"algorithm": algo.name, "team": algo.spec.name}
    learner = state
    if hasattr(state, "run_state"):
        metrics = {name: _as_lists(values) for name, values in state.metrics.items()}
        facts |= {"seeds": list(state.seeds), "metrics": metrics}
        state, learner = state.run_state, state.states
    facts["axes"] = _leading_axes(algo, learner)
    # A new number for every state, since the checkpoint of a number is never replaced.
    number = max(list_checkpoints(path), default=-1) + 1
    save_checkpoint(path, number, state, facts, keep=1)
    return path


def load(path: str | os.PathLike[str], algo: Algorithm) -> Any:
    """The learner state that `hajax.save` wrote, with the leading axes that it had, such as one over seeds.

    `hajax.train(..., state=path)` continues a training that was saved whole.

    Args:
        path: the directory.
        algo: the algorithm of the state, made as it was then.

    Raises:
        ValueError: there is no state, it is damaged, or it is of another algorithm, team or network.
    """
    checkpoint = _read(path)
    facts = checkpoint.facts
    if facts["algorithm"] != algo.name:
        raise ValueError(f"path={path} holds a state of {facts['algorithm']}; allowed: one of {algo.name}")
    alone = jax.eval_shape(algo.init, jax.random.key(0))
    axes = tuple(facts["axes"])
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct((*axes, *x.shape), x.dtype), alone)
    try:
        return restore(checkpoint, template, LEARNER if "seeds" in facts else "", cast=True)
    except CheckpointError as error:
        raise ValueError(str(error)) from error


def read_training(path: str | os.PathLike[str]) -> Saved:
    """A training that was saved whole. Raises ValueError if there is none."""
    checkpoint = _read(path)
    facts = checkpoint.facts
    if "seeds" not in facts:
        raise ValueError(f"path={path} holds a learner state; allowed: what hajax.train returned, saved whole")

    def read(template: Any) -> Any:
        try:
            return restore(checkpoint, template, sums="totals/")
        except CheckpointError as error:
            raise ValueError(str(error)) from error

    metrics = {name: np.array(x, int if name == "step" else float) for name, x in facts["metrics"].items()}
    return Saved(facts["algorithm"], facts["team"], tuple(facts["seeds"]), metrics, read)


def _read(path: str | os.PathLike[str]) -> Checkpoint:
    if (Path(path) / "config.yaml").is_file():
        raise ValueError(
            f"path={path} is a run of `hajax train`, for hajax.load_policy; allowed: what hajax.save wrote"
        )
    try:
        checkpoint = read_checkpoint(Path(path))
    except CheckpointError as error:
        raise ValueError(f"path={path}: {error}") from error
    if "axes" not in checkpoint.facts:
        raise ValueError(f"path={path} holds another checkpoint; allowed: what hajax.save wrote")
    return checkpoint


def _leading_axes(algo: Algorithm, learner: Any) -> list[int]:
    """The lengths of the axes before those of one learner state, such as one over seeds."""
    alone = jax.eval_shape(algo.init, jax.random.key(0))
    given, wanted = jax.tree.leaves(learner), jax.tree.leaves(alone)
    axes = given[0].shape[: given[0].ndim - wanted[0].ndim] if given else ()
    shapes = [(*axes, *x.shape) for x in wanted]
    structures: list[Any] = [jax.tree.structure(tree) for tree in (learner, alone)]
    if structures[0] != structures[1] or [x.shape for x in given] != shapes:
        raise ValueError(f"state is not one of {algo.name} on {algo.spec.name}; allowed: a learner state of it")
    return list(axes)


def _as_lists(values: np.ndarray) -> list[Any]:
    """Numbers as JSON, which has no NaN and no infinity."""
    if values.ndim == 1:
        return [float(x) if math.isfinite(x) else str(x) for x in values]
    return [_as_lists(row) for row in values]
