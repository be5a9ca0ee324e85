"""Makes the runs of docs/results in which trust regions are decomposed (Li et al., 2022, Figures 8 and 9).

    python benchmarks/mamt_runs.py --list
    python benchmarks/mamt_runs.py spread_3_mix/mamt
    python benchmarks/mamt_runs.py                    all runs that are missing in docs/results

MAAC, MAMD, MAMD-OP (trust regions of the agents that depend on each other) and MAMT on three dependency graphs, with
the paper's settings, 8 seeds and 150,000 steps, which two cores make in an hour per graph; the paper has 1.25 million.
With no dependencies MAMD-OP is MAAC, and with all of them MAMD: these runs are not made twice.

Then the comparison on the paper's four other tasks, 4 seeds: MAMT, MAMD, MAAC, MADDPG and MAPPO with the settings of
Tables 1 to 4, HASAC with the same minibatches and as many updates, HAPPO with MAPPO's settings; HAPPO and MAPPO, which
are many times as fast, also for ten times the steps.

A run trains in runs/mamt/TASK/NAME, where it is resumed if it was interrupted, and is copied to docs/results/TASK/NAME
when it is finished. Several of these processes may run concurrently, one on each core.
"""

from __future__ import annotations

from kept_runs import main

# The replay holds the whole run.
REPLAY = ["algo.buffer_size=200_000"]
KEPT = ["total_steps=150_000", "eval_interval=15_000", "eval.episodes=50", "checkpoint.interval=30_000"]
KEPT += ["checkpoint.keep=1"]
VARIANTS = {
    "maac": ["algo=maac", "preset=mamt/mpe_maac"],
    "mamd": ["algo=mamd", "preset=mamt/mpe_mamd"],
    "mamd_op": ["algo=mamd", "preset=mamt/mpe_mamd"],
    "mamt": ["algo=mamt", "preset=mamt/mpe"],
}
# Agents 0 and 2 depend on each other in `spread_3_mix`.
DEPENDENCIES = {"mix": "[[agent_0,agent_2]]"}


# The main comparison. What the paper's Tables 1 to 3 have in common, and Table 4; not only for MPE, as the presets are.
UPDATES = ["num_envs=12", "rollout_length=25", "algo.updates_per_step=0.48", "algo.batch_size=1024", *REPLAY]
UPDATES += ["algo.warmup_steps=1024", "algo.adam_eps=1e-7"]
TABLE_4 = ["num_envs=12", "rollout_length=341", "algo.actor_lr=1e-3", "algo.critic_lr=1e-3", "algo.huber_delta=10"]
TABLE_4 += ["algo.gae_lambda=0.95", "algo.max_grad_norm=10", "algo.layer_norm_min_inputs=1", "algo.adam_eps=1e-7"]
MADDPG = ["algo.reward=individual", "algo.per_agent_critics=true", "algo.others=replay", "algo.actor_lr=1e-3"]
COMPARED = {
    "maac": [*UPDATES],
    "mamd": [*UPDATES],
    "mamt": [*UPDATES, "algo.edge_threshold=0.2"],
    "maddpg": [*UPDATES, *MADDPG, "algo.max_grad_norm=0.5"],
    "hasac": [*UPDATES, "algo.n_step=5"],
    "happo": TABLE_4,
    "mappo": TABLE_4,
}
TASKS = {
    "spread_2": ["env=mpe/simple_spread", "env.num_agents=2"],
    "rover_tower": ["env=mpe/rover_tower"],
    "pursuit_short": ["env=sisl/pursuit", "env.shared_reward=false"],
    "multiwalker": ["env=pettingzoo/multiwalker_v9"],
}
# MADDPG's actions are real: not those of the other two tasks.
CONTINUOUS = {"spread_2": ["env.actions=continuous"], "multiwalker": []}


def runs() -> dict[str, list[str]]:
    """The settings of every run, by `TASK/NAME`."""
    listed = {}
    for graph in ("mix", "ful", "sep"):
        for name, settings in VARIANTS.items():
            if name == "mamd_op" and graph not in DEPENDENCIES:
                continue
            given = [f"algo.dependencies={DEPENDENCIES[graph]}"] if name == "mamd_op" else []
            where = f"env=mpe/spread_3_{graph}"
            listed[f"spread_3_{graph}/{name}"] = [*settings, where, *given, "num_seeds=8", *REPLAY, *KEPT]
    for task, env in TASKS.items():
        for name, settings in COMPARED.items():
            if name != "maddpg" or task in CONTINUOUS:
                given = CONTINUOUS[task] if name == "maddpg" else []
                listed[f"{task}/{name}"] = [f"algo={name}", *env, *given, *settings, "num_seeds=4", *KEPT]
        for name in ("happo", "mappo"):
            longer = ["total_steps=1_500_000", "eval_interval=150_000", "eval.episodes=50", "checkpoint.keep=1"]
            listed[f"{task}/{name}_long"] = [f"algo={name}", *env, *TABLE_4, "num_seeds=4", *longer]
    return listed


if __name__ == "__main__":
    main(__doc__, "mamt", runs(), episodes={})
