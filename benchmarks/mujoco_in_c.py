"""The speed of MuJoCo in C (`physics=mujoco`) beside `mujoco.rollout`, MJX and brax, and of training in it.

    python benchmarks/mujoco_in_c.py [--robots ant_4x2 hopper_3x1] [--envs 64] [--rounds 5] [--output FILE]

For each robot, in one process and alternately: `mujoco.rollout` from the states that hajax's robots are in, and whole
steps of the environment in a compiled program, resets and observations included, in each physics; random actions. Then
HAPPO's training on Ant 4x2 and HalfCheetah 2x3, updates included, in `mujoco` and in `faithful`, with the default
settings and with HARL's (preset=harl/…). All use the cores that this process may use, as MuJoCo's threads do. Rates
are in environment steps per second.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import jax
import mamujoco as measured
import mujoco
import numpy as np
from mujoco import rollout
from rich.progress import track

import hajax
from hajax.envs import mamujoco
from hajax.envs.callbacks import cores
from hajax.envs.mamujoco.robots import find_robot
from hajax.runs import config
from hajax.runs.settings import validate
from hajax.runs.team import build

PHYSICS = ("mujoco", "faithful", "fast", "brax-spring")
TRAINED = ("ant_4x2", "half_cheetah_2x3")
STEPS = 20  # in one call
Timed = Callable[[], int]  # takes steps, and returns how many


def rollouts(name: str, states: np.ndarray) -> Timed:
    """`mujoco.rollout` from these states `[E, S]`, with random controls that are held as long as the environment's."""
    robot = find_robot(*mamujoco.NAMES[name])
    model, rng = robot.model("v5"), np.random.default_rng(0)
    size = mujoco.mj_stateSize(model, int(mujoco.mjtState.mjSTATE_FULLPHYSICS))
    datas = [mujoco.MjData(model) for _ in range(cores())]
    engine = rollout.Rollout(nthread=cores() if cores() > 1 else 0)
    low, high = model.actuator_ctrlrange.T

    def take() -> int:
        control = rng.uniform(low, high, (len(states), STEPS, model.nu))
        held = np.repeat(control, robot.frame_skip, axis=1)
        engine.rollout(model, datas, states[:, :size], held, initial_warmstart=states[:, size:])
        return len(states) * STEPS

    return take


def environments(name: str, kind: str, num_envs: int) -> tuple[Timed, Callable[[], Any]]:
    """Steps of the environment in that physics, and its states now."""
    env = hajax.make_env(f"mamujoco/{name}", physics=kind)
    layout, shape = env.spec.action_layout, (num_envs, env.spec.num_agents, env.spec.num_components)

    @jax.jit
    def steps(states, key):
        def step(states, key):
            action = layout.center + layout.scale * jax.random.uniform(key, shape, minval=-1)
            return jax.vmap(env.step)(jax.random.split(key, num_envs), states, action)[0], None

        return jax.lax.scan(step, states, jax.random.split(key, STEPS))[0]

    held = [jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), num_envs))[0], jax.random.key(1)]

    def take() -> int:
        held[1], key = jax.random.split(held[1])
        held[0] = jax.block_until_ready(steps(held[0], key))
        return num_envs * STEPS

    return take, lambda: held[0]


def trainings(name: str, kind: str, preset: bool) -> Timed:
    """Iterations of HAPPO in that physics, with hajax's default settings or with HARL's."""
    given = [f"preset=harl/{name}"] if preset else ["algo=happo", f"env=mamujoco/{name}"]
    settings = validate(config.compose([*given, f"env.physics={kind}"]))
    loop = build(settings).loop
    iterate = jax.jit(loop.iterate)
    held = [jax.jit(loop.init)(jax.random.key(0))]

    def take() -> int:
        held[0] = jax.block_until_ready(iterate(held[0])[0])
        return loop.steps_per_iteration

    return take


def alternately(timed: dict[str, Timed], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Steps per second of each in each round."""
    for take in timed.values():
        take()
    rates: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(rounds):
        for name, take in timed.items():
            count, began = 0, time.perf_counter()
            while (taken := time.perf_counter() - began) < seconds:
                count += take()
            rates[name].append(round(count / taken, 1))
    return rates


def ratio(rates: dict[str, list[float]], one: str, other: str) -> float:
    """The median of the ratio of two rates of the same round."""
    return statistics.median(x / y for x, y in zip(rates[one], rates[other], strict=True))


def speed(name: str, num_envs: int, rounds: int, seconds: float) -> dict[str, list[float]]:
    has = mamujoco.BACKENDS.get(mamujoco.NAMES[name][0], ())
    kinds = [kind for kind in PHYSICS if kind.removeprefix("brax-") in (*PHYSICS, *has)]
    made = {kind: environments(name, kind, num_envs) for kind in kinds}
    take, now = made["mujoco"]
    for _ in range(10):
        take()
    states = np.array(np.asarray(now().body.physics.bits).view(float)[..., 0])
    return alternately(
        {"rollout": rollouts(name, states)} | {k: take for k, (take, _) in made.items()}, rounds, seconds
    )


def speeds(robots: dict[str, dict[str, list[float]]]) -> str:
    """Median steps per second, and the ratio of `mujoco` to `mujoco.rollout` and to `faithful`."""
    lines = ["| robot | `mujoco.rollout` | `mujoco` | of `rollout` | `faithful` | `fast` | `brax-spring` |"]
    lines.append("|---" * 7 + "|")
    for name, rates in robots.items():
        cell = {kind: f"{statistics.median(found):,.0f}" for kind, found in rates.items()}
        part = f"{ratio(rates, 'mujoco', 'rollout'):.2f}"
        kinds = [cell["rollout"], cell["mujoco"], part, *(cell.get(kind, "–") for kind in PHYSICS[1:])]
        lines.append(f"| `{name}` | {' | '.join(kinds)} |")
    return "\n".join(lines)


def trained(robots: dict[str, dict[str, list[float]]]) -> str:
    """Median steps per second of training, and their ratio."""
    lines = ["| training | `mujoco` | `faithful` | ratio |", "|---" * 4 + "|"]
    for name, rates in robots.items():
        cells = [f"{statistics.median(rates[kind]):,.0f}" for kind in ("mujoco", "faithful")]
        lines.append(f"| `{name}` | {' | '.join(cells)} | {ratio(rates, 'mujoco', 'faithful'):.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--robots", nargs="*", default=measured.DEFAULT, choices=sorted(mamujoco.NAMES))
    parser.add_argument("--trained", nargs="*", default=TRAINED, choices=TRAINED)
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    report: dict[str, Any] = {
        "device": jax.devices()[0].device_kind,
        "cores": cores(),
        "envs": given.envs,
        "versions": {package: installed(package) for package in ("jax", "mujoco", "mujoco-mjx", "brax")},
        "robots": {},
        "training": {},
    }
    jobs = [("robots", name) for name in given.robots] + [("training", name) for name in given.trained]
    for part, name in track(jobs, "robots", transient=True):
        if part == "robots":
            report[part][name] = speed(name, given.envs, given.rounds, given.seconds)
        else:
            for preset in (False, True):
                both = {kind: trainings(name, kind, preset) for kind in ("mujoco", "faithful")}
                row = f"preset=harl/{name}" if preset else f"env=mamujoco/{name}"
                report[part][row] = alternately(both, given.rounds, 3 * given.seconds)
        if given.output:
            given.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(
        f"steps/s of environments\n\n{speeds(report['robots'])}\n\nof HAPPO's training\n\n{trained(report['training'])}"
    )


if __name__ == "__main__":
    main()
