"""Settings of the smallest run: a game of one step and a tiny network, with the same programs for most tests."""

TINY_TRAINING = [
    "num_envs=4",
    "rollout_length=8",
    "eval.episodes=4",
    "algo.hidden_sizes=[8]",
    "algo.epochs=1",
    "algo.critic_epochs=1",
    "progress=false",
]
TINY = ["env=games/hasac_matrix", "num_seeds=2", *TINY_TRAINING]
# An off-policy run of this kind, whose replay is overwritten within a hundred steps.
TINY_OFF_POLICY = [
    "algo=hatd3",
    "env=games/linear_quadratic",
    "num_seeds=2",
    "num_envs=4",
    "rollout_length=8",
    "eval.episodes=4",
    "algo.hidden_sizes=[8]",
    "algo.batch_size=16",
    "algo.buffer_size=400",
    "algo.n_step=3",
    "algo.warmup_steps=40",
    "progress=false",
]
