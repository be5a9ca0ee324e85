"""Alternating timing of the rows of one cell: compiled programs, their memory, and ratios of the same time."""

from __future__ import annotations

import contextlib
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from arithmetic import matmul_flops
from jax import lax
from rows import Iteration, Schedule

IN_TURN = "ippo_in_turn"


class Timed:
    """One row of one cell: a compiled program, its state, and the seconds of an iteration in every repeat."""

    def __init__(self, name: str, row: Iteration, starts: list[Any]):
        self.name, self.seconds = name, list[float]()
        several = len(starts) > 1
        self.state = jax.tree.map(lambda *x: jnp.stack(x), *starts) if several else jax.tree.map(jnp.copy, starts[0])
        iterate = jax.vmap(row.iterate) if several else row.iterate
        if name == IN_TURN:
            iterate = lambda state: lax.map(row.iterate, state)  # noqa: E731

        def advance(state, iterations):
            return lax.fori_loop(0, iterations, lambda _, state: iterate(state), state)

        began = time.perf_counter()
        self.program = jax.jit(advance, donate_argnums=0).lower(self.state, jnp.zeros((), int)).compile()
        self.compile_seconds = time.perf_counter() - began
        self.memory = program_bytes(self.program)
        self.iterations = 1

    def advance(self) -> float:
        """Runs `iterations` and returns the seconds of one."""
        iterations = jax.block_until_ready(jnp.asarray(self.iterations))
        began = time.perf_counter()
        self.state = jax.block_until_ready(self.program(self.state, iterations))
        return (time.perf_counter() - began) / self.iterations

    def warm_up(self, seconds: float) -> None:
        """Runs the program once, and sets the number of iterations that take about `seconds`."""
        once = self.advance()
        if once < seconds:
            once = self.advance()
        self.iterations = max(1, round(seconds / once))


def program_bytes(program: Any) -> dict[str, int]:
    """The peak memory of a compiled program, by XLA; `total` counts donated arguments once."""
    analysis = program.memory_analysis()
    sizes = {
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
    }
    return sizes | {"total": sum(sizes.values()) - analysis.alias_size_in_bytes}


def reset_peak() -> None:
    """Resets the process's peak memory on Linux; elsewhere `peak_memory` is since the start of the process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> dict[str, int]:
    """The process's peak since `reset_peak` in bytes, and the device's since the start if available."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"resident": unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    of_device = jax.devices()[0].memory_stats() or {}
    return peak | ({"device": of_device["peak_bytes_in_use"]} if "peak_bytes_in_use" in of_device else {})


def spread(values: list[float], digits: int) -> dict[str, float]:
    """Median, minimum and maximum."""
    numbers = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {name: round(value, digits) for name, value in numbers.items()}


def measure_cell(
    rows: dict[str, Iteration], starts: dict[str, list[Any]], schedule: Schedule, repeats: int, seconds: float
) -> dict[str, Any]:
    """Compiles the rows of one cell and times them alternately.

    Args:
      rows: the programs by name.
      starts: every row's states, one per seed.
      schedule: the rows' schedule.
      repeats: the number of timings of each row.
      seconds: the approximate duration of a timing, unless one iteration takes longer.
    """
    reset_peak()
    num_seeds = len(next(iter(starts.values())))
    timed = [Timed(name, row, starts[name]) for name, row in rows.items()]
    if num_seeds > 1 and "ippo" in rows:
        timed.append(Timed(IN_TURN, rows["ippo"], starts["ippo"]))
    for row in timed:
        row.warm_up(seconds)
    for _ in range(repeats):
        for row in timed:
            row.seconds.append(row.advance())
    # HATRPO's line search has a data-dependent length, so its products can't be counted beforehand.
    flops = {name: num_seeds * matmul_flops(rows[name].iterate, starts[name][0]) for name in rows if name != "hatrpo"}
    flops[IN_TURN] = flops.get("ippo", 0)
    results = {row.name: summary(row, num_seeds * schedule.steps, flops.get(row.name)) for row in timed}
    return {"rows": results, "ratios": ratios(timed), "peak_bytes": peak_memory()}


def summary(row: Timed, steps: int, flops: int | None) -> dict[str, Any]:
    """The report of a row whose iterations take `steps` environment steps and `flops` of matrix products."""
    products = (
        {}
        if flops is None
        else {
            "gflop_per_iteration": round(flops / 1e9, 4),
            "gflop_per_second": round(flops / 1e9 / statistics.median(row.seconds), 2),
        }
    )
    return {
        "steps_per_second": spread([steps / seconds for seconds in row.seconds], 0),
        "iterations_per_repeat": row.iterations,
        "compile_seconds": round(row.compile_seconds, 1),
        "program_bytes": row.memory,
    } | products


def ratios(timed: list[Timed]) -> dict[str, Any]:
    """Speed of HAPPO and MAPPO over the faster yardstick's and of HATRPO over HAPPO's, per round of repeats."""
    rows = {row.name: row for row in timed}

    def over(name, other):
        pairs = zip(rows[name].seconds, rows[other].seconds, strict=True)
        return spread([b / a for a, b in pairs], 3)

    found: dict[str, Any] = {}
    yardsticks = [name for name in rows if name.startswith("ippo")]
    if yardsticks:
        # By the reported rates: for an even number of repeats the median rate is not that of the median time.
        found["against"] = max(yardsticks, key=lambda name: statistics.median(1 / s for s in rows[name].seconds))
        found |= {f"{name}_over_ippo": over(name, found["against"]) for name in ("happo", "mappo") if name in rows}
    if "hatrpo" in rows and "happo" in rows:
        found["hatrpo_over_happo"] = over("hatrpo", "happo")
    return found
