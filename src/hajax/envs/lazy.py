"""Importing jaxmarl and MuJoCo's JAX on demand, because that takes seconds."""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any

import jax


def import_quietly(module: str) -> Any:
    """That module of jaxmarl or MuJoCo.

    The import prints about optional parts, and leaves the process's own streams in the place of a notebook's or a
    progress bar's; both are undone. The module's constants are arrays, also where a caller is being traced.
    """
    streams = {name: getattr(sys, name) for name in ("stdout", "stderr", "__stdout__")}
    try:
        for name in ("stdout", "__stdout__"):
            setattr(sys, name, io.StringIO())
        with jax.ensure_compile_time_eval():
            return importlib.import_module(module)
    finally:
        for name, stream in streams.items():
            setattr(sys, name, stream)
