"""Compares MAMuJoCo's steps with MuJoCo's C: differences, compile time and speed.

    python benchmarks/mamujoco.py [--robots ant_4x2 hopper_3x1] [--physics faithful fast] [--version v4] [--output FILE]

For each robot: one step in MuJoCo's C and in hajax, from states reached by random actions in Gymnasium's environment
(gymnasium-robotics' for the coupled cheetahs): greatest and median differences of positions, velocities, observations
and rewards, separately for steps with and without contact; for `faithful` in float64 and float32, for `fast` in
float32. Then whole steps per second, resets included, with random actions, five times for two seconds. Brax has other
robots, so only its speed is measured. Results that are already in `--output` are not measured again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import mujoco_oracle
import numpy as np
from rich.progress import track

import hajax
from hajax.envs import mamujoco
from hajax.envs.mamujoco.environment import shared_robot
from hajax.envs.mamujoco.partitions import agents, segmented
from hajax.envs.mamujoco.robots import find_robot

DEFAULT = (
    "half_cheetah_2x3",
    "hopper_3x1",
    "walker2d_2x3",
    "swimmer_2x1",
    "reacher_2x1",
    "many_agent_swimmer_10x2",
    "coupled_half_cheetah_1p1",
    "ant_4x2",
    "many_agent_ant_2x3",
    "humanoid_9_8",
    "humanoid_standup_9_8",
)
COMPARED = ("faithful", "fast")  # with C
# Those whose speed is compared here; benchmarks/mujoco_in_c.py has that of MuJoCo in C.
KINDS = tuple(kind for kind in mamujoco.PHYSICS if kind not in ("auto", "mujoco"))
MEASURED = ("qpos", "qvel", "observation", "agents", "neighbors", "reward")
# The robots whose observations are right in gymnasium-robotics (docs/mamujoco.md lists its mistakes).
WITH_NEIGHBORS = {"half_cheetah", "hopper", "walker2d", "swimmer", "reacher", "many_agent_swimmer", "ant"}


def our_steps(
    name: str, version: str, given: mujoco_oracle.Transitions, kind: str = "faithful"
) -> dict[str, np.ndarray]:
    """The steps from `given`'s states and actions in hajax, in the default precision.

    `agents` is the difference of each agent's observation with `obs=full` from that of C's robot, `neighbors` its
    observation with `obs=khop` of its own joints and those one edge away.
    """
    robot, partition = mamujoco.NAMES[name]
    body = find_robot(robot, partition)
    whole = getattr(mamujoco, name)(version=version, physics=kind)
    joints, observe, model = agents(robot, partition), jax.vmap(whole.observe), body.model(version)
    actuators = {model.joint(model.actuator(i).trnid[0]).name: i for i in range(model.nu)}
    action = np.zeros((len(given.action), whole.spec.num_agents, whole.spec.num_components))
    for i, agent in enumerate(joints):
        for j, joint in enumerate(agent):
            action[:, i, j] = given.action[:, actuators[joint]]

    def step(qpos, qvel, action):
        """One step from that state, without an automatic reset, of a robot whose task begins there."""
        task = body.task._replace(reset=lambda *_: (qpos, qvel))
        seen = [body.observation[version], *body.categories, "qpos qvel"]
        simulation = mamujoco.in_physics(dataclasses.replace(body, task=task), version, kind, seen)
        env = shared_robot(
            name,
            simulation._replace(reopen=None),
            joints,
            obs="khop",  # which does not standardize the state
            k=1,
            categories=body.categories,
            common_categories="qpos qvel",
            reward="team",
            max_steps=body.max_steps,
        )
        key = jax.random.key(0)
        after, shown = env.step(key, env.reset(key)[0], action)
        return after.body, shown

    given_here = (jnp.asarray(x, float) for x in (given.qpos, given.qvel, action))
    # Double precision, which is not used for training, takes minutes to compile with optimizations.
    options = {"xla_backend_optimization_level": 0} if jax.config.jax_enable_x64 else None
    every = jax.jit(jax.vmap(step), compiler_options=options)
    after, shown = jax.device_get(every(*given_here))
    return {
        "qpos": after.physics.qpos,
        "qvel": after.physics.qvel,
        "observation": shown.final.state,
        "agents": jax.device_get(observe(shown.final.state) - observe(given.observation.astype(shown.state.dtype))),
        "neighbors": shown.final.observation,
        "reward": shown.reward[:, 0],
        "terminated": shown.terminated,
    }


def differences(
    ours: dict[str, np.ndarray], given: mujoco_oracle.Transitions, neighbors: list[np.ndarray] | None = None
) -> dict[str, Any]:
    """Greatest and median absolute differences over the steps, with and without contact.

    `neighbors`, if given, are the local observations of gymnasium-robotics' agents.
    """
    theirs = {"qpos": given.next_qpos, "qvel": given.next_qvel, "observation": given.observation}
    theirs |= {"reward": given.reward, "agents": 0.0}
    if neighbors is not None:
        widest = ours["neighbors"].shape[-1]  # padded with zeros in hajax
        theirs["neighbors"] = np.stack([np.pad(x, ((0, 0), (0, widest - x.shape[1]))) for x in neighbors], 1)
    report: dict[str, Any] = {"other_ends": int(np.sum(ours["terminated"] != given.terminated))}
    for kind, steps in (("free", ~given.touching), ("contact", given.touching)):
        report[kind] = {"steps": int(steps.sum())}
        for name in theirs if steps.any() else ():
            apart = np.abs(ours[name] - theirs[name]).reshape(len(steps), -1).max(1)[steps]
            report[kind][name] = {"median": float(np.median(apart)), "max": float(apart.max())}
    return report


def speed(
    name: str, kind: str, num_envs: int, repeats: int = 5, seconds: float = 2.0, version: str = "v5"
) -> dict[str, Any]:
    """Compile seconds, and environment steps per second of each repeat in ascending order, in float32."""
    env = hajax.make_env(f"mamujoco/{name}", physics=kind, version=version)
    layout = env.spec.action_layout

    def steps(states, key):
        def step(states, key):
            unit = jax.random.uniform(key, (num_envs, env.spec.num_agents, env.spec.num_components), minval=-1)
            action = layout.center + layout.scale * unit
            states, _ = jax.vmap(env.step)(jax.random.split(key, num_envs), states, action)
            return states, None

        return jax.lax.scan(step, states, jax.random.split(key, 20))[0]

    states = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), num_envs))[0]
    began = time.perf_counter()
    program = jax.jit(steps).lower(states, jax.random.key(0)).compile()
    compiled = time.perf_counter() - began
    states, rates = jax.block_until_ready(program(states, jax.random.key(1))), []
    for repeat in range(repeats):
        count, began = 0, time.perf_counter()
        while (taken := time.perf_counter() - began) < seconds:
            states = jax.block_until_ready(program(states, jax.random.fold_in(jax.random.key(repeat), count)))
            count += 1
        rates.append(round(20 * num_envs * count / taken))
    return {"compile_seconds": round(compiled, 1), "steps_per_second": sorted(rates)}


def measure(name: str, kind: str, states: int, num_envs: int, version: str) -> dict[str, Any]:
    robot, partition = mamujoco.NAMES[name]
    report: dict[str, Any] = {}
    if kind in COMPARED:
        segments = segmented(partition) if robot.startswith("many_agent") else 0
        given = mujoco_oracle.transitions(robot, version, states, segments)
        compared = robot in WITH_NEIGHBORS and version == "v5"
        neighbors = mujoco_oracle.local_observations(robot, partition, given) if compared else None
        for precision in ("float64", "float32") if kind == "faithful" else ("float32",):
            with jax.enable_x64(precision == "float64"):
                report[precision] = differences(our_steps(name, version, given, kind), given, neighbors)
    return report | speed(name, kind, num_envs, version=version)


def deviations(robots: dict[str, Any]) -> str:
    """The greatest differences of any number in float64, and of velocities in float32, of `faithful`."""

    def steps(row: dict[str, Any]) -> str:
        return f"{row['float64']['free']['steps']}, {row['float64']['contact']['steps']}"

    def exact(row: dict[str, Any], kind: str) -> str:
        apart = row["float64"][kind]
        return f"{max(apart[name]['max'] for name in MEASURED if name in apart):.0e}" if apart["steps"] else "–"

    def single(row: dict[str, Any], kind: str) -> str:
        apart = row["float32"][kind]
        return f"{apart['qvel']['median']:.0e}, {apart['qvel']['max']:.0e}" if apart["steps"] else "–"

    lines = [
        "| robot | steps free, in contact | float64, free | in contact | float32, free | in contact | other ends |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, kinds in robots.items():
        if row := kinds.get("faithful"):
            cells = [f"`{name}`", steps(row)]
            cells += [show(row, kind) for show in (exact, single) for kind in ("free", "contact")]
            cells += [f"{row['float64']['other_ends']}, {row['float32']['other_ends']}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def speeds(robots: dict[str, Any]) -> str:
    """Median steps per second, and seconds to compile."""

    def cell(row: dict[str, Any] | None) -> str:
        return f"{np.median(row['steps_per_second']):,.0f}; {row['compile_seconds']:.0f} s" if row else "–"

    lines = [f"| robot | {' | '.join(f'`{kind}`' for kind in KINDS)} |", "|---" * 7 + "|"]
    for name, kinds in robots.items():
        lines.append(f"| `{name}` | {' | '.join(cell(kinds.get(kind)) for kind in KINDS)} |")
    return "\n".join(lines)


def spread(robots: dict[str, Any]) -> tuple[float, float]:
    """The lowest and the highest repeat of all, relative to the median of its measurement."""
    rates = [np.array(row["steps_per_second"]) for kinds in robots.values() for row in kinds.values()]
    relative = np.concatenate([rate / np.median(rate) for rate in rates])
    return float(relative.min()), float(relative.max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--robots", nargs="+", default=DEFAULT, choices=sorted(mamujoco.NAMES))
    parser.add_argument("--physics", nargs="+", default=KINDS, choices=KINDS)
    parser.add_argument("--version", default="v5", choices=("v4", "v5"), help="of Gymnasium's environments")
    parser.add_argument("--states", type=int, default=200)
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)  # measures compilation, not reading the cache
    report = {
        "device": jax.devices()[0].device_kind,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "states": arguments.states,
        "envs": arguments.envs,
        "version": arguments.version,
        "versions": {package: installed(package) for package in ("jax", "mujoco", "mujoco-mjx", "gymnasium", "brax")},
    }
    robots = mujoco_oracle.measured_before(arguments.output, report)
    rows = [
        (name, kind)
        for name in arguments.robots
        for kind in arguments.physics
        if kind in COMPARED or kind.removeprefix("brax-") in mamujoco.BACKENDS.get(mamujoco.NAMES[name][0], ())
    ]
    for name, kind in track(rows, "robots", transient=True):
        if kind not in robots.setdefault(name, {}):
            robots[name][kind] = measure(name, kind, arguments.states, arguments.envs, arguments.version)
            robots = {name: robots[name] for name in mamujoco.NAMES if name in robots}
            if arguments.output:
                text = json.dumps(report | {"robots": robots}, indent=1)
                arguments.output.write_text(text + "\n", encoding="utf-8")
    print(f"one step, and MuJoCo's C\n\n{deviations(robots)}\n\nsteps/s; seconds to compile\n\n{speeds(robots)}\n")
    print("repeats: {:.0%} to {:.0%} of their median".format(*spread(robots)))


if __name__ == "__main__":
    main()
