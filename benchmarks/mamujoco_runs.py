"""Makes the MAMuJoCo runs of docs/results one after another, and evaluates their policies in gymnasium-robotics.

    python benchmarks/mamujoco_runs.py --list
    python benchmarks/mamujoco_runs.py ant_4x2/happo
    python benchmarks/mamujoco_runs.py                all runs that are missing in docs/results

A run trains in runs/mamujoco/TASK/NAME, where it is resumed if it was interrupted, and is copied to
docs/results/TASK/NAME when it is finished and its policies are evaluated. Several of these processes may run
concurrently, one on each core.
"""

from __future__ import annotations

from kept_runs import main, unguarded

COMMON = ["num_seeds=2", "eval.episodes=10", "eval_interval=50_000", "checkpoint.interval=100_000", "checkpoint.keep=1"]
# HARL's settings are for 10 million steps. For a tenth of them and less: many optimizer steps on small minibatches,
# from shorter rollouts on-policy, and five times as many with narrower networks off-policy.
HAPPO = [
    "num_envs=8",
    "rollout_length=256",
    "algo.minibatches=16",
    "algo.epochs=10",
    "algo.critic_epochs=10",
    "algo.actor_lr=3e-4",
    "algo.critic_lr=3e-4",
    "algo.entropy_coef=0",
    "algo.normalize_observations=true",
    "lr_decay=true",
]
HATD3 = ["algo.batch_size=256", "algo.hidden_sizes=[128,128]", "algo.updates_per_step=5", "algo.buffer_size=400_000"]
FAITHFUL, IN_C = ["env.physics=faithful"], ["env.physics=mujoco"]
TRANSFER = {
    "half_cheetah_2x3/happo": [*HAPPO, *FAITHFUL, "total_steps=2_000_000"],
    "half_cheetah_2x3/happo_again": [*HAPPO, *FAITHFUL, "total_steps=2_000_000"],
    "half_cheetah_2x3/happo_more": [*HAPPO, *FAITHFUL, "total_steps=2_000_000", "seed=2", "num_seeds=4"],
    "half_cheetah_2x3/happo_in_c": [*HAPPO, *IN_C, "total_steps=2_000_000"],
    "half_cheetah_2x3/happo_in_c_more": [*HAPPO, *IN_C, "total_steps=2_000_000", "seed=2", "num_seeds=4"],
    "half_cheetah_2x3/hatd3": [*HATD3, *FAITHFUL, "total_steps=300_000"],
    "ant_4x2/happo": [*HAPPO, *FAITHFUL, "total_steps=800_000"],
    "ant_4x2/happo_guarded": [*HAPPO, *IN_C, "total_steps=800_000"],
    "ant_4x2/hatd3": [*HATD3, *FAITHFUL, "total_steps=150_000"],
}
# What holds HATD3 back on HalfCheetah: the settings of the kept run in MuJoCo's C, and step by step those with which
# single-agent TD3 is known to learn (Fujimoto et al., 2018, as in its public code): one update per step, single steps.
TD3 = [
    "algo.batch_size=256",
    "algo.buffer_size=400_000",
    "algo.updates_per_step=10",
    "algo.n_step=1",
    "algo.actor_lr=3e-4",
    "algo.critic_lr=3e-4",
]
HATD3_ABLATION = {
    "in_c": HATD3,
    "n_step_1": [*HATD3, "algo.n_step=1"],
    "td3": TD3,
    "td3_policy": [*TD3, "algo.others=policy"],
    "td3_normalized": [*TD3, "algo.normalize_observations=true"],
    "td3_n_step_3": [*TD3, "algo.n_step=3"],
}
TRANSFER |= {
    f"half_cheetah_2x3/hatd3_{name}": [*changes, *IN_C, "total_steps=300_000"]
    for name, changes in HATD3_ABLATION.items()
}

