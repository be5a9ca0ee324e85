"""Requirements of a run on the machine: a device, a directory for compiled programs, a JAX version that is fast."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import jax
from jax._src import compilation_cache  # the function that loads a program is not public
from jaxlib import utils

from hajax.runs.errors import Refusal

# A JAX version that is slow on CPUs, and the one to install instead; see `benchmarks/` and constraints.txt.
SLOW_ON_CPU, FAST_ON_CPU = (0, 10), "0.9.2"


def check_device() -> None:
    """Starts JAX's backend; `Refusal` if the requested device is not available."""
    try:
        jax.devices()
    except Exception as error:  # the type depends on the missing device; one is an AssertionError
        asked = os.environ.get("JAX_PLATFORMS") or "?"
        reason = str(error).strip().splitlines()
        raise Refusal(
            f"JAX_PLATFORMS={asked}: {reason[0] if reason else 'JAX has no such device here'}; allowed: cpu, or a "
            "device that JAX is installed for (`pip install 'hajax[cuda]'` for a GPU)"
        ) from error


def slow_jax() -> str | None:
    """A warning if the installed JAX is slow on this device; else `None`."""
    if jax.default_backend() != "cpu" or jax.__version_info__[:2] < SLOW_ON_CPU:
        return None
    return (
        f"jax {jax.__version__} computes more slowly on a CPU than {FAST_ON_CPU}, with which hajax is tested; "
        f"pip install jax=={FAST_ON_CPU} jaxlib=={FAST_ON_CPU}"
    )


def use_compilation_cache(setting: bool | str) -> None:
    """Keeps compiled programs between runs, in `JAX_COMPILATION_CACHE_DIR` or the user's cache.

    Without a writable home directory programs are compiled every time, and a line on standard error says so.

    Raises:
        Refusal: a requested directory cannot be written to.
    """
    jax.config.update("jax_enable_compilation_cache", setting is not False)
    if setting is False:
        return
    _load_quietly()
    if isinstance(setting, str):
        try:
            directory = Path(setting).expanduser()
            _make(directory)
        except (OSError, RuntimeError) as error:
            raise Refusal(f"compilation_cache={setting}: {_reason(error)}; allowed: a directory of yours") from error
        jax.config.update("jax_compilation_cache_dir", str(directory))
    elif "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        try:
            directory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hajax" / "jax"
            _make(directory)
        except (OSError, RuntimeError) as error:  # no home directory, or not a writable one
            jax.config.update("jax_enable_compilation_cache", False)
            print(f"hajax: compiled programs are not kept for the next run: {_reason(error)}", file=sys.stderr)
            return
        jax.config.update("jax_compilation_cache_dir", str(directory))


def _make(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK):
        raise PermissionError(13, "Permission denied", str(directory))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}"
    return str(error)


FATAL = 3  # of XLA's levels of messages
_loading = threading.Lock()
_num_loading = 0


def _load_quietly() -> None:
    """Silences XLA's messages while it loads a program from the cache.

    XLA compares the CPU features that a program was compiled for, including LLVM's tuning preferences, with those that
    the CPU reports. On machines with AVX-512 it prints kilobytes of errors about programs compiled on the same machine
    (openxla/xla issue 44565). Fatal errors are still printed, and so are JAX's warnings of programs that cannot be
    loaded, which come from Python.
    """
    load = getattr(compilation_cache, "get_executable_and_time", None)
    set_min_log_level = getattr(utils, "absl_set_min_log_level", None)
    if load is None or set_min_log_level is None or load.__module__ == __name__:
        return
    usual = int(os.environ.get("TF_CPP_MIN_LOG_LEVEL") or 0)

    def count(change: int) -> None:
        global _num_loading  # several programs may be loaded concurrently
        with _loading:
            _num_loading += change
            set_min_log_level(FATAL if _num_loading else usual)

    def load_quietly(*args: Any, **kwargs: Any) -> Any:
        count(+1)
        try:
            return load(*args, **kwargs)
        finally:
            count(-1)

    compilation_cache.get_executable_and_time = load_quietly
