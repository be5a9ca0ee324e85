"""Makes the runs of docs/results on Pursuit.

    python benchmarks/sisl_runs.py --list
    python benchmarks/sisl_runs.py                all runs that are missing in docs/results

A run trains in runs/sisl/TASK/NAME, where it is resumed if it was interrupted, and is copied to docs/results/TASK/NAME
when it is finished.
"""

from __future__ import annotations

from kept_runs import main, unguarded

SETTINGS = [
    "env=sisl/pursuit",
    "num_envs=16",
    "rollout_length=125",
    "num_seeds=3",
    "total_steps=1_000_000",
    "algo.minibatches=4",
    "algo.actor_lr=3e-4",
    "algo.critic_lr=3e-4",
    "eval.episodes=20",
    "eval_interval=100_000",
    "checkpoint.keep=1",
]


def runs() -> dict[str, list[str]]:
    """The settings of every run, by `TASK/NAME`."""
    return {f"pursuit/{algo}": unguarded([f"algo={algo}", *SETTINGS]) for algo in ("happo", "mappo")}


if __name__ == "__main__":
    main(__doc__, "sisl", runs(), episodes={})
