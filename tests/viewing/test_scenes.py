"""MuJoCo's robots as drawings, in three dimensions, and as pages for a browser."""

import base64
import json
import os
import re
import subprocess
import sys
import zlib
from types import SimpleNamespace

import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from matplotlib.figure import Figure

import hajax
from hajax.colors import CYCLE
from hajax.envs.mamujoco import from_file, share, tasks
from hajax.envs.mamujoco.drawing import body_colors, robot_scene
from hajax.envs.mamujoco.environment import RobotState
from hajax.envs.mamujoco.physics import PhysicsState, faithful, fast
from hajax.envs.mamujoco.robots import ROBOTS
from hajax.envs.mamujoco.simulation import MujocoState, in_mujoco
from hajax.viewing import scenes


def at(qpos):
    """The environment's state with these joint positions."""
    still = jnp.zeros_like(qpos)
    return RobotState(MujocoState(PhysicsState(qpos, still, still), jnp.zeros(3)), jnp.zeros((), int))


PAID = SimpleNamespace(reward=np.zeros(2))


@pytest.fixture(scope="module")
def reacher():
    return hajax.make_env("mamujoco/reacher_2x1")


@pytest.fixture(scope="module")
def turned(reacher):
    """Three poses of an arm that turns."""
    rest = jnp.asarray(reacher.viewer.scene.model.qpos0, float)
    return at(jnp.stack([rest.at[0].set(angle) for angle in (0.0, 1.0, 2.0)]))


def test_without_mujoco_a_particle_is_refused_as_with_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mujoco", None)  # as if not installed
    with pytest.raises(ValueError, match="--renderer=mujoco: mpe/simple_spread is not a MuJoCo model"):
        scenes.drawn(hajax.make_env("mpe/simple_spread"), "mujoco")


def test_agents_have_their_colors_and_the_simulation_s_model_keeps_its_own(reacher):
    model = reacher.viewer.scene.model
    for name, color in (("link0", CYCLE[0]), ("link1", CYCLE[1]), ("target", "#999999")):
        rgba = model.geom_rgba[model.geom(name).id]
        assert bytes(np.round(rgba[:3] * 255).astype(np.uint8)).hex() == color[1:].lower()
    robot = ROBOTS["reacher"]
    simulation = in_mujoco(robot, faithful(robot.model("v5"), robot.frame_skip), "v5")
    before = simulation.model.geom_rgba.copy()
    scene = robot_scene(simulation, body_colors(simulation, [["joint0"], ["joint1"]]))
    np.testing.assert_array_equal(simulation.model.geom_rgba, before)
    assert (scene.seconds, scene.flat) == (pytest.approx(0.02), True)


def test_a_page_shows_every_body_where_it_is(reacher, turned):
    qpos = np.asarray(reacher.viewer.scene.qpos(turned))
    shown = scenes.played(reacher.viewer.scene, qpos)
    model = reacher.viewer.scene.model
    assert sum(map(len, shown["geoms"].values())) == model.ngeom
    assert shown["geoms"]["body1"][0]["link_idx"] == model.body("body1").id - 1
    for angle, state in zip((0, 1, 2), shown["states"]["x"], strict=True):
        elbow = state["pos"][model.body("body1").id - 1]
        np.testing.assert_allclose(elbow, [0.1 * np.cos(angle), 0.1 * np.sin(angle), 0.01], atol=1e-4)
    (packed,) = re.findall(r'var system = "(.*?)"', scenes.viewer(reacher, qpos))
    assert json.loads(zlib.decompress(base64.b64decode(packed))) == shown


def test_pages_need_brax(reacher, monkeypatch):
    monkeypatch.setattr(scenes, "find_spec", lambda package: None)
    with pytest.raises(ValueError, match=r"^--output=a.html needs brax, .*; pip install 'hajax\[brax\]' brings it$"):
        scenes.check_viewer(reacher, "--output=a.html")


@pytest.fixture(scope="module")
def opengl():
    try:
        mujoco.Renderer(ROBOTS["reacher"].model("v5"), 40, 40).close()
    except Exception as error:
        pytest.skip(f"no OpenGL: {error}")


