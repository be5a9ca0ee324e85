"""Training in simulators beside the simulators alone, in the same number of worker processes, in one run.

    python benchmarks/simulators.py [--workers 1 2] [--envs 64] [--rounds 3] [--seconds 6] [--only WORD] [--output FILE]

"alone" is the rate of environment steps with random actions in processes that step their share of the copies in a loop
of Python, and communicate with nobody; "alone with state" reads `state()` in every step, as training does. "training"
is HAPPO's rate with its default settings, updates included, and "rollouts" the rate of the same program's rollouts. All
are measured alternately; a ratio is of two rates of a round. "overlap" is the rate of rollouts of Ant in halves that
overlap over that of rollouts of the whole, by the number of environments and of workers.
The loop's own cost is the time of a step of all environments, with random actions in a compiled program, of a simulator
that does nothing, in one worker process and in none. Needs hajax[simulators], gymnasium-robotics and MuJoCo.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import multiprocessing
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

ANT = "gymnasium-robotics Ant 4x2"
WALKER = "pettingzoo/multiwalker_v9"
KINDS = ("alone", "alone with state", "rollouts", "training")


def make(name: str) -> Any:
    if name == ANT:
        from gymnasium_robotics import mamujoco_v1

        return mamujoco_v1.parallel_env("Ant", "4x2")
    from hajax.envs.simulators import make_named

    return make_named(name)


class Nothing:
    """A simulator that does nothing: three agents, 18 observations each."""

    possible_agents = ("a", "b", "c")
    agents = ("a", "b", "c")
    max_cycles = 100

    def __init__(self):
        from gymnasium import spaces

        self.spaces = spaces.Box(-np.inf, np.inf, (18,), np.float32), spaces.Discrete(5)
        self.seen = {agent: np.zeros(18, np.float32) for agent in self.agents}
        self.rewards, self.over = dict.fromkeys(self.agents, 0.0), dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}

    def observation_space(self, agent):
        return self.spaces[0]

    def action_space(self, agent):
        return self.spaces[1]

    def reset(self, seed=None):
        return self.seen, self.infos

    def step(self, actions):
        return self.seen, self.rewards, self.over, self.over, self.infos

    def close(self):
        pass


def loop(name: str, copies: int, with_state: bool, begin: Any, seconds: float, counted: Any) -> None:
    """A process that steps its copies with random actions, and tells how many steps it took in how many seconds."""
    envs = [make(name) for _ in range(copies)]
    for i, env in enumerate(envs):
        env.reset(seed=i)
        for agent in env.possible_agents:
            env.action_space(agent).seed(i)
    begin.wait()
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for env in envs:
            env.step({agent: env.action_space(agent).sample() for agent in env.agents})
            if not env.agents:
                env.reset()
            if with_state:
                env.state()
            steps += 1
    counted.put(steps / (time.perf_counter() - began))


def alone(name: str, workers: int, envs: int, seconds: float, with_state: bool) -> float:
    """Environment steps per second of the simulators alone."""
    context = multiprocessing.get_context("spawn")
    begin, counted = context.Barrier(workers), context.Queue()
    arguments = (name, envs // workers, with_state, begin, seconds, counted)
    processes = [context.Process(target=loop, args=arguments) for _ in range(workers)]
    for process in processes:
        process.start()
    rate = sum(counted.get() for _ in processes)
    for process in processes:
        process.join()
    return rate


def training(name: str, workers: int, envs: int, state: str = "environment") -> tuple[Any, Any, Any, Any]:
    """Compiled functions that train and that play, the state to begin with, and the environment."""
    import jax

    import hajax
    from hajax.training import make_loop
    from hajax.training.rollout import rollout

    env = hajax.make_env(functools.partial(make, name), num_workers=workers, state=state)
    algo = hajax.make_algorithm("happo", env)
    loop = make_loop(env, algo, num_envs=envs)
    iterate = jax.jit(loop.iterate)

    @jax.jit
    def play(state):
        actors, _ = rollout(env, algo, state.key, state.algorithm, state.actors, 200)
        return state._replace(actors=actors)

    state, _ = iterate(jax.jit(loop.init)(jax.random.key(0)))
    return iterate, play, jax.block_until_ready(play(state)), env


def overlap(workers: int, envs: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Rollouts of Ant in halves that overlap and of the whole: environment steps per second, and the ratio."""
    import jax

    import hajax
    from hajax.training.rollout import rollout, start

    env = hajax.make_env(functools.partial(make, ANT), num_workers=workers)
    algo = hajax.make_algorithm("happo", env)
    state = algo.init(jax.random.key(0))
    actors = jax.jit(lambda key: start(env, algo, key, envs))(jax.random.key(0))

    def playing(step):
        envs = env._replace(step=step)
        return jax.jit(lambda actors: rollout(envs, algo, jax.random.key(0), state, actors, 200)[0])

    halves = dataclasses.replace(env.step, is_faster=lambda num_envs: True)
    plays = {"halves": playing(halves), "whole": playing(env.step.step)}
    for play in plays.values():
        actors = jax.block_until_ready(play(actors))
    rates: dict[str, Any] = {kind: [] for kind in plays}
    for _ in range(rounds):
        for kind, play in plays.items():
            actors, found = rate(play, actors, 200 * envs, seconds)
            rates[kind].append(found)
    env.host.close()
    ratio = statistics.median(one / other for one, other in zip(rates["halves"], rates["whole"], strict=True))
    return {kind: [round(x, 1) for x in values] for kind, values in rates.items()} | {"median": round(ratio, 3)}


