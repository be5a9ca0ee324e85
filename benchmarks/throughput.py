"""Environment steps per second of hajax's training compared with a PureJaxRL-style IPPO, on simple_spread.

    python benchmarks/throughput.py [--schedules 16x128 harl/mpe] [--agents 2 4 8 16] [--seeds 1 8] [--output FILE.json]

One process. The rows of a cell (schedule, agents, seeds) are compiled first and then timed alternately, a repeat of
each before the next repeat of any, so that ratios are of the same time. The rows are described in rows.py. With several
seeds the yardstick is timed vmapped, as in PureJaxRL, and with its seeds one after another, which may suit a CPU's
cache better; the ratio is to the faster. Steps are environment steps of all seeds; an environment step moves all
agents.

The off-policy part, of continuous simple_spread at HARL's schedule, is described in off_policy.py.

The table is printed to stdout, progress to stderr, and all numbers are written to `--output` after every cell.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
from arithmetic import product_rate
from off_policy import line, off_policy, replay_memory
from rows import ROWS, Schedule, harl_mpe, jaxmarl_mpe, make_row
from timing import measure_cell, peak_memory, program_bytes, reset_peak

import hajax

SCHEDULES: dict[str, Callable[[], Schedule]] = {"16x128": jaxmarl_mpe, "harl/mpe": harl_mpe}
TINY = {"tiny": lambda: jaxmarl_mpe(num_envs=2, rollout_length=8, hidden_size=8)}
PARTS = ("grid", "arithmetic", "memory", "off_policy")
COLUMNS = f"{'schedule':<10}{'agents':>7}{'seeds':>6}" + "".join(f"{name:>11}" for name in ROWS)
RATIOS = {"happo/ippo": "happo_over_ippo", "mappo/ippo": "mappo_over_ippo", "hatrpo/happo": "hatrpo_over_happo"}
COLUMNS += "".join(f"{name:>20}" for name in RATIOS) + f"{'GFLOP/s':>9}{'of peak':>8}{'peak MiB':>10}"
COMPILED = ("happo", "hatrpo", "haa2c", "mappo", "ippo")
COLUMNS += f"{'seconds to compile ' + ', '.join(COMPILED):>60}"


def grid(schedules: dict[str, Schedule], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Measures every cell; initialization is compiled once for all numbers of seeds."""
    for name, schedule in schedules.items():
        for num_agents in options.agents:
            rows = {row: make_row(row, schedule, num_agents) for row in options.rows}
            inits = {row: compile_init(iteration.init) for row, iteration in rows.items()}
            for num_seeds in options.seeds:
                say(f"{name}, {num_agents} agents, {num_seeds} seeds")
                keys = [jax.random.key(seed) for seed in range(num_seeds)]
                starts = {row: [init(key) for key in keys] for row, init in inits.items()}
                cell = {"schedule": name, "agents": num_agents, "seeds": num_seeds}
                yield cell | measure_cell(rows, starts, schedule, options.repeats, options.seconds)
            jax.clear_caches()


def compile_init(init: Callable[[jax.Array], Any]) -> Any:
    """A compiled start, without LLVM's last optimizations, which are not worthwhile for a few runs."""
    quick: Any = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else None
    return jax.jit(init).lower(jax.random.key(0)).compile(quick)


def table_line(cell: dict[str, Any]) -> str:
    """One cell: medians of steps per second, ratios, HAPPO's matrix products, the peak memory, and compile seconds."""

    def rate(name):
        row = cell["rows"].get(name)
        return f"{row['steps_per_second']['median']:,.0f}" if row else "-"

    def ratio(name):
        values = cell["ratios"].get(name)
        return f"{values['median']:.2f} [{values['min']:.2f}, {values['max']:.2f}]" if values else "-"

    fastest_ippo = cell["ratios"].get("against", "ippo")
    rates = "".join(f"{rate(fastest_ippo if name == 'ippo' else name):>11}" for name in ROWS)
    line = f"{cell['schedule']:<10}{cell['agents']:>7}{cell['seeds']:>6}{rates}"
    line += "".join(f"{ratio(name):>20}" for name in RATIOS.values())
    happo = cell["rows"].get("happo", {})
    line += f"{happo.get('gflop_per_second', '-'):>9}{happo.get('fraction_of_peak', '-'):>8}"
    compiled = [cell["rows"][name]["compile_seconds"] if name in cell["rows"] else "-" for name in COMPILED]
    return f"{line}{cell['peak_bytes']['resident'] / 2**20:>10,.0f}{', '.join(map(str, compiled)):>60}"


