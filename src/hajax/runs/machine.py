"""What a run needs of the machine: a device, a place for compiled programs, and a JAX that is fast there."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import Any

import jax
from jax._src import compilation_cache  # there is no public way to what loads a program
from jaxlib import utils

from hajax.runs.errors import Refusal

# A JAX that is slow on CPUs, and the one to install instead; `benchmarks/` and constraints.txt say more.
SLOW_ON_CPU, FAST_ON_CPU = (0, 10), "0.9.2"


def check_device() -> None:
    """Starts JAX's backend; `Refusal` if the device that was asked for is not there."""
    try:
        jax.devices()
    except Exception as error:  # JAX's own depend on which device is missing; one is an AssertionError
        asked = os.environ.get("JAX_PLATFORMS") or "?"
        reason = str(error).strip().splitlines()
        raise Refusal(
            f"JAX_PLATFORMS={asked}: {reason[0] if reason else 'JAX has no such device here'}; allowed: cpu, or a "
            "device that JAX is installed for (`pip install 'hajax[cuda]'` for a GPU)"
        ) from error


def slow_jax() -> str | None:
    """What to say if the JAX that is installed is slow on this device; `None` if it is not."""
    if jax.default_backend() != "cpu" or jax.__version_info__[:2] < SLOW_ON_CPU:
        return None
    return (
        f"jax {jax.__version__} computes more slowly on a CPU than {FAST_ON_CPU}, with which hajax is tested; "
        f"pip install jax=={FAST_ON_CPU} jaxlib=={FAST_ON_CPU}"
    )


def use_compilation_cache(setting: bool | str) -> None:
    """Keeps compiled programs between runs, in `JAX_COMPILATION_CACHE_DIR` or the user's cache.

    Where the user has no home or may not write there, programs are compiled anew every time, and one line says so.

    Raises:
        Refusal: a directory that was asked for cannot be written to.
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
        except (OSError, RuntimeError) as error:  # no home directory, or not one's own
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
    """Silences XLA while it loads a program from the cache, and only then.

    It compares the features of the CPU that a program was compiled for, LLVM's tuning preferences among them, with
    those that the CPU reports, and prints kilobytes of errors on machines with AVX-512 about programs of their own
    (openxla/xla issue 44565). Fatal errors, and whatever is printed at other times, stay; so do JAX's own warnings of
    programs that cannot be loaded, which are Python's.
    """
    load = getattr(compilation_cache, "get_executable_and_time", None)
    set_min_log_level = getattr(utils, "absl_set_min_log_level", None)
    if load is None or set_min_log_level is None or load.__module__ == __name__:
        return
    usual = int(os.environ.get("TF_CPP_MIN_LOG_LEVEL") or 0)

    def count(change: int) -> None:
        global _num_loading  # several programs may be loaded at once
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
