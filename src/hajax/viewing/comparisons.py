"""Pictures that compare algorithms over environments: profiles of scores, probabilities of improvement, efficiency."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hajax.runs.errors import Refusal
from hajax.viewing.curve import (
    EXPLAINING,
    LEGEND_WIDTH,
    figure_with_legend,
    handle,
    interval_entry,
    metric_label,
    panels_figure,
    style,
)
from hajax.viewing.groups import LINE_COLUMNS, Group, line_rows
from hajax.viewing.scores import (
    NEAR,
    UNSCALED,
    Ending,
    Improvement,
    Methods,
    Profile,
    Scale,
    complete,
    efficiency,
    final_scores,
    improvements,
    profiles,
    task_scales,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A title names the environments if it has up to this many characters. Beside the labels of pairs it is wrapped.
LONGEST_TITLE, WRAPPED_TITLE = 60, 45


class Picture(NamedTuple):
    """A picture, its numbers as a table, and what else there is to say about them."""

    figure: Figure
    columns: Sequence[str]
    rows: list[dict[str, Any]]
    notes: list[str]


def compare(
    kind: str, groups: Sequence[Group], metric: str = "return", title: str | None = None, seeds: bool = True
) -> Picture:
    """The picture of that kind, one of `KINDS`.

    Args:
        kind: what is drawn.
        groups: the runs, of every algorithm on every environment.
        metric: the score; higher is better.
        title: the title instead of the environments' names.
        seeds: draw every seed as a thin line, in the kinds that draw seeds.

    Raises:
        Refusal: an algorithm has no runs on an environment, or the runs cannot be compared.
    """
    methods = complete(kind, groups)
    tasks = list(dict.fromkeys(group.task for group in groups))
    names = ", ".join(tasks)
    if title is None:
        title = names if len(names) <= LONGEST_TITLE else f"{len(tasks)} environments"
    return KINDS[kind](methods, tasks, metric, title, seeds)


def _profiles(methods: Methods, tasks: Sequence[str], metric: str, title: str, seeds: bool) -> Picture:
    scores, endings = final_scores("profiles", methods)
    scales = task_scales(methods)
    found = profiles(scores, scales)
    rows = [
        {"env": "; ".join(tasks), "label": profile.label, "num_seeds": profile.num_seeds}
        | dict(zip(("tau", "share", "ci95_low", "ci95_high"), row, strict=True))
        for profile in found
        for row in zip(*(x.tolist() for x in profile[2:]), strict=True)
    ]
    return Picture(
        profiles_figure(found, metric, title, set(scales) != {UNSCALED}), tuple(rows[0]), rows, _notes(endings, scales)
    )


def profiles_figure(found: Sequence[Profile], metric: str, title: str, scaled: bool) -> Figure:
    """A line per algorithm: the share of its seeds whose final score is above τ."""
    handles = [handle(i, profile.label, [profile.num_seeds]) for i, profile in enumerate(found)]
    for entry in handles:
        entry.set_marker("")
    figure = figure_with_legend(7.2, 3.9, handles, LEGEND_WIDTH[1])
    axes = figure.subplots()
    for i, profile in enumerate(found):
        look = style(i) | {"marker": ""}
        axes.fill_between(
            profile.thresholds, profile.low, profile.high, step="post", color=look["color"], alpha=0.15, linewidth=0
        )
        axes.plot(profile.thresholds, profile.share, drawstyle="steps-post", label=profile.label, **look)
    axes.set_ylim(-0.02, 1.02)
    axes.margins(x=0)
    axes.set_ylabel("share of seeds with a score above τ")
    how = "\n(scaled per environment: 0 and 1 are the lowest and the highest evaluation of these runs)"
    axes.set_xlabel(f"τ, {_final(metric)}{how if scaled else ''}", parse_math=False)
    _decorate(axes, title)
    if any(np.isfinite(profile.low).any() for profile in found):
        figure.legend(handles=[interval_entry()], loc="outside upper center", **EXPLAINING)
    return figure


def _improvement(methods: Methods, tasks: Sequence[str], metric: str, title: str, seeds: bool) -> Picture:
    if len(methods) < 2:
        raise Refusal(f"--kind=improvement of {', '.join(methods)} alone; allowed: runs of two algorithms or more")
    scores, endings = final_scores("improvement", methods)
    found = improvements(scores)
    rows = [
        {"env": "; ".join(tasks), "first": pair.first, "second": pair.second}
        | {"num_seeds_first": pair.num_seeds[0], "num_seeds_second": pair.num_seeds[1]}
        | {"probability": pair.probability, "ci95_low": pair.low, "ci95_high": pair.high}
        for pair in found
    ]
    figure = improvement_figure(found, list(methods), metric, title, len(tasks))
    return Picture(figure, tuple(rows[0]), rows, _notes(endings, None))


def improvement_figure(
    found: Sequence[Improvement], labels: Sequence[str], metric: str, title: str, environments: int
) -> Figure:
    """A row per pair of algorithms X and Y: the probability that X is better, as a stroke in its interval."""
    names = [[pair.first for pair in found], [pair.second for pair in found]]
    longest = sum(max(map(len, side)) for side in names)
    figure = figure_with_legend(max(7.2, 4.5 + 0.085 * longest), 1.3 + 0.3 * len(found), [], LEGEND_WIDTH[1])
    axes = figure.subplots()
    other = axes.twinx()
    axes.axvline(0.5, color="0.4", linewidth=1, linestyle=(0, (4, 2)), zorder=1)
    for row, pair in enumerate(found):
        color = style(labels.index(pair.first))["color"]
        if np.isfinite(pair.low):
            axes.barh(row, pair.high - pair.low, left=pair.low, height=0.6, color=color, alpha=0.35, zorder=2)
        axes.plot([pair.probability] * 2, [row - 0.3, row + 0.3], color=color, linewidth=2.5, zorder=3)
    for side, name, column in zip((axes, other), "XY", names, strict=True):
        side.set_ylim(len(found) - 0.4, -0.6)
        side.set_yticks(range(len(found)), column, parse_math=False)
        side.tick_params(axis="y", length=0)
        end, align = ((-0.012, "right"), (1.012, "left"))[side is other]
        side.text(end, 1, name, ha=align, va="bottom", transform=side.transAxes)
    axes.set_xlim(-0.01, 1.01)
    averaged = f",\naveraged over {environments} environments" if environments > 1 else ""
    axes.set_xlabel(
        f"probability that a seed of X has a higher {_final(metric)} than one of Y{averaged}", parse_math=False
    )
    _decorate(axes, textwrap.fill(title, WRAPPED_TITLE), pad=18)
    other.spines[:].set_visible(False)
    if any(np.isfinite(pair.low) for pair in found):
        figure.legend(handles=[interval_entry()], loc="outside upper center", **EXPLAINING)
    return figure


def _efficiency(methods: Methods, tasks: Sequence[str], metric: str, title: str, seeds: bool) -> Picture:
    panel, scales = efficiency(methods, title)
    changed = set(scales) != {UNSCALED}
    figure = panels_figure([panel], metric, "steps", seeds, environments=len(tasks), scaled=changed)
    rows = line_rows([panel._replace(title="; ".join(tasks))])
    scaled = [f"{task}: {_scaled(scale)}" for task, scale in zip(tasks, scales, strict=True)]
    return Picture(figure, LINE_COLUMNS, rows, scaled if changed else [])


KINDS: dict[str, Callable[[Methods, Sequence[str], str, str, bool], Picture]] = {
    "profiles": _profiles,
    "improvement": _improvement,
    "efficiency": _efficiency,
}


def _final(metric: str) -> str:
    """The final score as on an axis."""
    return metric_label(metric).replace("evaluation", "final", 1)


def _decorate(axes: Axes, title: str, pad: float | None = None) -> None:
    axes.set_title(title, loc="left", size=11, pad=pad, parse_math=False)
    axes.grid(color="0.92")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _notes(endings: Sequence[Ending], scales: Sequence[Scale] | None) -> list[str]:
    """A line per environment: where its final scores are, and how they are scaled."""
    notes = []
    for i, ending in enumerate(endings):
        note = f"{ending.task}: final scores at {ending.steps:,} steps"
        if ending.longest > (1 + NEAR) * ending.steps:
            note += f", where {ending.shortest} ends; the longest run has {ending.longest:,}"
        if ending.without:
            note += f"; {ending.without} without a score there, as if it were below all others"
        notes.append(note if scales is None or set(scales) == {UNSCALED} else f"{note}; {_scaled(scales[i])}")
    return notes


def _scaled(scale: Scale) -> str:
    return f"scaled, 0 is {scale.low + 0.0:.6g} and 1 is {scale.high + 0.0:.6g}"  # + 0.0 makes -0.0 0
