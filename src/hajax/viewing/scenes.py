"""Episodes of MuJoCo's models in three dimensions: MuJoCo's renderer, and brax's viewer in a browser."""

from __future__ import annotations

import ctypes.util
import functools
import importlib
import json
import os
import sys
import warnings
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from hajax.envs.base import BatchedEnvironment, Environment, Scene, Viewer
from hajax.envs.drawing import agent_entries, legend_below
from hajax.spec import Timestep
from hajax.training.recording import Episode
from hajax.viewing.film import check_drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH, HEIGHT = 842, 810  # pixels: twice those of a film's axes, for smooth edges
# The position of the camera relative to the robot's first body: degrees, and distances in sizes of the robot.
AZIMUTH, ELEVATION, FROM_ABOVE, DISTANCE = 90.0, -20.0, -70.0, 1.7
# The shapes that brax's viewer draws without vertices.
SHAPES = ("plane", "sphere", "capsule", "cylinder", "box")


def prefer_headless_rendering() -> None:
    """Makes MuJoCo render without a display where there is none, unless `MUJOCO_GL` is set."""
    displayed = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform == "linux" and not displayed and "MUJOCO_GL" not in os.environ and ctypes.util.find_library("EGL"):
        os.environ["MUJOCO_GL"] = "egl"
        chosen = sys.modules.get("mujoco.rendering.classic.gl_context")
        if chosen is not None:  # MuJoCo was imported before, with the environment, and has read the variable then
            importlib.reload(chosen)


@functools.cache
def rendering_fault() -> str | None:
    """Why MuJoCo cannot render here; `None` if it can. It is tried once, because a second failure ends the process."""
    import mujoco

    prefer_headless_rendering()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # GLFW's, which say the same
            mujoco.Renderer(mujoco.MjModel.from_xml_string("<mujoco/>"), 16, 16).close()
    except Exception as error:  # the type depends on the driver
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return None


def drawn(env: Environment | BatchedEnvironment, renderer: str) -> Environment | BatchedEnvironment:
    """The environment with the requested drawing: `drawing`, `mujoco`, or `auto`, which is MuJoCo's where it works.

    The states of simulators then hold their pictures.

    Raises ValueError if there is none.
    """
    if env.host is not None and renderer != "mujoco":
        check_drawing(env)
        return env.host.with_frames()
    if renderer == "mujoco" or (renderer == "auto" and env.viewer is not None and env.viewer.scene is not None):
        try:
            return rendered(env)
        except ValueError:
            if renderer == "mujoco":
                raise
    check_drawing(env)
    return env


def positions(env: Environment | BatchedEnvironment, recorded: Episode) -> np.ndarray:
    """Joint positions of all episodes of a batch `[K, T, …]`, one after the other, `[steps, nq]`."""
    every = np.asarray(scene_of(env, "positions").qpos(recorded.state))
    return np.concatenate([one[:length] for one, length in zip(every, np.asarray(recorded.length), strict=True)])


def rendered(env: Environment | BatchedEnvironment) -> Environment | BatchedEnvironment:
    """The environment with MuJoCo's renderer as its drawing.

    Raises ValueError if its states are not those of a MuJoCo model, or MuJoCo cannot render on this machine.
    """
    scene = scene_of(env, "--renderer=mujoco")  # before the import, which needs an extra
    import mujoco

    model = scene.model
    model.vis.global_.offwidth, model.vis.global_.offheight = WIDTH, HEIGHT
    without_end(model)
    if (fault := rendering_fault()) is not None:
        raise ValueError(
            f"--renderer=mujoco: MuJoCo cannot render here ({fault}); allowed: drawing, or a machine with OpenGL, "
            "such as with MUJOCO_GL=egl or MUJOCO_GL=osmesa"
        )
    data, renderer = mujoco.MjData(model), mujoco.Renderer(model, HEIGHT, WIDTH)
    camera = mujoco.MjvCamera()
    camera.type, camera.trackbodyid = mujoco.mjtCamera.mjCAMERA_TRACKING, 1
    elevation = FROM_ABOVE if scene.flat else ELEVATION
    camera.azimuth, camera.elevation, camera.distance = AZIMUTH, elevation, DISTANCE * scene.size

    def draw(axes: Axes, state: Any, action: Any, timestep: Timestep) -> None:
        data.qpos[:] = np.asarray(scene.qpos(state))
        for place in (mujoco.mj_kinematics, mujoco.mj_comPos, mujoco.mj_camlight, mujoco.mj_tendon):
            place(model, data)
        renderer.update_scene(data, camera)
        axes.imshow(renderer.render())
        axes.set_axis_off()
        legend_below(axes, agent_entries(env.spec, "every agent has a color"))

    return env._replace(viewer=Viewer(draw, scene))


