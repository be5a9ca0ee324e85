"""Copies of a simulator in worker processes, which share an array of rows with this one.

Gymnasium's vector environments run one copy of one agent in a process, and give up when a process fails. Here a process
steps its share of the copies, and one that dies or hangs is replaced.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import signal
import time
import weakref
from collections import deque
from collections.abc import Container, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any, NamedTuple

import numpy as np

from hajax.envs.simulators.interface import SimulatorError
from hajax.envs.simulators.workers import Share, Task, Worker

logger = logging.getLogger("hajax.simulators")

# A worker that fails so often, without an episode that ends in between, ends the run.
MOST_FAILURES = 3
START = 120.0  # seconds, at least, for a worker to make its copies
FAILED = ("died", "hung")


class Begun(NamedTuple):
    """A command that workers carry out."""

    workers: list[Worker]  # those that have not answered
    copies: Any  # whose rows it is for: indices, or all
    stepped: Container[int] = ()  # those that take a step; none in a reset


class Pool:
    """n copies of a simulator. Rows `[n, W]` and actions `[n, N, D]` are shared with the workers.

    Steps of some copies may begin while those of others are under way; they end in the order in which they began. A
    worker that is replaced begins the next episode in each of its copies.
    """

    def __init__(self, task: Task, n: int, dtype: Any):
        spec = task.layout.spec
        self.task, self.name, self.n = task, spec.name, n
        self.seeds, self.episodes = np.zeros(n, np.int64), np.zeros(n, np.int64)
        self.told = False  # a warning
        self.broken = False  # after an error or an interruption; an answer may then be left in a pipe
        self.restarts = 0  # of workers
        sizes = (n * task.layout.width, n * spec.num_agents * spec.num_components)
        self.workers: list[Worker] = []
        if task.num_workers:
            import cloudpickle

            typecode = np.dtype(dtype).char
            shared = [multiprocessing.get_context("spawn").RawArray(typecode, size) for size in sizes]
            self.packed, self.shared = cloudpickle.dumps(task), (*shared, typecode)
        else:
            shared = [np.zeros(size, dtype) for size in sizes]
        self.rows = np.frombuffer(shared[0], dtype).reshape(n, -1)
        self.actions = np.frombuffer(shared[1], dtype).reshape(n, spec.num_agents, spec.num_components)
        self.fields = task.layout.fields(self.rows)
        self.last = self.rows.copy()  # a worker that dies may leave a row half written
        self.begun: deque[Begun] = deque()
        self.moving = np.zeros(n, bool)  # copies whose step is under way
        self.lost = np.zeros(n, bool)  # copies whose episode was lost with its worker, between two steps
        self.share = None if task.num_workers else Share(task, range(n), self.rows, self.actions)
        self._close = weakref.finalize(self, _close_all, self.workers, self.share)
        with self._unbroken():
            count = min(n, task.num_workers)
            for index in range(count):  # not parts of consecutive copies: half of the copies keep all workers busy
                self.workers.append(Worker(index, task, self.packed, range(index, n, count), self.shared))
            self._answers(Begun(list(self.workers), slice(None)), limit=max(task.timeout, START))

    def reset(self, seeds: np.ndarray, episodes: np.ndarray | None = None) -> np.ndarray:
        """Begins episodes in all copies; returns the rows `[n, W]`.

        Each copy begins the first of the episodes that follow from its seed, or the one of this number.
        """
        with self._unbroken():
            while self.begun:
                self._end()
            self.seeds = np.asarray(seeds, np.int64)
            self.episodes = np.zeros(self.n, np.int64) if episodes is None else np.array(episodes, np.int64)
            arguments = {i: (i, int(self.seeds[i]), int(self.episodes[i])) for i in range(self.n)}
            self._begin("reset", slice(None), arguments)
            self.lost[:] = False
            self._end()
        return self.last.copy()

    def step(self, actions: np.ndarray, indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Steps these n copies, or all; returns their rows `[n, W]`."""
        self.begin(actions, indices)
        return self.end()

    def begin(self, actions: np.ndarray, indices: Sequence[int] | np.ndarray | None = None) -> None:
        """Begins a step of these copies, or all, none of which is under way."""
        chosen: Any = slice(None) if indices is None else np.asarray(indices, int)
        with self._unbroken():
            self.actions[chosen] = actions
            if indices is None and not self.lost.any():
                self._begin("step", chosen, None)
                return
            every = np.arange(self.n)[chosen]
            gone, going = every[self.lost[every]], every[~self.lost[every]]
            self._truncate(gone)
            self.lost[gone] = False
            self._begin("step", chosen, {int(i): int(i) for i in going})

    def end(self) -> np.ndarray:
        """Ends the step that began first; returns the rows of its copies."""
        with self._unbroken():
            return np.array(self.last[self._end()])

    def frames(self) -> np.ndarray:
        """The pictures of the copies, `[n, height, width, 3]`."""
        with self._unbroken():
            if self.share is not None:
                return np.stack([self.share.obey("frame", i) for i in range(self.n)])
            found = []
            for i in range(self.n):
                worker = self.workers[i % len(self.workers)]
                worker.send("frame", i)
                (kind, frame), *_ = self._receive([worker]).values()
                if kind in FAILED:
                    message = f"{self.name}: a worker {kind} while it rendered; allowed: simulators that run"
                    raise SimulatorError(message)
                found.append(frame)
            return np.stack(found)

    def close(self) -> None:
        """Ends the processes."""
        self._close()

    @contextlib.contextmanager
    def _unbroken(self) -> Iterator[None]:
        """Ends the workers at any error, after which their rows cannot be trusted."""
        if self.broken:
            raise SimulatorError(f"{self.name}: these simulators failed before; allowed: a new reset")
        try:
            yield
        except BaseException:
            self.broken = True
            self.close()
            raise

    def _begin(self, command: str, copies: Any, arguments: dict[int, Any] | None) -> None:
        """Sends a command for these copies to their workers, with the copies' arguments, or for all without any."""
        asked = []
        if self.share is not None:
            self._tell(self.share.obey(command, None if arguments is None else [*arguments.values()]))
        for worker in self.workers:
            own = None if arguments is None else [arguments[i] for i in worker.indices if i in arguments]
            if own is None or own:
                worker.send(command, own)
                asked.append(worker)
        self.moving[copies] = True
        stepped: Container[int] = range(self.n) if arguments is None else arguments
        self.begun.append(Begun(asked, copies, () if command == "reset" else stepped))

    def _end(self) -> Any:
        """Waits for the answers to the command that began first; returns its copies, whose rows are now the last."""
        begun = self.begun[0]
        for messages in self._answers(begun):
            self._tell(messages)
        self.begun.popleft()
        copies = begun.copies
        self.moving[copies] = False
        self.last[copies] = self.rows[copies]
        self.episodes[copies] += self._over(copies)
        return copies

    def _tell(self, messages: list[str]) -> None:
        """Logs the first warning of any copy; the others would say the same with other numbers."""
        if messages and not self.told:
            self.told = True
            logger.warning(messages[0])

    def _answers(self, begun: Begun, limit: float | None = None) -> list[Any]:
        """The workers' answers. One that dies or does not answer in time is replaced, and answers nothing."""
        answers = []
        for worker, (kind, answer) in self._receive(begun.workers, limit).items():
            if kind in FAILED:
                self._replace(worker, kind, begun)
                continue
            answers.append(answer)
            if worker.failures and self._over([i for i in worker.indices if i in begun.stepped]).any():
                worker.failures = 0
        return answers

    def _receive(self, asked: list[Worker], limit: float | None = None) -> dict[Worker, tuple[str, Any]]:
        """The kind of each worker's answer, and the answer; raises what a simulator raised."""
        waiting: dict[Any, Worker] = {worker.pipe: worker for worker in asked}
        until = time.monotonic() + (self.task.timeout if limit is None else limit)
        answers: dict[Worker, tuple[str, Any]] = {}
        while waiting:
            ready = wait(list(waiting), max(0, until - time.monotonic()))
            found: list[Any] = ready or list(waiting)
            for pipe in found:
                worker = waiting.pop(pipe)
                try:
                    answers[worker] = pipe.recv() if ready else ("hung", None)
                except (EOFError, OSError):
                    answers[worker] = ("died", None)
        for kind, answer in answers.values():
            if kind == "error":
                raise SimulatorError(*answer)
        return answers

    def _over(self, copies: Any) -> np.ndarray:
        """Which of these copies ended their episodes in the last step."""
        return (self.fields["terminated"][copies] + self.fields["truncated"][copies]) > 0

    def _replace(self, worker: Worker, kind: str, command: Begun) -> None:
        """Starts the worker anew. Its episodes are truncated with the last observations, unless they just begin.

        Those that are not under way are truncated by their next step.
        """
        place, indices, first = self.workers.index(worker), worker.indices, worker
        while True:
            worker.process.join(0.1 if kind == "died" else 0)
            what = f"{self.name}: worker {place} (process {worker.process.pid}) "
            what += _exit(worker.process.exitcode) if kind == "died" else f"did not answer for {self.task.timeout:g} s"
            worker.kill()
            failures = worker.failures + 1
            if failures == MOST_FAILURES:
                raise SimulatorError(f"{what}, after {failures - 1} other failures without an episode that ended")
            self.restarts += 1
            logger.warning(f"{what}; it is started again, and its {len(indices)} episodes are truncated")
            worker = self.workers[place] = Worker(place, self.task, self.packed, indices, self.shared)
            worker.failures = failures
            (kind, _), *_ = self._receive([worker], max(self.task.timeout, START)).values()
            if kind in FAILED:
                continue
            next_ones = self.episodes + bool(command.stepped)
            worker.send("reset", [(i, int(self.seeds[i]), int(next_ones[i])) for i in indices])
            (kind, _), *_ = self._receive([worker]).values()
            if kind not in FAILED:
                break
        for begun in self.begun:
            if first in begun.workers:
                begun.workers.remove(first)
        if command.stepped:
            own = np.array(indices)
            self._truncate(own[self.moving[own]])
            self.lost[own[~self.moving[own]]] = True

    def _truncate(self, copies: np.ndarray) -> None:
        """Ends the episodes of copies that have been reset, with what they showed last."""
        layout = self.task.layout
        self.rows[copies, layout.final] = self.last[copies, layout.shown]
        self.fields["truncated"][copies] = 1


def _close_all(workers: list[Worker], share: Share | None) -> None:
    if share is not None:
        share.close()
    for worker in workers:
        with contextlib.suppress(OSError):
            worker.pipe.close()  # all begin to end
    for worker in workers:
        worker.close()


def _exit(code: int | None) -> str:
    """How a process ended, in words."""
    if code is None:
        return "closed its pipe"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
