"""How long whole commands take on one core, from an empty cache: compilation, training, and all of it.

    python benchmarks/whole_commands.py --output docs/results/whole_commands.json [--repeats 3] [--core 0]

Every command is `hajax train` with one seed in a new directory. The one after the first has the first one's cache.
Numbers are medians of the repeats, with the least and the greatest.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

FEW = ["eval.episodes=10", "total_steps=40_000", "eval_interval=40_000"]
COMMANDS = {
    "happo": ["preset=harl/mpe", "total_steps=100_000"],
    "happo again": ["preset=harl/mpe", "total_steps=100_000"],
    "hasac": ["preset=harl/mpe_hasac", "total_steps=14_000", "eval_interval=14_000"],
    "smax": ["preset=hajax/smax", "env=smax/3m", "total_steps=100_000"],
    "cheetah in C": ["preset=harl/half_cheetah_2x3", "env.physics=mujoco", *FEW],
    "cheetah in brax": ["preset=harl/half_cheetah_2x3", "env.physics=brax-spring", *FEW],
}


def run(settings: list[str], folder: Path, cache: Path) -> dict[str, float]:
    """One command: what its summary says, and the seconds of all of it."""
    out = tempfile.mkdtemp(dir=folder)
    command = [sys.executable, "-m", "hajax", "train", *settings, "num_seeds=1", "progress=false"]
    started = time.perf_counter()
    subprocess.run(
        [*command, f"out_dir={out}/run", f"compilation_cache={cache}"], check=True, stdout=subprocess.DEVNULL
    )
    seconds = time.perf_counter() - started
    summary = json.loads((Path(out) / "run" / "summary.json").read_text(encoding="utf-8"))
    return {name: summary[name] for name in ("compile_seconds", "steps_per_second")} | {"seconds": round(seconds, 1)}


def spread(values: list[float]) -> list[float]:
    return [statistics.median(values), min(values), max(values)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--core", type=int, default=0, help="the core on which the commands run")
    given = parser.parse_args()
    os.sched_setaffinity(0, {given.core})
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in COMMANDS}
    for _ in range(given.repeats):
        with tempfile.TemporaryDirectory() as folder:
            for name, settings in COMMANDS.items():
                cache = Path(folder) / name.removesuffix(" again")
                measured[name].append(run(settings, Path(folder), cache))
                print(f"{name}: {measured[name][-1]}", flush=True)
    report: dict[str, Any] = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": [round(x, 1) for x in os.getloadavg()],
        "versions": {name: version(name) for name in ("jax", "jaxlib", "hajax")},
        "repeats": given.repeats,
        "commands": {
            name: {"settings": COMMANDS[name]} | {key: spread([row[key] for row in rows]) for key in rows[0]}
            for name, rows in measured.items()
        },
    }
    given.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
