"""Functions of the host in compiled programs, which step many environments in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap

Result = tuple[tuple[int, ...], Any]  # the shape of one row, and the type


def callback(function: Callable[..., tuple[np.ndarray, ...]], results: Sequence[Result]) -> Callable[..., tuple]:
    """`function`, of NumPy arrays `[n, …]`, as a function of JAX arrays; a `vmap` makes one call with more rows.

    It must be pure, as JAX decides how often it is called. `results` are the shapes and types of its results, without
    the axis `n`. Numbers of 64 bits pass as pairs of 32: JAX runs callbacks in threads in which `jax.enable_x64(True)`
    of the caller does not hold.
    """

    def on_host(*arguments):
        found = function(*(_joined(np.asarray(x), dtype) for x, dtype in zip(arguments, dtypes, strict=True)))
        return tuple(_split(np.asarray(x, dtype)) for x, (_, dtype) in zip(found, results, strict=True))

    dtypes: list[Any] = []

    @custom_vmap
    def call(*arguments):
        n = len(arguments[0])
        dtypes[:] = [x.dtype for x in arguments]
        wide = [jnp.dtype(dtype).itemsize == 8 for _, dtype in results]
        shapes = tuple(
            jax.ShapeDtypeStruct((n, *shape, 2), jnp.uint32) if pairs else jax.ShapeDtypeStruct((n, *shape), dtype)
            for (shape, dtype), pairs in zip(results, wide, strict=True)
        )
        split = [lax.bitcast_convert_type(x, jnp.uint32) if x.dtype.itemsize == 8 else x for x in arguments]
        found = jax.pure_callback(on_host, shapes, *split)
        return tuple(
            lax.bitcast_convert_type(x, dtype) if pairs else x
            for x, (_, dtype), pairs in zip(found, results, wide, strict=True)
        )

    @call.def_vmap
    def _(size, batched, *arguments):
        whole = [x if own else jnp.broadcast_to(x, (size, *x.shape)) for x, own in zip(arguments, batched, strict=True)]
        found = call(*(x.reshape(-1, *x.shape[2:]) for x in whole))
        split = tuple(x.reshape(size, -1, *x.shape[1:]) for x in found)
        return split, tuple(True for _ in split)

    return call


def cores() -> int:
    """The processor cores that this program may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _split(x: np.ndarray) -> np.ndarray:
    return x.view(np.uint32).reshape((*x.shape, 2)) if x.dtype.itemsize == 8 else x


def _joined(x: np.ndarray, dtype: Any) -> np.ndarray:
    return x.view(dtype)[..., 0] if np.dtype(dtype).itemsize == 8 else x
