"""The robots as data: Gymnasium's XML file, the task, and what agents can observe."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco

from hajax.envs.mamujoco import tasks
from hajax.envs.mamujoco.models import Model, compiled, coupled_cheetahs, gymnasium_model, long_ant, long_swimmer
from hajax.envs.mamujoco.partitions import segmented
from hajax.envs.mamujoco.tasks import Readings, Task, Version
from hajax.validation import check_number


@dataclasses.dataclass(frozen=True)
class Robot:
    """A robot, its task, and its observable quantities.

    `observation` is that of Gymnasium's single agent: sections of the readings, or `name:start:stop` of them. The first
    `hidden` joint positions are the robot's location, which no agent observes.
    """

    model: Model  # version -> mujoco.MjModel
    task: Task
    frame_skip: int
    hidden: int
    common: str  # joints without actuators, which all agents observe
    observation: Mapping[Version, str] = dataclasses.field(default_factory=lambda: _both("qpos qvel"))
    categories: tuple[str, ...] = ("qpos qvel", "qpos")  # what an agent observes of its own joints, of neighbors
    edges: tuple[str, ...] | None = None  # neighboring joints; None: those with no driven joint in between
    bodies: Mapping[str, tuple[str | int, ...]] = dataclasses.field(default_factory=dict)  # joint -> bodies
    clip: Mapping[str, float] = dataclasses.field(default_factory=dict)  # sections that are clipped to ± this value
    sections: Callable[[Readings], Mapping[str, jax.Array]] = lambda readings: {}  # further ones
    shows: Mapping[tuple[str, str], str] = dataclasses.field(default_factory=dict)  # (joint, category): other sections
    max_steps: int = 1000
    # The readings, beside those of the state and the controls, that the task and `sections` use.
    uses: tuple[str, ...] = Readings._fields

    def seen(self, section: str, x: jax.Array) -> jax.Array:
        """A section as observed: flat and clipped; infinities are kept, and end the episode."""
        bound = self.clip.get(section, jnp.inf)
        return jnp.ravel(jnp.where(jnp.isfinite(x), jnp.clip(x, -bound, bound), x))


def _both(observation: str) -> Mapping[Version, str]:
    return {"v4": observation, "v5": observation}


def _reaching(readings: Readings) -> Mapping[str, jax.Array]:
    """The arm's angles, and the offset of the fingertip from the target."""
    angle = readings.qpos[:2]
    return {"cos": jnp.cos(angle), "sin": jnp.sin(angle), "offset": readings.position[-2] - readings.position[-1]}


def _bounded_velocities(readings: Readings) -> Mapping[str, jax.Array]:
    """Velocities clipped as for Gymnasium's single agent; gymnasium-robotics' agents observe unclipped ones."""
    return {"bounded_qvel": jnp.clip(readings.qvel, -10, 10)}


