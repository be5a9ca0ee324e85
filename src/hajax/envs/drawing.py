"""Drawings of single steps (`Environment.draw`): particle worlds and single-state games.

Matplotlib is imported when something is drawn, not with the environments.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from hajax.colors import BLUE, CYCLE, VERMILION, YELLOW
from hajax.envs.base import clip_action
from hajax.spaces import Box
from hajax.spec import EnvSpec, Timestep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

Draw = Callable[["Axes", Any, Any, Timestep], None]

# Half the width of the view of particles, which start within 1: the first if it has all agents, else the second, at
# whose border agents that are further out are shown.
NEAR, FAR = 1.5, 2.0
# Half the width of other views: the first value into which everything fits, so that the scale rarely changes.
WINDOWS = (1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
# How far the light of a landmark reaches beyond it.
GLOW = 0.15
# The length of the arrow of a unit force, in world units.
ARROW = 0.3
# The legend names up to this many agents; numbers on the agents always do.
MOST_NAMED = 6
# Tables up to this size show every payoff.
MOST_WRITTEN = 10


def window(reach: float) -> float:
    """The first of `WINDOWS` that is at least `reach`; beyond the last, the next power of ten."""
    fitting = [half for half in WINDOWS if half >= reach]
    return fitting[0] if fitting else float(10.0 ** np.ceil(np.log10(reach)))


def particle_drawing(world: Any, spec: EnvSpec) -> Draw:
    """A particle task: agents as discs with an arrow for the movement, landmarks in gray, goals as rings.

    A ring has the color of the agent whose goal is that landmark. A landmark is lit if an agent is on it; where agents
    have goals, that agent. An agent out of view is a circle at the border with its distance from the center. The
    messages of this step are printed under the picture: the index, or for a continuous message the largest component
    and its value.

    Args:
        world: the jaxmarl task, which decodes actions and has the radii and the speaking agents.
        spec: the environment's specification.
    """
    n, radius, speaks = spec.num_agents, np.asarray(world.rad), np.asarray(world.silent) == 0
    colors = [CYCLE[i % len(CYCLE)] for i in range(n)]

    def draw(axes: Axes, state: Any, action: Any, timestep: Timestep) -> None:
        from matplotlib.patches import Circle

        position = np.asarray(state.p_pos)
        force, message = world.set_actions(clip_action(spec, jnp.asarray(action)))
        direction = np.asarray(force) / np.asarray(world.accel)[:, None]
        reach, goal_of = float((np.abs(position[:n]).max(1) + radius[:n]).max()), goals(state, spec)
        half = NEAR if reach <= NEAR else FAR
        for k, (center, size) in enumerate(zip(position[n:], radius[n:], strict=True)):
            visitors = [i for i in range(n) if goal_of.get(i) == k] if goal_of else range(n)
            if any(np.linalg.norm(position[i] - center) < radius[i] for i in visitors):
                axes.add_patch(Circle(center, size + GLOW, color=YELLOW, linewidth=0, label="lit", zorder=1))
            axes.add_patch(Circle(center, size, color="0.75", label="landmark", zorder=1))
        for i, k in goal_of.items():
            # Wider for later agents, so that two rings at one landmark are both visible.
            look = {"fill": False, "color": colors[i], "linewidth": 2, "zorder": 2}
            size = radius[n + k] + 0.05 + 0.05 * i
            axes.add_patch(Circle(position[n + k], size, label=f"goal of {spec.agents[i].name}", **look))
        for i, agent in enumerate(spec.agents):
            edge = half - radius[i]
            x, y = shown = np.clip(position[i], -edge, edge)
            inside = np.array_equal(shown, position[i])
            look = {"fill": inside, "linestyle": "-" if inside else ":", "linewidth": 1 if inside else 2, "zorder": 3}
            axes.add_patch(Circle((x, y), radius[i], color=colors[i], alpha=0.85, label=agent.name, **look))
            _arrow(axes, shown, radius[i], direction[i])
            number: dict[str, Any] = {"size": 8, "weight": "bold", "ha": "center", "va": "center", "zorder": 5}
            axes.text(x, y, str(i), color="white" if inside else colors[i], **number)
            if not inside:
                inward = 1 - 2 * radius[i] / max(abs(x), abs(y))
                axes.text(x * inward, y * inward, f"{np.linalg.norm(position[i]):.1f}", color=colors[i], **number)
        axes.set_xlabel(said(spec, speaks, np.asarray(message)), loc="left")
        axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
        axes.tick_params(labelsize=8, color="0.6", labelcolor="0.4")
        axes.spines[:].set_color("0.6")
        _particle_legend(axes, spec, goal_of, colors)

    return draw


def goals(state: Any, spec: EnvSpec) -> dict[int, int]:
    """The goal landmark of every agent that has one; a single goal is that of the last agent, the listener."""
    if state.goal is None:
        return {}
    landmarks = np.atleast_1d(np.asarray(state.goal))
    return {spec.num_agents - len(landmarks) + i: int(landmark) for i, landmark in enumerate(landmarks)}


def said(spec: EnvSpec, speaks: np.ndarray, message: np.ndarray) -> str:
    """The messages of the speaking agents in one line: `agent_0 says 3, agent_1 says 7 (0.42)`."""
    parts = []
    for i, agent in enumerate(spec.agents):
        if speaks[i]:
            loudest = int(message[i].argmax())
            how_loud = f" ({message[i, loudest]:.2f})" if isinstance(agent.action_space, Box) else ""
            parts.append(f"{agent.name} says {loudest}{how_loud}")
    return ", ".join(parts)


def _arrow(axes: Axes, center: np.ndarray, radius: float, direction: np.ndarray) -> None:
    """An arrow for the chosen movement, from the edge of the agent's disc; none for staying."""
    length = float(np.linalg.norm(direction))
    if length > 1e-3:
        start = center + radius * direction / length
        style = {"arrowstyle": "-|>", "color": "0.1", "linewidth": 1.5, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 9}
        axes.annotate("", tuple(start + ARROW * direction), tuple(start), arrowprops=style, zorder=4)


