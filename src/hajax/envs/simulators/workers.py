"""Worker processes, each of which steps its share of the copies of a simulator, whose rows are in shared memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from hajax.envs.simulators.interface import SimulatorError
from hajax.envs.simulators.rows import Layout
from hajax.envs.simulators.team import Simulator


class Task(NamedTuple):
    """What workers do: `make()` makes a simulator, whose rows have this layout."""

    make: Callable[[], Any]
    layout: Layout
    num_workers: int  # 0: no processes
    timeout: float  # seconds that a worker may take for a command
    draws: bool = False  # whether the simulator can render arrays
    frame: tuple[int, ...] | None = None  # the shape of its pictures, if states hold them


class Share:
    """A worker's copies of the simulator; `indices` are their rows in the shared arrays."""

    def __init__(self, task: Task, indices: range, rows: np.ndarray, actions: np.ndarray):
        self.indices, self.actions = indices, actions
        self.name = task.layout.spec.name
        self.copies: dict[int, Simulator] = {}
        for i in indices:
            with self._naming(i):
                self.copies[i] = Simulator(task.make, task.layout, rows[i])

    def obey(self, command: str, argument: Any) -> Any:
        """Carries out a command; returns the warnings, or the picture of a copy."""
        if command == "frame":
            with self._naming(argument):
                return self.copies[argument].frame()
        if command == "reset":
            for i, seed, episode in argument:
                with self._naming(i):
                    self.copies[i].reset(seed, episode)
        else:
            for i in self.indices if argument is None else argument:
                with self._naming(i):
                    self.copies[i].step(self.actions[i])
        found = []
        for copy in self.copies.values():
            found += copy.warnings
            copy.warnings = []
        return found

    def close(self) -> None:
        for copy in self.copies.values():
            with contextlib.suppress(Exception):
                copy.close()

    @contextlib.contextmanager
    def _naming(self, i: int) -> Iterator[None]:
        """Turns errors of copy i into those that name it."""
        try:
            yield
        except SimulatorError as error:
            raise SimulatorError(str(error), traceback.format_exc()) from None
        except Exception as error:
            when = self.copies[i].when() if i in self.copies else "when it was made"
            message = f"{self.name}: copy {i} raised {type(error).__name__} {when}: {error}"
            raise SimulatorError(message, traceback.format_exc()) from error


def serve(pipe: Any, task: bytes, indices: range, rows: Any, actions: Any, typecode: str) -> None:
    """A worker process: makes its copies, and obeys until the other end of the pipe is closed."""
    # A terminal sends Ctrl-C to all processes; the main one then closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    share = None
    try:
        unpacked: Task = pickle.loads(task)
        width, shape = unpacked.layout.width, unpacked.layout.spec
        share = Share(
            unpacked,
            indices,
            np.frombuffer(rows, typecode).reshape(-1, width),
            np.frombuffer(actions, typecode).reshape(-1, shape.num_agents, shape.num_components),
        )
        pipe.send(("ready", []))
        while True:
            command, argument = pipe.recv()
            pipe.send((command, share.obey(command, argument)))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass
    except SimulatorError as error:
        pipe.send(("error", (str(error), error.details)))
    except BaseException as error:
        pipe.send(("error", (f"a worker raised {type(error).__name__}: {error}", traceback.format_exc())))
    finally:
        if share is not None:
            share.close()


class Worker:
    """A worker process, and this process's end of its pipe."""

    def __init__(self, index: int, task: Task, packed: bytes, indices: range, shared: tuple[Any, Any, str]):
        self.indices, self.failures = indices, 0
        context = multiprocessing.get_context("spawn")  # a fork would copy JAX's threads in an unknown state
        self.pipe, other = context.Pipe()
        name = f"hajax-{task.layout.spec.name}-{index}"
        self.process = context.Process(target=serve, args=(other, packed, indices, *shared), name=name, daemon=True)
        with _without_main():
            self.process.start()
        other.close()

    def send(self, command: str, argument: Any) -> None:
        with contextlib.suppress(OSError):  # a dead worker is noticed when its answer is read
            self.pipe.send((command, argument))

    def kill(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()

    def close(self) -> None:
        """Lets the process close its simulators and end; kills it after a second."""
        self.pipe.close()
        self.process.join(1)
        self.kill()


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Lets a process start without importing the program's main file.

    The main file would be run again, and would have to protect itself by `if __name__ == "__main__"`. Workers get what
    they need of it by value.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
