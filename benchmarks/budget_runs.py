"""Makes the runs of docs/results with the papers' budget, one after another, and evaluates their policies elsewhere.

    python benchmarks/budget_runs.py --list
    python benchmarks/budget_runs.py spread_10m/happo
    python benchmarks/budget_runs.py                  all runs that are missing in docs/results

HARL's tuned settings (its schedules and networks, and hajax's critic), 10 million steps, HATD3 1 million. A run trains
in runs/budget/TASK/NAME, where it is resumed if it was interrupted, and is copied to docs/results/TASK/NAME when it is
finished and its policies are evaluated. Several of these processes may run concurrently, one on each core.
"""

from __future__ import annotations

from kept_runs import main

KEPT = ["checkpoint.interval=500_000", "checkpoint.keep=1"]
LONG = ["total_steps=10_000_000", "eval_interval=500_000", *KEPT]
SHORT = ["total_steps=1_000_000", "eval_interval=100_000", *KEPT]
MPE = {
    "spread": ("mpe/simple_spread", "harl/mpe_hatrpo"),
    "speaker_listener": ("mpe/simple_speaker_listener", "harl/mpe_hatrpo"),
    "reference": ("mpe/simple_reference", "harl/mpe_hatrpo_reference"),
}
# Parts of a few hours each.
SEEDS = {"": ["num_seeds=3"], "_more": ["seed=3", "num_seeds=3"], "_rest": ["seed=6", "num_seeds=4"]}
# A seed of a robot takes half an hour of a core, or more. HAPPO's on HalfCheetah were made in one run.
SINGLE = {"": ["num_seeds=1"], "_more": ["seed=1", "num_seeds=1"], "_rest": ["seed=2", "num_seeds=1"]}
ROBOTS = ("half_cheetah_2x3", "ant_4x2")


def runs() -> dict[str, list[str]]:
    """The settings of every run, by `TASK/NAME`."""
    listed = {}
    for part, seeds in SEEDS.items():
        for task, (env, preset) in MPE.items():
            where = [f"env={env}", *LONG, "eval.episodes=200"]
            for algo in ("happo", "mappo"):
                listed[f"{task}_10m/{algo}{part}"] = [f"algo={algo}", "preset=harl/mpe", *where, *seeds]
            if part == "":
                listed[f"{task}_10m/hatrpo"] = ["algo=hatrpo", f"preset={preset}", *where, "num_seeds=4"]
            if part == "" and task == "spread":
                # Is it the shared parameters by which MAPPO differs from HAPPO?
                unshared = ["algo=mappo", "preset=harl/mpe", "algo.sharing=none"]
                listed[f"{task}_10m/mappo_unshared"] = [*unshared, *where, *seeds]
    for robot in ROBOTS:
        where = [f"env=mamujoco/{robot}", "env.physics=mujoco", "eval.episodes=10"]
        for algo, changes in {"happo": [], "mappo": ["algo.sharing=none"]}.items():
            name = algo if algo == "happo" else "mappo_unshared"
            parts = {"": ["num_seeds=3"]} if name == "happo" and robot == "half_cheetah_2x3" else SINGLE
            for part, seeds in parts.items():
                settings = [f"algo={algo}", f"preset=harl/{robot}", *where, *LONG, *seeds, *changes]
                listed[f"{robot}_10m/{name}{part}"] = settings
        settings = ["algo=hatd3", f"preset=harl/{robot}_hatd3", *where, *SHORT, "num_seeds=2"]
        listed[f"{robot}_1m/hatd3"] = settings
    return listed


if __name__ == "__main__":
    # 200 episodes of draw 0 are easier in hajax than in mpe2 (docs/results/mpe.md, intervals without 0).
    listed = runs()
    episodes = {name: 1000 if "mpe/" in " ".join(x) else 50 for name, x in listed.items()}
    main(__doc__, "budget", listed, episodes, draw=1)
