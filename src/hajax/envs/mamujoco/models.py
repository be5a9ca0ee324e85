"""MuJoCo's models of the robots: Gymnasium's files, and robots assembled from them.

The swimmer and the ant of many segments and the coupled cheetahs are multi-agent MuJoCo's (Peng et al., *FACMAC*,
2021: https://arxiv.org/abs/2003.06709), with the shapes, masses and joints of gymnasium-robotics.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any

import mujoco

from hajax.envs.mamujoco.tasks import Version

Model = Callable[[Version], Any]
HINGE, CAPSULE = mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtGeom.mjGEOM_CAPSULE


def gymnasium_model(file: str, v4: str | None = None) -> Model:
    """The model of a file of the installed Gymnasium, with another file for version 4 if that differs."""

    def load(version: Version) -> Any:
        return compiled(gymnasium_file(v4 if v4 and version == "v4" else file))

    return load


def gymnasium_file(name: str) -> Any:
    """One of the installed Gymnasium's XML files, as a mujoco.MjSpec."""
    with resources.as_file(resources.files("gymnasium") / "envs" / "mujoco" / "assets" / name) as path:
        return mujoco.MjSpec.from_file(str(path))


def compiled(spec: Any) -> Any:
    """The mujoco.MjModel, without MuJoCo's warning that `settotalmass` will be removed.

    Setting the mass afterwards, as the warning suggests, would not update the mean inertia, by which the solver scales.
    """
    with without_log(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "compiler attribute 'settotalmass'")
        return spec.compile()


@contextmanager
def without_log() -> Iterator[None]:
    """Suppresses MuJoCo's warnings, which it writes to MUJOCO_LOG.TXT in the working directory."""
    previous = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(previous)


def long_swimmer(segments: int) -> Model:
    """A swimmer of a head and `segments` more capsules, with a driven joint `rot0`, `rot1`, … between neighbors."""

    def load(version: Version) -> Any:
        spec = gymnasium_file("swimmer.xml")
        for actuator in spec.actuators:
            spec.delete(actuator)
        spec.delete(spec.body("back"))
        spec.joint("free_body_rot").name, spec.joint("motor1_rot").name = "rot", "rot0"
        part = spec.body("mid")
        part.name = "mid0"
        for i in range(1, segments):
            last = i == segments - 1
            part = part.add_body(name="back" if last else f"mid{i}", pos=(-1, 0, 0))
            part.add_geom(type=CAPSULE, fromto=(0, 0, 0, -1, 0, 0), size=(0.1, 0, 0), density=1000)
            # The axes of the parts in between alternate between up and down.
            axis = (0, 0, 1 if last else (-1) ** (i + 1))
            _hinge(part, f"rot{i}", axis, -100, 100)
        for i in range(segments):
            _motor(spec, f"rot{i}")
        return compiled(spec)

    return load


def long_ant(segments: int) -> Model:
    """Segments in a row, rigidly connected, each with two legs: joints `hip1_0`, `ankle1_0`, `hip2_0`, …."""

    def load(version: Version) -> Any:
        spec = gymnasium_file("ant.xml")
        for actuator in spec.actuators:
            spec.delete(actuator)
        torso = spec.body("torso")
        torso.name = "torso_0"
        for child in [*torso.bodies, *torso.geoms]:
            spec.delete(child)
        for i in range(segments):
            if i:
                torso = torso.add_body(name=f"torso_{i}", pos=(-1, 0, 0))
                torso.add_geom(type=CAPSULE, fromto=(1, 0, 0, 0, 0, 0), size=(0.1, 0, 0), density=100)
            # The first segment has the ant's front left and back right legs; the legs of later ones are placed
            # differently.
            _leg(torso, f"1_{i}", side=1, front=i == 0)
            _leg(torso, f"2_{i}", side=-1, front=i == 0)
        for i in range(segments):
            for joint in ("hip1", "ankle1", "hip2", "ankle2"):
                _motor(spec, f"{joint}_{i}")
        return compiled(spec)

    return load


def _leg(torso: Any, name: str, side: int, front: bool) -> None:
    """A leg to the left (side 1) or right (−1), perpendicular to the torso's axis except in the first segment."""
    reach = 0.2 if front else 0.0
    along = 0.2 if front else -0.2
    root = torso.add_body(name=f"leg{name}")
    root.add_geom(type=CAPSULE, fromto=(0, 0, 0, reach, 0.2 * side, 0), size=(0.08, 0, 0))
    thigh = root.add_body(name=f"aux{name}", pos=(reach, 0.2 * side, 0))
    _hinge(thigh, f"hip{name}", (0, 0, 1), -30, 30)
    thigh.add_geom(type=CAPSULE, fromto=(0, 0, 0, along, 0.2 * side, 0), size=(0.08, 0, 0))
    shank = thigh.add_body(pos=(along, 0.2 * side, 0))
    bent = (30, 70) if front else (-70, -30)
    _hinge(shank, f"ankle{name}", (-side if front else side, 1, 0), *bent)
    shank.add_geom(type=CAPSULE, fromto=(0, 0, 0, 2 * along, 0.4 * side, 0), size=(0.08, 0, 0))


def coupled_cheetahs(version: Version) -> Any:
    """Two cheetahs side by side, joints `first_bthigh`, `second_bthigh`, …, and an elastic tendon between the torsos.

    Together they have the mass of Gymnasium's single cheetah, as in gymnasium-robotics.
    """
    spec = gymnasium_file("half_cheetah.xml")
    for actuator in spec.actuators:
        spec.delete(actuator)
    spec.delete(spec.body("torso"))
    tendon = spec.add_tendon(name="tendon0", limited=mujoco.mjtLimited.mjLIMITED_TRUE, range=(1.5, 3.5))
    tendon.stiffness[0], tendon.width = 0.1, 0.05
    for name, across in (("first_", -1), ("second_", 1)):
        torso = gymnasium_file("half_cheetah.xml").body("torso")
        torso.add_site(name="t", pos=(0, 0, 0), size=(0.1, 0.005, 0.005))
        spec.worldbody.add_frame(pos=(0, across, 0)).attach_body(torso, name)
        tendon.wrap_site(f"{name}t")
    return compiled(spec)


def _hinge(body: Any, name: str, axis: tuple[float, float, float], low: float, high: float) -> None:
    """A joint with limits in degrees, as in the files of both robots."""
    body.add_joint(name=name, type=HINGE, axis=axis, range=(low, high), limited=mujoco.mjtLimited.mjLIMITED_TRUE)


def _motor(spec: Any, joint: str) -> None:
    motor = spec.add_actuator(trntype=mujoco.mjtTrn.mjTRN_JOINT, target=joint)
    motor.ctrllimited, motor.ctrlrange = mujoco.mjtLimited.mjLIMITED_TRUE, (-1, 1)
    motor.gear[0] = 150
