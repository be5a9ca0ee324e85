"""Naive learners and learners that anticipate each other's next step (LOLA), with exact gradients, on two games.

    python benchmarks/lola.py [--starts 200] --output docs/results/lola.json

The settings of Foerster et al. (2018, https://arxiv.org/abs/1709.04326) and of its public code: policies with a logit
for each of five states, drawn from N(0, 1); 200 simultaneous steps with δ = η = 1; γ = 0.96 in the iterated prisoner's
dilemma, 0.9 in matching pennies. Each pair of learners has the same starts, of seed 0. A policy counts as tit-for-tat
if after either of its own actions it probably cooperates where the other did, and else probably defects.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hajax.envs.iterated_games import MATCHING_PENNIES, PRISONERS_DILEMMA
from hajax.tabular import opponents

GAMES = {"iterated prisoner's dilemma": (PRISONERS_DILEMMA, 0.96), "matching pennies": (MATCHING_PENNIES, 0.9)}
LEARNERS = {"naive, naive": (0.0, 0.0), "LOLA, naive": (1.0, 0.0), "LOLA, LOLA": (1.0, 1.0)}
STEPS = 200
# The other's last action in the states after CC, CD, DC and DD: 0 cooperated. Agent 0 acted first.
OTHERS = np.array([[0, 1, 0, 1], [0, 0, 1, 1]])


def play(payoffs: np.ndarray, discount: float, lookahead: tuple[float, ...], starts: jax.Array) -> dict[str, Any]:
    """Mean rewards per round, and policies, at the end of learning from each of the starts."""
    played = opponents.iterated_game(payoffs, discount)

    def end(start):
        learned = opponents.learn(played, start, STEPS, lookahead=jnp.array(lookahead))
        return learned.returns[-1], jnp.exp(opponents.policy_of(played, learned.parameters[-1]))[..., 0]

    returns, first = (np.asarray(x) for x in jax.jit(jax.vmap(end))(starts))
    rewards = (1 - discount) * returns
    reciprocal = ((first[..., 1:] > 0.5) == (OTHERS == 0)).all(-1)
    return {
        "reward_mean": rewards.mean(0).round(3).tolist(),
        "reward_std": rewards.std(0).round(3).tolist(),
        "tit_for_tat": reciprocal.mean(0).round(3).tolist(),
        "within_0.1_of_even": (abs(first - 0.5) < 0.1).all(-1).mean(0).round(3).tolist(),
        "first_action": first.mean(0).round(3).tolist(),  # [agent][first round, CC, CD, DC, DD]
        "rewards": rewards.round(4).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=200)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    with jax.enable_x64(True):
        starts = jax.random.normal(jax.random.key(0), (given.starts, 2, 5, 1))
        results = {
            game: {learners: play(payoffs, discount, eta, starts) for learners, eta in LEARNERS.items()}
            for game, (payoffs, discount) in GAMES.items()
        }
    for game, rows in results.items():
        for learners, row in rows.items():
            print(f"{game}: {learners}: " + ", ".join(f"{k} {v}" for k, v in row.items() if k != "rewards"))
    report = {"starts": given.starts, "steps": STEPS, "versions": {name: version(name) for name in ("jax", "hajax")}}
    given.output.write_text(json.dumps(report | {"games": results}, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
