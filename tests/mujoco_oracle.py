"""One step of Gymnasium's own environments, in MuJoCo's C, from states given; for the tests of MAMuJoCo's physics."""

from __future__ import annotations

import contextlib
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import mujoco
import numpy as np

GYMNASIUM = {
    "half_cheetah": "HalfCheetah",
    "ant": "Ant",
    "hopper": "Hopper",
    "walker2d": "Walker2d",
    "humanoid": "Humanoid",
    "humanoid_standup": "HumanoidStandup",
    "swimmer": "Swimmer",
    "reacher": "Reacher",
    "many_agent_swimmer": "ManySegmentSwimmer",  # gymnasium-robotics'
}


class Transitions(NamedTuple):
    """Single steps: where from, the whole robot's action, and what followed; `touching`: a contact before or after."""

    qpos: np.ndarray
    qvel: np.ndarray
    action: np.ndarray
    next_qpos: np.ndarray
    next_qvel: np.ndarray
    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    touching: np.ndarray


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """No warnings of things out of date, and MuJoCo's log of its own in a folder where nobody looks."""
    with warnings.catch_warnings(), contextlib.chdir(tempfile.gettempdir()):
        warnings.simplefilter("ignore")
        yield


def make(robot: str, version: str) -> Any:
    """Gymnasium's environment without its wrappers, with the solver that MJX has."""
    with quietly():
        env = gymnasium.make(f"{GYMNASIUM[robot]}-{version}").unwrapped
    if env.model.opt.solver == mujoco.mjtSolver.mjSOL_PGS:
        env.model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
    return env


def transitions(robot: str, version: str, count: int, seed: int = 0) -> Transitions:
    """Steps from states that random actions lead to, some of them after the end of an episode."""
    env, rng = make(robot, version), np.random.default_rng(seed)
    starts, rows = [], []
    env.reset(seed=seed)
    since = 0
    while len(starts) < count:
        env.step(rng.uniform(env.action_space.low, env.action_space.high))
        since += 1
        if rng.random() < 0.2:
            starts.append((env.data.qpos.copy(), env.data.qvel.copy()))
        if rng.random() < 0.02 or not np.isfinite(env.data.qpos).all():
            env.reset(seed=int(rng.integers(2**31)))
    for qpos, qvel in starts:
        action = rng.uniform(env.action_space.low, env.action_space.high)
        mujoco.mj_resetData(env.model, env.data)
        env.set_state(qpos, qvel)
        before = env.data.ncon
        observation, reward, terminated, _, _ = env.step(action.copy())
        after = env.data.qpos.copy(), env.data.qvel.copy()
        rows.append((qpos, qvel, action, *after, observation, reward, terminated, before + env.data.ncon > 0))
    return Transitions(*(np.array(column) for column in zip(*rows, strict=True)))


def robotics_model(robot: str, segments: int) -> Any:
    """The model of a robot that gymnasium-robotics has and Gymnasium has not."""
    with quietly():
        from gymnasium_robotics.envs.multiagent_mujoco import many_segment_ant, many_segment_swimmer

        if robot == "coupled_half_cheetah":
            folder = Path(many_segment_ant.__file__).parent / "assets"
            return mujoco.MjModel.from_xml_path(str(folder / "coupled_half_cheetah.xml"))
        maker = {"many_agent_ant": many_segment_ant, "many_agent_swimmer": many_segment_swimmer}[robot]
        with tempfile.TemporaryDirectory() as folder:
            maker.gen_asset(n_segs=segments, asset_path=f"{folder}/robot.xml")
            return mujoco.MjModel.from_xml_path(f"{folder}/robot.xml")
