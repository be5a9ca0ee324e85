"""Makes the off-policy MPE runs of docs/results one after another, and evaluates their policies in mpe2.

    python benchmarks/mpe.py --list
    python benchmarks/mpe.py spread_discrete/hasac spread_discrete/masac
    python benchmarks/mpe.py                          all runs that are missing in docs/results

A run trains in runs/mpe/TASK/NAME, where it is resumed if it was interrupted, and is copied to docs/results/TASK/NAME
when it is finished and its policies are evaluated in mpe2. Several of these processes may run concurrently, one on each
core (`taskset -c 0 python benchmarks/mpe.py`): a run that another process has begun is skipped.
"""

from __future__ import annotations

from kept_runs import main, unguarded

COMMON = ["total_steps=300_000", "num_seeds=3", "eval.episodes=200", "checkpoint.interval=100_000", "checkpoint.keep=1"]
# HARL's settings except the batch, for a CPU; a replay that holds the run; n_step from pilot runs (docs/results).
OFF_POLICY = ["algo.batch_size=256", "algo.buffer_size=300_000"]
SETTINGS = {
    "happo": ["preset=harl/mpe"],
    **{
        name: [
            "preset=harl/mpe_hasac",
            "algo.n_step=5",
            "algo.target_entropy_share=0.98",
            "algo.expectation=sampled",
            *OFF_POLICY,
        ]
        for name in ("hasac", "masac")
    },
    **{
        name: ["preset=harl/mpe_haddpg", "algo.n_step=5", *OFF_POLICY]
        for name in ("haddpg", "maddpg", "hatd3", "matd3")
    },
    **{name: ["preset=harl/mpe_had3qn", *OFF_POLICY] for name in ("had3qn", "mad3qn")},
}
ALGORITHMS = {
    "continuous": ("happo", "haddpg", "maddpg", "hatd3", "matd3", "hasac", "masac"),
    "discrete": ("happo", "had3qn", "mad3qn", "hasac", "masac"),
}
ENVIRONMENTS = {
    "spread": "mpe/simple_spread",
    "speaker_listener": "mpe/simple_speaker_listener",
    "reference": "mpe/simple_reference",
}
# Ablations as in HASAC's paper: fixed temperatures (Figure 4b), and Gaussian noise instead of entropy (4a); and with
# discrete actions, for HASAC's defaults, other target entropies and the exact expectation over every agent's choices.
CHOICES = {
    "share_0.5": ["algo.target_entropy_share=0.5"],
    "exact_share_0.5": ["algo.expectation=exact", "algo.target_entropy_share=0.5"],
    "exact_share_0.3": ["algo.expectation=exact", "algo.target_entropy_share=0.3"],
}
ABLATIONS = {
    "spread_ablation": {
        **{
            f"alpha_{x}": ("hasac", ["algo.auto_temperature=false", f"algo.temperature={x}"])
            for x in ("0.01", "0.1", "1")
        },
        "deterministic": (
            "hatd3",
            [
                "algo.hidden_sizes=[256,256]",
                "algo.critic_lr=5e-4",
                "algo.policy_delay=1",
                "algo.target_noise=0",
                "algo.others=policy",
            ],
        ),
        "haddpg_policy": ("haddpg", ["algo.others=policy"]),
    },
    **{
        f"{task}_discrete_ablation": {
            name: ("hasac", changes)
            for name, changes in CHOICES.items()
            if (task, name) != ("reference", "exact_share_0.3")  # its 50 choices make the exact expectation slow
        }
        for task in ENVIRONMENTS
    },
}
ABLATED = {
    "spread_ablation": ["env=mpe/simple_spread", "env.actions=continuous"],
    **{f"{task}_discrete_ablation": [f"env={env}", "env.actions=discrete"] for task, env in ENVIRONMENTS.items()},
}


def runs() -> dict[str, list[str]]:
    """The settings of every run, by `TASK/NAME`."""
    listed = {}
    for task, env in ENVIRONMENTS.items():
        for actions, names in ALGORITHMS.items():
            where = [f"env={env}", f"env.actions={actions}", *COMMON]
            for name in names:
                listed[f"{task}_{actions}/{name}"] = unguarded([f"algo={name}", *SETTINGS[name], *where])
    for task, variants in ABLATIONS.items():
        for name, (algo, changes) in variants.items():
            listed[f"{task}/{name}"] = [f"algo={algo}", *SETTINGS[algo], *changes, *ABLATED[task], *COMMON]
    # HARL's schedule, for as many steps as a CPU allows.
    where = ["env=mpe/simple_spread", "env.actions=continuous", *COMMON]
    listed["spread_2m/hatd3"] = ["algo=hatd3", "preset=harl/mpe_haddpg", *where, "total_steps=2_000_000"]
    return listed


if __name__ == "__main__":
    listed = runs()
    main(__doc__, "mpe", listed, episodes={name: 200 for name in listed if "_ablation/" not in name})
