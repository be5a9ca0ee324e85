"""MuJoCo itself, in C: threads step many robots in one callback from the compiled program.

MuJoCo's whole state passes through the program as bits in double precision, so that a trajectory equals MuJoCo's to the
last bit whatever the program's precision is, and a step is a pure function of it.
"""

from __future__ import annotations

import copy
import functools
import queue
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from hajax.envs.callbacks import callback, cores
from hajax.envs.mamujoco.tasks import Readings

# Time, positions, velocities, activations and histories, and the accelerations from which the solver starts. Nothing
# else of what MuJoCo keeps ever changes here.
STATE = int(mujoco.mjtState.mjSTATE_FULLPHYSICS | mujoco.mjtState.mjSTATE_WARMSTART)
# The fields of `Readings` that are copied from MuJoCo's data after a step, and their names there.
FIELDS = {
    "position": "xpos",
    "center": "xipos",
    "cinert": "cinert",
    "cvel": "cvel",
    "qfrc_actuator": "qfrc_actuator",
    "cfrc_ext": "cfrc_ext",
    "tendon_jacobian": "ten_J",
    "tendon_length": "ten_length",
    "tendon_velocity": "ten_velocity",
    "sensordata": "sensordata",
}
BLOCK = 4  # robots that a thread steps before it takes the next ones


class Start(NamedTuple):
    """The start of an episode."""

    bits: jax.Array  # uint32 [S, 2]: MuJoCo's state, each number in double precision
    readings: jax.Array  # [R]


class CState(NamedTuple):
    """The state at the start of a step."""

    bits: jax.Array  # as in `Start`
    qpos: jax.Array  # [nq], in the default precision
    qvel: jax.Array  # [nv]
    following: Start  # of the next episode, drawn in the first step of this one


