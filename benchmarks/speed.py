"""HAPPO's speed at `preset=harl/mpe` on simple_spread: one seed, eight vmapped seeds, and what compiling costs.

    python benchmarks/speed.py [--repeats 5] [--iterations 10] [--output FILE.json]

One process, one and eight seeds in turn, medians of the repeats with their spread. Steps are environment steps of all
seeds; compilation is not in them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import hajax
from hajax.cli import config
from hajax.training import make_loop

PRESET = config.compose(["preset=harl/mpe"])
SCHEDULE = {name: PRESET[name] for name in ("num_envs", "rollout_length")}
SETTINGS = {name: value for name, value in PRESET["algo"].items() if name not in ("name", "reward")}


def compile_programs(num_seeds: int, iterations: int) -> tuple[Callable, Any, dict[str, float]]:
    """The chunk of `iterations` for `num_seeds`, its starting state, and the seconds of tracing and compiling."""
    env = hajax.make_env("mpe/simple_spread")
    loop = make_loop(env, hajax.make_algorithm("happo", env, **SETTINGS), **SCHEDULE)
    keys = jnp.stack([jax.random.key(seed) for seed in range(num_seeds)])

    def chunk(train_state):
        return lax.scan(lambda s, _: (loop.iterate(s)[0], None), train_state, None, iterations)[0]

    began = time.perf_counter()
    init = jax.jit(jax.vmap(loop.init)).lower(keys).compile()
    initialised = time.perf_counter()
    train_state = init(keys)
    lowering = time.perf_counter()
    compiled = jax.jit(jax.vmap(chunk), donate_argnums=0).lower(train_state).compile()
    seconds = {"init": initialised - began, "training": time.perf_counter() - lowering}
    return compiled, jax.block_until_ready(compiled(train_state)), seconds


def measure(repeats: int, iterations: int) -> dict[str, Any]:
    """Medians and spreads of steps per second for 1 and 8 seeds, measured in turn."""
    programs = {num_seeds: compile_programs(num_seeds, iterations) for num_seeds in (1, 8)}
    states = {num_seeds: state for num_seeds, (_, state, _) in programs.items()}
    seconds: dict[int, list[float]] = {1: [], 8: []}
    for _ in range(repeats):
        for num_seeds, (chunk, _, _) in programs.items():
            began = time.perf_counter()
            states[num_seeds] = jax.block_until_ready(chunk(states[num_seeds]))
            seconds[num_seeds].append(time.perf_counter() - began)
    steps = iterations * SCHEDULE["num_envs"] * SCHEDULE["rollout_length"]
    rates = {n: sorted(n * steps / s for s in values) for n, values in seconds.items()}
    return {
        "steps_per_second": {
            f"{n} seeds" if n > 1 else "1 seed": {
                "median": round(statistics.median(values)),
                "min": round(values[0]),
                "max": round(values[-1]),
            }
            for n, values in rates.items()
        },
        "eight_vmapped_over_eight_single": round(
            statistics.median(b / (8 * a) for a, b in zip(seconds[1], seconds[8], strict=True)), 3
        ),
        "compile_seconds": {
            str(n): {k: round(v, 1) for k, v in compiling.items()} for n, (_, _, compiling) in programs.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=10, help="iterations of 4,000 steps per measurement")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    device = jax.devices()[0]
    result = {
        "what": "HAPPO, mpe/simple_spread, preset=harl/mpe",
        "device": {"platform": device.platform, "kind": device.device_kind, "cpus": os.cpu_count()},
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "jaxmarl")},
        "repeats": arguments.repeats,
        "iterations": arguments.iterations,
        **measure(arguments.repeats, arguments.iterations),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
