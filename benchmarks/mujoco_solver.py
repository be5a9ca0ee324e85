"""The effect of the simplifications of MAMuJoCo's `faithful` and `fast` physics, for each robot in MuJoCo's C.

    python benchmarks/mujoco_solver.py [--robots ant hopper] [--states 200] [--output FILE.json]

From states reached by random actions, with and without contacts:

- one step of the environment in C with the XML's options, compared with the options of `physics=fast`, with these and
  one or 100 iterations of the solver, and with the XML's at a quarter of its time step: medians of the greatest
  difference of a joint's velocity, with the velocity of the fastest joint for scale;
- accelerations in MJX (float64) with shorter line searches, compared with the XML's 50 steps: the number of states in
  which they differ, and the greatest difference relative to the greatest acceleration.

Results that are already in `--output` are not measured again.
"""

from __future__ import annotations

import argparse
import copy
import json
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

import jax
import mujoco
import mujoco_oracle
import numpy as np
from rich.progress import track

from hajax.envs.lazy import import_quietly
from hajax.envs.mamujoco.physics import fast
from hajax.envs.mamujoco.robots import find_robot

mjx = import_quietly("mujoco.mjx")

# The robots, and the numbers of segments.
ROBOTS = {
    "half_cheetah": 0,
    "hopper": 0,
    "walker2d": 0,
    "ant": 0,
    "humanoid": 0,
    "humanoid_standup": 0,
    "swimmer": 0,
    "reacher": 0,
    "coupled_half_cheetah": 0,
    "many_agent_swimmer": 20,
    "many_agent_ant": 6,
}
BOUNDS = (3, 6)


def velocities(model: Any, frame_skip: int, given: mujoco_oracle.Transitions) -> np.ndarray:
    """Velocities after a step of the environment in C from every state, `[states, nv]`."""
    data, found = mujoco.MjData(model), []
    for qpos, qvel, control in zip(given.qpos, given.qvel, given.action, strict=True):
        mujoco.mj_resetData(model, data)
        data.qpos, data.qvel, data.ctrl = qpos, qvel, control
        mujoco.mj_step(model, data, frame_skip)
        found.append(data.qvel.copy())
    return np.array(found)


def deviations(model: Any, frame_skip: int, given: mujoco_oracle.Transitions) -> dict[str, Any]:
    """Deviations of velocities in C, for every change of options."""
    xml = velocities(model, frame_skip, given)
    changed = {}
    for name, iterations in (("fast", None), ("fast, 1 iteration", 1), ("fast, 100 iterations", 100)):
        other = fast(model, frame_skip).model
        if iterations is not None:
            other.opt.iterations, other.opt.ls_iterations = iterations, 50
        changed[name] = velocities(other, frame_skip, given)
    finer = copy.copy(model)
    finer.opt.timestep /= 4
    changed["a quarter of the time step"] = velocities(finer, 4 * frame_skip, given)
    report: dict[str, Any] = {"fastest joint": float(np.median(np.abs(xml).max(1)))}
    for name, other in changed.items():
        apart = np.abs(other - xml).max(1)
        report[name] = {
            kind: float(np.median(apart[states])) if states.any() else None
            for kind, states in (("free", ~given.touching), ("contact", given.touching))
        }
    return report


def line_search(model: Any, given: mujoco_oracle.Transitions) -> dict[str, Any]:
    """Compares accelerations with shorter line searches with those of 50 steps, in float64."""

    def accelerations(bound: int) -> np.ndarray:
        bounded = copy.copy(model)
        bounded.opt.ls_iterations = bound
        on_device, blank = mjx.put_model(bounded), mjx.make_data(bounded)

        def of_state(qpos, qvel, control):
            return mjx.forward(on_device, blank.replace(qpos=qpos, qvel=qvel, ctrl=control)).qacc

        return np.asarray(jax.jit(jax.vmap(of_state))(given.qpos, given.qvel, given.action))

    with jax.enable_x64(True):
        full = accelerations(50)
        report = {}
        for bound in BOUNDS:
            apart = np.abs(accelerations(bound) - full).max(1)
            report[str(bound)] = {
                "states that differ": int((apart > 0).sum()),
                "greatest": float(apart.max() / np.abs(full).max()),
            }
    return report


def measure(name: str, states: int) -> dict[str, Any]:
    segments = ROBOTS[name]
    body = find_robot(name, f"{segments}x1")
    model = body.model("v5")
    model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    given = mujoco_oracle.transitions(name, "v5", states, segments)
    return {
        "states with contact": int(given.touching.sum()),
        "velocity": deviations(model, body.frame_skip, given),
        "line search": line_search(model, given),
    }


def line(name: str, row: dict[str, Any], states: int) -> str:
    speed, kind = row["velocity"], "contact" if row["states with contact"] else "free"
    shown = [speed["fast"]["free"], *(speed[x][kind] for x in list(speed)[1:])]
    cells = ["–" if x is None else f"{x:.2g}" for x in (speed["fastest joint"], *shown)]
    differ = row["line search"][str(BOUNDS[-1])]["states that differ"]
    return f"| `{name}` | {' | '.join(cells)} | {differ} of {states} differ |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--robots", nargs="+", default=list(ROBOTS), choices=ROBOTS)
    parser.add_argument("--states", type=int, default=200)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    versions = {package: installed(package) for package in ("jax", "mujoco", "mujoco-mjx", "gymnasium")}
    about: dict[str, Any] = {"states": arguments.states, "versions": versions}
    robots = mujoco_oracle.measured_before(arguments.output, about)
    print(
        "| robot | fastest joint | `fast`, free | in contact | 1 iteration | 100 | time step / 4 | line search of 6 |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in track(arguments.robots, "robots", transient=True):
        if name not in robots:
            robots[name] = measure(name, arguments.states)
            if arguments.output:
                arguments.output.write_text(json.dumps(about | {"robots": robots}, indent=1) + "\n", encoding="utf-8")
        print(line(name, robots[name], arguments.states), flush=True)


if __name__ == "__main__":
    main()