def _particle_legend(axes: Axes, spec: EnvSpec, goal_of: dict[int, int], colors: list[str]) -> None:
    handles = [*agent_entries(spec), _disc("landmark", "0.75", size=6)]
    handles.append(_disc("goal reached" if goal_of else "landmark covered", "0.75", YELLOW))
    handles += [_disc(f"goal of {spec.agents[agent].name}", "none", colors[agent]) for agent in goal_of]
    legend_below(axes, handles)


def agent_entries(spec: EnvSpec, many: str = "agents, by number") -> list[Line2D]:
    """Entries of a legend: every agent with its color, or one that says `many`."""
    if spec.num_agents > MOST_NAMED:
        return [_disc(many, CYCLE[0])]
    return [_disc(f"{i}: {agent.name}", CYCLE[i % len(CYCLE)]) for i, agent in enumerate(spec.agents)]


def legend_below(axes: Axes, handles: Sequence[Line2D]) -> None:
    """A legend below the axes of a film, in as many columns as fit."""
    ncols = 2 if max(len(str(handle.get_label())) for handle in handles) > 18 else 3
    legend = axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=ncols, fontsize=9)
    legend.set_frame_on(False)


def _disc(label: str, face: str, edge: str | None = None, size: float = 9) -> Line2D:
    from matplotlib.lines import Line2D

    edge = face if edge is None else edge
    return Line2D([], [], linestyle="", marker="o", markersize=size, mfc=face, mec=edge, mew=2, label=label)


def table_drawing(table: np.ndarray) -> Draw:
    """The payoffs of one agent `[n]` or two `[n₁, n₂]` as a table, with the joint action outlined."""
    payoffs = table.reshape(1, -1) if table.ndim == 1 else table

    def draw(axes: Axes, state: Any, action: Any, timestep: Timestep) -> None:
        from matplotlib.patches import Rectangle

        joint = tuple(int(a) for a in np.asarray(action)[: table.ndim, 0])
        row, column = joint if table.ndim == 2 else (0, joint[0])
        low, high = float(payoffs.min()), float(payoffs.max())
        axes.imshow(payoffs, cmap="cividis", vmin=low, vmax=high if high > low else low + 1, aspect="auto")
        for (i, j), payoff in np.ndenumerate(payoffs):
            if max(payoffs.shape) <= MOST_WRITTEN or (i, j) == (row, column):
                color = "white" if payoff < low + 0.6 * (high - low) else "black"
                axes.text(j, i, f"{payoff:.4g}", color=color, size=13, ha="center", va="center")
        for color, width, label in (("white", 8, None), (VERMILION, 4, "played")):  # white shows on any cell
            corner = (column - 0.46, row - 0.46)
            axes.add_patch(Rectangle(corner, 0.92, 0.92, fill=False, color=color, linewidth=width, label=label))
        axes.set_title(_payoff_line(table, joint), size=11)
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        axes.set(xticks=_ticks(payoffs.shape[1]), yticks=_ticks(payoffs.shape[0]) if table.ndim == 2 else [])
        axes.set_xlabel(f"action of agent_{table.ndim - 1}")
        axes.set_ylabel("action of agent_0" if table.ndim == 2 else "")

    return draw