def test_the_floor_has_no_end(opengl):
    """An ant that has walked for 300 m sees squares beneath it, as at the start, of the XML file's size: 0.67 m."""
    env = scenes.rendered(hajax.make_env("mamujoco/ant_4x2"))
    contrast, edges = [], []
    for place in (0.0, 300.0):
        axes = Figure().add_subplot()
        env.viewer.draw(axes, at(jnp.asarray(env.viewer.scene.model.qpos0).at[0].set(place)), None, PAID)
        floor = axes.images[0].get_array()[-100:, :, 0].astype(float)
        contrast.append(np.std(floor))
        edges.append(np.sum(np.abs(np.diff(floor[-1])) > 30))
    assert contrast[1] > 0.5 * contrast[0] > 10
    assert max(edges) < 20


def test_mujoco_s_pictures_show_the_agents(opengl, reacher, turned):
    axes = Figure().add_subplot()
    scenes.rendered(reacher).viewer.draw(axes, at(reacher.viewer.scene.qpos(turned)[1]), None, PAID)
    pixels = axes.images[0].get_array().astype(int)
    for color in ((pixels[..., 2] - pixels[..., 0] > 40), (pixels[..., 0] - pixels[..., 2] > 40)):
        assert color.sum() > 200


def test_without_opengl_one_line_says_so_and_auto_draws(reacher, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("no display\nat all")

    monkeypatch.setattr(mujoco, "Renderer", broken)
    scenes.rendering_fault.cache_clear()
    try:
        with pytest.raises(ValueError, match=r"MuJoCo cannot render here \(no display\); allowed: drawing, or a "):
            scenes.drawn(reacher, "mujoco")
        assert scenes.drawn(reacher, "auto").viewer is reacher.viewer
    finally:
        scenes.rendering_fault.cache_clear()


def test_drawings_of_a_robot_far_away_are_no_wider():
    env = hajax.make_env("mamujoco/half_cheetah_2x3")
    limits = []
    for place in (0.0, 100.0):
        axes = Figure().add_subplot()
        env.viewer.draw(axes, at(jnp.zeros(9).at[0].set(place)), None, PAID)
        limits.append(axes.get_xlim())
        assert f"{place:.0f}" in [label.get_text() for label in axes.get_xticklabels()]
    assert limits[0] == limits[1]


BOXES = """
<mujoco>
  <worldbody>
    <geom type="plane" size="9 9 1"/>
    <body name="ramp" pos="3 0 0"><geom name="ramp" type="box" size="1 1 0.1" euler="0 20 0"/></body>
    <body name="sledge" pos="0 0 1"><freejoint name="root"/><geom name="sledge" type="box" size="0.3 0.2 0.1"/>
      <body name="arm"><joint name="arm"/><geom type="capsule" size="0.05 0.3" pos="0 0 0.5"/></body>
    </body>
  </worldbody>
  <actuator><motor joint="arm" ctrllimited="true" ctrlrange="-1 1"/></actuator>
</mujoco>
"""


@pytest.fixture(scope="module")
def sledge(tmp_path_factory):
    path = tmp_path_factory.mktemp("robot") / "sledge.xml"
    path.write_text(BOXES)
    return from_file(path, tasks.swimmer, 1)


def test_robots_of_boxes_are_drawn_from_the_side(sledge):
    env = share(sledge, [["arm"]])
    assert not env.viewer.scene.flat
    axes = Figure().add_subplot()
    env.viewer.draw(axes, at(jnp.asarray(sledge.model("v5").qpos0, float)), None, PAID)
    assert len(axes.patches) == 2 + 3  # both ends of a bar without length for the box; for the capsule, of one with


def test_fast_physics_keeps_what_stands_still(sledge):
    """A box falls onto the ramp, which is a body without joints."""
    model = fast(sledge.model("v5"), 1).model
    data = mujoco.MjData(model)
    data.qpos[:3] = 3, 0, 0.15
    mujoco.mj_forward(model, data)
    touching = {tuple(sorted(pair)) for pair in data.contact.geom.tolist()}
    assert (model.geom("ramp").id, model.geom("sledge").id) in touching


@pytest.mark.parametrize("chosen", ["", "glfw"], ids=["egl if it is there", "glfw, which needs a display"])
def test_mujoco_s_rendering_is_tried_once(chosen):
    """Also after MuJoCo was imported; a second failure would end the process."""
    code = """if True:
        import mujoco
        from hajax.viewing import scenes
        faults = {scenes.rendering_fault() for _ in range(2)}
        print(faults == {None})
    """
    left_out = {"DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL"}
    variables = {name: value for name, value in os.environ.items() if name not in left_out}
    variables |= {"MUJOCO_GL": chosen} if chosen else {}
    run = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() in ({"False"} if chosen else {"True", "False"})  # EGL's library may find no driver
