"""One run over several processes (`jax.distributed`), on one machine or many, each with devices of its own.

All processes run the same program on the same settings, and read the same files; the first one writes them. What the
host decides between programs, such as when to stop, is agreed on.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hajax.runs.errors import Refusal, RunError, shown

# The environment's names of the processes; those of SLURM and Open MPI are JAX's to read.
NAMES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
ADDRESS = re.compile(r"(?P<coordinator>[^/\s]+:\d+)/(?P<index>\d+)/(?P<count>\d+)")
PLACE = "HOST:PORT/INDEX/COUNT"
LOST = (
    "another process of this run has ended or cannot be reached; the checkpoints are kept, and resume=true goes on, "
    "also with another number of processes"
)
# A process that does not answer is lost after as many seconds, also while the others compile.
SILENCE = 30
LAST_WORDS = re.compile(rb"[EF]\d{4} .*(coordination.service|distributed service)")
# JAX has no class for errors of communication.
UNREACHABLE = re.compile(r"gloo|nccl|coordination service|peer|heartbeat|deadline_exceeded|unavailable", re.IGNORECASE)


def is_place(value: Any) -> bool:
    """Whether it is a `HOST:PORT/INDEX/COUNT`."""
    found = ADDRESS.fullmatch(value) if isinstance(value, str) else None
    return found is not None and int(found["index"]) < int(found["count"])


def join(distributed: bool | str) -> None:
    """Makes this process one of a run's, before JAX is used. Waits until all of them have joined.

    Args:
        distributed: `False` for a run of one process, `auto` for what SLURM, Open MPI or `NAMES` say, or
            `HOST:PORT/INDEX/COUNT`: the address at which the first process listens, and which of how many this one is.

    Raises:
        Refusal: nothing says which process this is.
        RunError: the others could not be reached.
    """
    if distributed is False:
        return
    coordinator = count = index = None
    if distributed != "auto":
        found = ADDRESS.fullmatch(str(distributed))
        assert found is not None  # checked with the settings
        coordinator, index, count = found["coordinator"], int(found["index"]), int(found["count"])
    elif NAMES[0] in os.environ:
        coordinator = os.environ[NAMES[0]]
        count, index = (_number_in(name) for name in NAMES[1:])
    relay_errors()

    import jax

    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM
    try:
        jax.distributed.initialize(
            coordinator, count, index, heartbeat_timeout_seconds=SILENCE, shutdown_timeout_seconds=SILENCE
        )
    except ValueError as error:
        raise Refusal(
            f"distributed={shown(distributed)}: {error} Allowed: in a step of SLURM, under Open MPI, with "
            f"{', '.join(NAMES)}, or {PLACE}"
        ) from error
    except RuntimeError as error:
        raise RunError(f"distributed={shown(distributed)}: {str(error).splitlines()[0]}") from error


def _number_in(name: str) -> int:
    """The whole number in a variable of the environment."""
    text = os.environ.get(name, "")
    if not text.isdecimal():
        raise Refusal(f"distributed=auto with {name}={shown(text)}; allowed: a whole number, as {NAMES[0]} is set")
    return int(text)


def joined() -> bool:
    """Whether this process is one of several of a run."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def is_first() -> bool:
    """Whether this process writes the files of the run."""
    if not joined():
        return True
    import jax

    return jax.process_index() == 0


def count() -> int:
    """The number of processes of the run."""
    if not joined():
        return 1
    import jax

    return jax.process_count()


def from_first(number: int) -> int:
    """The number that the first process gives. All processes call it, and wait for each other."""
    if not joined():
        return number
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(number))


def agreement(stop: threading.Event) -> tuple[threading.Event, Callable[[int], int]]:
    """An event that all processes see alike, and the function that sets it if `stop` is set in any of them.

    The function is called with a number, and returns the first process's.
    """
    if not joined():
        return stop, lambda number: number
    from jax.experimental import multihost_utils

    agreed = threading.Event()

    def agree(number: int) -> int:
        stops, numbers = multihost_utils.process_allgather((stop.is_set(), number))  # arrays over the processes
        if stops.any():
            agreed.set()
        return int(numbers[0])

    return agreed, agree


@contextmanager
def together(distributed: bool | str) -> Iterator[None]:
    """Joins the other processes, if there are any, and parts from them at the end.

    Raises:
        RunError: they are lost, or could not be reached.
        Refusal: as by `join`.
    """
    join(distributed)
    try:
        yield
    except BaseException as error:
        if joined():
            atexit.register(
                leave, 2 if isinstance(error, Refusal) else 130 if isinstance(error, KeyboardInterrupt) else 1
            )
            if not isinstance(error, Refusal) and UNREACHABLE.search(str(error)):
                raise RunError(LOST) from error
        raise
    if joined():
        import jax

        jax.distributed.shutdown()


def leave(code: int) -> None:
    """Ends this process at once: JAX would wait for the others at its exit, and abort if they are lost."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def relay_errors() -> None:
    """Passes standard error through another process, which replaces the last words of JAX by `LOST`.

    If the first process is lost, JAX aborts the others from a thread of its own, with pages about its stack. Nothing in
    this process can catch that.
    """
    sys.stderr.flush()
    reading, writing = os.pipe()
    if os.fork():
        os.close(reading)
        os.dup2(writing, 2)
        os.close(writing)
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    os.close(writing)
    os.closerange(0, 2)
    said = False
    for line in os.fdopen(reading, "rb"):
        if LAST_WORDS.match(line):
            break
        said = said or LOST.encode() in line
        os.write(2, line)
    else:
        os._exit(0)
    if not said:
        os.write(2, f"hajax train: {LOST}\n".encode())
    os._exit(0)
