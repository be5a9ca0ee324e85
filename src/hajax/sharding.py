"""Seeds, and the environments of one seed, over several devices.

Seeds are independent: each device computes its own, without communication (`jax.shard_map`). With fewer seeds than
devices, the environments of a seed are divided too: arrays with an axis of environments or samples are annotated with
the mesh axis `envs`, and XLA adds the communication that means over them need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

SEEDS, ENVS = "seeds", "envs"  # the axes of a mesh


def shard(function: Callable[..., Any], mesh: Mesh | None = None) -> Callable[..., Any]:
    """`function` with the seeds of its arguments divided among the devices of `mesh`, to be compiled by `jax.jit`.

        train = hajax.make_train("mpe/simple_spread", "happo", total_steps=1_000_000)
        state, metrics = jax.jit(hajax.shard(jax.vmap(train)))(jax.random.split(jax.random.key(0), 64))

    The results are those without `shard`, and have the same leading axis of seeds. Devices do not communicate, unless
    the mesh has an axis named `envs`: along it the environments and the minibatches of each seed are divided, and
    results differ by rounding.

    Args:
      function: a pure function over a leading axis of seeds, in all of its arguments except scalars, which are the same
        for all seeds, and in all of its results.
      mesh: its devices, by default all of them. Axes with any other name than `envs` divide the seeds. Axes may be
        automatic or explicit.

    Raises:
      ValueError: when traced, if the devices do not divide the seeds.
    """
    mesh = jax.make_mesh((jax.device_count(),), (SEEDS,)) if mesh is None else mesh
    if mesh.axis_names == (ENVS,):  # an axis to be mapped over is needed
        mesh = Mesh(mesh.devices[None], (SEEDS, ENVS), axis_types=mesh.axis_types * 2)
    over = tuple(name for name in mesh.axis_names if name != ENVS)
    parts = int(np.prod([mesh.shape[name] for name in over]))

    def spec(leaf: Any) -> P:
        shape = np.shape(leaf)
        if shape and shape[0] % parts:
            raise ValueError(f"{shape[0]} seeds on {parts} devices; allowed: a multiple of {parts}")
        return P(over) if shape else P()

    def body(*args: Any) -> Any:
        if ENVS in mesh.axis_names and mesh.axis_types[mesh.axis_names.index(ENVS)] == AxisType.Explicit:
            return jax.sharding.auto_axes(function, axes=ENVS, out_sharding=P())(*args)
        return function(*args)

    def sharded(*args: Any) -> Any:
        in_specs = jax.tree.map(spec, args)
        if AxisType.Explicit in mesh.axis_types:
            args = jax.tree.map(lambda x, spec: jax.sharding.reshard(x, NamedSharding(mesh, spec)), args, in_specs)
        return jax.shard_map(
            body, mesh=mesh, in_specs=in_specs, out_specs=P(over), axis_names=set(over), check_vma=False
        )(*args)

    return sharded


def divided(tree: Any, axis: int = 0) -> Any:
    """`tree` with that axis of its arrays, of environments or of samples, divided along the mesh axis `envs`.

    Without such an axis around it, and for arrays whose axis the devices do not divide, it is the identity.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if ENVS not in mesh.axis_names:
        return tree
    parts = mesh.shape[ENVS]

    def constrained(x: jax.Array) -> jax.Array:
        if x.ndim <= axis or x.shape[axis] % parts:
            return x
        return jax.lax.with_sharding_constraint(x, P(*[P.UNCONSTRAINED] * axis, ENVS))

    return jax.tree.map(constrained, tree)


def jit(function: Callable[..., Any], mesh: Mesh | None, scalars: Sequence[bool], **options: Any) -> Any:
    """`jax.jit` of a function over seeds, divided among the devices of `mesh`, or for one device if that is `None`.

    `scalars` says which of its arguments are trees of scalars, the same for all seeds.
    """
    if mesh is None:
        return jax.jit(function, **options)
    seeds, everywhere = _between_programs(mesh)
    given = tuple(everywhere if scalar else seeds for scalar in scalars)
    return jax.jit(shard(function, mesh), in_shardings=given, out_shardings=seeds, **options)


def jit_together(function: Callable[..., Any], mesh: Mesh | None, **options: Any) -> Any:
    """`jax.jit` of a function in which seeds depend on each other: the devices of `mesh` communicate."""
    if mesh is None:
        return jax.jit(function, **options)
    seeds, _ = _between_programs(mesh)
    return jax.jit(function, in_shardings=seeds, out_shardings=seeds, **options)


def placed(tree: Any, mesh: Mesh) -> Any:
    """The arrays of `tree` on the devices where a program of `jit` takes them.

    With several processes all of them have the whole arrays, and place what their own devices take.
    """
    seeds, everywhere = _between_programs(mesh)

    def place(x: Any) -> jax.Array:
        there = seeds if np.ndim(x) else everywhere
        if there.is_fully_addressable:
            return jax.device_put(x, there)
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return x  # of a program of `jit`
        if is_key(x):
            return jax.random.wrap_key_data(place(jax.random.key_data(x)), impl=jax.random.key_impl(x))
        whole = np.asarray(x)
        return jax.make_array_from_callback(whole.shape, there, lambda index: whole[index])

    return jax.tree.map(place, tree)


def gathered(tree: Any, keep: bool = True) -> Any:
    """`tree` with whole arrays in this process, also of those that are divided among several processes.

    All processes call it. One that does not `keep` them gets `None` for those, and holds one of them at a time.
    """
    from jax.experimental import multihost_utils

    def whole(x: Any) -> Any:
        if not isinstance(x, jax.Array) or x.is_fully_addressable:
            return x
        if is_key(x):
            data = whole(jax.random.key_data(x))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(x)) if keep else None
        found = multihost_utils.process_allgather(x, tiled=True)
        return found if keep else None

    return jax.tree.map(whole, tree)


def fetched(tree: Any) -> Any:
    """`jax.device_get`, also of arrays that are divided among several processes, which all call it."""
    return jax.device_get(gathered(tree))


def is_key(x: Any) -> bool:
    """Whether it is an array of random keys, or the shape of one. NumPy can hold its data, but not the keys."""
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _between_programs(mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
    """Where arrays with an axis of seeds are, and scalars: a seed on the devices that compute it, all of it on each."""
    return NamedSharding(mesh, P(SEEDS)), NamedSharding(mesh, P())