class Engine:
    """A model that MuJoCo steps, with the options of its XML file. `hajax.envs.mamujoco.physics.Physics` is MJX's."""

    def __init__(self, model: Any, frame_skip: int, reads: Collection[str] = tuple(FIELDS)):
        """Of a mujoco.MjModel, and the number of its time steps in one step of the environment.

        Readings that are neither in `reads` nor part of the state are zeros.
        """
        self.model, self.frame_skip = copy.copy(model), frame_skip
        # A robot that diverges would begin anew at the origin, unnoticed; here its episode ends.
        self.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        self.dt: float = model.opt.timestep * frame_skip
        self._moving: int = model.nq + model.nv + model.na  # which begin the readings, and follow the time in the state
        self._size: int = mujoco.mj_stateSize(model, STATE)
        self._blank = np.zeros(self._size)
        data = self._new_data()
        mujoco.mj_getState(self.model, data, self._blank, STATE)
        self._shapes = {name: getattr(data, field).shape for name, field in FIELDS.items()}
        self._read, self._width = {}, self._moving
        for name in FIELDS:
            if name in reads and np.prod(self._shapes[name]):
                start, self._width = self._width, self._width + int(np.prod(self._shapes[name]))
                self._read[name] = slice(start, self._width)
        self._forces = "cfrc_ext" in self._read
        self._idle: queue.SimpleQueue[tuple[Any, list]] = queue.SimpleQueue()

    @property
    def example(self) -> Readings:
        """Readings of zeros."""
        return self._readings(jnp.zeros(self._width), jnp.zeros(self.model.nu))

    def settle(self, qpos: jax.Array, qvel: jax.Array) -> tuple[CState, Readings]:
        """The state and readings of a new episode, as after Gymnasium's reset, which evaluates the dynamics."""
        start = Start(*self._called(self._settle_all, (), jnp.concatenate([qpos, qvel])))
        return self._begun(start)

    def step(self, state: CState, ctrl: jax.Array, qpos: jax.Array, qvel: jax.Array) -> tuple[CState, Readings]:
        """`frame_skip` time steps under the same controls; `qpos` and `qvel` are those of a possible next episode."""
        bits, shown = self._called(self._step_all, (2,), state.bits, jnp.concatenate([ctrl, qpos, qvel]))
        first = (state.bits[0] == 0).all()  # the time
        following = jax.tree.map(lambda new, old: jnp.where(first, new, old), Start(bits[1], shown[1]), state.following)
        return self._state(Start(bits[0], shown[0]), following), self._readings(shown[0], ctrl)

    def reopen(self, state: CState) -> tuple[CState, Readings]:
        """The start of the next episode after at least one step."""
        return self._begun(state.following)

    def _begun(self, start: Start) -> tuple[CState, Readings]:
        ctrl = jnp.zeros(self.model.nu, start.readings.dtype)
        return self._state(start, start), self._readings(start.readings, ctrl)

    def _state(self, now: Start, following: Start) -> CState:
        qpos, qvel = jnp.split(now.readings[: self.model.nq + self.model.nv], (self.model.nq,))
        return CState(now.bits, qpos, qvel, following)

    def _called(self, function: Callable, shape: tuple[int, ...], *arguments: jax.Array) -> tuple[jax.Array, jax.Array]:
        """States and readings, `[*shape, S, 2]` and `[*shape, R]`, of a function of many robots."""
        kinds = [((*shape, self._size, 2), jnp.uint32), ((*shape, self._width), jnp.result_type(float))]
        bits, shown = callback(function, kinds)(*(x[None] for x in arguments))
        return bits[0], shown[0]

    def _readings(self, shown: jax.Array, ctrl: jax.Array) -> Readings:
        model = self.model
        fields = {name: jnp.zeros(shape, shown.dtype) for name, shape in self._shapes.items()}
        fields |= {name: shown[where].reshape(self._shapes[name]) for name, where in self._read.items()}
        # MuJoCo stores the entries that can differ from zero.
        sparse, rows = fields["tendon_jacobian"].ravel(), np.repeat(np.arange(model.ntendon), model.ten_J_rownnz)
        dense = (
            jnp.zeros((model.ntendon, model.nv), shown.dtype).at[rows, model.ten_J_colind[: sparse.size]].set(sparse)
        )
        qpos, qvel, act = jnp.split(shown[: self._moving], (model.nq, model.nq + model.nv))
        mass = jnp.asarray(model.body_mass, shown.dtype)
        return Readings(**fields | {"tendon_jacobian": dense}, qpos=qpos, qvel=qvel, act=act, ctrl=ctrl, mass=mass)

    def _settle_all(self, given: np.ndarray) -> tuple[np.ndarray, ...]:
        """The states `[n, S, 2]` and readings `[n, R]` with these positions and velocities `[n, nq + nv]`."""
        states, shown = np.zeros((len(given), self._size)), np.zeros((len(given), self._width))

        def settle(data: Any, views: list, rows: range) -> None:
            for i in rows:
                self._settle(data, views, given[i], states[i], shown[i])

        self._in_threads(settle, len(given))
        return self._finished(states, shown)

    def _step_all(self, bits: np.ndarray, given: np.ndarray) -> tuple[np.ndarray, ...]:
        """The states `[n, 2, S, 2]` and readings `[n, 2, R]` after the step, and of next episodes in a first step."""
        model, n, nu = self.model, len(bits), self.model.nu
        states, shown = np.zeros((n, 2, self._size)), np.zeros((n, 2, self._width))
        states[:, 0] = bits.view(float)[..., 0]
        first = states[:, 0, 0] == 0

        def step(data: Any, views: list, rows: range) -> None:
            control = data.ctrl
            for i in rows:
                state = states[i, 0]
                mujoco.mj_setState(model, data, state, STATE)
                control[:] = given[i, :nu]
                mujoco.mj_step(model, data, self.frame_skip)
                if self._forces:
                    mujoco.mj_rnePostConstraint(model, data)
                mujoco.mj_getState(model, data, state, STATE)
                for where, view in views:
                    shown[i, 0, where] = view
                if first[i]:
                    self._settle(data, views, given[i, nu:], states[i, 1], shown[i, 1])

        self._in_threads(step, n)
        return self._finished(states, shown)

    def _settle(self, data: Any, views: list, given: np.ndarray, state: np.ndarray, shown: np.ndarray) -> None:
        mujoco.mj_setState(self.model, data, self._blank, STATE)
        data.qpos[:], data.qvel[:] = np.split(given, (self.model.nq,))
        data.ctrl[:], data.cfrc_ext[:] = 0, 0
        mujoco.mj_forward(self.model, data)
        mujoco.mj_getState(self.model, data, state, STATE)
        for where, view in views:
            shown[where] = view

    def _finished(self, states: np.ndarray, shown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shown[..., : self._moving] = states[..., 1 : 1 + self._moving]
        return states.view(np.uint32).reshape(*states.shape, 2), shown

    def _in_threads(self, work: Callable[[Any, list, range], None], n: int) -> None:
        """`work(data, views, rows)` for all rows; every thread has MuJoCo's data to itself, and views of what it reads.

        This thread takes part. Robots in contact take longer than others, so the rows are given out block by block.
        """
        blocks = iter(range(0, n, BLOCK))  # whose next element one thread alone gets

        def part() -> None:
            try:
                data, views = self._idle.get_nowait()
            except queue.Empty:
                data = self._new_data()
                views = [(where, getattr(data, FIELDS[name]).reshape(-1)) for name, where in self._read.items()]
            for start in blocks:
                work(data, views, range(start, min(n, start + BLOCK)))
            self._idle.put((data, views))

        others = [_threads().submit(part) for _ in range(min(cores(), -(-n // BLOCK)) - 1)]
        part()
        for other in others:
            other.result()

    def _new_data(self) -> Any:
        data = mujoco.MjData(self.model)
        data.warning.number[:] = 1  # MuJoCo writes the first warning of a kind to a file in the working directory
        return data


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="mujoco")
