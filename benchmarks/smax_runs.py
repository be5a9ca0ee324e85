"""Makes the SMAX runs of docs/results one after another.

    python benchmarks/smax_runs.py --list
    python benchmarks/smax_runs.py 3m/happo 3m/mappo
    python benchmarks/smax_runs.py                    all runs that are missing in docs/results

A run trains in runs/smax/FOLDER/NAME, where it is resumed if it was interrupted, and is copied to
docs/results/FOLDER/NAME when it is finished. Several of these processes may run concurrently, one on each core
(`taskset -c 0 python benchmarks/smax_runs.py`): a run that another process has begun is skipped.
"""

from __future__ import annotations

from kept_runs import main, unguarded
from reports import with_last

BUDGETS = {
    "3m": ["total_steps=2_000_000", "num_seeds=4", "eval.episodes=200"],
    "2s3z": ["total_steps=1_200_000", "num_seeds=3", "eval.episodes=200"],
    "3s5z": ["total_steps=500_000", "num_seeds=3", "eval.episodes=200"],
}
UNSHARED = ["algo.sharing=none"]
VARIANTS = {
    "happo": ("happo", "hajax/smax", []),
    "hatrpo": ("hatrpo", "hajax/smax_hatrpo", []),
    "mappo": ("mappo", "hajax/smax", []),
    "mappo_unshared": ("mappo", "hajax/smax", UNSHARED),
    "haa2c": ("haa2c", "haml/smac", []),
    "maa2c": ("maa2c", "haml/smac", []),
    "maa2c_unshared": ("maa2c", "haml/smac", UNSHARED),
    "hatrpo_simultaneous": ("hatrpo", "hajax/smax_hatrpo", ["algo.order=simultaneous"]),
    "happo_centered": ("happo", "hajax/smax", ["algo.center_advantage=true"]),
}
FOUR = ("happo", "hatrpo", "mappo", "mappo_unshared")
# The previous preset.
NARROW = ["algo.hidden_sizes=[128,128]", "algo.discount=0.99", "algo.normalize_observations=false"]
NARROW += ["algo.chunk_length=10"]
# Rollouts twice as large, in minibatches of the same size.
LARGE_BATCH = ["num_envs=512", "rollout_length=16", "algo.minibatches=16"]
# And mirrored views; evaluated in more games, because 200 hardly distinguish 0.95 from 0.96.
MIRRORED = [*LARGE_BATCH, "env.mirrored=true", "eval.episodes=1000"]
# The map of every folder, its variants, and their differences from the presets.
SHOWN = {
    "3m": ("3m", tuple(VARIANTS)[:-2], []),
    "3m_narrow": ("3m", FOUR, NARROW),
    "3m_large_batch": ("3m", ("mappo",), LARGE_BATCH),
    "3m_mirrored": ("3m", ("mappo",), MIRRORED),
    "2s3z": ("2s3z", FOUR, []),
    "3s5z": ("3s5z", FOUR, []),
}

# Made again with the default guard of the compound ratio, beside the same policies updated at once; 3s5z for longer.
GUARDED = {
    "3m": ("happo", "hatrpo"),
    "2s3z": ("happo", "hatrpo", "hatrpo_simultaneous", "happo_centered"),
    "3s5z": ("happo", "mappo_unshared", "hatrpo", "hatrpo_simultaneous", "mappo", "happo_centered"),
}

# HASAC's target entropy, as on MPE: shares of the entropy of uniform choices.
HASAC = ["algo=hasac", "env=smax/3m", "num_envs=20", "rollout_length=50", "algo.n_step=5", "algo.discount=0.95"]
HASAC += ["algo.batch_size=256", "algo.buffer_size=200_000", "algo.normalize_observations=true"]
HASAC += ["total_steps=200_000", "num_seeds=3", "eval.episodes=200", "checkpoint.keep=1"]
SHARES = ("0.5", "0.98", "0.3")


def runs() -> dict[str, list[str]]:
    """The settings of every run, by `FOLDER/NAME`."""
    listed = {}
    for folder, (scenario, names, otherwise) in SHOWN.items():
        for name in names:
            algo, preset, changes = VARIANTS[name]
            settings = [f"algo={algo}", f"preset={preset}", f"env=smax/{scenario}", *BUDGETS[scenario]]
            listed[f"{folder}/{name}"] = unguarded(with_last(*settings, *changes, *otherwise))
    for name in set(FOUR) - {"hatrpo"}:  # it has no such rate
        listed[f"3m_narrow/{name}"] += ["algo.actor_lr=1e-3"]
    for scenario, names in GUARDED.items():
        longer = ["total_steps=1_000_000"] if scenario == "3s5z" else []
        for name in names:
            algo, preset, changes = VARIANTS[name]
            settings = [f"algo={algo}", f"preset={preset}", f"env=smax/{scenario}", *BUDGETS[scenario]]
            listed[f"{scenario}_guarded/{name}"] = with_last(*settings, *changes, *longer)
    for share in SHARES:
        listed[f"3m_hasac/share_{share}"] = [*HASAC, f"algo.target_entropy_share={share}"]
    return listed


if __name__ == "__main__":
    main(__doc__, "smax", runs(), episodes={})
