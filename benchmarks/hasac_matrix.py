"""HASAC on its paper's matrix game with a learned critic: where policies end that start near the local optimum.

    python benchmarks/hasac_matrix.py [--temperatures 1 2 5 10 15 20] [--seeds 10] [--output FILE]

Figures 3a, 4c and 5 of Liu et al. (2024, https://arxiv.org/abs/2306.10715): from policies (0.6, 0.2, 0.2), 200
iterations of 200 sampled plays, at fixed temperatures. The game pays 5, 10 and 20 for agreeing on A, B and C, else −20.
Beside it stand the limits of exact soft policy iteration from there (`hajax.tabular`), agent 1 first.
"""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import hajax
from hajax import tabular
from hajax.envs.games import hasac_payoff

SETTINGS: dict[str, Any] = {
    "hidden_sizes": (64,),
    "batch_size": 200,
    "buffer_size": 4000,
    "warmup_steps": 200,
    "updates_per_step": 20,
    "actor_lr": 5e-3,
    "critic_lr": 5e-3,
    "target_rate": 1.0,
    "auto_temperature": False,
}


def exact_limit(temperature: float) -> tuple[float, list]:
    """E[r] of the policies that exact soft policy iteration converges to, and these policies."""
    with jax.enable_x64(True):
        game = tabular.matrix_game(hasac_payoff())
        start = tabular.log_policy(jnp.tile(jnp.array([0.6, 0.2, 0.2]), (2, 1, 1)), game.action_mask[:, None])
        update = tabular.haspi(temperature, order="fixed")
        last = tabular.iterate(update, game, start, jax.random.key(0), 3000, temperature=temperature).policy
        return float(tabular.evaluate(game, last).expected_return), np.exp(last[:, 0]).round(4).tolist()


def train(temperature: float, expectation: str, num_seeds: int) -> dict[str, Any]:
    """Greedy joint actions, the policies at the end, and the mean return of their last twenty iterations."""
    env = hajax.make_env("games/hasac_matrix")
    algo = hajax.make_algorithm("hasac", env, temperature=temperature, expectation=expectation, **SETTINGS)
    loop = hajax.make_loop(env, algo, num_envs=200, rollout_length=1)

    def one(key):
        start = loop.init(key)
        params = start.algorithm.actors.params
        bias = jnp.broadcast_to(jnp.log(jnp.array([0.6, 0.2, 0.2])), params["logits"]["bias"].shape)
        head = {"kernel": jnp.zeros_like(params["logits"]["kernel"]), "bias": bias}
        actors = start.algorithm.actors._replace(params=params | {"logits": head})
        start = start._replace(algorithm=start.algorithm._replace(actors=actors))
        final, metrics = lax.scan(lambda state, _: loop.iterate(state), start, None, 200)
        shown = final.actors.timestep
        greedy = algo.act(key, final.algorithm, shown, final.actors.memory, True)[0][0, :, 0]
        plays = jax.vmap(lambda k: algo.act(k, final.algorithm, shown, final.actors.memory)[0][..., 0])
        actions = plays(jax.random.split(key, 50)).reshape(-1, 2)
        return greedy, jax.nn.one_hot(actions, 3).mean(0), metrics["episode_return"]

    greedy, policy, returns = jax.device_get(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), num_seeds)))
    joint = ["ABC"[int(a)] + "ABC"[int(b)] for a, b in greedy]
    return {
        "greedy": {name: joint.count(name) for name in sorted(set(joint))},
        "greedy_return": float(np.mean([hasac_payoff()[int(a), int(b)] for a, b in greedy])),
        "return": [float(x) for x in returns[:, -20:].mean(1)],
        "policy": np.round(policy.mean(0), 4).tolist(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--temperatures", type=int, nargs="+", default=[1, 2, 5, 10, 15, 20])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    began = time.perf_counter()
    rows = []
    limits = {temperature: exact_limit(float(temperature)) for temperature in given.temperatures}
    print("| α | expectation | greedy joint actions | E[r], mean over seeds | exact limit |\n|---|---|---|---|---|")
    for expectation in ("exact", "sampled"):
        for temperature in given.temperatures:
            found = train(float(temperature), expectation, given.seeds)
            limit, limit_policy = limits[temperature]
            exact = {"limit": limit, "limit_policy": limit_policy}
            rows.append({"temperature": temperature, "expectation": expectation, **found, **exact})
            counts = ", ".join(f"{name} {count}" for name, count in found["greedy"].items())
            print(
                f"| {temperature} | {expectation} | {counts} | {np.mean(found['return']):.2f} | {limit:.2f} |",
                flush=True,
            )
    report = {
        "settings": SETTINGS | {"seeds": given.seeds, "iterations": 200, "plays": 200},
        "device": jax.devices()[0].device_kind,
        "versions": {name: version(name) for name in ("jax", "jaxlib")},
        "seconds": round(time.perf_counter() - began, 1),
        "rows": rows,
    }
    if given.output:
        given.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
