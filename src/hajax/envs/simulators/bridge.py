"""Simulators of the host as a batch of environments, which compiled programs step through callbacks."""

from __future__ import annotations

import functools
import itertools
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from hajax.envs.base import BatchedEnvironment, OverlappedStep, Viewer, concatenate_observations
from hajax.envs.callbacks import callback, cores
from hajax.envs.simulators.interface import MASK, SimulatorError, as_parallel, picture_of
from hajax.envs.simulators.pool import Pool
from hajax.envs.simulators.rows import Layout
from hajax.envs.simulators.workers import Task
from hajax.spec import FinalStep, Timestep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TICKET = 3  # the length of a ticket


class State(NamedTuple):
    """The state of an environment; what it is the simulator knows."""

    ticket: jax.Array  # int32 [3]: the number of its batch, its index in it, and the steps taken
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

    def __init__(self, task: Task):
        self.task = task
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
            number = next(self._numbers)
            self.batches[number] = Batch(pool)
            own.append(number)
            tickets = np.zeros((len(seeds), TICKET), np.int32)
            tickets[:, 0], tickets[:, 1] = number, np.arange(len(seeds))
            pool.reset(seeds)
            return tickets, *self._pictured(pool, tickets[:, 1])

        return reset

    def step(self, tickets: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        """The rows `[n, W]` after the actions `[n, N, D]` in these environments, and pictures if states hold them.

        A ticket is used once. A program may go on with an environment that it has stopped to use, as a vectorized loop
        does with those that have ended; such an environment is not stepped, if others are.
        """
        batch, indices = self._batch(tickets), tickets[:, 1]
        whole = len(indices) == batch.pool.n and (indices == np.arange(batch.pool.n)).all()
        fresh = tickets[:, 2] == batch.steps[indices]
        if not fresh.any():
            repeated = (tickets[:, 2] == batch.steps[indices] - 1).all()
            if not repeated or not np.array_equal(batch.actions[indices], actions):
                raise self._misuse("these episodes were stepped before; a simulator cannot go back")
            return self._pictured(batch.pool, indices)
        stepped = indices[fresh]
        batch.pool.step(actions[fresh], None if whole and fresh.all() else stepped)
        batch.actions[stepped] = actions[fresh]
        batch.steps[stepped] += 1
        return self._pictured(batch.pool, indices)

    def exchange(self, tickets: np.ndarray, actions: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Begins the step of these environments, then ends that of the others; returns the others' rows `[n, W]`."""
        batch, indices = self._batch(tickets), tickets[:, 1]
        if (tickets[:, 2] != batch.steps[indices]).any():
            raise self._misuse("these episodes were stepped before; a simulator cannot go back")
        batch.pool.begin(actions, indices)
        batch.actions[indices] = actions
        batch.steps[indices] += 1
        return self.end(others)

    def end(self, tickets: np.ndarray) -> np.ndarray:
        """Ends the step of these environments, if it is under way; returns their rows `[n, W]`."""
        batch, indices = self._batch(tickets), tickets[:, 1]
        while batch.pool.moving[indices].any():
            batch.pool.end()
        return batch.pool.last[indices]

    def _batch(self, tickets: np.ndarray) -> Batch:
        batch = self.batches.get(int(tickets[0, 0]))
        if batch is None or (tickets[:, 0] != tickets[0, 0]).any():
            raise self._misuse("these episodes were ended by a later reset of the same program")
        if np.bincount(tickets[:, 1]).max() > 1:
            raise self._misuse("the same episode is stepped twice, as by vmap over hyperparameters but not over keys")
        return batch

    def _pictured(self, pool: Pool, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        frames = () if self.task.frame is None else (pool.frames()[indices],)
        return (pool.last[indices], *frames)

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
        return on_host(self.task._replace(make=make, frame=picture.shape))

    def close(self) -> None:
        """Ends all processes."""
        with self._lock:
            for batch in self.batches.values():
                batch.pool.close()
            self.batches.clear()

    def _misuse(self, what: str) -> SimulatorError:
        allowed = "every state that reset or step returned is stepped once, see docs/environments.md"
        return SimulatorError(f"{self.task.layout.spec.name}: {what}; allowed: {allowed}")


def on_host(task: Task) -> BatchedEnvironment:
    """The batch of environments whose copies workers step."""
    host, layout = Simulators(task), task.layout
    pictures = [] if task.frame is None else [(task.frame, jnp.uint8)]

    def reset(keys: jax.Array) -> tuple[State, Timestep]:
        seeds = jax.vmap(lambda key: jax.random.bits(key, (), jnp.uint32))(keys)
        dtype, begin = jnp.result_type(float), host.opening()

        def call(seeds):
            return host.guarded(begin, seeds, dtype)

        results = [((TICKET,), jnp.int32), ((layout.width,), dtype), *pictures]
        tickets, rows, *frames = callback(call, results)(seeds)
        return State(tickets, *frames), shown(layout, rows)

    def step(keys: jax.Array, state: State, action: jax.Array) -> tuple[State, Timestep]:
        dtype = jnp.result_type(float)

        def call(tickets, action):
            found = host.guarded(host.step, tickets, action)
            return tickets + np.array([0, 0, 1], np.int32), *found  # from the callback, so that steps are in order

        results = [((TICKET,), jnp.int32), ((layout.width,), dtype), *pictures]
        tickets, rows, *frames = callback(call, results)(state.ticket, action.astype(dtype))
        return State(tickets, *frames), shown(layout, rows)

    def exchange(state: State, action: jax.Array, other: State) -> tuple[State, State, Timestep]:
        dtype = jnp.result_type(float)

        def call(tickets, action, others):
            return tickets + np.array([0, 0, 1], np.int32), others, host.guarded(host.exchange, tickets, action, others)

        results = [((TICKET,), jnp.int32)] * 2 + [((layout.width,), dtype)]
        mine, theirs, rows = callback(call, results)(state.ticket, action.astype(dtype), other.ticket)
        return State(mine), State(theirs), shown(layout, rows)

    def end(state: State) -> tuple[State, Timestep]:
        def call(tickets):
            return tickets, host.guarded(host.end, tickets)

        results = [((TICKET,), jnp.int32), ((layout.width,), jnp.result_type(float))]
        tickets, rows = callback(call, results)(state.ticket)
        return State(tickets), shown(layout, rows)

    def pays(num_envs: int) -> bool:
        # Measured by benchmarks/simulators.py: with a core for the program, always; without, if workers have enough
        # to do meanwhile.
        return cores() > 1 and (task.num_workers < cores() or num_envs >= 16 * task.num_workers)

    viewer = Viewer(_draw) if task.draws else None
    whole = task.num_workers == 0 or task.frame is not None
    stepped = step if whole else OverlappedStep(step, exchange, end, pays)
    return BatchedEnvironment(layout.spec, reset, stepped, viewer=viewer, host=host)


def _draw(axes: Axes, state: State, action: Any, timestep: Timestep) -> None:
    axes.imshow(np.asarray(state.frame))
    axes.set_axis_off()


def shown(layout: Layout, rows: jax.Array) -> Timestep:
    """The timesteps of rows `[E, W]`."""
    spec, fields = layout.spec, layout.fields(rows)

    def seen(prefix: str) -> FinalStep:
        observation = fields[f"{prefix}observation"]
        mask = fields.get(f"{prefix}{MASK}")
        choices = spec.action_layout.choices
        return FinalStep(
            observation=observation,
            state=(
                concatenate_observations(spec, observation)
                if spec.state_from_observations
                else fields[f"{prefix}state"]
            ),
            action_mask=jnp.broadcast_to(choices, (len(rows), *choices.shape)) if mask is None else mask > 0,
            active=fields[f"{prefix}active"] > 0,
        )

    reward = fields["reward"]
    if spec.reward == "team":
        reward = jnp.broadcast_to(reward.sum(-1, keepdims=True), reward.shape)
    terminated, truncated = fields["terminated"] > 0, fields["truncated"] > 0
    return Timestep(
        **seen("")._asdict(),
        reward=reward,
        terminated=terminated,
        truncated=truncated,
        first=terminated | truncated,
        final=seen("final."),
        metrics={name: fields[f"metrics.{name}"] for name in layout.metrics},
    )
