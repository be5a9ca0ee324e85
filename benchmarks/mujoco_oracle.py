"""Single steps of Gymnasium's and gymnasium-robotics' robots in MuJoCo's C, as the reference for MAMuJoCo."""

from __future__ import annotations

import contextlib
import json
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
    "many_agent_swimmer": "Swimmer",
    "many_agent_ant": "Ant",
}
ROBOTICS = GYMNASIUM | {
    "many_agent_swimmer": "ManySegmentSwimmer",
    "many_agent_ant": "ManySegmentAnt",
    "coupled_half_cheetah": "CoupledHalfCheetah",
}


class Transitions(NamedTuple):
    """Single steps: the state before, the whole robot's action, the result; `touching`: a contact during the step."""

    qpos: np.ndarray
    qvel: np.ndarray
    action: np.ndarray
    next_qpos: np.ndarray
    next_qvel: np.ndarray
    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    touching: np.ndarray


def measured_before(output: Path | None, about: dict[str, Any]) -> dict[str, Any]:
    """The `robots` already in a script's output; SystemExit if they were measured with other versions or options."""
    if output is None or not output.exists():
        return {}
    before = json.loads(output.read_text(encoding="utf-8"))
    robots = before.pop("robots")
    if before != about:
        raise SystemExit(f"{output} was measured with {before}, not {about}; give another --output")
    return robots


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Suppresses deprecation warnings, and writes MuJoCo's log to a temporary folder."""
    with warnings.catch_warnings(), contextlib.chdir(tempfile.gettempdir()):
        warnings.simplefilter("ignore")
        yield


def make(robot: str, version: str, segments: int = 0, own_solver: bool = False) -> Any:
    """The environment without wrappers, with MJX's solver or its own; it records whether a step had contacts."""
    with quietly():
        if robot == "coupled_half_cheetah":
            return prepared(coupled_cheetahs(), own_solver)
        options = {"xml_file": str(robotics_file(robot, segments))} if segments else {}
        return prepared(gymnasium.make(f"{GYMNASIUM[robot]}-{version}", **options).unwrapped, own_solver)


def prepared(env: Any, own_solver: bool = False) -> Any:
    if env.model.opt.solver == mujoco.mjtSolver.mjSOL_PGS and not own_solver:
        env.model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON

    def simulate(control: np.ndarray, count: int) -> None:
        """Gymnasium's simulation, one `mj_step` at a time."""
        env.data.ctrl[:] = control
        env.touching = env.data.ncon > 0
        for _ in range(count):
            mujoco.mj_step(env.model, env.data)
            env.touching = env.touching or env.data.ncon > 0
        mujoco.mj_rnePostConstraint(env.model, env.data)

    env._step_mujoco_simulation = simulate
    return env


def robotics_file(robot: str, segments: int = 0) -> Path:
    """The XML file of a robot that is in gymnasium-robotics but not in Gymnasium."""
    from gymnasium_robotics.envs.multiagent_mujoco import many_segment_ant, many_segment_swimmer

    if robot == "coupled_half_cheetah":
        return Path(many_segment_ant.__file__).parent / "assets" / "coupled_half_cheetah.xml"
    maker = {"many_agent_ant": many_segment_ant, "many_agent_swimmer": many_segment_swimmer}[robot]
    path = Path(tempfile.mkdtemp()) / "robot.xml"
    maker.gen_asset(n_segs=segments, asset_path=str(path))
    return path


def robotics_model(robot: str, segments: int = 0) -> Any:
    with quietly():
        return mujoco.MjModel.from_xml_path(str(robotics_file(robot, segments)))


def coupled_cheetahs() -> Any:
    """gymnasium-robotics' environment, corrected for the tendon's Jacobian, which newer MuJoCo stores sparsely.

    The positions of its entries are in the data with MuJoCo 3, in the model with MuJoCo 4.
    """
    from gymnasium_robotics.envs.multiagent_mujoco.coupled_half_cheetah import CoupledHalfCheetahEnv

    class Mended(CoupledHalfCheetahEnv):
        def _get_obs(self):
            data, model = self.data, self.model
            jacobian = np.zeros((model.ntendon, model.nv))
            where = model if hasattr(model, "ten_J_rowadr") else data
            start, count = where.ten_J_rowadr[0], where.ten_J_rownnz[0]
            jacobian[0, where.ten_J_colind.ravel()[start : start + count]] = data.ten_J.ravel()[start : start + count]
            parts = [data.qpos[1:9], data.qpos[10:18], data.qvel, jacobian[0, :2], jacobian[0, 9:11]]
            return np.concatenate([*parts, data.ten_length, data.ten_velocity])

    return Mended()


def transitions(
    robot: str, version: str, count: int, segments: int = 0, seed: int = 0, own_solver: bool = False
) -> Transitions:
    """Steps from states reached by random actions, some of them after the end of an episode."""
    env, rng = make(robot, version, segments, own_solver), np.random.default_rng(seed)
    starts, rows = [], []
    env.reset(seed=seed)
    while len(starts) < count:
        env.step(rng.uniform(env.action_space.low, env.action_space.high))
        if rng.random() < 0.2:
            starts.append((env.data.qpos.copy(), env.data.qvel.copy()))
        if rng.random() < 0.02:
            env.reset(seed=int(rng.integers(2**31)))
    for qpos, qvel in starts:
        action = rng.uniform(env.action_space.low, env.action_space.high)
        mujoco.mj_resetData(env.model, env.data)
        env.set_state(qpos, qvel)
        observation, reward, terminated, _, _ = env.step(action.copy())
        after = env.data.qpos.copy(), env.data.qvel.copy()
        rows.append((qpos, qvel, action, *after, observation, reward, terminated, env.touching))
    return Transitions(*(np.array(column) for column in zip(*rows, strict=True)))


def local_observations(robot: str, partition: str, given: Transitions) -> list[np.ndarray]:
    """Observations of gymnasium-robotics' agents (k = 1) after `given`'s steps, `[states, size]` for each."""
    with quietly():
        from gymnasium_robotics import mamujoco_v1

        env = mamujoco_v1.parallel_env(ROBOTICS[robot], partition, agent_obsk=1)
    single = prepared(env.single_agent_env.unwrapped)
    driven = [[node.act_ids for node in nodes] for nodes in env.agent_action_partitions]
    seen = []
    for qpos, qvel, action in zip(given.qpos, given.qvel, given.action, strict=True):
        env.reset(seed=0)
        mujoco.mj_resetData(single.model, single.data)
        single.set_state(qpos, qvel)
        shown, *_ = env.step({agent: action[own] for agent, own in zip(env.agents, driven, strict=True)})
        seen.append([shown[agent] for agent in env.possible_agents])
    return [np.array(views) for views in zip(*seen, strict=True)]
