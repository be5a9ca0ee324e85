"""Whether a policy trained here scores the same in mpe2: mean returns in both, and the interval of their difference.

    python benchmarks/transfer.py RUN_DIR [RUN_DIR ...] [--episodes 200] [--output FILE.json]

For each seed of each run, `--episodes` fresh episodes in hajax's environment, and as many in mpe2's parallel
environment of the same name, which the policy drives through `hajax.load_policy`. Deterministic actions.
"""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.progress import track

import hajax
from hajax.cli.loading import LoadedRun, load_run
from hajax.training.policy import Policy

MPE2 = {
    "mpe/simple_spread": "simple_spread_v3",
    "mpe/simple_reference": "simple_reference_v3",
    "mpe/simple_speaker_listener": "simple_speaker_listener_v4",
}


def returns_in_hajax(loaded: LoadedRun, seed: int, episodes: int) -> np.ndarray:
    """`[episodes]` team returns, from other episodes than the run's own evaluations saw."""
    evaluate = hajax.make_evaluate(loaded.team.env, loaded.team.algorithm, num_episodes=episodes)
    key = jax.random.fold_in(jax.random.key(seed), 2)
    return np.asarray(jax.jit(evaluate)(key, loaded.state(seed))["episode_return"])


def returns_in_mpe2(loaded: LoadedRun, seed: int, episodes: int) -> np.ndarray:
    """`[episodes]` sums over agents and steps of mpe2's own rewards."""
    policy = Policy(loaded.team.algorithm, loaded.state(seed))
    max_cycles = loaded.settings.env["max_steps"]
    env = import_module(f"mpe2.{MPE2[loaded.settings.env['name']]}").parallel_env(max_cycles=max_cycles)
    returns = []
    for episode in track(range(episodes), f"seed {seed} in mpe2", transient=True):
        observations, _ = env.reset(seed=episode)
        memory, total = policy.initial_memory(), 0.0
        while env.agents:
            actions, memory = policy(observations, memory)
            observations, rewards, *_ = env.step(actions)
            total += sum(rewards.values())
        returns.append(total)
    return np.array(returns)


def compare(run_dir: Path, episodes: int) -> dict[str, Any]:
    """Both returns of every seed, and the 95% interval of mpe2's mean minus hajax's (independent episodes)."""
    loaded = load_run(run_dir)
    rows = []
    for seed in loaded.seeds:
        here, there = returns_in_hajax(loaded, seed, episodes), returns_in_mpe2(loaded, seed, episodes)
        difference = there.mean() - here.mean()
        half_width = 1.96 * np.sqrt((here.var(ddof=1) + there.var(ddof=1)) / episodes)
        interval = [difference - half_width, difference + half_width]
        rows.append(
            {
                "seed": seed,
                "hajax": round(float(here.mean()), 3),
                "mpe2": round(float(there.mean()), 3),
                "difference": round(float(difference), 3),
                "interval": [round(float(x), 3) for x in interval],
                "contains_zero": bool(interval[0] <= 0 <= interval[1]),
                "within_five_percent": bool(max(map(abs, interval)) <= 0.05 * abs(here.mean())),
            }
        )
    settings = loaded.settings
    return {"algo": settings.algo["name"], "env": settings.env["name"], "step": loaded.step, "seeds": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run_dirs", nargs="+", type=Path)
    parser.add_argument("--episodes", type=int, default=200)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    runs = [compare(path, arguments.episodes) for path in arguments.run_dirs]
    for run in runs:
        print(f"{run['algo']} on {run['env']}, {run['step']:,} steps, {arguments.episodes} episodes in each")
        for row in run["seeds"]:
            low, high = row["interval"]
            print(
                f"  seed {row['seed']}: hajax {row['hajax']:.2f}, mpe2 {row['mpe2']:.2f}, "
                f"difference {row['difference']:+.2f} [{low:+.2f}, {high:+.2f}]"
            )
    if arguments.output:
        versions = {name: version(name) for name in ("jax", "jaxmarl", "mpe2")}
        report = {"episodes": arguments.episodes, "versions": versions, "runs": runs}
        arguments.output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
