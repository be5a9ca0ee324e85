"""Makes the runs of docs/results in which trust regions are decomposed (Li et al., 2022, Figures 8 and 9).

    python benchmarks/mamt_runs.py --list
    python benchmarks/mamt_runs.py spread_3_mix/mamt
    python benchmarks/mamt_runs.py                    all runs that are missing in docs/results

MAAC, MAMD, MAMD-OP (trust regions of the agents that depend on each other) and MAMT on three dependency graphs, with
the paper's settings, 8 seeds and 150,000 steps, which two cores make in an hour per graph; the paper has 1.25 million.
With no dependencies MAMD-OP is MAAC, and with all of them MAMD: these runs are not made twice.

A run trains in runs/mamt/TASK/NAME, where it is resumed if it was interrupted, and is copied to docs/results/TASK/NAME
when it is finished. Several of these processes may run concurrently, one on each core.
"""

from __future__ import annotations

from kept_runs import main

# The replay holds the whole run.
COMMON = ["num_seeds=8", "total_steps=150_000", "algo.buffer_size=200_000", "eval_interval=15_000", "eval.episodes=50"]
COMMON += ["checkpoint.interval=30_000", "checkpoint.keep=1"]
VARIANTS = {
    "maac": ["algo=maac", "preset=mamt/mpe_maac"],
    "mamd": ["algo=mamd", "preset=mamt/mpe_mamd"],
    "mamd_op": ["algo=mamd", "preset=mamt/mpe_mamd"],
    "mamt": ["algo=mamt", "preset=mamt/mpe"],
}
# Agents 0 and 2 depend on each other in `spread_3_mix`.
DEPENDENCIES = {"mix": "[[agent_0,agent_2]]"}


def runs() -> dict[str, list[str]]:
    """The settings of every run, by `TASK/NAME`."""
    listed = {}
    for graph in ("mix", "ful", "sep"):
        for name, settings in VARIANTS.items():
            if name == "mamd_op" and graph not in DEPENDENCIES:
                continue
            given = [f"algo.dependencies={DEPENDENCIES[graph]}"] if name == "mamd_op" else []
            listed[f"spread_3_{graph}/{name}"] = [*settings, f"env=mpe/spread_3_{graph}", *given, *COMMON]
    return listed


if __name__ == "__main__":
    main(__doc__, "mamt", runs(), episodes={})
