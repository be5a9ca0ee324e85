"""Environment steps per second of every kind of environment in docs/environments.md, with random actions.

    python benchmarks/environment_speeds.py [--envs 64] [--rounds 3] [--seconds 2] [--output FILE]
    python benchmarks/environment_speeds.py --only smax/3m mamujoco/ant_4x2 --physics faithful fast

A compiled program steps the copies, resets and observations included; simulators run in one worker for each core. The
median of the rounds is shown.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

import hajax
from hajax.envs.batching import batched
from hajax.envs.callbacks import cores

INDIVIDUAL = {"reward": "individual"}
MEASURED: dict[str, dict[str, Any]] = {
    "mpe/simple_spread": {},
    "sisl/pursuit": {},
    "smax/3m": {},
    "smax/3s5z": {},
    "mamujoco/ant_4x2": {},
    "mamujoco/half_cheetah_2x3": {},
    "games/matrix": {"payoff": [[1.0, 0.0], [0.0, 1.0]]},
    "jaxmarl/overcooked": {},
    "jaxmarl/overcooked_v2": {},
    "jaxmarl/hanabi": {},
    "jaxmarl/switch_riddle": {},
    "jaxmarl/jaxnav": {},
    "jaxmarl/coin_game": {},
    "jaxmarl/storm_2p": {},
    "jaxmarl/MPE_simple_tag_v3": INDIVIDUAL,
    "jaxmarl/HeuristicEnemySMAX": {},
    "jumanji/RobotWarehouse-v0": {},
    "jumanji/LevelBasedForaging-v0": {},
    "jumanji/Connector-v3": {},
    "jumanji/Cleaner-v0": {},
    "jumanji/SearchAndRescue-v0": {},
    "jumanji/MultiCVRP-v0": {},
    "mpe2/simple_spread_v3": {},
    "pettingzoo/multiwalker_v9": {},
    "pettingzoo/pursuit_v5": {},
    "gymnasium/CartPole-v1": {},
}
STEPS = 50  # in one call


def speed(name: str, options: dict[str, Any], num_envs: int, rounds: int, seconds: float) -> list[float]:
    """Environment steps per second in each round."""
    env = batched(hajax.make_env(name, **options))
    layout = env.spec.action_layout

    def act(key: jax.Array, mask: jax.Array) -> jax.Array:
        choice_key, real_key = jax.random.split(key)
        open_ = jnp.where(mask | ~mask.any(-1, keepdims=True), 0.0, -jnp.inf)
        index = jax.random.categorical(choice_key, open_)
        real = layout.center + layout.scale * jax.random.uniform(real_key, index.shape, minval=-1)
        return jnp.where(layout.discrete, index, real)

    @jax.jit
    def play(carry, key):
        def step(carry, key):
            state, mask = carry
            act_key, step_key = jax.random.split(key)
            state, shown = env.step(jax.random.split(step_key, num_envs), state, act(act_key, mask))
            return (state, shown.action_mask), None

        return lax.scan(step, carry, jax.random.split(key, STEPS))[0]

    state, shown = jax.jit(env.reset)(jax.random.split(jax.random.key(0), num_envs))
    carry = state, shown.action_mask
    for i in range(2):  # the types of a first state may be weak, which compiles again
        carry = jax.block_until_ready(play(carry, jax.random.key(i)))
    rates = []
    for i in range(rounds):
        calls, began = 0, time.perf_counter()
        while (taken := time.perf_counter() - began) < seconds:
            carry = jax.block_until_ready(play(carry, jax.random.fold_in(jax.random.key(i), calls)))
            calls += 1
        rates.append(round(num_envs * STEPS * calls / taken, 1))
    if env.host is not None:
        env.host.close()
    return rates


def table(rates: dict[str, list[float]]) -> str:
    lines = ["| environment | steps/s |", "|---|---|"]
    return "\n".join(lines + [f"| `{name}` | {statistics.median(found):,.0f} |" for name, found in rates.items()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--only", nargs="+", choices=list(MEASURED), default=list(MEASURED), metavar="NAME")
    parser.add_argument("--physics", nargs="+", metavar="KIND", help="of the robots, each; by default the usual one")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    report: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "cores": cores(),
        "envs": given.envs,
        "rates": {},
    }
    measured = {name: (name, MEASURED[name]) for name in given.only}
    for name in list(measured) if given.physics else ():
        if name.startswith("mamujoco/"):
            del measured[name]
            measured |= {f"{name} {kind}": (name, {"physics": kind}) for kind in given.physics}
    for row, (name, options) in measured.items():
        report["rates"][row] = speed(name, options, given.envs, given.rounds, given.seconds)
        print(row, report["rates"][row], flush=True)
        if given.output:
            given.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(table(report["rates"]))


if __name__ == "__main__":
    main()
