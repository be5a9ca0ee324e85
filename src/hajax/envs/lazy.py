"""Import of jaxmarl and MJX on demand, because it takes seconds."""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any

import jax


def import_quietly(module: str) -> Any:
    """That module of jaxmarl or MuJoCo.

    The import prints messages about optional parts, and replaces the streams of a notebook or a progress bar by those
    of the process; both are undone. The module's constants are concrete arrays even if the caller is being traced.
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
