"""Settings of the smallest run: a game of one step and a tiny network, the same programs for most tests."""

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
