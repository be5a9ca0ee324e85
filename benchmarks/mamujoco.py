"""MAMuJoCo's steps beside MuJoCo's C: how far apart they are, how long they take to compile and to run.

    python benchmarks/mamujoco.py [--robots ant_4x2 hopper_3x1] [--states 200] [--envs 64] [--output FILE.json]

For each robot: from states that random actions lead to in Gymnasium's environment (gymnasium-robotics' for the coupled
cheetahs), one step in MuJoCo's C and in ours, in float64 and float32: greatest and median differences of positions,
velocities, observations and rewards, apart for steps with and without a contact on the way. Then whole steps per
second, resets included, with random actions.
"""

from __future__ import annotations

import argparse
import json
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
from hajax.envs.mamujoco.anatomy import Anatomy
from hajax.envs.mamujoco.environment import RobotState
from hajax.envs.mamujoco.partitions import agents, segmented
from hajax.envs.mamujoco.physics import faithful
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
MEASURED = ("qpos", "qvel", "observation", "reward")


def our_steps(name: str, version: str, given: mujoco_oracle.Transitions) -> dict[str, np.ndarray]:
    """What follows `given`'s states and actions here, in the default precision."""
    robot, partition = mamujoco.NAMES[name]
    body = find_robot(robot, partition)
    physics = faithful(body.model(version), body.frame_skip)
    anatomy = Anatomy(body, physics, version)
    env = getattr(mamujoco, name)(version=version, obs="khop")
    action = np.zeros((len(given.action), env.spec.num_agents, env.spec.num_components))
    for i, agent in enumerate(agents(robot, partition)):
        for j, joint in enumerate(agent):
            action[:, i, j] = given.action[:, anatomy.actuators[joint]]

    def step(qpos, qvel, action):
        state, readings = physics.settle(qpos, qvel)
        return env.step(jax.random.key(0), RobotState(state, body.task.mark(readings), jnp.zeros((), int)), action)

    given_here = (jnp.asarray(x, float) for x in (given.qpos, given.qvel, action))
    after, shown = jax.device_get(jax.jit(jax.vmap(step))(*given_here))
    return {
        "qpos": after.physics.qpos,
        "qvel": after.physics.qvel,
        "observation": shown.state,
        "reward": shown.reward[:, 0],
        "terminated": shown.terminated,
    }


def differences(ours: dict[str, np.ndarray], given: mujoco_oracle.Transitions) -> dict[str, Any]:
    """Greatest and median absolute differences over the steps, with and without contact."""
    theirs = {"qpos": given.next_qpos, "qvel": given.next_qvel, "observation": given.observation}
    theirs["reward"] = given.reward
    report: dict[str, Any] = {"other_ends": int(np.sum(ours["terminated"] != given.terminated))}
    for kind, steps in (("free", ~given.touching), ("contact", given.touching)):
        report[kind] = {"steps": int(steps.sum())}
        for name in MEASURED if steps.any() else ():
            apart = np.abs(ours[name] - theirs[name]).reshape(len(steps), -1).max(1)[steps]
            report[kind][name] = {"median": float(np.median(apart)), "max": float(apart.max())}
    return report


def speed(name: str, num_envs: int, seconds: float = 5.0) -> dict[str, float]:
    """Compile seconds and environment steps per second, in float32."""
    env = hajax.make_env(f"mamujoco/{name}")

    def steps(states, key):
        def step(states, key):
            action = jax.random.uniform(key, (num_envs, env.spec.num_agents, env.spec.num_components), minval=-1)
            states, _ = jax.vmap(env.step)(jax.random.split(key, num_envs), states, action)
            return states, None

        return jax.lax.scan(step, states, jax.random.split(key, 20))[0]

    states = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), num_envs))[0]
    began = time.perf_counter()
    program = jax.jit(steps).lower(states, jax.random.key(0)).compile()
    compiled = time.perf_counter() - began
    states, count, began = jax.block_until_ready(program(states, jax.random.key(1))), 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        states = jax.block_until_ready(program(states, jax.random.key(count)))
        count += 1
    rate = 20 * num_envs * count / (time.perf_counter() - began)
    return {"compile_seconds": round(compiled, 1), "steps_per_second": round(rate)}


def measure(name: str, states: int, num_envs: int) -> dict[str, Any]:
    robot, partition = mamujoco.NAMES[name]
    segments = segmented(partition) if robot.startswith("many_agent") else 0
    given = mujoco_oracle.transitions(robot, "v5", states, segments)
    report = {}
    for precision in ("float64", "float32"):
        with jax.enable_x64(precision == "float64"):
            report[precision] = differences(our_steps(name, "v5", given), given)
    return report | speed(name, num_envs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--robots", nargs="+", default=DEFAULT, choices=sorted(mamujoco.NAMES))
    parser.add_argument("--states", type=int, default=200)
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    robots: dict[str, Any] = {}
    print("| robot | steps with contact | velocity, float64, free | in contact | float32, free | compile s | steps/s |")
    print("|---|---|---|---|---|---|---|")
    for name in track(arguments.robots, "robots", transient=True):
        robots[name] = row = measure(name, arguments.states, arguments.envs)
        exact, single = row["float64"], row["float32"]

        def shown(part: dict[str, Any]) -> str:
            return f"{part['qvel']['median']:.0e}, {part['qvel']['max']:.0e}" if "qvel" in part else "-"

        print(
            f"| `{name}` | {exact['contact']['steps']} of {arguments.states} | {shown(exact['free'])} | "
            f"{shown(exact['contact'])} | {shown(single['free'])} | {row['compile_seconds']} | "
            f"{row['steps_per_second']:,} |",
            flush=True,
        )
    if arguments.output:
        device = jax.devices()[0]
        versions = {package: installed(package) for package in ("jax", "mujoco", "mujoco-mjx", "gymnasium")}
        report = {"device": device.device_kind, "envs": arguments.envs, "versions": versions, "robots": robots}
        arguments.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
