"""Contacts as MuJoCo's C computes them: MJX's contacts, corrected where they differ slightly.

MJX computes the nearest points of two capsules (and of a sphere and a capsule) with a small number added to the
denominators, which moves contacts slightly. It also rotates the tangents of a contact between a plane and a capsule
away from the capsule's axis if that is steeper than 60 degrees, which changes the force with pyramidal friction cones.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

PLANE, SPHERE, CAPSULE = (int(getattr(mujoco.mjtGeom, f"mjGEOM_{name}")) for name in ("PLANE", "SPHERE", "CAPSULE"))


def as_in_c(model: Any, data: Any) -> Any:
    """The mjx.Data after `mjx.collision`, with the contacts of spheres, capsules and planes as C has them.

    One difference remains: two capsules that are parallel to floating-point precision have one contact, in C up to two.
    Contacts of boxes, cylinders, ellipsoids and meshes are MJX's.
    """
    contact = data._impl.contact
    if not len(contact.dist):
        return data
    first, second = contact.geom.T
    kinds = jnp.asarray(model.geom_type)
    is_round = (kinds == SPHERE) | (kinds == CAPSULE)
    axis = data.geom_xmat[:, :, 2]
    half = jnp.where(kinds == CAPSULE, model.geom_size[:, 1], 0)[:, None] * axis  # from the center to the end
    center, radius = data.geom_xpos, model.geom_size[:, 0]

    one, other = jax.vmap(nearest)(center[first], half[first], center[second], half[second])
    across = jax.vmap(_unit, (0, None))(jnp.cross(axis[first], axis[second]), np.eye(3, dtype=axis.dtype)[0])
    normal = jax.vmap(_unit)(other - one, across)
    dist = jnp.linalg.norm(other - one, axis=1) - radius[first] - radius[second]
    pos = one + normal * (radius[first] + dist / 2)[:, None]

    rounds = is_round[first] & is_round[second]
    lying = (kinds[first] == PLANE) & (kinds[second] == CAPSULE)
    normal = jnp.where(rounds[:, None], normal, contact.frame[:, 0])
    frame = jax.vmap(_frame)(normal, jnp.where(lying[:, None], axis[second], 0))
    mended = contact.replace(
        dist=jnp.where(rounds, dist, contact.dist),
        pos=jnp.where(rounds[:, None], pos, contact.pos),
        frame=jnp.where((rounds | lying)[:, None, None], frame, contact.frame),
    )
    return data.tree_replace({"_impl.contact": mended})


def nearest(
    center: jax.Array, half: jax.Array, other_center: jax.Array, other_half: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The nearest points of two segments, each from `center - half` to `center + half`.

    They minimize `|center + x half - other_center - y other_half|²` over x and y in [-1, 1].
    """
    between = center - other_center
    a, b, c = half @ half, half @ other_half, other_half @ other_half
    u, v = half @ between, other_half @ between
    determinant = a * c - b * b
    parallel = determinant <= 10 * jnp.finfo(between.dtype).eps * a * c
    x = _clipped(b * v - c * u, jnp.where(parallel, 0, determinant))
    y = _clipped(v + b * x, c)
    x = _clipped(b * y - u, a)
    return center + x * half, other_center + y * other_half


def _clipped(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """The quotient clipped to [-1, 1]; 0 if the denominator is 0."""
    some = denominator > 0
    return jnp.where(some, jnp.clip(numerator / jnp.where(some, denominator, 1), -1, 1), 0)


def _unit(vector: jax.Array, otherwise: jax.Array) -> jax.Array:
    """The unit vector; `otherwise` for a vector of the size of rounding errors, which has no direction."""
    length = jnp.sqrt(vector @ vector)
    some = length > 10 * jnp.finfo(vector.dtype).eps
    return jnp.where(some, vector / jnp.where(some, length, 1), otherwise)


def _frame(normal: jax.Array, tangent: jax.Array) -> jax.Array:
    """An orthonormal frame, as rows: the normal, the tangent orthogonalized to it, and their cross product.

    A tangent that is zero or along the normal is replaced by the y axis, or the z axis where the normal is nearly y.
    """

    # Created here: JAX caches a constant NumPy array in the precision of the first program that uses it.
    x, y, z = np.eye(3, dtype=normal.dtype)

    def across(vector, otherwise):
        return _unit(vector - (vector @ normal) * normal, otherwise)

    second = across(tangent, across(jnp.where(jnp.abs(normal[1]) < 0.5, y, z), x))
    return jnp.stack([normal, second, jnp.cross(normal, second)])


def moving(model: Any) -> np.ndarray:
    """Which geometries move, bool `[geoms]`: those of bodies that are not fixed to the world."""
    return model.body_weldid[model.geom_bodyid] > 0


def meeting(model: Any) -> np.ndarray:
    """Which pairs of geometries can collide by their masks, bool `[geoms, geoms]`."""
    types, affinities = model.geom_contype, model.geom_conaffinity
    return (types[:, None] & affinities | affinities[:, None] & types) != 0


def leave_contacts_with_the_world(model: Any) -> None:
    """Restricts the masks so that geometries collide only with static ones.

    One bit stands for all static geometries that collide with the same others. Raises ValueError if there are more
    kinds of them than bits.
    """
    own = moving(model)
    kinds, kind = np.unique(meeting(model)[own][:, ~own], axis=1, return_inverse=True)
    if (count := kinds.shape[1]) > 31:
        raise ValueError(f"physics='fast' where {count} kinds of geometries stand still, by their masks; allowed: 31")
    bits = 2 ** np.arange(count)
    model.geom_contype[own], model.geom_conaffinity[own] = kinds @ bits, 0
    model.geom_contype[~own], model.geom_conaffinity[~own] = 0, bits[kind.reshape(-1)]
