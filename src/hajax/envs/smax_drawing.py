"""The drawing of SMAX: both teams on the map, and the attacks and movements of the agents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from hajax.colors import BLUE, VERMILION
from hajax.envs.drawing import Draw
from hajax.envs.smax_world import DIRECTIONS, MOVES, World
from hajax.spec import EnvSpec, Timestep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The view is the smallest square around the living units with this margin, of at least this width.
MARGIN, LEAST = 1.5, 9.0
# Units are small on a wide map.
ENLARGED = 1.5
LETTERS = ("m", "M", "s", "z", "zg", "h")


def units_drawing(world: World, spec: EnvSpec) -> Draw:
    """Agents as discs with numbers, opponents as squares with the letter of their kind, both filled up to their health.

    A line leads to the attacked opponent, an arrow shows the movement, and a cross marks a dead unit.
    """

    def draw(axes: Axes, state: Any, action: Any, timestep: Timestep) -> None:
        position, kind = np.asarray(state.position), np.asarray(state.kind)
        alive, chosen = np.asarray(state.health) > 0, np.asarray(action)[:, 0].astype(int)
        health = np.asarray(state.health) / world.kinds.health[kind]
        radius = ENLARGED * world.kinds.radius[kind]
        for i in range(world.num_units):
            if not alive[i]:
                axes.plot(*position[i], "x", color="0.6", markersize=5, zorder=1)
                continue
            is_agent = i < world.num_agents
            _unit(axes, position[i], radius[i], health[i], is_agent)
            label = str(i) if is_agent else LETTERS[kind[i]]
            axes.text(position[i, 0], position[i, 1], label, size=7, ha="center", va="center", zorder=6, clip_on=True)
            if is_agent:
                _intention(axes, position, radius[i], i, chosen[i], world)
        counts = alive[: world.num_agents].sum(), alive[world.num_agents :].sum()
        axes.set_xlabel(
            f"{counts[0]} of {world.num_agents} agents and {counts[1]} of {world.num_opponents} opponents live",
            loc="left",
        )
        edge = np.array([0, 0, 1, 1, 0, 0]) * world.size
        axes.plot(edge[:5], edge[1:], color="0.4", linewidth=1)
        axes.set(**_view(position[alive], world.size), xticks=[], yticks=[], aspect="equal")
        axes.spines[:].set_color("0.6")
        _legend(axes)

    return draw


def _view(living: np.ndarray, size: float) -> dict[str, tuple[float, float]]:
    """The limits of both axes, within the map and a little around it."""
    low, high = (living.min(0), living.max(0)) if len(living) else (np.zeros(2), np.full(2, size))
    width = min(max(float((high - low).max()) + 2 * MARGIN, LEAST), size + 1)
    start = np.clip((low + high - width) / 2, -0.5, size + 0.5 - width)
    (x, y), (right, top) = start, start + width
    return {"xlim": (float(x), float(right)), "ylim": (float(y), float(top))}


def _unit(axes: Axes, center: np.ndarray, radius: float, health: float, is_agent: bool) -> None:
    """The outline of a unit, filled from the bottom up to its share of health."""
    from matplotlib.patches import Circle, Patch, Rectangle

    corner, width = center - radius, 2 * radius
    color = BLUE if is_agent else VERMILION

    def shape(**look: Any) -> Patch:
        return Circle(tuple(center), radius, **look) if is_agent else Rectangle(tuple(corner), width, width, **look)

    axes.add_patch(shape(facecolor="white", edgecolor="none", zorder=3))
    level = axes.add_patch(Rectangle(tuple(corner), width, width * health, facecolor=color, alpha=0.45, zorder=4))
    outline = axes.add_patch(shape(fill=False, edgecolor=color, linewidth=1.5, zorder=5))
    level.set_clip_path(outline)


def _intention(axes: Axes, position: np.ndarray, radius: float, i: int, chosen: int, world: World) -> None:
    """A line from agent i to the opponent that it attacks, or an arrow for its movement; neither if it stops."""
    start = position[i]
    if chosen >= MOVES:
        target = position[world.num_agents + chosen - MOVES]
        axes.plot(*np.stack([start, target]).T, color="0.2", linewidth=1, linestyle=(0, (3, 2)), zorder=2)
    elif chosen < MOVES - 1:
        direction = np.array(DIRECTIONS[chosen])
        style = {"arrowstyle": "-|>", "color": "0.1", "linewidth": 1, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 7}
        begin = start + radius * direction
        axes.annotate("", tuple(begin + direction), tuple(begin), arrowprops=style, zorder=6)


def _legend(axes: Axes) -> None:
    from matplotlib.lines import Line2D

    def entry(label: str, color: str, marker: str, line: Any = "") -> Line2D:
        return Line2D([], [], linestyle=line, marker=marker, color=color, mfc="none", mew=1.5, label=label)

    handles = [
        entry("agent", BLUE, "o"),
        entry("opponent", VERMILION, "s"),
        entry("attack", "0.2", "", (0, (3, 2))),
        entry("died", "0.6", "x"),
    ]
    legend = axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=4, fontsize=9)
    legend.set_frame_on(False)