def rate(function: Any, state: Any, steps: int, seconds: float) -> tuple[Any, float]:
    """The state after calls of the function for about so many seconds, and environment steps per second."""
    import jax

    calls, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        state = jax.block_until_ready(function(state))
        calls += 1
    return state, calls * steps / (time.perf_counter() - began)


def compared(name: str, workers: int, envs: int, rounds: int, seconds: float, state_of: str) -> dict[str, Any]:
    iterate, play, state, env = training(name, workers, envs, state_of)
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(rounds):
        rates["alone"].append(alone(name, workers, envs, seconds, with_state=False))
        rates["alone with state"].append(alone(name, workers, envs, seconds, with_state=True))
        state, found = rate(play, state, 200 * envs, seconds)
        rates["rollouts"].append(found)
        state, found = rate(lambda state: iterate(state)[0], state, 200 * envs, seconds)
        rates["training"].append(found)
    env.host.close()
    row: dict[str, Any] = {key: [round(x, 1) for x in values] for key, values in rates.items()}
    for what in KINDS[2:]:
        for base in KINDS[:2]:
            ratios = [one / other for one, other in zip(rates[what], rates[base], strict=True)]
            row[f"{what} over {base}"] = round(statistics.median(ratios), 3)
    return row


def own_cost(workers: int, envs: int) -> float:
    """Microseconds that the loop takes for a step of all environments, in which the simulators do nothing."""
    import jax
    from jax import lax

    import hajax

    env = hajax.make_env(Nothing, num_workers=workers)
    action = jax.numpy.zeros((envs, 3, 1))

    @jax.jit
    def play(state):
        def step(state, key):
            state, timestep = env.step(jax.random.split(key, envs), state, action)
            return state, timestep.reward.sum()

        return lax.scan(step, state, jax.random.split(jax.random.key(0), 1000))

    state, _ = jax.block_until_ready(play(env.reset(jax.random.split(jax.random.key(0), envs))[0]))
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        state, _ = jax.block_until_ready(play(state))
        seconds.append(time.perf_counter() - began)
    env.host.close()
    return statistics.median(seconds) * 1e6 / 1000


def tables(result: dict[str, Any]) -> dict[str, str]:
    """The tables of docs/results/simulators.md."""
    speed = ["| simulator | alone | with `state()` | rollouts | training | training / alone | / with `state()` |"]
    overlaps = ["| environments, workers | whole | halves | halves / whole |"]
    costs = ["| environments, workers | µs per step of all |"]
    for name, row in result.items():
        if name.startswith("own cost, "):
            costs.append(f"| {name.removeprefix('own cost, ')} | {row:,.0f} |")
        elif name.startswith("overlap, "):
            rates = " | ".join(f"{statistics.median(row[kind]):,.0f}" for kind in ("whole", "halves"))
            overlaps.append(f"| {name.removeprefix('overlap, ')} | {rates} | {row['median']:.2f} |")
        elif isinstance(row, dict):
            rates = " | ".join(f"{statistics.median(row[kind]):,.0f}" for kind in KINDS)
            ratios = " | ".join(f"{row[f'training over {kind}']:.2f}" for kind in KINDS[:2])
            speed.append(f"| {name} | {rates} | {ratios} |")
    made = {"speed": speed, "overlap": overlaps, "cost": costs}
    for lines in made.values():
        lines.insert(1, "|---" * (lines[0].count("|") - 1) + "|")
    return {name: "\n".join(lines) for name, lines in made.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--only", metavar="WORD", help="rows whose names hold this word; the file keeps its other rows")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    rounds, seconds = given.rounds, given.seconds
    rows: dict[str, Any] = {}
    for envs in (1, given.envs):
        for workers in (0, 1):
            cost = functools.partial(own_cost, workers, envs)
            rows[f"own cost, {envs} environments, {workers} workers"] = lambda cost=cost: round(cost(), 1)
    for envs in (8, 16, 32, given.envs):
        for workers in given.workers:
            row = functools.partial(overlap, workers, envs, rounds, seconds / 2)
            rows[f"overlap, {envs} environments, {workers} workers"] = row
    for workers in given.workers:
        for name, state in ((WALKER, "environment"), (WALKER, "observations"), (ANT, "environment")):
            row = functools.partial(compared, name, workers, given.envs, rounds, seconds, state)
            rows[f"{name}, {workers} workers" + ", state=observations" * (state == "observations")] = row
    result: dict[str, Any] = {"envs": given.envs, "cores": os.cpu_count()}
    if given.only and given.output and given.output.exists():
        result = json.loads(given.output.read_text(encoding="utf-8"))
    for name, measure in rows.items():
        if given.only is None or given.only in name:
            result[name] = measure()
            print(name, json.dumps(result[name]), flush=True)
    result = {name: row for name, row in result.items() if name not in rows} | {
        name: result[name] for name in rows if name in result
    }
    print("\n\n".join(tables(result).values()))
    if given.output:
        given.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
