"""Drawings of the robots without a graphics driver: capsules and spheres in the color of the agent that drives them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

from hajax.colors import CYCLE
from hajax.envs.base import Scene
from hajax.envs.drawing import Draw, agent_entries, legend_below
from hajax.envs.mamujoco.contacts import meeting, moving
from hajax.envs.mamujoco.simulation import Simulation
from hajax.spec import EnvSpec, Timestep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRAY = "#999999"


def body_colors(simulation: Simulation, partition: Sequence[Sequence[str]]) -> list[str]:
    """The color of every body: that of the agent that drives its joint, or gray without a driven joint."""
    model, names = simulation.model, list(simulation.anatomy.joints)
    owner = {joint: i for i, agent in enumerate(partition) for joint in agent}
    colors = [GRAY] * model.nbody
    for body in range(1, model.nbody):
        # A body without joints moves with its parent; of several joints the last one is the nearest.
        first, count = model.body_jntadr[body], model.body_jntnum[body]
        owners = [owner[name] for name in names[first : first + count] if name in owner]
        inherited = colors[model.body_parentid[body]] if not count else GRAY
        colors[body] = CYCLE[owners[-1] % len(CYCLE)] if owners else inherited
    return colors


def robot_scene(simulation: Simulation, colors: Sequence[str]) -> Scene:
    """The robot in these colors, for three-dimensional renderers."""
    model = copy.copy(simulation.model)
    for geom in np.flatnonzero(model.geom_bodyid):
        model.geom_rgba[geom] = [*bytes.fromhex(colors[model.geom_bodyid[geom]][1:]), 255]
        model.geom_rgba[geom] /= 255
        model.geom_matid[geom] = -1  # a material would hide the color
    return Scene(
        model, lambda state: simulation.qpos(state.body), simulation.seconds, _reach(model, _solid(model)), _flat(model)
    )


def robot_drawing(simulation: Simulation, colors: Sequence[str], spec: EnvSpec) -> Draw:
    """The robot from the side, or from above if it moves in a plane; the view follows it. A legend has the agents.

    From the side, lines show the ground with a mark every meter.
    """
    model = simulation.model
    data = mujoco.MjData(model)
    flat = _flat(model)
    across, up = (0, 1) if flat else (0, 2)
    solid = _solid(model)
    reach, height = _reach(model, solid), _height(model, solid)

    def draw(axes: Axes, state: Any, action: Any, timestep: Timestep) -> None:
        data.qpos[:] = np.asarray(simulation.qpos(state.body))
        mujoco.mj_kinematics(model, data)
        # Drawn around its center, so that all frames have the same limits.
        middle = (data.geom_xpos[solid].max(0) + data.geom_xpos[solid].min(0)) / 2 if solid else np.zeros(3)
        if not flat:
            middle[2] = height  # the ground does not move
        depth = data.geom_xpos[solid, 3 - across - up]
        nearest_last = depth if flat else -depth  # seen from above, or from where y is small
        for _, geom in sorted(zip(nearest_last, solid, strict=True)):
            radius, length = _shape(model, geom)
            axis = data.geom_xmat[geom].reshape(3, 3)[:, 2] * length
            ends = np.stack([data.geom_xpos[geom] - axis, data.geom_xpos[geom] + axis]) - middle
            _capsule(axes, ends[:, [across, up]], radius, colors[model.geom_bodyid[geom]])
        if not flat:
            axes.axhline(-middle[up], color="0.4", linewidth=1, zorder=0)
        half = 0.8 * reach
        axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
        meters = np.arange(np.ceil(middle[across] - half), middle[across] + half)
        axes.set_xticks(meters - middle[across], [f"{x:.0f}" for x in meters])
        axes.set_yticks([])
        legend_below(axes, agent_entries(spec, "every agent has a color"))
        axes.tick_params(labelsize=8, color=GRAY, labelcolor="0.4")
        axes.spines[:].set_color(GRAY)

    return draw


_LONG = (int(mujoco.mjtGeom.mjGEOM_CAPSULE), int(mujoco.mjtGeom.mjGEOM_CYLINDER))


def _shape(model: Any, geom: int) -> tuple[float, float]:
    """Radius and half length of the capsule that approximates a geometry; other shapes are drawn as balls."""
    if model.geom_type[geom] in _LONG:
        return model.geom_size[geom, 0], model.geom_size[geom, 1]
    return model.geom_rbound[geom], 0.0


def _flat(model: Any) -> bool:
    """Whether the robot moves in a plane and is seen from above: without gravity, or without contacts."""
    own = moving(model)
    return not np.any(model.opt.gravity) or not meeting(model)[own][:, ~own].any()


def _solid(model: Any) -> list[int]:
    """The geometries that are drawn."""
    return np.flatnonzero(moving(model) & (model.geom_rbound > 0)).tolist()


def _reach(model: Any, solid: Sequence[int]) -> float:
    """The greatest extent at rest; 1 if nothing is drawn."""
    low, high = _extent(model, solid)
    return float(np.max(high - low))


def _height(model: Any, solid: Sequence[int]) -> float:
    """The height of the middle at rest."""
    low, high = _extent(model, solid)
    return float(low[2] + high[2]) / 2


def _extent(model: Any, solid: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The corners of the box around the robot at rest; a box of size 1 if nothing is drawn."""
    if not solid:
        return np.zeros(3), np.ones(3)
    data = mujoco.MjData(model)
    data.qpos[:] = model.qpos0
    mujoco.mj_kinematics(model, data)
    middles, radii = data.geom_xpos[solid], model.geom_rbound[solid][:, None]
    return (middles - radii).min(0), (middles + radii).max(0)


def _capsule(axes: Axes, ends: np.ndarray, radius: float, color: str) -> None:
    from matplotlib.patches import Circle, Polygon

    along = ends[1] - ends[0]
    length = float(np.hypot(*along))
    if length > 1e-6:
        across = radius * np.array([-along[1], along[0]]) / length
        corners = [ends[0] + across, ends[1] + across, ends[1] - across, ends[0] - across]
        axes.add_patch(Polygon(corners, closed=True, color=color, linewidth=0, zorder=2))
    for end in ends:
        axes.add_patch(Circle(end, radius, color=color, linewidth=0, zorder=2))