def choices_drawing(table: np.ndarray) -> Draw:
    """A game of many agents: a row per agent, a circle per action, filled for the chosen one."""

    def draw(axes: Axes, state: Any, action: Any, timestep: Timestep) -> None:
        joint = tuple(int(a) for a in np.asarray(action)[:, 0])
        size = float(np.clip(6000 / max(table.ndim, *table.shape) ** 2, 20, 500))
        agents, choices = np.array([(i, a) for i, n in enumerate(table.shape) for a in range(n)]).T
        axes.scatter(choices, agents, s=size, facecolor="white", edgecolor="0.6", label="could be played")
        axes.scatter(joint, range(table.ndim), s=size, color=BLUE, label="played")
        axes.set_title(_payoff_line(table, joint), size=11)
        axes.set(xlabel="action (filled: played)", xticks=_ticks(max(table.shape)), xlim=(-0.7, max(table.shape) - 0.3))
        axes.set_yticks(range(table.ndim), [f"agent_{i}" for i in range(table.ndim)])
        axes.set_ylim(table.ndim - 0.3, -0.7)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    return draw


def product_drawing(axes: Axes, state: Any, action: Any, timestep: Timestep) -> None:
    """The game r(a) = a₁·a₂: its level lines, and the joint action."""
    first, second = (float(a) for a in np.asarray(action)[:2, 0])
    half = window(1.2 * max(abs(first), abs(second)))
    # Three times the shown range, in case other frames of a film show more.
    line = np.linspace(-3 * half, 3 * half, 241)
    payoff, shown = np.outer(line, line), round_levels(0.85 * half**2)
    levels = [*(-level for level in reversed(shown)), *shown]
    axes.contourf(line, line, payoff, levels, cmap="cividis", extend="both")
    lines = axes.contour(line, line, payoff, levels, colors="white", linewidths=0.8, linestyles="solid")
    places = [(np.sign(level) * np.sqrt(abs(level)), np.sqrt(abs(level))) for level in levels]
    colors = ["white" if level < 0 else "black" for level in levels]
    axes.clabel(lines, levels, fmt="%.3g", colors=colors, fontsize=9, manual=places)
    axes.plot(
        first, second, "o", color=VERMILION, markersize=13, markeredgecolor="white", markeredgewidth=2, label="played"
    )
    axes.set_title(f"payoff {first:.3g} · {second:.3g} = {first * second:.3g}", size=11)
    axes.set(xlabel="action of agent_0", ylabel="action of agent_1", xlim=(-half, half), ylim=(-half, half))
    axes.set_aspect("equal")


def bars_drawing(axes: Axes, state: Any, action: Any, timestep: Timestep) -> None:
    """A regulator: every coordinate, and next to it the force of its agent."""
    position, force = np.asarray(state.position), np.asarray(action)[:, 0]
    places, half = np.arange(len(position)), window(1.1 * max(np.abs(position).max(), np.abs(force).max()))
    axes.bar(places - 0.2, position, 0.36, color=BLUE, label="coordinate")
    axes.bar(places + 0.2, force, 0.36, color=VERMILION, label="force")
    axes.axhline(0, color="0.4", linewidth=0.8)
    shown = _ticks(len(position))
    axes.set_xticks(shown, [f"agent_{i}" for i in shown])
    axes.set(ylim=(-half, half))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.07), ncols=2, fontsize=9, frameon=False)


def round_levels(most: float) -> list[float]:
    """The three largest numbers 1, 2 or 5 times a power of ten that are at most `most`, in ascending order."""
    exponent = int(np.floor(np.log10(most)))
    numbers = [digit * 10.0**power for power in range(exponent - 1, exponent + 1) for digit in (1, 2, 5)]
    return [number for number in numbers if number <= most][-3:]


def _payoff_line(table: np.ndarray, joint: tuple[int, ...]) -> str:
    return f"payoff {table[joint]:.4g} (the best is {table.max():.4g})"


def _ticks(n: int) -> list[int]:
    """The indices of all actions, or of some if there are many."""
    return list(range(0, n, 1 + (n - 1) // 20))
