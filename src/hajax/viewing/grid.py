"""Returns against the hyperparameters of a grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hajax.viewing.curve import figure_with_legend, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# More lines than these could not be told apart: then only points are drawn.
MOST_LINES = 8
# Values that span this factor are drawn on a logarithmic axis.
WIDE = 10.0


class Result(NamedTuple):
    """The results of a point: the interquartile mean over its seeds and its interval, NaN where there is none."""

    hyperparameters: Mapping[str, float]
    iqm: float
    low: float
    high: float


def draw_grid(path: Path, results: Sequence[Result], title: str) -> None:
    """Draws the points of a grid into a file, whose suffix selects the format. No display is needed."""
    grid_figure(results, title).savefig(path, dpi=150)


def grid_figure(results: Sequence[Result], title: str) -> Figure:
    """A panel for each hyperparameter with more than one value, with a dot and an interval for each point.

    Lines join the points that differ in that hyperparameter alone, if there are at most `MOST_LINES`.
    """
    from matplotlib.lines import Line2D

    names = [name for name in results[0].hyperparameters if len({x.hyperparameters[name] for x in results}) > 1]
    names = names or list(results[0].hyperparameters)[:1]
    lines = {name: _lines(results, name) for name in names}
    labels = list(dict.fromkeys(label for drawn in lines.values() for label, _ in drawn if label))
    handles = [Line2D([], [], **style(k), label=label) for k, label in enumerate(labels)]
    figure = figure_with_legend(5.2 * len(names) + 0.6, 3.8, handles, 50 * len(names))
    row = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for name, axes in zip(names, row, strict=True):
        for label, members in lines[name]:
            _draw_line(axes, name, members, style(labels.index(label) if label else 0))
        values = [x.hyperparameters[name] for x in results]
        if min(values) > 0 and max(values) >= WIDE * min(values):
            axes.set_xscale("log")
        axes.set_xlabel(name)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    row[0].set_ylabel("evaluation return at the end:\ninterquartile mean, 95% interval")
    row[0].set_title(title, loc="left", size=11, parse_math=False)
    return figure


def _lines(results: Sequence[Result], name: str) -> list[tuple[str, list[Result]]]:
    """The points that are joined by lines, with what they have in common; each on its own if lines are too many."""
    found: dict[str, list[Result]] = {}
    for result in sorted(results, key=lambda x: x.hyperparameters[name]):
        others = [f"{key}={value:g}" for key, value in result.hyperparameters.items() if key != name]
        found.setdefault(", ".join(others), []).append(result)
    if len(found) <= MOST_LINES and max(map(len, found.values())) > 1:
        return list(found.items())
    return [("", [result]) for result in results]


def _draw_line(axes: Axes, name: str, members: Sequence[Result], look: dict[str, Any]) -> None:
    x = np.array([result.hyperparameters[name] for result in members])
    iqm, low, high = np.array([(result.iqm, result.low, result.high) for result in members]).T
    axes.plot(x, iqm, **look | ({} if len(members) > 1 else {"linestyle": "none"}), zorder=3)
    axes.vlines(x, low, high, color=look["color"], alpha=0.6, zorder=2)


def draw_population(path: Path, rows: Sequence[Mapping[str, Any]], names: Sequence[str], title: str) -> None:
    """Draws the returns and the hyperparameters of a population over its training into a file.

    Args:
        path: its suffix selects the format. No display is needed.
        rows: one per evaluation, seed and point, with `step`, `seed`, `point`, `eval_return_mean`, hyperparameters.
        names: the hyperparameters.
        title: the title.
    """
    population_figure(rows, names, title).savefig(path, dpi=150)


def population_figure(rows: Sequence[Mapping[str, Any]], names: Sequence[str], title: str) -> Figure:
    """A panel for the returns and one for each hyperparameter: a thin line per point and a thick one for the best.

    A point that is replaced goes on from its parent: its line jumps there.
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import EngFormatter

    seeds = sorted({row["seed"] for row in rows})
    looks = [style(k) | {"marker": ""} for k in range(len(seeds))]
    handles = [Line2D([], [], **look, label=f"best of seed {x}") for look, x in zip(looks, seeds, strict=True)]
    handles.append(Line2D([], [], color="0.4", linewidth=0.7, label="one point"))
    figure = figure_with_legend(7.2, 2.4 * (1 + len(names)), handles, 70)
    panels = figure.subplots(1 + len(names), 1, sharex=True)
    for axes, name in zip(panels, ("eval_return_mean", *names), strict=True):
        for look, seed in zip(looks, seeds, strict=True):
            of_seed = [row for row in rows if row["seed"] == seed]
            for point in sorted({row["point"] for row in of_seed}):
                own = [(row["step"], row[name]) for row in of_seed if row["point"] == point]
                axes.plot(*np.array(own).T, color=look["color"], linewidth=0.7, alpha=0.45)
            by_step: dict[int, list[Mapping[str, Any]]] = {}
            for row in of_seed:
                by_step.setdefault(row["step"], []).append(row)
            best = [max(at_step, key=lambda row: row["eval_return_mean"]) for at_step in by_step.values()]
            axes.plot(list(by_step), [row[name] for row in best], **look)
        values = [row[name] for row in rows]
        if name != "eval_return_mean" and min(values) > 0 and max(values) >= WIDE * min(values):
            axes.set_yscale("log")
        axes.set_ylabel("evaluation return" if name == "eval_return_mean" else name)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].xaxis.set_major_formatter(EngFormatter(sep=""))
    panels[-1].set_xlabel("environment steps per seed")
    panels[0].set_title(title, loc="left", size=11, parse_math=False)
    return figure