def arithmetic(schedules: dict[str, Schedule], size: int) -> dict[str, Any]:
    """GFLOP/s of float32 matrix products here: large square ones, each schedule's hidden layer, and the best."""
    say("matrix products")
    square, layers = round(product_rate(size, size, size), 1), {}
    for name, schedule in schedules.items():
        width, batch = schedule.settings["hidden_sizes"][0], schedule.steps // schedule.settings["minibatches"]
        layers[name] = {
            "shape": [batch, width, width],
            "product": round(product_rate(batch, width, width), 1),
            "gradient_of_weights": round(product_rate(width, batch, width, transposed=True), 1),
        }
    best = max(square, *(layer[product] for layer in layers.values() for product in ("product", "gradient_of_weights")))
    return {"peak": best, "square": square, "square_size": size, "hidden_layers": layers}


def memory(schedule: Schedule, lengths: list[int]) -> dict[str, Any]:
    """The memory of a whole training of HAPPO for different numbers of iterations, by XLA and by the process.

    The outputs are the final state and the metrics of every iteration. `peak_growth_bytes` is the largest growth of the
    process's memory during a run.
    """
    env = hajax.make_env("mpe/simple_spread", num_agents=2)
    algo = hajax.make_algorithm("happo", env, **schedule.settings)
    sizes = {"num_envs": schedule.num_envs, "rollout_length": schedule.rollout_length}
    results: dict[str, Any] = {}
    for length in lengths:
        say(f"memory of {length} iterations")
        train = hajax.make_train(env, algo, total_steps=length * schedule.steps, **sizes)
        program = jax.jit(train).lower(jax.random.key(0)).compile()
        reset_peak()
        before = peak_memory()["resident"]
        _, metrics = jax.block_until_ready(program(jax.random.key(0)))
        results[f"{length} iterations"] = {
            "program_bytes": program_bytes(program),
            "metrics_bytes": sum(x.nbytes for x in metrics.values()),
            "peak_growth_bytes": peak_memory()["resident"] - before,
        }
    return results


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schedules", nargs="+", choices=SCHEDULES, default=list(SCHEDULES))
    parser.add_argument("--agents", nargs="+", type=int, default=[2, 4, 8, 16])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.5, help="about how long one timing takes")
    parser.add_argument("--output", type=Path, help="a JSON file for all numbers")
    parser.add_argument("--quick", action="store_true", help="one tiny cell, to see that everything works")
    options = parser.parse_args(arguments)
    if options.quick:
        options.agents, options.seeds, options.repeats, options.seconds = [2], [2], 2, 0.0
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    if not options.quick:  # a cached program would have no compile time
        jax.config.update("jax_enable_compilation_cache", False)
    device = jax.devices()[0]
    result: dict[str, Any] = {
        "what": "mpe/simple_spread, environment steps per second",
        "device": {"platform": device.platform, "kind": device.device_kind, "cpus": os.cpu_count()},
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "optax", "jaxmarl")},
        "options": {name: getattr(options, name) for name in ("repeats", "seconds", "quick")},
    }
    schedules = {name: make() for name, make in (TINY if options.quick else SCHEDULES).items()}
    if not options.quick:
        schedules = {name: schedules[name] for name in options.schedules}

    def record(part: str, measured: Any) -> None:
        result[part] = measured
        if options.output:
            options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")

    if "arithmetic" in options.parts:
        record("arithmetic", arithmetic(schedules, 64 if options.quick else 2048))
        print(json.dumps(result["arithmetic"]), flush=True)
    if "grid" in options.parts:
        print(COLUMNS, flush=True)
        cells: list[dict[str, Any]] = []
        for cell in grid(schedules, options):
            for row in cell["rows"].values() if "arithmetic" in result else ():
                if "gflop_per_second" in row:
                    row["fraction_of_peak"] = round(row["gflop_per_second"] / result["arithmetic"]["peak"], 3)
            print(table_line(cell), flush=True)
            cells.append(cell)
            record("cells", cells)
    if "memory" in options.parts:
        record("memory", memory(TINY["tiny"](), [2, 200]) if options.quick else memory(jaxmarl_mpe(), [10, 1000]))
        print(json.dumps(result["memory"]))
    if "off_policy" in options.parts:
        record("replay_memory", replay_memory(400 if options.quick else 1_000_000))
        print(json.dumps(result["replay_memory"]), flush=True)
        measured = []
        for cell in off_policy(options.seeds, options.repeats, options.seconds, options.quick):
            print(line(cell), flush=True)
            measured.append(cell)
            record("off_policy", measured)


if __name__ == "__main__":
    main()
