"""`hajax.plot` and `hajax.render`: learning curves and films in a Python session."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from hajax.core.algorithm import Algorithm
from hajax.envs.base import BatchedEnvironment, Environment
from hajax.runs.errors import simulating
from hajax.session.training import Training
from hajax.training.policy import check_one_seed
from hajax.training.recording import record_episode
from hajax.validation import check_choice, check_known, check_number
from hajax.viewing import GIF_FRAMES, RENDERERS
from hajax.viewing.curve import panels_figure
from hajax.viewing.film import encoder, render_film
from hajax.viewing.groups import Panel, summarize_seeds
from hajax.viewing.scenes import drawn

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot(
    trainings: Mapping[str, Training | Mapping[str, np.ndarray]],
    metric: str = "eval_return_mean",
    *,
    title: str = "",
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Learning curves: interquartile means over seeds, with 95% bootstrap intervals.

        hajax.plot({"HAPPO": happo, "MAPPO": mappo})

    A notebook shows the figure if it is the last value of a cell.

    Args:
        trainings: by label, what `hajax.train` returned, or its metrics: `step` `[K]` and others `[num_seeds, K]`.
        metric: the name of the metric.
        title: the title.
        path: also write the figure there, in the format of its suffix.

    Raises:
        ValueError: there is nothing to plot, or a training has no such metric.
    """
    if not isinstance(trainings, Mapping) or "step" in trainings or not trainings:
        raise ValueError("trainings is no mapping by label; allowed: one or more, as {'HAPPO': trained}")
    lines = []
    for label, training in trainings.items():
        metrics = training.metrics if isinstance(training, Training) else training
        check_known(f"metric of {label}", metric, [name for name in metrics if name != "step"])
        steps, values = np.asarray(metrics["step"]), np.asarray(metrics[metric], float)
        lines.append(summarize_seeds(label, [(steps, seed) for seed in values], steps, values.T))
    shown = {"eval_return_mean": "return"}.get(metric, metric.removeprefix("eval_"))
    figure = panels_figure([Panel(title, lines, [])], shown)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def render(
    env: Environment | BatchedEnvironment,
    algo: Algorithm,
    state: Any,
    path: str | os.PathLike[str] = "episode.gif",
    *,
    seed: int = 0,
    episodes: int = 1,
    deterministic: bool = True,
    max_steps: int | None = None,
    renderer: str = "auto",
) -> Path:
    """Writes episodes of a policy as an animation, and returns its path.

    Args:
        env: the environment.
        algo: the algorithm.
        state: its learner state, without a seed axis.
        path: a `.gif` or an `.mp4`.
        seed: of the episodes.
        episodes: their number, one after the other.
        deterministic: take the most likely actions instead of samples.
        max_steps: the largest number of steps, by default the environment's limit; without it a GIF ends after 200
            frames.
        renderer: `drawing`; `mujoco`, in three dimensions, for MuJoCo's robots; or `auto`, `mujoco` where it works.

    Raises:
        ValueError: the environment has no drawing or no step limit, the state has a seed axis, or the format cannot be
            written here.
    """
    check_number("episodes", episodes, 1, whole=True)
    check_choice("renderer", renderer, RENDERERS)
    check_one_seed(algo, state)
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"path={path}: there is no directory {path.parent}; allowed: a file in one that exists")
    encoder(path)
    shown = drawn(env, renderer)
    record = record_episode(shown, algo, deterministic=deterministic, max_steps=max_steps)
    keys = jax.random.split(jax.random.key(seed), episodes)
    with simulating(shown, last=True):
        recorded = jax.block_until_ready(jax.jit(jax.vmap(record, in_axes=(0, None)))(keys, state))
    longest = GIF_FRAMES if path.suffix == ".gif" and max_steps is None else None
    render_film(path, shown, recorded, title=f"{algo.name} on {env.spec.name}", max_frames=longest)
    return path
