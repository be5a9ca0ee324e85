"""The simulators behind environments on the host: which pool of copies a state belongs to, and how it came to be."""

from __future__ import annotations

import functools
import itertools
import logging
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from hajax.envs.base import BatchedEnvironment
from hajax.envs.simulators.interface import SimulatorError, as_parallel, picture_of
from hajax.envs.simulators.pool import Pool
from hajax.envs.simulators.workers import Task
from hajax.spec import FinalStep, Timestep

TICKET = 3  # the length of a ticket
LONGEST = 2**16  # the most numbers in the actions of a past; the steps after them are not kept
UNLIMITED = 1000  # the steps that are kept of an episode without a limit

logger = logging.getLogger("hajax.simulators")


class Past(NamedTuple):
    """How the simulator came to its state, which a resumed run repeats."""

    seed: jax.Array  # uint32 []
    episode: jax.Array  # int32 []: since the reset with this seed
    step: jax.Array  # int32 []: in the episode
    actions: jax.Array  # [H, N, D]: those of the episode, the first `step` of them


class State(NamedTuple):
    """The state of an environment; what it is the simulator knows."""

    ticket: jax.Array  # int32 [3]: the number of its batch, its index in it, and the steps taken
    past: Past
    frame: Any = ()  # bytes [height, width, 3], if states hold pictures


def _is_jaxs_own(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], SimulatorError))


# JAX raises an error whose last line is the simulator's, and logs the traceback in the callback beside it.
logging.getLogger("jax._src.callback").addFilter(_is_jaxs_own)


class Batch:
    """A pool of simulators, and the steps that each has taken."""

    def __init__(self, pool: Pool):
        self.pool = pool
        self.steps = np.zeros(pool.n, np.int32)
        self.actions = pool.actions.copy()


