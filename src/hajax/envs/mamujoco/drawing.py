"""Drawings of the robots, without a graphics driver: their capsules and spheres, in the colour of who drives them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

from hajax.colours import CYCLE
from hajax.envs.drawing import Draw
from hajax.envs.mamujoco.physics import touching_world
from hajax.envs.mamujoco.simulation import Simulation
from hajax.spec import Timestep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY = "0.6"


def robot_drawing(simulation: Simulation, partition: Sequence[Sequence[str]]) -> Draw:
    """The robot from its side, or from above if it moves in the plane; the view follows it.

    A body has the colour of the agent that drives its joint, bodies without one are grey. Lines show the ground from
    the side, with a mark every metre.
    """
    model, names = simulation.model, list(simulation.anatomy.joints)
    data = mujoco.MjData(model)
    owner = {joint: i for i, agent in enumerate(partition) for joint in agent}
    colours = [GREY] * model.nbody
    for body in range(1, model.nbody):
        # A body without joints moves with its parent; of several joints the last one is nearest.
        first, count = model.body_jntadr[body], model.body_jntnum[body]
        owners = [owner[name] for name in names[first : first + count] if name in owner]
        inherited = colours[model.body_parentid[body]] if not count else GREY
        colours[body] = CYCLE[owners[-1] % len(CYCLE)] if owners else inherited
    flat = not np.any(model.opt.gravity) or not touching_world(model)[model.geom_bodyid > 0].any()
    across, up = (0, 1) if flat else (0, 2)
    solid = [g for g in range(model.ngeom) if model.geom_bodyid[g] and model.geom_type[g] in (_SPHERE, _CAPSULE)]
    data.qpos[:] = model.qpos0
    mujoco.mj_kinematics(model, data)
    middles, radii = data.geom_xpos[solid], model.geom_rbound[solid][:, None]
    reach = float(np.max((middles + radii).max(0) - (middles - radii).min(0)))  # its length at rest

    def draw(axes: Axes, state: Any, action: Any, timestep: Timestep) -> None:
        data.qpos[:] = np.asarray(simulation.qpos(state.body))
        mujoco.mj_kinematics(model, data)
        depth = data.geom_xpos[solid, 3 - across - up]
        for _, geom in sorted(zip(-depth, solid, strict=True)):
            radius, half = model.geom_size[geom, :2]
            axis = data.geom_xmat[geom].reshape(3, 3)[:, 2] * (half if model.geom_type[geom] == _CAPSULE else 0)
            ends = np.stack([data.geom_xpos[geom] - axis, data.geom_xpos[geom] + axis])
            _capsule(axes, ends[:, [across, up]], radius, colours[model.geom_bodyid[geom]])
        middle = data.geom_xpos[solid].mean(0)[[across, up]]
        if not flat:
            axes.axhline(0, color="0.4", linewidth=1, zorder=0)
            middle[1] = 0.6 * reach
        low, high = middle - 0.8 * reach, middle + 0.8 * reach
        axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
        axes.set_xticks(np.arange(np.ceil(low[0]), high[0]))
        axes.set_yticks([])
        axes.set_xlabel(f"reward {float(np.asarray(timestep.reward)[0]):+.2f}", loc="left")
        axes.tick_params(labelsize=8, color=GREY, labelcolor="0.4")
        axes.spines[:].set_color(GREY)

    return draw


_SPHERE, _CAPSULE = int(mujoco.mjtGeom.mjGEOM_SPHERE), int(mujoco.mjtGeom.mjGEOM_CAPSULE)


def _capsule(axes: Axes, ends: np.ndarray, radius: float, colour: str) -> None:
    from matplotlib.patches import Circle, Polygon

    along = ends[1] - ends[0]
    length = float(np.hypot(*along))
    if length > 1e-6:
        across = radius * np.array([-along[1], along[0]]) / length
        corners = [ends[0] + across, ends[1] + across, ends[1] - across, ends[0] - across]
        axes.add_patch(Polygon(corners, closed=True, color=colour, linewidth=0, zorder=2))
    for end in ends:
        axes.add_patch(Circle(end, radius, color=colour, linewidth=0, zorder=2))
