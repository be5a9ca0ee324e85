"""Eight seeds on one device of the CPU with two threads, and on two devices with a thread each.

    python benchmarks/devices.py --output docs/results/devices.json

Each measurement is a process of its own, because JAX counts the CPU's devices once. The kinds of process alternate; the
first training of a process is not timed. Times are medians over the rounds, with the least and the greatest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

ROWS: dict[str, tuple[str, dict[str, Any], int]] = {  # the environment, the settings, and the steps per training
    "happo": ("mpe/simple_spread", {}, 20_000),
    "hatrpo": ("mpe/simple_spread", {}, 20_000),
    "hasac": ("mpe/simple_spread", {"warmup_steps": 1_000, "buffer_size": 20_000, "batch_size": 256}, 3_000),
}
SEEDS = 8
MEASURE = """
import json, sys, time
name, env_name, settings, steps, devices, repeats = json.loads(sys.argv[1])
import jax
jax.config.update("jax_num_cpu_devices", devices)
import hajax
env = hajax.make_env(env_name)
train = jax.vmap(hajax.make_train(env, hajax.make_algorithm(name, env, **settings), total_steps=steps))
program = train if devices == 1 else hajax.shard(train)
keys = jax.random.split(jax.random.key(0), {seeds})
began = time.perf_counter()
program = jax.jit(program).lower(keys).compile()
compile_seconds = time.perf_counter() - began
seconds = []
for _ in range(repeats + 1):
    began = time.perf_counter()
    jax.block_until_ready(program(keys))
    seconds.append(time.perf_counter() - began)
print(json.dumps([compile_seconds, seconds[1:]]))
""".replace("{seeds}", str(SEEDS))


def measure(name: str, devices: int, repeats: int) -> tuple[float, list[float]]:
    """The seconds to compile, and those of the trainings, in a process with that many devices."""
    env_name, settings, steps = ROWS[name]
    # One device spreads an operation over its threads; of two devices each computes in its own.
    flags = [os.environ.get("XLA_FLAGS", ""), *(["--xla_cpu_multi_thread_eigen=false"] if devices > 1 else [])]
    environment = os.environ | {"XLA_FLAGS": " ".join(flags).strip(), "JAX_ENABLE_COMPILATION_CACHE": "false"}
    given = json.dumps([name, env_name, settings, steps, devices, repeats])
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, given], env=environment, check=True, capture_output=True, text=True
    )
    compile_seconds, seconds = json.loads(done.stdout.splitlines()[-1])
    return compile_seconds, seconds


def compare(name: str, rounds: int, repeats: int) -> dict[str, Any]:
    """One row of the report."""
    compiling: dict[int, list[float]] = {1: [], 2: []}
    training: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for devices in (1, 2):
            compile_seconds, seconds = measure(name, devices, repeats)
            compiling[devices].append(compile_seconds)
            training[devices] += seconds
    env_name, settings, steps = ROWS[name]
    row: dict[str, Any] = {"env": env_name, "settings": settings, "steps": steps, "seeds": SEEDS}
    for devices in (1, 2):
        speeds = SEEDS * steps / np.array(training[devices])
        row[f"steps_per_second_on_{devices}"] = {
            "median": round(float(np.median(speeds))),
            "least": round(float(speeds.min())),
            "greatest": round(float(speeds.max())),
        }
        row[f"compile_seconds_on_{devices}"] = round(float(np.median(compiling[devices])), 1)
    row["ratio"] = round(float(np.median(training[1]) / np.median(training[2])), 3)
    return row


def main() -> None:
    """Measures and prints, and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind")
    parser.add_argument("--repeats", type=int, default=3, help="timed trainings in a process")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=list(ROWS), help="the algorithms")
    parser.add_argument("--output", type=Path, help="the report")
    given = parser.parse_args()
    rows = {}
    for name in given.rows:
        rows[name] = compare(name, given.rounds, given.repeats)
        print(f"{name}: {rows[name]}", flush=True)
    machine = {"cores": os.cpu_count(), "processor": platform.processor() or platform.machine()}
    report = {"machine": machine, "versions": {"jax": version("jax")}, "rows": rows}
    if given.output is not None:
        given.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