class Simulators:
    """The simulators behind an environment. Every traced `reset` has a pool of its own, which it uses again."""

    def __init__(self, task: Task, on_host: Callable[[Task], BatchedEnvironment]):
        self.task, self._on_host = task, on_host
        self.batches: dict[int, Batch] = {}
        self.fault: SimulatorError | None = None  # the error that ended the last program
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def opening(self) -> Callable[[np.ndarray, Any], tuple[np.ndarray, ...]]:
        """A function `reset(seeds [n]) -> (tickets [n, 3], rows [n, W], …)` for one place in a program.

        Its next call ends the episodes of the last one.
        """
        own: list[int] = []

        def reset(seeds: np.ndarray, dtype: Any) -> tuple[np.ndarray, ...]:
            before = self.batches.pop(own.pop(), None) if own else None
            if before is not None and before.pool.n == len(seeds) and not before.pool.broken:
                pool = before.pool
            else:
                if before is not None:
                    before.pool.close()
                pool = Pool(self.task, len(seeds), dtype)
            pool.reset(seeds)
            tickets = self._tickets(pool)
            own.append(int(tickets[0, 0]))
            return tickets, *self._end(self.batches[own[0]], tickets[:, 1])

        return reset

    def resumed(self, state: State, timestep: Timestep) -> State | None:
        """These states in new simulators that repeat the episodes; `None` if that leads to other timesteps.

        The states and the last timesteps are of a program that has ended; both have any batch axes.
        """
        shape = np.shape(state.ticket)[:-1]
        past = jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[len(shape) :]), state.past)
        pool = Pool(self.task, len(past.seed), np.asarray(timestep.reward).dtype)
        try:
            self._repeat(pool, past, timestep)
        except SimulatorError as error:
            pool.close()
            logger.warning(
                f"{self.task.layout.spec.name}: the episodes under way cannot be repeated ({error}): new ones begin, "
                "and results differ from those of an uninterrupted run"
            )
            return None
        except BaseException:
            pool.close()
            raise
        return state._replace(ticket=jnp.asarray(self._tickets(pool).reshape(*shape, TICKET)))

    def _repeat(self, pool: Pool, past: Any, timestep: Timestep) -> None:
        """Repeats episodes `[n]`. Raises SimulatorError if they do not lead to the timesteps."""
        longest, kept = int(past.step.max()), past.actions.shape[1]
        if longest > kept:
            raise SimulatorError(f"one is {longest:,} steps long, of which {kept:,} are kept")
        pool.reset(past.seed, past.episode)
        for t in range(longest):
            indices = np.flatnonzero(past.step > t)
            pool.step(past.actions[indices, t], indices)
        if pool.restarts:
            raise SimulatorError("a worker failed meanwhile")
        repeated = self.task.layout.fields(pool.last)
        for name in FinalStep._fields:
            if name in repeated and not np.array_equal(np.ravel(repeated[name]), np.ravel(getattr(timestep, name))):
                raise SimulatorError(f"the same actions led to another {name}")

    def step(self, tickets: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        """The rows `[n, W]` after the actions `[n, N, D]` in these environments, and pictures if states hold them.

        A ticket is used once. A program may go on with an environment that it has stopped to use, as a vectorized loop
        does with those that have ended; such an environment is not stepped, if others are.
        """
        batch = self._begin(tickets, actions)
        return self._end(batch, tickets[:, 1])

    def exchange(self, tickets: np.ndarray, actions: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Begins the step of these environments, as `step`, then ends that of the others; returns the others' rows."""
        self._begin(tickets, actions)
        return self.end(others)

    def end(self, tickets: np.ndarray) -> np.ndarray:
        """Ends the step of these environments, if it is under way; returns their rows `[n, W]`."""
        return self._end(self._batch(tickets), tickets[:, 1])[0]

    def _begin(self, tickets: np.ndarray, actions: np.ndarray) -> Batch:
        batch, indices = self._batch(tickets), tickets[:, 1]
        fresh = tickets[:, 2] == batch.steps[indices]
        if not fresh.any():
            repeated = (tickets[:, 2] == batch.steps[indices] - 1).all()
            if not repeated or not np.array_equal(batch.actions[indices], actions):
                raise self._misuse("these episodes were stepped before; a simulator cannot go back")
            return batch
        stepped = indices[fresh]
        if batch.pool.moving[stepped].any():
            raise self._misuse("a step of these episodes is under way")
        whole = len(stepped) == batch.pool.n and (stepped == np.arange(batch.pool.n)).all()
        batch.pool.begin(actions[fresh], None if whole else stepped)
        batch.actions[stepped] = actions[fresh]
        batch.steps[stepped] += 1
        return batch

    def _end(self, batch: Batch, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        while batch.pool.moving[indices].any():
            batch.pool.end()
        frames = () if self.task.frame is None else (batch.pool.frames()[indices],)
        return (batch.pool.last[indices], *frames)

    def _tickets(self, pool: Pool) -> np.ndarray:
        """The tickets `[n, 3]` of a pool whose episodes have begun."""
        number = next(self._numbers)
        self.batches[number] = Batch(pool)
        return np.array([(number, i, 0) for i in range(pool.n)], np.int32)

    def _batch(self, tickets: np.ndarray) -> Batch:
        batch = self.batches.get(int(tickets[0, 0]))
        if batch is None or (tickets[:, 0] != tickets[0, 0]).any():
            raise self._misuse("these episodes were ended by a later reset of the same program")
        if np.bincount(tickets[:, 1]).max() > 1:
            raise self._misuse("the same episode is stepped twice, as by vmap over hyperparameters but not over keys")
        return batch

    def guarded(self, function: Callable, *arguments: Any) -> Any:
        """The function's result. Its error is kept, because JAX replaces it by one of its own."""
        with self._lock:
            try:
                return function(*arguments)
            except SimulatorError as error:
                self.fault = error
                raise

    def with_frames(self) -> BatchedEnvironment:
        """The environment with pictures in its states, from which films are drawn.

        Raises:
            ValueError: the simulator cannot render arrays.
        """
        name, make = self.task.layout.spec.name, self.task.make
        env = make()
        try:
            if getattr(env, "render_mode", None) != "rgb_array":
                make = functools.partial(cast(Callable[..., Any], make), render_mode="rgb_array")
                env.close()
                env = make()
            env = as_parallel(name, env)
            env.reset(seed=0)
            picture = picture_of(name, env)
        except (TypeError, SimulatorError) as error:
            raise ValueError(f"{name} has no pictures ({error}); allowed: render_mode='rgb_array'") from error
        finally:
            env.close()
        return self._on_host(self.task._replace(make=make, frame=picture.shape))

    def close(self) -> None:
        """Ends all processes."""
        with self._lock:
            for batch in self.batches.values():
                batch.pool.close()
            self.batches.clear()

    def _misuse(self, what: str) -> SimulatorError:
        allowed = "every state that reset or step returned is stepped once, see docs/environments.md"
        return SimulatorError(f"{self.task.layout.spec.name}: {what}; allowed: {allowed}")
