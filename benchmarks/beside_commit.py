"""Compares the speed of this checkout's training program with another commit's, alternating slices in one process.

    git worktree add ../old COMMIT
    python benchmarks/beside_commit.py ../old preset=harl/mpe total_steps=300_000

The overrides are those of `hajax train`, for both checkouts, so they must not name a setting that one of them lacks.
Two copies of each program are measured, since they differ too, by the location of their buffers: a ratio between the
checkouts that is no further from 1 than the ratio between copies is not significant. Consecutive runs of separate
processes differ by several percent on a shared machine; slices in random order in one process agree to one percent.
Times of compilation vary by a tenth; `--compilations 5` compares their medians.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

HERE = Path(__file__).resolve().parents[1]


class Compiled(NamedTuple):
    advance: Any  # (run state, iterations, stop at failure) -> run state
    state: Any
    seconds: float  # of tracing and compiling


class Ready(BaseException):
    """Stops the command when its programs are compiled."""


def build(checkout: Path, overrides: list[str]) -> Compiled:
    """The program that `hajax train` of that checkout would run, and its initial state."""
    jax.clear_caches()
    gc.collect()
    for name in [name for name in sys.modules if name == "hajax" or name.startswith("hajax.")]:
        del sys.modules[name]
    sys.path.insert(0, str(checkout / "src"))
    import hajax.cli

    # Commits before `runs/` had it in `cli/`.
    room = "runs" if importlib.util.find_spec("hajax.runs") else "cli"
    runner = importlib.import_module(f"hajax.{room}.runner")
    assert hajax.__file__.startswith(str(checkout)), hajax.__file__
    compile_programs, found = runner.compile_programs, []

    def stop_when_compiled(team, trials, traced, *rest):
        programs = compile_programs(team, trials, traced, *rest)
        if hasattr(trials, "hyperparameters"):
            started = programs.init(trials.keys, trials.hyperparameters)
        else:  # commits before grids passed keys
            started = programs.init(trials, runner.hyperparameters(team))
        found.append((programs, started))
        raise Ready

    runner.compile_programs = stop_when_compiled
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        own = [f"out_dir={folder}/run", "progress=false", "compilation_cache=false"]
        try:
            refused = hajax.cli.main(["train", *overrides, *own])
        except Ready:
            seconds = time.perf_counter() - began
        else:
            sys.exit(refused)
    sys.path.remove(str(checkout / "src"))
    programs, state = found[0]
    return Compiled(programs.advance, state, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, help="another checkout of hajax")
    parser.add_argument("overrides", nargs="+", help="of `hajax train`, such as preset=harl/mpe")
    parser.add_argument("--slices", type=int, default=100, help="measured slices of each program")
    parser.add_argument("--iterations", type=int, default=1, help="iterations of a slice")
    parser.add_argument("--compilations", type=int, default=2, help="of each program; the last two are measured")
    parser.add_argument("--output", type=Path, help="a JSON file for the results")
    args = parser.parse_args()

    if args.compilations < 2:
        parser.error(f"--compilations={args.compilations}; allowed: a whole number >= 2")
    checkouts = {"other": args.other.resolve(), "this": HERE}
    compiled: list[Compiled] = []
    compilation: dict[str, list[float]] = {"other": [], "this": []}
    for _ in range(args.compilations):
        compiled = compiled[-2:]
        for label, checkout in checkouts.items():
            compiled.append(build(checkout, args.overrides))
            compilation[label].append(round(compiled[-1].seconds, 2))
    states = [program.state for program in compiled]

    def slice_of(i: int) -> float:
        began = time.perf_counter()
        advanced = compiled[i].advance(states[i], jnp.asarray(args.iterations), jnp.asarray(False))
        states[i] = jax.block_until_ready(advanced)
        return time.perf_counter() - began

    for i in range(len(compiled)):
        slice_of(i)
    seconds = np.zeros((args.slices, len(compiled)))
    for row in seconds:
        for i in random.sample(range(len(compiled)), len(compiled)):
            row[i] = slice_of(i)
    result = {
        "overrides": args.overrides,
        "device": jax.devices()[0].device_kind,
        "slices": args.slices,
        "iterations": args.iterations,
        "speed of this / other": ratio(seconds[:, [0, 2]], seconds[:, [1, 3]]),
        "between copies of other": ratio(seconds[:, [0]], seconds[:, [2]]),
        "between copies of this": ratio(seconds[:, [1]], seconds[:, [3]]),
        "seconds of a slice, medians": dict(zip(("other", "this"), medians(seconds), strict=True)),
        # Without the first, which include imports.
        "seconds of tracing and compiling": {label: each[1:] for label, each in compilation.items()},
        "compilation of this / other": round(
            float(np.median(compilation["this"][1:]) / np.median(compilation["other"][1:])), 3
        ),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


def ratio(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """exp of the mean of log(one / other) over slices, without the tenth at each end, and its standard error."""
    logs = np.sort(np.log(one.sum(1) / other.sum(1)))
    kept = logs[len(logs) // 10 : len(logs) - len(logs) // 10]
    return {"mean": round(float(np.exp(kept.mean())), 4), "error": round(float(logs.std() / len(logs) ** 0.5), 4)}


def medians(seconds: np.ndarray) -> list[float]:
    return [round(float(np.median(seconds[:, i::2])), 4) for i in (0, 1)]


if __name__ == "__main__":
    main()
