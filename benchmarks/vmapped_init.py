"""Runs a vmapped initialization of 8 seeds × 5 agents many times, under a time limit.

    python benchmarks/vmapped_init.py [--times 50] [--limit 300]

Batched LAPACK calls inside one program can deadlock the CPU thread pool of some jaxlib versions (observed with 0.10.0
and 0.10.2); hajax's initializer has none. Exit code 0 and a line of JSON if all runs finished, 1 if the limit was
reached.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import time
from importlib.metadata import version

import jax

import hajax
from hajax import AgentSpec, Discrete, EnvSpec


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--limit", type=float, default=300.0, help="seconds")
    arguments = parser.parse_args()
    faulthandler.dump_traceback_later(arguments.limit, exit=True)
    spec = EnvSpec("five", tuple(AgentSpec(f"agent_{i}", (30,), Discrete(5)) for i in range(5)), 150, 25)
    init = jax.jit(jax.vmap(hajax.make_algorithm("happo", spec).init))
    began = time.perf_counter()
    for i in range(arguments.times):
        jax.block_until_ready(init(jax.random.split(jax.random.key(i), 8)))
    seconds = time.perf_counter() - began
    run = {"seeds": 8, "agents": 5, "times": arguments.times, "seconds": round(seconds, 1)}
    print(json.dumps({"jaxlib": version("jaxlib")} | run))


if __name__ == "__main__":
    main()