def without_end(model: Any) -> None:
    """Makes `model`'s planes infinite, because robots leave those of Gymnasium and brax, of 40 m."""
    import mujoco

    for geom in np.flatnonzero(model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE):
        material, half = model.geom_matid[geom], model.geom_size[geom, :2].copy()
        model.geom_size[geom, :2] = 0
        # The texture of an infinite plane repeats per meter, whatever `texuniform` says.
        if material >= 0 and (half > 0).all() and not model.mat_texuniform[material]:
            model.mat_texrepeat[material] /= 2 * half


def viewer(env: Environment | BatchedEnvironment, positions: np.ndarray) -> str:
    """A page in which brax's viewer plays joint positions `[T, nq]`; the page loads the viewer from the network.

    Raises ValueError if the states are not those of a MuJoCo model, or brax is not installed.
    """
    scene = check_viewer(env, "a page")
    from hajax.envs.lazy import import_quietly

    page = import_quietly("brax.io.html")
    return page.render_from_json(json.dumps(played(scene, positions)), height=None, colab=False, base_url=None)


def check_viewer(env: Environment | BatchedEnvironment, what: str) -> Scene:
    """The environment's scene.

    Raises ValueError if there is none, or brax is not installed.
    """
    scene = scene_of(env, what)
    if find_spec("brax") is None:
        raise ValueError(f"{what} needs brax, which is not installed; pip install 'hajax[brax]' brings it")
    return scene


def played(scene: Scene, positions: np.ndarray) -> dict[str, Any]:
    """The input of brax's viewer: the shapes of every body, and the positions of the bodies at every step."""
    import mujoco

    model = scene.model
    data = mujoco.MjData(model)
    bodies = [model.body(i).name or f"body {i}" for i in range(model.nbody)]
    shapes: dict[str, list[dict[str, Any]]] = {}
    for geom in range(model.ngeom):
        body = int(model.geom_bodyid[geom])
        kind = mujoco.mjtGeom(model.geom_type[geom]).name.removeprefix("mjGEOM_").lower()
        if kind not in SHAPES:
            continue
        shape = {
            "name": kind.capitalize(),
            "link_idx": body - 1,  # the world does not move
            "pos": model.geom_pos[geom].tolist(),
            "rot": model.geom_quat[geom].tolist(),
            "rgba": model.geom_rgba[geom].tolist(),
            "size": [0, 0, 0] if kind == "plane" else model.geom_size[geom].tolist(),  # an infinite checkered floor
        }
        shapes.setdefault(bodies[body], []).append(shape)
    states = []
    for qpos in positions:
        data.qpos[:] = qpos
        mujoco.mj_kinematics(model, data)
        states.append({"pos": data.xpos[1:].round(4).tolist(), "rot": data.xquat[1:].round(4).tolist()})
    return {"opt": {"timestep": scene.seconds}, "geoms": shapes, "states": {"x": states}}


def scene_of(env: Environment | BatchedEnvironment, what: str) -> Scene:
    """The environment's scene.

    Raises ValueError if there is none.
    """
    if env.viewer is None or env.viewer.scene is None:
        raise ValueError(f"{what}: {env.spec.name} is not a MuJoCo model; allowed: environments mamujoco/…")
    return env.viewer.scene
