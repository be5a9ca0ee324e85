"""The robots as data: which of Gymnasium's XML files, which task, and what their agents can see."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import jax
import jax.numpy as jnp
import mujoco

from hajax.envs.mamujoco import tasks
from hajax.envs.mamujoco.tasks import Readings, Task, Version

Model = Callable[[Version], Any]


@dataclasses.dataclass(frozen=True)
class Robot:
    """A robot, its task, and what is seen of it.

    `observation` is that of Gymnasium's single agent: sections of the readings, or `name:start:stop` of them. The first
    `hidden` joint positions are where the robot is, not how it stands, and nobody sees them.
    """

    model: Model  # of a version: a mujoco.MjModel
    task: Task
    frame_skip: int
    hidden: int
    common: str  # joints that nobody drives and everyone sees
    observation: Mapping[Version, str] = dataclasses.field(default_factory=lambda: _both("qpos qvel"))
    categories: tuple[str, ...] = ("qpos qvel", "qpos")  # what is shown of an agent's own joints, of their neighbours
    edges: tuple[str, ...] | None = None  # joints that are neighbours; None: those with no driven joint between them
    bodies: Mapping[str, tuple[str | int, ...]] = dataclasses.field(default_factory=dict)  # of a joint; see `Anatomy`
    clip: Mapping[str, float] = dataclasses.field(default_factory=dict)  # sections that are seen within ± that
    sections: Callable[[Readings], Mapping[str, jax.Array]] = lambda readings: {}  # of its own
    shows: Mapping[tuple[str, str], str] = dataclasses.field(default_factory=dict)  # (joint, category): other sections
    max_steps: int = 1000


def _both(observation: str) -> Mapping[Version, str]:
    return {"v4": observation, "v5": observation}


def gymnasium_model(file: str, v4: str | None = None) -> Model:
    """A file of the installed Gymnasium, and the one of version 4 where that differs."""

    def load(version: Version) -> Any:
        name = v4 if v4 and version == "v4" else file
        with resources.as_file(resources.files("gymnasium") / "envs" / "mujoco" / "assets" / name) as path:
            return compiled(mujoco.MjSpec.from_file(str(path)))

    return load


def compiled(spec: Any) -> Any:
    """The mujoco.MjModel; a total mass is set afterwards, since MuJoCo warns, in a file, where the XML asks for one."""
    mass, spec.compiler.settotalmass = spec.compiler.settotalmass, -1
    model = spec.compile()
    if mass > 0:
        mujoco.mj_setTotalmass(model, mass)
        mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def _reaching(readings: Readings) -> Mapping[str, jax.Array]:
    """The arm's angles, and how far the fingertip is from the target."""
    angle = readings.qpos[:2]
    return {"cos": jnp.cos(angle), "sin": jnp.sin(angle), "offset": readings.position[-2] - readings.position[-1]}


_ABDOMEN = "abdomen_x abdomen_y abdomen_z"
_SIDES = ("right", "left")
_HUMANOID = Robot(
    gymnasium_model("humanoid.xml"),
    tasks.humanoid,
    frame_skip=5,
    hidden=2,
    common="root",
    observation={
        "v4": "qpos qvel cinert cvel qfrc_actuator cfrc_ext",
        "v5": "qpos qvel cinert:10 cvel:6 qfrc_actuator:6 cfrc_ext:6",
    },
    categories=("qpos qvel cinert cvel qfrc_actuator cfrc_ext", "qpos"),
    # The abdomen counts as one place, on which both legs and both arms hang.
    edges=(
        _ABDOMEN,
        *(f"{side}_hip_x {side}_hip_y {side}_hip_z {limb}" for side in _SIDES for limb in (f"{side}_knee", _ABDOMEN)),
        *(f"{side}_shoulder1 {side}_shoulder2 {limb}" for side in _SIDES for limb in (f"{side}_elbow", _ABDOMEN)),
    ),
    bodies={
        **dict.fromkeys(("abdomen_y", "abdomen_z"), ("torso", "lwaist", "pelvis")),
        "abdomen_x": ("pelvis", "right_thigh", "left_thigh"),
        **{f"{side}_hip_{axis}": (f"{side}_thigh", f"{side}_shin") for side in _SIDES for axis in "xyz"},
        **{f"{side}_knee": (f"{side}_shin", f"{side}_foot") for side in _SIDES},
        **{f"{side}_shoulder{i}": ("torso", f"{side}_upper_arm", f"{side}_lower_arm") for side in _SIDES for i in "12"},
        **{f"{side}_elbow": (f"{side}_lower_arm",) for side in _SIDES},
    },
)

ROBOTS: dict[str, Robot] = {
    "half_cheetah": Robot(
        gymnasium_model("half_cheetah.xml"), tasks.half_cheetah, frame_skip=5, hidden=1, common="rootx rootz rooty"
    ),
    "hopper": Robot(
        gymnasium_model("hopper.xml"),
        tasks.hopper,
        frame_skip=4,
        hidden=1,
        common="rootx rootz rooty",
        clip={"qvel": 10.0},
    ),
    "walker2d": Robot(
        gymnasium_model("walker2d_v5.xml", v4="walker2d.xml"),
        tasks.walker2d,
        frame_skip=4,
        hidden=1,
        common="rootx rootz rooty",
        clip={"qvel": 10.0},
    ),
    "ant": Robot(
        gymnasium_model("ant.xml"),
        tasks.ant,
        frame_skip=5,
        hidden=2,
        common="root",
        observation={"v4": "qpos qvel", "v5": "qpos qvel cfrc_ext:6"},
        categories=("qpos qvel cfrc_ext", "qpos"),
        bodies={f"hip_{leg}": (2, 1) for leg in (1, 2, 3, 4)} | {f"ankle_{leg}": (2, 1, 0) for leg in (1, 2, 3, 4)},
        clip={"cfrc_ext": 1.0},
    ),
    "humanoid": _HUMANOID,
    "humanoid_standup": dataclasses.replace(
        _HUMANOID, model=gymnasium_model("humanoidstandup.xml"), task=tasks.humanoid_standup
    ),
    "swimmer": Robot(
        gymnasium_model("swimmer.xml"),
        tasks.swimmer,
        frame_skip=4,
        hidden=2,
        common="free_body_rot",
        # Each rotor also sees one component of how the swimmer moves.
        shows={("motor1_rot", "qvel"): "qvel:0:1 qvel:3:4", ("motor2_rot", "qvel"): "qvel:1:2 qvel:4:5"},
    ),
    "reacher": Robot(
        gymnasium_model("reacher.xml"),
        tasks.reacher,
        frame_skip=2,
        hidden=0,
        common="target_x target_y",
        observation={"v4": "cos sin qpos:2 qvel:0:2 offset", "v5": "cos sin qpos:2 qvel:0:2 offset:0:2"},
        categories=("qpos qvel fingertip_dist", "qpos"),
        sections=_reaching,
        shows={
            ("joint0", "qpos"): "sin:0:1 cos:0:1",
            ("joint1", "qpos"): "sin:1:2 cos:1:2",
            ("joint1", "fingertip_dist"): "offset",
            ("target_x", "qvel"): "",
            ("target_y", "qvel"): "",
        },
        max_steps=50,
    ),
}
