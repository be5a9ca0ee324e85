"""Trains HAPPO, or an algorithm that suits better, for a minute in each of twelve environments of other libraries.

    python benchmarks/foreign.py [--seconds 60] [--only multiwalker pursuit] [--output FILE]

Each is `hajax train env=…`, which is interrupted a minute after it has compiled, as by Ctrl-C, and saves what it has.
The table shows the steps, and the return of the deterministic policy before and at the end. A minute is enough to see
that all parts work together, and for a few that something is learned. Needs hajax[simulators], hajax[jumanji] and
gymnasium-robotics.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ANT = "gymnasium_robotics.envs.multiagent_mujoco.mamujoco_v1:parallel_env"
ENVIRONMENTS: dict[str, list[str]] = {
    "multiwalker": ["env=pettingzoo/multiwalker_v9", "num_envs=8", "eval_interval=1_600"],
    "pursuit": ["env=pettingzoo/pursuit_v5", "env.kwargs.max_cycles=100", "num_envs=8", "eval_interval=1_600"],
    "knights, archers, zombies": [
        "env=pettingzoo/knights_archers_zombies_v11",
        "env.kwargs.max_cycles=200",
        "num_envs=8",
    ],
    "simple_spread": ["env=mpe2/simple_spread_v3", "num_envs=8"],
    "simple_tag": ["env=mpe2/simple_tag_v3", "algo=ippo", "num_envs=8"],
    "tic-tac-toe": ["env=pettingzoo/tictactoe_v3", "algo=ippo", "eval.max_steps=9", "num_envs=8"],
    "CartPole": ["env=gymnasium/CartPole-v1", "num_envs=8"],
    "Pendulum": ["env=gymnasium/Pendulum-v1", "num_envs=8"],
    "Ant 4x2": [f"env={ANT}", "env.scenario=Ant", "env.agent_conf=4x2", "env.joint_reward=true", "num_envs=8"],
    "Overcooked": ["env=jaxmarl/overcooked", "env.shaped=true", "num_envs=32"],
    "RobotWarehouse": ["env=jumanji/RobotWarehouse-v0", "num_envs=16"],
    "LevelBasedForaging": ["env=jumanji/LevelBasedForaging-v0", "num_envs=32"],
}
COMMON = ["num_seeds=1", "total_steps=20_000_000", "eval.episodes=4", "render=false"]


def train(settings: list[str], seconds: float) -> dict[str, Any]:
    """One training, interrupted so many seconds after the first evaluation; SystemExit if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        path, log = Path(folder) / "run", Path(folder) / "log"
        given = ["algo=happo", "eval_interval=8_000", *settings]  # of two values the last one counts
        command = [sys.executable, "-m", "hajax", "train", *COMMON, *given, f"out_dir={path}"]
        with log.open("w", encoding="utf-8") as file:
            process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        while process.poll() is None and not rows(path):  # it compiles
            time.sleep(0.2)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=120)
        found, output = rows(path), log.read_text(encoding="utf-8")
        if process.returncode != 130 or len(found) < 2:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{output}")
        column = next(name for name in found[0] if name.startswith("eval_return"))
        return {
            "settings": given,
            "steps": int(found[-1]["step"]),
            "return": [round(float(found[0][column]), 2), round(float(found[-1][column]), 2)],
        }


def rows(path: Path) -> list[dict[str, str]]:
    """The evaluations so far."""
    try:
        with (path / "metrics.csv").open(encoding="utf-8", newline="") as file:
            return [*csv.DictReader(file)]
    except FileNotFoundError:
        return []


def table(results: dict[str, dict[str, Any]]) -> str:
    lines = ["| environment | steps | return before | after |", "|---|---|---|---|"]
    for name, found in results.items():
        before, after = found["return"]
        lines.append(f"| {name} | {found['steps']:,} | {before:.1f} | {after:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", nargs="+", choices=ENVIRONMENTS, default=[*ENVIRONMENTS])
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    results = {}
    for name in given.only:
        results[name] = train(ENVIRONMENTS[name], given.seconds)
        print(name, results[name], flush=True)
        if given.output:
            given.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