_ABDOMEN = "abdomen_x abdomen_y abdomen_z"
_SIDES = ("right", "left")
_HUMANOID = Robot(
    gymnasium_model("humanoid.xml"),
    tasks.humanoid,
    frame_skip=5,
    hidden=2,
    common="root",
    uses=("center", "cfrc_ext"),
    observation={
        "v4": "qpos qvel cinert cvel qfrc_actuator cfrc_ext",
        "v5": "qpos qvel cinert:10 cvel:6 qfrc_actuator:6 cfrc_ext:6",
    },
    categories=("qpos qvel cinert cvel qfrc_actuator cfrc_ext", "qpos"),
    # The abdomen counts as one node, to which both legs and both arms are connected.
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
        gymnasium_model("half_cheetah.xml"),
        tasks.half_cheetah,
        frame_skip=5,
        hidden=1,
        common="rootx rootz rooty",
        uses=(),
    ),
    "hopper": Robot(
        gymnasium_model("hopper.xml"),
        tasks.hopper,
        frame_skip=4,
        hidden=1,
        common="rootx rootz rooty",
        uses=(),
        clip={"qvel": 10.0},
    ),
    "walker2d": Robot(
        gymnasium_model("walker2d_v5.xml", v4="walker2d.xml"),
        tasks.walker2d,
        frame_skip=4,
        hidden=1,
        common="rootx rootz rooty",
        uses=(),
        observation=_both("qpos bounded_qvel"),
        sections=_bounded_velocities,
    ),
    "ant": Robot(
        gymnasium_model("ant.xml"),
        tasks.ant,
        frame_skip=5,
        hidden=2,
        common="root",
        uses=("position", "cfrc_ext"),
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
        uses=(),
        # Each rotor also observes one component of the swimmer's velocity.
        shows={("motor1_rot", "qvel"): "qvel:0:1 qvel:3:4", ("motor2_rot", "qvel"): "qvel:1:2 qvel:4:5"},
    ),
    "reacher": Robot(
        gymnasium_model("reacher.xml"),
        tasks.reacher,
        frame_skip=2,
        hidden=0,
        common="target_x target_y",
        uses=("position",),
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


def _tendon(readings: Readings) -> Mapping[str, jax.Array]:
    """The tendon between the cheetahs: its Jacobian at their torsos, its length and its velocity."""
    pull = readings.tendon_jacobian[0, jnp.array([0, 1, 9, 10])]
    return {"ten_J": pull, "ten_length": readings.tendon_length, "ten_velocity": readings.tendon_velocity}


ROBOTS["coupled_half_cheetah"] = Robot(
    coupled_cheetahs,
    tasks.coupled_half_cheetah,
    frame_skip=5,
    hidden=0,
    common=" ".join(f"{which}_root{axis}" for which in ("first", "second") for axis in "xyz"),
    uses=("tendon_jacobian", "tendon_length", "tendon_velocity"),
    observation=_both("qpos:1:9 qpos:10:18 qvel ten_J ten_length ten_velocity"),
    categories=("qpos qvel ten_J ten_length ten_velocity", "qpos"),
    sections=_tendon,
    shows={
        **{(f"{which}_rootx", "qpos"): "" for which in ("first", "second")},
        **{
            (f"{which}_bthigh", name): name
            for which in ("first", "second")
            for name in ("ten_J", "ten_length", "ten_velocity")
        },
    },
)


def find_robot(name: str, partition: str) -> Robot:
    """The robot of that name; the partition gives the number of segments of those with many."""
    if name == "many_agent_swimmer":
        return dataclasses.replace(ROBOTS["swimmer"], model=long_swimmer(segmented(partition)), common="", shows={})
    if name == "many_agent_ant":
        return _long_ant(segmented(partition))
    return ROBOTS[name]


def _long_ant(segments: int) -> Robot:
    """An ant of many segments; a hip's neighbors are its ankle and the hips of its own and the adjacent segments."""
    hips = [f"hip1_{i} hip2_{i}" for i in range(segments)]
    joints = [f"{side}_{i}" for i in range(segments) for side in (1, 2)]
    return dataclasses.replace(
        ROBOTS["ant"],
        model=long_ant(segments),
        edges=(*hips, *map(" ".join, itertools.pairwise(hips)), *(f"hip{joint} ankle{joint}" for joint in joints)),
        bodies={f"hip{joint}": (2, 1) for joint in joints} | {f"ankle{joint}": (2, 1, 0) for joint in joints},
    )


def from_file(
    path: str | Path,
    task: Task,
    frame_skip: int,
    *,
    hidden: int = 0,
    observation: str = "qpos qvel",
    categories: tuple[str, ...] = ("qpos qvel", "qpos"),
    max_steps: int = 1000,
) -> Robot:
    """A robot from any MJCF file, for `hajax.envs.mamujoco.share`.

    Args:
        path: the file.
        task: reward, termination and initial state; see `hajax.envs.mamujoco.tasks`.
        frame_skip: time steps of physics in one step of the environment.
        hidden: the number of first joint positions that no agent observes.
        observation: the observation of the whole robot: sections of the readings, or `name:start:stop` of them.
        categories: what agents observe of their own joints, and of those one edge away.
        max_steps: steps after which an episode is truncated.

    Raises:
        ValueError: there is no such file, MuJoCo cannot read it, a joint has no name, or an actuator shares its joint
            or drives none.
    """
    check_number("frame_skip", frame_skip, 1, whole=True)
    check_number("hidden", hidden, 0, whole=True)
    if not Path(path).is_file():
        raise ValueError(f"path={str(path)!r}; allowed: an MJCF file that exists")
    try:
        model = compiled(mujoco.MjSpec.from_file(str(path)))
    except ValueError as error:
        raise ValueError(
            f"path={str(path)!r}: {str(error).splitlines()[0]}; allowed: a file that MuJoCo can compile"
        ) from error
    joints = model.actuator_trnid[:, 0].tolist()
    to_joints = (model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT).all()
    if not (joints and to_joints and len({*joints}) == len(joints)):
        allowed = "at least one, each on a different joint"
        raise ValueError(f"actuators of {path}; allowed: {allowed}")
    if hidden > model.nq:
        raise ValueError(f"hidden={hidden}; allowed: at most the {model.nq} joint positions of {path}")
    names = [model.joint(i).name for i in range(model.njnt)]
    if "" in names:
        raise ValueError(f"joint {names.index('')} of {path} has no name; allowed: a name for every joint")
    driven = {model.joint(model.actuator(i).trnid[0]).name for i in range(model.nu)}
    return Robot(
        lambda version: model,
        task,
        frame_skip,
        hidden,
        common=" ".join(name for name in names if name not in driven),
        observation=_both(observation),
        categories=categories,
        max_steps=max_steps,
    )
