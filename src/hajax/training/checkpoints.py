"""Checkpoints: pytrees of arrays on disk, written atomically and verified when read.

A checkpoint is a directory named after its step, with the arrays (`array_files`) and `manifest.json` (`manifest`): the
format version, the shape, dtype and SHA-256 of every array, the size and SHA-256 of every file, and the SHA-256 of the
manifest itself. It is written under a temporary name, flushed to the disk, read back, and then renamed. A process that
is killed at any moment leaves the previous checkpoints intact.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hajax import __version__
from hajax.sharding import is_key
from hajax.training.array_files import read_arrays, write_arrays
from hajax.training.manifest import (
    ADVICE,
    Checkpoint,
    CheckpointError,
    FormatError,
    check_file,
    read_manifest,
    sha256,
    write_manifest,
)

ARRAYS = "arrays"
UNFINISHED = ".unfinished-"
READ_BACK = 2**26  # bytes (or one array, if it is larger) of a new checkpoint that are read back at a time
KEY_KINDS = {"key<fry>": "threefry2x32", "key<rbg>": "rbg", "key<urbg>": "unsafe_rbg"}


def save_checkpoint(directory: Path, step: int, tree: Any, facts: Mapping[str, Any], *, keep: int) -> Path:
    """Writes `tree` and `facts` (JSON) as the checkpoint of `step`, and removes all but the last `keep`.

    An existing checkpoint of that step is kept, because the state of a step does not change. A new one is read back and
    verified before it is renamed and before others are removed.

    Raises:
        CheckpointError: the checkpoint that was read back differs from `tree`. Nothing is removed.
        OSError: writing fails, for example because the disk is full. Nothing is removed.
    """
    path = directory / f"{step:012d}"
    if not path.exists():
        unfinished = directory / f"{UNFINISHED}{path.name}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        arrays = _named_arrays(tree)
        try:
            write_arrays(unfinished / ARRAYS, {name: x for name, (x, _) in arrays.items()})
            write_manifest(unfinished, step, dict(facts), arrays)
            _flush(unfinished)
            _verify(unfinished)
        except Exception:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        os.rename(unfinished, path)
        _flush_entry(directory)
    for old in _step_directories(directory)[:-keep]:
        _remove(old)
    return path


def list_checkpoints(directory: Path) -> list[int]:
    """The steps of the checkpoints in `directory`, in ascending order."""
    return [int(path.name) for path in _step_directories(directory)]


def remove_unfinished(directory: Path) -> None:
    """Removes checkpoints that a killed process left partly written or partly removed."""
    for path in directory.glob(f"{UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


def read_checkpoint(directory: Path, step: int | str = "last") -> Checkpoint:
    """The checkpoint of `step`, or the last one. Its files are verified against its manifest.

    Raises:
        CheckpointError: there is no such checkpoint, or it is damaged or of another format.
    """
    steps = list_checkpoints(directory)
    if not steps:
        raise CheckpointError(f"checkpoint={step}: {directory} holds no checkpoint; allowed: a run that has saved one")
    if step != "last" and step not in steps:
        raise CheckpointError(f"checkpoint={step} is not in {directory}; allowed: last, {', '.join(map(str, steps))}")
    chosen = steps[-1] if step == "last" else int(step)
    path = directory / f"{chosen:012d}"
    checkpoint = read_manifest(path)
    if checkpoint.step != chosen:
        raise CheckpointError(f"{path} was saved at step {checkpoint.step}; allowed: the name that it was given")
    for name, entry in checkpoint.files.items():
        check_file(path, name, entry)
    return checkpoint


def check_format(directory: Path) -> None:
    """Raises CheckpointError if the last checkpoint in `directory` has another format. Damage is not checked."""
    for path in _step_directories(directory)[-1:]:
        try:
            read_manifest(path)
        except FormatError:
            raise
        except CheckpointError:
            pass  # raised by `read_checkpoint`


def restore(
    checkpoint: Checkpoint, template: Any, under: str = "", *, cast: bool = False, sums: str | None = None
) -> Any:
    """The saved tree, with the structure of `template`.

    Args:
        checkpoint: a checkpoint from `read_checkpoint`.
        template: a tree of arrays, or of the shapes and dtypes that `jax.eval_shape` returns.
        under: the path of a subtree, such as `"train/algorithm/"`, which alone is restored.
        cast: convert numbers that were saved in another precision than that of the template.
        sums: the path of a subtree that is all zeros if other versions of hajax saved others there, such as
            `"totals/"`, the sums of diagnostics since the last evaluation.

    Raises:
        CheckpointError: an array is damaged, or names, shapes or dtypes differ from those of the template.
    """
    leaves = {under + name: leaf for name, leaf in named_leaves(template).items()}
    entries = {name: entry for name, entry in checkpoint.arrays.items() if name.startswith(under)}
    expected = {name: _description(leaf) for name, leaf in leaves.items()}
    found = {name: (tuple(entry["shape"]), entry["dtype"]) for name, entry in entries.items()}
    fresh: set[str] = set()
    if sums is not None and _starting(expected, sums) != _starting(found, sums):
        fresh = _starting(expected, sums)
        entries = {name: entry for name, entry in entries.items() if not name.startswith(sums)}
        expected = {name: x for name, x in expected.items() if name not in fresh}
        found = {name: x for name, x in found.items() if name in entries}
    for name in [*expected, *found]:
        one, other = expected.get(name), found.get(name)
        precision = one is not None and other is not None and one[0] == other[0] and _same_kind(one[1], other[1])
        if one != other and not (cast and precision):
            why = f"its configuration makes with hajax {__version__}"
            if precision:
                why += f" and jax_enable_x64={jnp.result_type(float) == jnp.float64}"
            raise CheckpointError(
                f"{checkpoint.path} holds {name} as {_shown(other)}; allowed: {_shown(one)}, which {why}"
            )
    arrays = _read_arrays(checkpoint, entries)  # released one by one below, because a replay may fill the memory
    restored = [
        jnp.zeros(leaf.shape, leaf.dtype) if name in fresh else _as_leaf(arrays.pop(name), leaf)
        for name, leaf in leaves.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(template), restored)


def _starting(names: Iterable[str], prefix: str) -> set[str]:
    return {name for name in names if name.startswith(prefix)}


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their paths, as in a checkpoint: `train/key`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _named_arrays(tree: Any) -> dict[str, tuple[np.ndarray, str]]:
    """Each array in host memory (for a random key, its data), with the dtype of its leaf, by name."""
    leaves = {name: jnp.asarray(leaf) for name, leaf in named_leaves(tree).items()}
    data = jax.device_get({name: jax.random.key_data(x) if is_key(x) else x for name, x in leaves.items()})
    return {name: (np.asarray(data[name]), str(leaf.dtype)) for name, leaf in leaves.items()}


def _description(leaf: Any) -> tuple[tuple[int, ...], str]:
    """The shape (for a random key, of its data) and the dtype, as in the manifest."""
    shape = jax.eval_shape(jax.random.key_data, leaf).shape if is_key(leaf) else leaf.shape
    return tuple(shape), str(leaf.dtype)


def _same_kind(one: str, other: str) -> bool:
    """Whether both dtypes are floating-point, or both signed integers, of any precision."""
    kinds = (jnp.floating, jnp.signedinteger)
    keys = one.startswith("key<") or other.startswith("key<")
    return not keys and any(jnp.issubdtype(jnp.dtype(one), k) and jnp.issubdtype(jnp.dtype(other), k) for k in kinds)


def _as_leaf(array: np.ndarray, leaf: Any) -> jax.Array:
    # Copied, because a device array that shares NumPy's memory must not be donated.
    restored = jnp.array(array, dtype=None if is_key(leaf) else leaf.dtype, copy=True)
    return jax.random.wrap_key_data(restored, impl=KEY_KINDS[str(leaf.dtype)]) if is_key(leaf) else restored


def _stored_dtype(name: str) -> Any:
    """The dtype in which a leaf of dtype `name` is stored: for a random key, the dtype of its data."""
    return "uint32" if name.startswith("key<") else jnp.dtype(name)


def _read_arrays(checkpoint: Checkpoint, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """The arrays of `entries`. Raises CheckpointError if a checksum differs, because orbax does not verify them."""
    arrays = {name: np.zeros(entry["shape"], _stored_dtype(entry["dtype"])) for name, entry in entries.items()}
    stored = [name for name, array in arrays.items() if array.size]
    arrays |= read_arrays(checkpoint.path / ARRAYS, stored)
    for name in stored:
        if sha256(arrays[name]) != entries[name]["sha256"]:
            raise CheckpointError(f"{checkpoint.path}: {name} is damaged (its SHA-256 differs); {ADVICE}")
    return arrays


def _verify(path: Path) -> None:
    """Reads the arrays of a new checkpoint back, a few at a time. Raises CheckpointError if a checksum differs."""
    checkpoint = read_manifest(path)
    together: dict[str, Any] = {}
    size = 0
    for name, entry in checkpoint.arrays.items():
        size += int(np.prod(entry["shape"])) * np.dtype(_stored_dtype(entry["dtype"])).itemsize
        together[name] = entry
        if size >= READ_BACK:
            _read_arrays(checkpoint, together)
            together, size = {}, 0
    _read_arrays(checkpoint, together)


def _shown(description: tuple[tuple[int, ...], str] | None) -> str:
    return "nothing" if description is None else f"{description[1]}{list(description[0])}"


def _step_directories(directory: Path) -> list[Path]:
    found = [path for path in directory.glob("[0-9]*") if path.name.isdigit() and path.is_dir()]
    return sorted(found, key=lambda path: int(path.name))


def _remove(path: Path) -> None:
    """Removes a checkpoint, after renaming it, so that a partly removed one is never read."""
    unfinished = path.with_name(f"{UNFINISHED}{path.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    os.rename(path, unfinished)
    shutil.rmtree(unfinished, ignore_errors=True)


def _flush(path: Path) -> None:
    """Flushes everything under `path` to the disk. Called before the rename that makes it a checkpoint."""
    for entry in [*path.rglob("*"), path]:
        _flush_entry(entry)


def _flush_entry(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
