"""Learning curves: interquartile means with bootstrap intervals, and every seed as a thin line."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hajax.colors import CYCLE
from hajax.runs.files import RunCurve
from hajax.viewing.groups import Group, Line, Panel, make_panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

# Distinguishable without color: dashes and markers repeat with other periods than colors.
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
MARKERS = "os^Dv"
# The characters of a line of the legend that fit under the picture.
LEGEND_WIDTH = {1: 70, 2: 120}
# How scores of several environments are on one axis.
SCALED = ", scaled\nper environment: 0 and 1 are the\nlowest and highest evaluation shown"
EXPLAINING: dict[str, Any] = {"ncols": 3, "frameon": False, "fontsize": 8}


def draw_curve(path: Path, run: RunCurve) -> None:
    """Draws the evaluation returns of one run without a display; the suffix of `path` selects the format."""
    title = f"{run.settings['algo']['name']} on {run.settings['env']['name']}"
    draw_panels(path, make_panels([Group(title, "this run", [run])]))


def draw_panels(
    path: Path, panels: Sequence[Panel], metric: str = "return", x: str = "both", seeds: bool = True
) -> None:
    """Draws panels into a file, whose suffix selects the format. No display is needed."""
    panels_figure(panels, metric, x, seeds).savefig(path, dpi=150)


def panels_figure(
    panels: Sequence[Panel],
    metric: str = "return",
    x: str = "both",
    seeds: bool = True,
    environments: int = 1,
    scaled: bool = False,
) -> Figure:
    """A row per panel with one legend below all rows.

    Args:
        panels: the panels.
        metric: what is drawn.
        x: `steps`, `time` (wall time), or `both` next to each other, if wall times are known.
        seeds: draw every seed as a thin line.
        environments: the number of environments whose seeds are pooled in a panel.
        scaled: their scores are scaled, which the axis says.
    """
    timed = any(times.size for panel in panels for line in panel.by_seconds for times, _ in line.seeds)
    sides = {"steps": ["steps"], "time": ["time"], "both": ["steps", "time"] if timed else ["steps"]}[x]
    lines = [line for panel in panels for line in panel.by_steps]
    labels = list(dict.fromkeys(line.label for line in lines))
    handles = [handle(i, label, [len(x.seeds) for x in lines if x.label == label]) for i, label in enumerate(labels)]
    figure = figure_with_legend(11.5 if len(sides) == 2 else 7.2, 3.6 * len(panels), handles, LEGEND_WIDTH[len(sides)])
    grid = figure.subplots(len(panels), len(sides), squeeze=False, sharey="row")
    for panel, row in zip(panels, grid, strict=True):
        for side, axes in zip(sides, row, strict=True):
            _draw_by[side](axes, panel, labels, seeds)
        label = metric_label(metric) + (SCALED if scaled else "")
        row[0].set_ylabel(label, parse_math=False)  # names may hold a $
        row[0].set_title(panel.title, loc="left", size=11, parse_math=False)
        _leave_out_the_start(row[0], panel.by_steps)
    if any(len(line.seeds) > 1 for line in lines):  # a single seed is its mean, without an interval
        figure.legend(
            handles=_explanations(environments)[: 3 if seeds else 2], loc="outside upper center", **EXPLAINING
        )
    return figure


def figure_with_legend(width: float, height: float, handles: Sequence[Line2D], legend_width: int) -> Figure:
    """An empty figure, in inches, with a legend below it whose lines have up to `legend_width` characters."""
    from matplotlib.figure import Figure

    class Shown(Figure):
        """A figure that a notebook shows without pyplot."""

        def _repr_png_(self) -> bytes:
            picture = io.BytesIO()
            self.savefig(picture, format="png", dpi=100)
            return picture.getvalue()

    longest = max((len(str(entry.get_label())) for entry in handles), default=0)
    columns = max(1, min(4, legend_width // (longest + 8)))
    figure = Shown(figsize=(width, height + 0.25 * (-(-len(handles) // columns) + 2)), layout="constrained")
    if handles:
        legend = figure.legend(handles=list(handles), loc="outside lower center", ncols=columns, frameon=False)
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def metric_label(metric: str) -> str:
    """The metric as on an axis."""
    return metric.replace("train_", "training ", 1) if metric.startswith("train_") else f"evaluation {metric}"


def _draw_by_steps(axes: Axes, panel: Panel, labels: Sequence[str], seeds: bool) -> None:
    from matplotlib.ticker import EngFormatter

    _draw_lines(axes, panel.by_steps, labels, seeds)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel("environment steps per seed")


def _draw_by_time(axes: Axes, panel: Panel, labels: Sequence[str], seeds: bool) -> None:
    unit, seconds = time_unit([x for line in panel.by_seconds for x, _ in line.seeds])
    _draw_lines(axes, panel.by_seconds, labels, seeds, 1 / seconds)
    axes.set_xlabel(f"wall time after compilation, all seeds of a run together ({unit})")


_draw_by = {"steps": _draw_by_steps, "time": _draw_by_time}


def time_unit(times: Sequence[np.ndarray]) -> tuple[str, float]:
    """A unit for times `[K]` in seconds, and its length in seconds."""
    longest = max((x.max(initial=0) for x in times), default=0)
    for unit, seconds in (("hours", 3600.0), ("minutes", 60.0)):
        if longest >= 2 * seconds:
            return unit, seconds
    return "seconds", 1.0


def style(index: int) -> dict[str, Any]:
    """Color, dashes and marker of the line with that index."""
    return {
        "color": CYCLE[index % len(CYCLE)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index % len(MARKERS)],
        "markersize": 5,
        "linewidth": 2,
    }


def _draw_lines(axes: Axes, lines: Sequence[Line], labels: Sequence[str], seeds: bool, scale: float = 1.0) -> None:
    for line in lines:
        look = style(labels.index(line.label))
        if len(line.seeds) > 1:
            for x, y in line.seeds if seeds else ():
                axes.plot(x * scale, y, color=look["color"], linewidth=0.7, alpha=0.45, zorder=2)
            axes.fill_between(
                line.x * scale, line.low, line.high, color=look["color"], alpha=0.18, linewidth=0, zorder=1
            )
        every = max(1, len(line.x) // 8)
        axes.plot(line.x * scale, line.iqm, **look, markevery=every, label=line.label, zorder=3)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _leave_out_the_start(axes: Axes, lines: Sequence[Line]) -> None:
    """Excludes the first evaluations, of untrained policies, from the axis if they would take up half of it."""
    later, all_returns = (
        np.concatenate([y[start:][np.isfinite(y[start:])] for line in lines for _, y in line.seeds]) for start in (1, 0)
    )
    if later.size and 0 < np.ptp(later) < np.ptp(all_returns) / 2:
        margin = 0.05 * np.ptp(later)
        axes.set_ylim(later.min() - margin, later.max() + margin)
        axes.set_title("untrained policies are beyond the axis", loc="right", size=8, color="0.4")


def handle(index: int, label: str, num_seeds: Sequence[int]) -> Line2D:
    """The entry of a line in the legend, with the number of its seeds."""
    from matplotlib.lines import Line2D

    counts = "/".join(map(str, sorted(set(num_seeds))))
    return Line2D([], [], **style(index), label=f"{label}, {counts} {'seed' if counts == '1' else 'seeds'}")


def _explanations(environments: int) -> list[Any]:
    """Legend entries, in gray, for the kinds of lines."""
    from matplotlib.lines import Line2D

    pooled = "" if environments == 1 else " of all environments"
    return [
        Line2D([], [], color="0.4", linewidth=2, label=f"interquartile mean over seeds{pooled}"),
        interval_entry(),
        Line2D([], [], color="0.4", linewidth=0.7, label="one seed"),
    ]


def interval_entry() -> Any:
    """The legend entry for intervals, in gray."""
    from matplotlib.patches import Patch

    return Patch(color="0.4", alpha=0.25, linewidth=0, label="95% stratified bootstrap interval")
