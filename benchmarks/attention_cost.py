"""What an update of MAAC, MAMD and MAMT costs beside HASAC's, at equal batch and widths.

    python benchmarks/attention_cost.py --output docs/results/attention_cost.json

simple_spread with 3 and 8 agents, minibatches of 1,024, two layers of 128 in policies and critics of width 128. The
updates of all algorithms alternate in one process; times are medians over rounds. Compilation is measured once, without
a cache.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from arithmetic import matmul_flops

import hajax

ROWS = {"hasac": ("hasac", {}), "maac": ("maac", {}), "maac in sequence": ("maac", {"order": "random"})}
ROWS |= {"mamd": ("mamd", {}), "mamt": ("mamt", {})}
SIZES = {"hidden_sizes": (128, 128), "batch_size": 1024, "normalize_observations": True}


def random_batch(spec: hajax.EnvSpec, key: jax.Array) -> Any:
    """One minibatch of 1,024 single steps."""
    keys, rows = iter(jax.random.split(key, 6)), (1, SIZES["batch_size"])
    seen = (*rows, spec.num_agents, spec.observation_size)
    return hajax.off_policy_batch(
        spec,
        observation=jax.random.normal(next(keys), seen),
        state=jax.random.normal(next(keys), (*rows, *spec.state_shape)),
        action=jax.random.randint(next(keys), (*rows, spec.num_agents, 1), 0, 5).astype(float),
        reward=jax.random.normal(next(keys), (*rows, 1)),
        final_observation=jax.random.normal(next(keys), seen),
        final_state=jax.random.normal(next(keys), (*rows, *spec.state_shape)),
        steps=jnp.ones(rows, int),
    )


def measure(agents: int, rounds: int, repeats: int) -> dict[str, dict[str, Any]]:
    """Times of every row with that many agents."""
    env = hajax.make_env("mpe/simple_spread", num_agents=agents)
    programs, results, times = {}, {}, {}
    batch = random_batch(env.spec, jax.random.key(1))
    for row, (name, settings) in ROWS.items():
        algo = hajax.make_algorithm(name, env, **SIZES, **settings)
        state = algo.init(jax.random.key(0))
        lowered = jax.jit(algo.update).lower(jax.random.key(2), state, batch)
        began = time.perf_counter()
        compiled = lowered.compile()
        seconds = time.perf_counter() - began
        flops = matmul_flops(algo.update, jax.random.key(2), state, batch)
        results[row] = {"compile_seconds": round(seconds, 2), "matmul_gflop": round(flops / 1e9, 3)}
        programs[row], times[row] = (compiled, state), []
        jax.block_until_ready(compiled(jax.random.key(2), state, batch))
    for _ in range(rounds):
        for row, (compiled, state) in programs.items():
            began = time.perf_counter()
            for i in range(repeats):
                new, _ = compiled(jax.random.key(i), state, batch)
            jax.block_until_ready(new)
            times[row].append((time.perf_counter() - began) / repeats)
    for row, seconds in times.items():
        ms = 1e3 * np.array(seconds)
        over = np.array(seconds) / np.array(times["hasac"])
        results[row] |= {
            "ms": round(float(np.median(ms)), 2),
            "ms_range": [round(float(ms.min()), 2), round(float(ms.max()), 2)],
            "over_hasac": round(float(np.median(over)), 2),
            "compile_over_hasac": round(results[row]["compile_seconds"] / results["hasac"]["compile_seconds"], 2),
        }
        print(f"{agents} agents, {row}: {results[row]}", flush=True)
    return results


def table(updates: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The measured numbers as Markdown."""
    lines = ["| agents | update | milliseconds (range) | time | products | compilation |", "|---|---|---|---|---|---|"]
    for agents, rows in updates.items():
        for row, found in rows.items():
            low, high = found["ms_range"]
            products = found["matmul_gflop"] / rows["hasac"]["matmul_gflop"]
            ratios = f"{found['over_hasac']:.2f} | {products:.2f} | {found['compile_over_hasac']:.2f}"
            lines.append(f"| {agents.split()[0]} | {row} | {found['ms']:.1f} ({low:.1f} to {high:.1f}) | {ratios} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=5, help="updates in a row")
    parser.add_argument("--agents", type=int, nargs="*", default=[3, 8])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--table", action="store_true", help="print the table of the numbers in --output")
    given = parser.parse_args()
    if given.table:
        print(table(json.loads(given.output.read_text(encoding="utf-8"))["updates"]))
        return
    jax.config.update("jax_enable_compilation_cache", False)
    found = {f"{n} agents": measure(n, given.rounds, given.repeats) for n in given.agents}
    machine = {"device": jax.devices()[0].device_kind, "machine": platform.machine()}
    about = machine | {name: version(name) for name in ("jax", "hajax")} | {"rounds": given.rounds}
    given.output.write_text(json.dumps(about | {"updates": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
