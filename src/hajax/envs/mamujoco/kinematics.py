"""MuJoCo's forward kinematics, from joint positions to the frames of bodies, one level of the tree at a time.

MJX computes the same, but on a CPU XLA fuses a chain of bodies into one loop, in which every entry of a body recomputes
those of its parent: a swimmer of eight segments takes a thousand times as long as one of four, and one of twenty did
    not
finish within many minutes. Here a level is computed before the next one begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

FREE, BALL, SLIDE = (
    int(kind) for kind in (mujoco.mjtJoint.mjJNT_FREE, mujoco.mjtJoint.mjJNT_BALL, mujoco.mjtJoint.mjJNT_SLIDE)
)


class Group(NamedTuple):
    """Bodies at the same depth, with joints of the same kinds in the same order."""

    bodies: np.ndarray  # [n]
    kinds: tuple[int, ...]


class Frames(NamedTuple):
    """Positions `[…, 3]` and unit quaternions `[…, 4]`, (w, x, y, z)."""

    position: jax.Array
    quaternion: jax.Array

    def of(self, which: np.ndarray) -> Frames:
        """The frames with these indices."""
        return Frames(self.position[which], self.quaternion[which])

    def then(self, position: jax.Array, quaternion: jax.Array) -> Frames:
        """The world frames of frames `(position, quaternion)` that are relative to these."""
        return Frames(self.position + rotated(position, self.quaternion), product(self.quaternion, quaternion))


def kinematics(model: Any, compiled: Any, data: Any) -> Any:
    """`data` with the frames of bodies, of their masses, geometries and sites, and of joints, in the world.

    Args:
        model: mujoco.MjModel.
        compiled: the same as mjx.Model.
        data: mjx.Data of one robot. Quaternions in its `qpos` are normalized.
    """
    qpos = data.qpos
    level = Frames(jnp.zeros((1, 3), qpos.dtype), jnp.eye(1, 4, dtype=qpos.dtype))  # the world
    above, order, found = np.array([0]), np.array([0]), [level]
    joints: list[np.ndarray] = []
    anchors: list[jax.Array] = []
    axes: list[jax.Array] = []
    for groups in _levels(model):
        parents, level, start = above, jax.lax.optimization_barrier(level), len(found)
        for bodies, kinds in groups:
            parent = np.array([list(parents).index(body) for body in model.body_parentid[bodies]])
            frames = level.of(parent).then(compiled.body_pos[bodies], compiled.body_quat[bodies])
            if (led := model.body_mocapid[bodies]).max() >= 0:
                leader = Frames(data.mocap_pos[led], _unit(data.mocap_quat[led]))
                frames = Frames(*(jnp.where((led >= 0)[:, None], *pair) for pair in zip(leader, frames, strict=True)))
            for i, kind in enumerate(kinds):
                joints.append(model.body_jntadr[bodies] + i)
                frames, qpos, anchor, axis = _moved(model, compiled, frames, qpos, joints[-1], kind)
                anchors.append(anchor)
                axes.append(axis)
            found.append(frames)
        above, level = np.concatenate([bodies for bodies, _ in groups]), _together(found[start:])
        order = np.concatenate([order, above])
    every = jax.lax.optimization_barrier(_together(found).of(np.argsort(order)))
    data = data.replace(qpos=qpos, xquat=every.quaternion)
    for name, frames in (
        ("x", every),
        ("xi", every.then(compiled.body_ipos, compiled.body_iquat)),
        ("geom_x", every.of(model.geom_bodyid).then(compiled.geom_pos, compiled.geom_quat)),
        ("site_x", every.of(model.site_bodyid).then(compiled.site_pos, compiled.site_quat)),
    ):
        data = data.replace(**{f"{name}pos": frames.position, f"{name}mat": matrix(frames.quaternion)})
    if not joints:
        return data
    by_joint = np.argsort(np.concatenate(joints))
    return data.replace(xanchor=jnp.concatenate(anchors)[by_joint], xaxis=jnp.concatenate(axes)[by_joint])


def _together(frames: list[Frames]) -> Frames:
    return Frames(*map(jnp.concatenate, zip(*frames, strict=True)))


def _levels(model: Any) -> Iterator[list[Group]]:
    """The bodies other than the world, by depth."""
    depth = np.zeros(model.nbody, int)
    for body in range(1, model.nbody):
        depth[body] = depth[model.body_parentid[body]] + 1
    for level in range(1, depth.max() + 1):
        groups: dict[tuple[int, ...], list[int]] = {}
        for body in np.flatnonzero(depth == level).tolist():
            joints = model.body_jntadr[body] + np.arange(model.body_jntnum[body])
            groups.setdefault(tuple(model.jnt_type[joints].tolist()), []).append(body)
        yield [Group(np.array(bodies), kinds) for kinds, bodies in groups.items()]


def _moved(
    model: Any, compiled: Any, frames: Frames, qpos: jax.Array, joint: np.ndarray, kind: int
) -> tuple[Frames, jax.Array, jax.Array, jax.Array]:
    """The frames of bodies `[n]` after their joints of one kind, `qpos` with unit quaternions, anchors and axes."""
    start = model.jnt_qposadr[joint]
    if kind == FREE:
        turned = start[:, None] + 3 + np.arange(4)
        frames = Frames(qpos[start[:, None] + np.arange(3)], _unit(qpos[turned]))
        axis = jnp.broadcast_to(jnp.eye(3, dtype=qpos.dtype)[2], frames.position.shape)
        return frames, qpos.at[turned].set(frames.quaternion), frames.position, axis
    place, axis = compiled.jnt_pos[joint], compiled.jnt_axis[joint]
    anchor = frames.position + rotated(place, frames.quaternion)
    shown = rotated(axis, frames.quaternion)
    if kind == SLIDE:
        along = (qpos[start] - compiled.qpos0[start])[:, None] * shown
        return Frames(frames.position + along, frames.quaternion), qpos, anchor, shown
    if kind == BALL:
        turned = start[:, None] + np.arange(4)
        turn = _unit(qpos[turned])
        qpos = qpos.at[turned].set(turn)
    else:
        half = (qpos[start] - compiled.qpos0[start])[:, None] / 2
        turn = jnp.concatenate([jnp.cos(half), jnp.sin(half) * axis], -1)
    quaternion = product(frames.quaternion, turn)
    return Frames(anchor - rotated(place, quaternion), quaternion), qpos, anchor, shown


def rotated(vector: jax.Array, quaternion: jax.Array) -> jax.Array:
    """Vectors `[…, 3]` rotated by unit quaternions `[…, 4]`."""
    w, u = quaternion[..., :1], quaternion[..., 1:]
    across = jnp.cross(u, vector)
    return vector + 2 * (w * across + jnp.cross(u, across))


def product(first: jax.Array, second: jax.Array) -> jax.Array:
    """Quaternion products `[…, 4]`: the rotation by `second`, then by `first`."""
    a, u, b, v = first[..., :1], first[..., 1:], second[..., :1], second[..., 1:]
    real = a * b - jnp.sum(u * v, -1, keepdims=True)
    return jnp.concatenate([real, a * v + b * u + jnp.cross(u, v)], -1)


def matrix(quaternion: jax.Array) -> jax.Array:
    """The rotation matrices `[…, 3, 3]` of unit quaternions `[…, 4]`."""
    w, x, y, z = jnp.moveaxis(quaternion, -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return jnp.stack([jnp.stack(row, -1) for row in rows], -2)


def _unit(quaternion: jax.Array) -> jax.Array:
    return quaternion / jnp.linalg.norm(quaternion, axis=-1, keepdims=True)
