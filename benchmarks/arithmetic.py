"""The matrix products of a program, counted from its jaxpr, and the machine's rate of them, measured.

Only matrix products are counted: they are the part of a network's cost that grows with the square of its width.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import ClosedJaxpr, Jaxpr


def matmul_flops(function: Callable, *args: Any) -> int:
    """Floating-point operations (a multiplication and an addition each count) of the matrix products of one call.

    The body of a scan counts as often as it runs, a conditional counts its most expensive branch. Raises ValueError for
    a product in a loop of unknown length.
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*args).jaxpr)


def _of_jaxpr(jaxpr: Jaxpr) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: Any) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2 * depth * math.prod(equation.outvars[0].aval.shape)
    leaves = jax.tree.leaves(list(params.values()), is_leaf=lambda x: isinstance(x, ClosedJaxpr | Jaxpr))
    inner = [x.jaxpr if isinstance(x, ClosedJaxpr) else x for x in leaves if isinstance(x, ClosedJaxpr | Jaxpr)]
    flops = [_of_jaxpr(jaxpr) for jaxpr in inner]
    if name == "scan":
        return params["length"] * sum(flops)
    if name == "while" and any(flops):
        raise ValueError("a matrix product in a loop of unknown length")
    return max(flops, default=0) if name == "cond" else sum(flops)


def product_rate(rows: int, depth: int, columns: int, *, transposed: bool = False, seconds: float = 0.2) -> float:
    """GFLOP/s of `[rows, depth] · [depth, columns]` in float32, the median of five timings of `seconds` each.

    `transposed` stores the first factor as `[depth, rows]`, as a weight's gradient does.
    """
    first, second = (
        jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(((rows, depth), (depth, columns)))
    )
    first = first.T.copy() if transposed else first

    def repeat(first, second, product, times):
        def again(_, carry):
            first, second, _ = carry
            product = (first.T if transposed else first) @ second
            return lax.optimization_barrier((first, second, product))  # otherwise the product would be computed once

        return lax.fori_loop(0, times, again, (first, second, product))[2]

    compiled = jax.jit(repeat).lower(first, second, jnp.zeros((rows, columns)), jnp.zeros((), int)).compile()

    def timed(times: int) -> float:
        product, times = jax.block_until_ready((jnp.zeros((rows, columns)), jnp.asarray(times)))
        began = time.perf_counter()
        jax.block_until_ready(compiled(first, second, product, times))
        return time.perf_counter() - began

    timed(1)
    times = max(1, round(4 * seconds / timed(4)))
    flops = 2 * rows * depth * columns * times
    return flops / statistics.median(timed(times) for _ in range(5)) / 1e9
