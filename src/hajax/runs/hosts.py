"""One run over several processes (`jax.distributed`), on one machine or many, each with devices of its own.

All processes run the same program on the same settings, and read the same files; the first one writes them. What the
host decides between programs, such as when to stop, is agreed on.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from hajax.runs.errors import Refusal, RunError, shown

# The environment's names of the processes; those of SLURM and Open MPI are JAX's to read.
NAMES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
ADDRESS = re.compile(r"(?P<coordinator>[^/\s\[\]]+:\d+)/(?P<index>\d+)/(?P<count>\d+)")
PLACE = "HOST:PORT/INDEX/COUNT"
LOST = (
    "another process of this run has ended or cannot be reached; the checkpoints are kept, and resume=true goes on, "
    "also with another number of processes"
)
# A process without a heartbeat for so many seconds is lost, also while the others compile.
HEARTBEAT_SECONDS = 30
# JAX has no class for errors of communication.
UNREACHABLE = re.compile(
    r"(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|CANCELLED|DEADLINE_EXCEEDED)\b.*(gloo|nccl|coordination|heartbeat|socket|peer)",
    re.IGNORECASE | re.DOTALL,
)
# What `from_first` gives if the first process refuses the run.
REFUSED = -2
REFUSED_CODE = 2  # the exit code
# What JAX prints before it aborts, and what follows.
ABORTS = re.compile(rb"[EF]\d{4} .*(coordination.service|distributed service)")
NOISE = re.compile(rb"[EFWI]\d{4} |\s+@ |\*\*\* |Additional GRPC|:UNKNOWN|RPC: |The tasks |\d+$|\s*$")
HAS_JOINED = b"\0joined\n"  # tells the relay so


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
        RunError: the others could not be reached. JAX may abort the process instead; the relay then says so.
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
    not_joined = f"distributed={shown(distributed)}: not all processes have joined; they may be started again"
    relay_errors(not_joined)

    import jax

    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM
    with _default_signals():  # JAX waits where no handler of Python can run
        try:
            jax.distributed.initialize(coordinator, count, index, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
        except ValueError as error:
            raise Refusal(
                f"distributed={shown(distributed)}: {error} Allowed: in a step of SLURM, under Open MPI, with "
                f"{', '.join(NAMES)}, or {PLACE}"
            ) from error
        except RuntimeError as error:
            raise RunError(f"{not_joined} ({str(error).splitlines()[0]})") from error
    os.write(2, HAS_JOINED)


def _number_in(name: str) -> int:
    """The whole number in a variable of the environment."""
    text = os.environ.get(name, "")
    if not text.isdecimal():
        raise Refusal(f"distributed=auto with {name}={shown(text)}; allowed: a whole number, as {NAMES[0]} is set")
    return int(text)


@contextmanager
def _default_signals() -> Iterator[None]:
    """Ctrl-C and SIGTERM end the process immediately."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def joined() -> bool:
    """Whether this process is one of several of a run."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def is_first() -> bool:
    """Whether this process writes the files of the run."""
    return not joined() or _state().process_id == 0


def count() -> int:
    """The number of processes of the run."""
    return _state().num_processes if joined() else 1


def _state() -> Any:
    """What JAX knows of the processes. `jax.process_count` would start the devices before they are chosen."""
    from jax._src.distributed import global_state

    return global_state


def from_first(number: int) -> int:
    """The number that the first process gives, of any size. All processes call it, and wait for each other."""
    if not joined():
        return number
    from jax.experimental import multihost_utils

    words = multihost_utils.broadcast_one_to_all(np.array(divmod(number, 2**31), np.int32))
    return int(words[0]) * 2**31 + int(words[1])


def check_same(settings: Mapping[str, Any]) -> None:
    """Refuses a run whose processes have different settings, in all of them. All processes call it.

    Args:
        settings: by their names as typed. `distributed` is of each process, and not compared.
    """
    if not joined():
        return
    from jax.experimental import multihost_utils

    own = {name: shown(value) for name, value in settings.items() if name != "distributed"}
    text = np.frombuffer(json.dumps(own).encode(), np.uint8)
    sent = multihost_utils.broadcast_one_to_all(np.resize(text, from_first(len(text))))  # of the first's length
    first = json.loads(sent.astype(np.uint8).tobytes())
    names = sorted(name for name in own | first if own.get(name) != first.get(name))
    different = np.flatnonzero(multihost_utils.process_allgather(np.array(bool(names))))
    if names:
        each = (f"{name}={own.get(name)} where it has {first.get(name)}" for name in names)
        raise Refusal(f"other settings than the first process: {'; '.join(each)}; allowed: the same in all processes")
    if different.size:
        raise Refusal(f"process {different[0]} has other settings than the first; see its error")


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
    """Joins the other processes of the run, if there are any, and leaves them at the end.

    Raises:
        RunError: they are lost, or could not be reached.
        Refusal: as by `join`.
    """
    try:
        join(distributed)
        yield
    except BaseException as error:
        if joined():
            codes = {Refusal: REFUSED_CODE, KeyboardInterrupt: 130}
            atexit.register(leave, codes.get(type(error), 1))
            if not isinstance(error, (Refusal, RunError, OSError)) and UNREACHABLE.match(str(error)):
                raise RunError(f"{LOST} ({str(error).splitlines()[0]})") from error
        raise
    if joined():
        import jax

        jax.distributed.shutdown()


def leave(code: int) -> None:
    """Ends this process immediately: JAX would wait for the others at its exit, and abort if they are lost.

    Processes whose run is refused wait for each other, since JAX aborts the others when the first one ends.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if code == REFUSED_CODE:
        with contextlib.suppress(RuntimeError, ValueError):
            _state().client.wait_at_barrier("hajax: refused", 1000 * HEARTBEAT_SECONDS)
    os._exit(code)


def relay_errors(not_joined: str) -> None:
    """Passes standard error through another process, which says in one line why JAX aborts this one.

    If the first process is lost, JAX aborts the others from a thread of its own, with pages about its stack. Nothing in
    this process can catch that. Until all have joined, the line is `not_joined`, then `LOST`.
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
    why, aborts, said = not_joined, False, False
    for line in os.fdopen(reading, "rb"):
        if line == HAS_JOINED:
            why = LOST
            continue
        aborts = aborts or ABORTS.match(line) is not None
        if not (aborts and NOISE.match(line)):
            said = said or (line.startswith(b"hajax train: ") and b"warning: " not in line)
            os.write(2, line)
    if aborts and not said:
        os.write(2, f"hajax train: {why}\n".encode())
    os._exit(0)
