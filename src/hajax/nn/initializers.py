"""Orthogonal initialization without LAPACK.

Batched QR decompositions inside a compiled program deadlock the CPU thread pool of some jaxlib versions when seeds or
agents are vmapped. Matrices are therefore orthonormalized by Gram–Schmidt.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax


@jax.jit
def orthonormalize_rows(matrix: jax.Array) -> jax.Array:
    """Gram–Schmidt over the rows of `[rows, columns]`, each projection applied twice.

    Two projections suffice for orthogonality to machine precision (Giraud et al., 2005). Zero rows stay zero.
    """

    def step(i, basis):
        row = basis[i]
        earlier = jnp.where(jnp.arange(basis.shape[0]) < i, 1, 0).astype(basis.dtype)
        for _ in range(2):
            row = row - (earlier * (basis @ row)) @ basis
        norm = jnp.linalg.norm(row)
        return basis.at[i].set(jnp.where(norm > 0, row / jnp.where(norm > 0, norm, 1), 0))

    return lax.fori_loop(0, matrix.shape[0], step, matrix)


def orthogonal(scale: float = 1.0, row_mask: jax.Array | None = None):
    """An initializer of kernels `[…, n_in, n_out]` with orthonormal rows or columns (the fewer), times `scale`.

    The matrix is Haar-distributed (Saxe et al., 2013). `row_mask`, bool `[n_in]`, marks the inputs that exist. The
    other rows are zero, and the rows of existing inputs form an orthogonal kernel without them.
    """

    def init(key: jax.Array, shape: tuple[int, ...], dtype=None) -> jax.Array:
        rows, columns = math.prod(shape[:-1]), shape[-1]
        matrix = jax.random.normal(key, (rows, columns), dtype or float)
        if matrix.size == 0:  # the agent observes nothing
            return matrix.reshape(shape)
        if row_mask is None:
            kernel = orthonormalize_rows(matrix) if rows <= columns else orthonormalize_rows(matrix.T).T
            return (scale * kernel).reshape(shape)
        matrix = jnp.where(row_mask[:, None], matrix, 0)
        by_columns = orthonormalize_rows(matrix.T).T
        by_rows = orthonormalize_rows(matrix)
        kernel = jnp.where(row_mask.sum() <= columns, by_rows, by_columns)
        return (scale * kernel).reshape(shape)

    return init
