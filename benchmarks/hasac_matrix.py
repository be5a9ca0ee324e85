"""HASAC, HAPPO and MAPPO on the matrix game of HASAC's paper, from policies near the local optimum.

    python benchmarks/hasac_matrix.py [--temperatures 1 2 5 10 15 20] [--seeds 10] [--output FILE]

Figures 3a, 4c and 5 of Liu et al. (2024, https://arxiv.org/abs/2306.10715): from policies (0.6, 0.2, 0.2), 200
iterations of 200 sampled steps. HASAC learns at fixed temperatures, from a replay filled with 2,000 samples of the
initial policies; MAPPO's agents do not share parameters. The reward is 5, 10 and 20 for (A, A), (B, B) and (C, C), else
−20. For comparison there are the limits of exact soft policy iteration from the same policies (`hajax.tabular`), agent
1 first.
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
ON_POLICY: dict[str, Any] = {"hidden_sizes": (64,), "actor_lr": 5e-3, "sharing": "none"}


def exact_limit(temperature: float) -> tuple[float, list]:
    """E[r] of the policies that exact soft policy iteration converges to, and these policies."""
    with jax.enable_x64(True):
        game = tabular.matrix_game(hasac_payoff())
        start = tabular.log_policy(jnp.tile(jnp.array([0.6, 0.2, 0.2]), (2, 1, 1)), game.action_mask[:, None])
        update = tabular.haspi(temperature, order="fixed")
        last = tabular.iterate(update, game, start, jax.random.key(0), 3000).policy
        return float(tabular.evaluate(game, last).expected_return), np.exp(last[:, 0]).round(4).tolist()


def near_the_local_optimum(algorithm: Any) -> Any:
    """The learner state with policies (0.6, 0.2, 0.2) for all observations."""
    params = algorithm.actors.params
    bias = jnp.broadcast_to(jnp.log(jnp.array([0.6, 0.2, 0.2])), params["logits"]["bias"].shape)
    head = {"kernel": jnp.zeros_like(params["logits"]["kernel"]), "bias": bias}
    return algorithm._replace(actors=algorithm.actors._replace(params=params | {"logits": head}))


def play(algo: Any, loop: Any, start: Any, key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """200 iterations: the greedy joint action, the policies by 10,000 draws, and the mean return of every iteration."""
    final, metrics = lax.scan(lambda state, _: loop.iterate(state), start, None, 200)
    shown = final.actors.timestep
    greedy = algo.act(key, final.algorithm, shown, final.actors.memory, True)[0][0, :, 0]
    plays = jax.vmap(lambda k: algo.act(k, final.algorithm, shown, final.actors.memory)[0][..., 0])
    actions = plays(jax.random.split(key, 50)).reshape(-1, 2)
    return greedy, jax.nn.one_hot(actions.astype(int), 3).mean(0), metrics["episode_return"]


def train_on_policy(name: str, num_seeds: int) -> dict[str, Any]:
    """HAPPO or MAPPO from the same policies, with the same numbers of iterations and samples."""
    env = hajax.make_env("games/hasac_matrix")
    algo = hajax.make_algorithm(name, env, **ON_POLICY)
    loop = hajax.make_loop(env, algo, num_envs=200, rollout_length=1)

    def one(key):
        start = loop.init(key)
        return play(algo, loop, start._replace(algorithm=near_the_local_optimum(start.algorithm)), key)

    return summary(*jax.device_get(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), num_seeds))))


def train(
    temperatures: list[float], expectation: str, num_seeds: int, own_plays: bool = True, **changes: Any
) -> list[dict[str, Any]]:
    """For each temperature: final greedy joint actions and policies, and mean returns of 20 iterations.

    Without `own_plays` training begins with the loop's warm-up, 200 uniform actions.
    """
    env = hajax.make_env("games/hasac_matrix")
    algo = hajax.make_algorithm("hasac", env, expectation=expectation, **(SETTINGS | changes))
    loop = hajax.make_loop(env, algo, num_envs=200, rollout_length=1)
    # After this many iterations the replay holds no sample of the warm-up, each of which takes two rows.
    filling = -(-algo.settings.buffer_size // (2 * 200))

    def one(temperature, key):
        start = loop.init(key, algo.hyperparameters.replace(temperature=temperature))
        algorithm = near_the_local_optimum(start.algorithm)
        if not own_plays:
            return play(algo, loop, start._replace(algorithm=algorithm), key)
        # The warm-up's uniform actions are replaced by samples of the policy, taken without learning.
        numbers = algorithm.hyperparameters.replace(actor_lr=0.0, critic_lr=0.0)
        paused = start._replace(algorithm=algorithm._replace(hyperparameters=jax.tree.map(jnp.asarray, numbers)))
        played, _ = lax.scan(lambda state, _: loop.iterate(state), paused, None, filling)
        start = played._replace(algorithm=algorithm)
        return play(algo, loop, start, key)

    runs = jax.jit(jax.vmap(jax.vmap(one, in_axes=(None, 0)), in_axes=(0, None)))
    found = jax.device_get(runs(jnp.array(temperatures), jax.random.split(jax.random.key(0), num_seeds)))
    return [summary(*of_temperature) for of_temperature in zip(*found, strict=True)]


def summary(greedy: np.ndarray, policy: np.ndarray, returns: np.ndarray) -> dict[str, Any]:
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
        results = train([float(x) for x in given.temperatures], expectation, given.seeds)
        for temperature, found in zip(given.temperatures, results, strict=True):
            limit, limit_policy = limits[temperature]
            exact = {"limit": limit, "limit_policy": limit_policy}
            rows.append({"temperature": temperature, "expectation": expectation, **found, **exact})
            counts = ", ".join(f"{name} {count}" for name, count in found["greedy"].items())
            print(
                f"| {temperature} | {expectation} | {counts} | {np.mean(found['return']):.2f} | {limit:.2f} |",
                flush=True,
            )
    uniform = dict(zip(("1", "2"), train([1.0, 2.0], "exact", given.seeds, own_plays=False), strict=True))
    on_policy = {name: train_on_policy(name, given.seeds) for name in ("happo", "mappo")}
    named = {f"uniform warm-up, exact, α = {temperature}": found for temperature, found in uniform.items()} | on_policy
    for name, found in named.items():
        counts = ", ".join(f"{actions} {count}" for actions, count in found["greedy"].items())
        print(f"{name}: {counts}, E[r] {np.mean(found['return']):.2f}")
    report = {
        "settings": SETTINGS | {"seeds": given.seeds, "iterations": 200, "plays": 200},
        "settings_on_policy": ON_POLICY,
        "device": jax.devices()[0].device_kind,
        "versions": {name: version(name) for name in ("jax", "jaxlib")},
        "seconds": round(time.perf_counter() - began, 1),
        "rows": rows,
        "uniform_warmup": uniform,
        "on_policy": on_policy,
    }
    if given.output:
        given.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