# Whether sequential updates help, and more so with more agents: the same budget for all, in brax, which a CPU can run.
IN_TURN = [
    "env.physics=brax-spring",
    "num_seeds=3",
    "total_steps=1_000_000",
    "eval.episodes=20",
    "eval_interval=100_000",
    "checkpoint.keep=1",
]
ROLLOUTS = ["num_envs=32", "rollout_length=64", "algo.normalize_observations=true", "lr_decay=true"]
CRITIC = ["algo.minibatches=4", "algo.critic_epochs=5", "algo.critic_lr=3e-4"]
CLIPPED = [*ROLLOUTS, *CRITIC, "algo.epochs=5", "algo.actor_lr=3e-4", "algo.entropy_coef=0"]
# Twenty steps of an actor per update, each on 512 samples, are too many where nothing bounds them.
UNCLIPPED = [*ROLLOUTS, "algo.minibatches=1", "algo.critic_epochs=20", "algo.critic_lr=3e-4"]
UNCLIPPED += ["algo.epochs=5", "algo.actor_lr=3e-4"]
REPLAY = ["algo.batch_size=256", "algo.hidden_sizes=[128,128]", "algo.buffer_size=1_000_000"]
UNSHARED = ["algo.sharing=none"]
VARIANTS = {
    "happo": ("happo", "ant_4x2", CLIPPED),
    "hatrpo": ("hatrpo", "ant_4x2_hatrpo", [*ROLLOUTS, *CRITIC]),
    "mappo": ("mappo", "ant_4x2", CLIPPED),
    "mappo_unshared": ("mappo", "ant_4x2", [*CLIPPED, *UNSHARED]),
    "ippo": ("ippo", "ant_4x2", CLIPPED),
    "ippo_unshared": ("ippo", "ant_4x2", [*CLIPPED, *UNSHARED]),
    "haa2c": ("haa2c", "ant_4x2_haa2c", UNCLIPPED),
    "maa2c": ("maa2c", "ant_4x2_haa2c", UNCLIPPED),
    "maa2c_unshared": ("maa2c", "ant_4x2_haa2c", [*UNCLIPPED, *UNSHARED]),
    "haa2c_4_minibatches": ("haa2c", "ant_4x2_haa2c", CLIPPED[:-1]),
    "maa2c_4_minibatches": ("maa2c", "ant_4x2_haa2c", CLIPPED[:-1]),
    "haddpg": ("haddpg", "ant_4x2_haddpg", REPLAY),
    "maddpg": ("maddpg", "ant_4x2_haddpg", REPLAY),
}
SHOWN = {"2x4": ("happo", "hatrpo", "mappo", "mappo_unshared"), "4x2": tuple(VARIANTS)}
SHOWN["8x1"] = SHOWN["2x4"]
GUARDED = ("happo", "hatrpo")  # made again, with the default guard of the compound ratio


def runs() -> dict[str, list[str]]:
    """The settings of every run, by `TASK/NAME`."""
    listed = {}
    for run, changes in TRANSFER.items():
        task, name = run.split("/")
        algo = name.split("_")[0]
        preset = f"harl/{task}" if algo == "happo" else f"harl/{task}_{algo}"
        settings = [f"algo={algo}", f"env=mamujoco/{task}", f"preset={preset}", *COMMON, *changes]
        listed[run] = settings if run.endswith("_guarded") else unguarded(settings)
    for agents, names in SHOWN.items():
        for name in names:
            algo, preset, changes = VARIANTS[name]
            where = [f"algo={algo}", f"env=mamujoco/ant_{agents}", f"preset=harl/{preset}"]
            listed[f"ant_{agents}_spring/{name}"] = unguarded([*where, *changes, *IN_TURN])
            if name in GUARDED and agents != "2x4":
                listed[f"ant_{agents}_spring/{name}_guarded"] = [*where, *changes, *IN_TURN]
    return listed


if __name__ == "__main__":
    main(__doc__, "mamujoco", runs(), episodes=dict.fromkeys(TRANSFER, 50))
