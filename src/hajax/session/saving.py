"""`hajax.save` and `hajax.load`: states on disk, verified when they are read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import jax

from hajax.core.algorithm import Algorithm
from hajax.runs.programs import RunState
from hajax.training.checkpoints import CheckpointError, named_leaves, read_checkpoint, restore, save_checkpoint

LEARNER = "train/algorithm/"  # within a `RunState`


def save(path: str | os.PathLike[str], algo: Algorithm, state: Any) -> Path:
    """Writes a state to the directory `path`, which it replaces: a checkpoint with checksums.

    Args:
        path: the directory.
        algo: the algorithm of the state.
        state: a learner state, or several with a leading axis; or the `run_state` of `hajax.train`, from which a
            training can be continued.

    Raises:
        ValueError: `path` is a file or a directory of something else.
        CheckpointError: what was read back differs from the state. A state that was there before is kept.
    """
    path = Path(path)
    if path.exists() and not (path.is_dir() and _is_saved(path)):
        raise ValueError(f"path={path} exists and is no saved state; allowed: another path")
    unfinished = path.with_name(f".unfinished-{path.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    run_state = isinstance(state, RunState)
    step = int(state.health.iterations.max()) if run_state else 0
    facts = {"algorithm": algo.name, "team": algo.spec.name, "training": run_state}
    save_checkpoint(unfinished, step, state, facts, keep=1)
    old = path.with_name(f".old-{path.name}")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    unfinished.rename(path)
    shutil.rmtree(old, ignore_errors=True)
    return path


def load(path: str | os.PathLike[str], algo: Algorithm) -> Any:
    """The learner state that `hajax.save` wrote; with a leading axis over seeds if it had one.

    `hajax.train(..., state=path)` continues a training that was saved whole.

    Args:
        path: the directory.
        algo: the algorithm of the state, made as it was then.

    Raises:
        ValueError: there is no state, it is damaged, or it is of another algorithm, team or network.
    """
    try:
        checkpoint = read_checkpoint(Path(path))
        saved = checkpoint.facts.get("algorithm")
        if saved != algo.name:
            raise ValueError(f"path={path} holds a state of {saved}; allowed: one of {algo.name}")
        under = LEARNER if checkpoint.facts["training"] else ""
        key = jax.random.key(0)
        template = jax.eval_shape(algo.init, key)
        name, leaf = next(iter(named_leaves(template).items()))
        shape = checkpoint.arrays.get(f"{under}{name}", {"shape": ()})["shape"]
        if len(shape) > leaf.ndim:
            template = jax.eval_shape(jax.vmap(algo.init), jax.random.split(key, shape[0]))
        return restore(checkpoint, template, under, cast=True)
    except CheckpointError as error:
        raise ValueError(str(error)) from error


def _is_saved(path: Path) -> bool:
    try:
        return "training" in read_checkpoint(path).facts
    except CheckpointError:
        return False
