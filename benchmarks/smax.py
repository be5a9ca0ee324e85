"""Environment steps per second of SMAX with random available actions: hajax and jaxmarl, in one process.

    python benchmarks/smax.py [--scenarios 3m 2s3z 5m_vs_6m] [--envs 64] [--steps 200] [--repeats 7] [--output FILE]

Both draw available actions, step with automatic reset, and sum all outputs, so that nothing is compiled out. They are
compiled first and then timed alternately, so that ratios are of the same time. A step moves all agents of an
environment.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from timing import spread

import hajax


def legal(key: jax.Array, available: jax.Array) -> jax.Array:
    """A uniform available choice of every agent, `[…, C] -> […]`."""
    return jnp.argmax(jnp.where(available, jax.random.uniform(key, available.shape), -1), -1)


def everything(shown: Any) -> jax.Array:
    """A number that depends on all outputs."""
    return sum(jnp.sum(x, dtype=float) for x in jax.tree.leaves(shown))


def hajax_step(scenario: str) -> tuple[Callable, Callable]:
    """`reset(key)` and `step(carry, key)`, where the carry is the state and the action mask."""
    env = hajax.make_env(f"smax/{scenario}")

    def reset(key):
        state, timestep = env.reset(key)
        return state, timestep.action_mask[:, 0]

    def step(carry, key):
        state, available = carry
        action_key, step_key = jax.random.split(key)
        state, timestep = env.step(step_key, state, legal(action_key, available)[:, None].astype(float))
        return (state, timestep.action_mask[:, 0]), everything(timestep)

    return reset, step


def jaxmarl_step(scenario: str) -> tuple[Callable, Callable]:
    """The same for jaxmarl's SMAX with its heuristic opponent."""
    from jaxmarl.environments import smax

    env = smax.HeuristicEnemySMAX(scenario=smax.map_name_to_scenario(scenario))

    def mask(state):
        available = env.get_avail_actions(state)
        return jnp.stack([available[agent] for agent in env.agents]).astype(bool)

    def reset(key):
        _, state = env.reset(key)
        return state, mask(state)

    def step(carry, key):
        state, available = carry
        action_key, step_key = jax.random.split(key)
        action = dict(zip(env.agents, legal(action_key, available), strict=True))
        observations, state, rewards, dones, _ = env.step(step_key, state, action)
        available = mask(state)
        return (state, available), everything((observations, rewards, dones, available))

    return reset, step


SIDES = {"hajax": hajax_step, "jaxmarl": jaxmarl_step}


class Side:
    """The compiled rollout of one implementation, and its steps per second in every repeat."""

    def __init__(self, scenario: str, name: str, num_envs: int, steps: int):
        reset, step = SIDES[name](scenario)
        self.rates, self.steps = list[float](), num_envs * steps

        def roll_out(carry, key):
            keys = jax.random.split(key, (steps, num_envs))
            carry, shown = jax.lax.scan(jax.vmap(step), carry, keys)
            return carry, shown.sum()

        keys = jax.random.split(jax.random.key(0), num_envs)
        self.carry = jax.jit(jax.vmap(reset))(keys)
        began = time.perf_counter()
        lowered = jax.jit(roll_out).lower(self.carry, jax.random.key(0))
        self.trace_seconds = time.perf_counter() - began
        self.program = lowered.compile()
        self.compile_seconds = time.perf_counter() - began - self.trace_seconds

    def advance(self, repeat: int) -> None:
        began = time.perf_counter()
        self.carry, _ = jax.block_until_ready(self.program(self.carry, jax.random.key(repeat)))
        self.rates.append(self.steps / (time.perf_counter() - began))


def measure(scenario: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measures both implementations on a scenario."""
    sides = {name: Side(scenario, name, options.envs, options.steps) for name in SIDES}
    for repeat in range(-1, options.repeats):
        for side in sides.values():
            side.advance(repeat + 1)
    result: dict[str, Any] = {"scenario": scenario}
    for name, side in sides.items():
        rates = spread(side.rates[1:], 0)  # the first one warms up
        seconds = {"trace": round(side.trace_seconds, 1), "compile": round(side.compile_seconds, 1)}
        result[name] = {"steps_per_second": rates, "seconds": seconds}
    pairs = zip(sides["hajax"].rates[1:], sides["jaxmarl"].rates[1:], strict=True)
    return result | {"ratio": spread([a / b for a, b in pairs], 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenarios", nargs="+", default=["3m", "2s3z", "5m_vs_6m"])
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--steps", type=int, default=200, help="steps of a repeat in every environment")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)  # otherwise compile times would be those of the cache
    cells = []
    for scenario in options.scenarios:
        cells.append(measure(scenario, options))
        print(json.dumps(cells[-1]), file=sys.stdout, flush=True)
    run = {"envs": options.envs, "versions": {name: version(name) for name in ("jax", "jaxlib", "jaxmarl")}}
    if options.output:
        options.output.write_text(json.dumps(run | {"cells": cells}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
