"""Films: recorded episodes as an animated GIF or an MP4, a frame per step, drawn without a display."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from hajax.envs.base import BatchedEnvironment, Environment, Viewer
from hajax.training.recording import Episode

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

SIZE = (5.2, 6.0)  # inches
# The position of the axes, constant over the film, with room for a title above and a legend below.
AXES = (0.15, 0.18, 0.81, 0.675)
# The duration of the last frame of an episode, in seconds.
HOLD = 1.5
# The least duration of a frame of an environment with a `scene`, in seconds; browsers slow down shorter GIF frames.
SHORTEST = 0.02

Limits = tuple[tuple[float, float], tuple[float, float]]


class Frame(NamedTuple):
    """One step, and its caption."""

    state: Any
    action: np.ndarray
    timestep: Any
    caption: str
    last: bool  # the last step of its episode


def render_film(
    path: str | Path,
    env: Environment | BatchedEnvironment,
    episode: Episode,
    *,
    title: str,
    fps: float | None = None,
    dpi: int = 100,
    max_frames: int | None = None,
) -> int:
    """Writes the episode to `path`: a frame per step, with title, step, reward and return so far.

    Args:
        path: the file to write: `.gif`, which repeats, or `.mp4`.
        env: the environment in which the episode was recorded; it draws the frames.
        episode: of `record_episode`; with a leading axis `[K]` on all leaves, as from `jax.vmap(record)`, K episodes
            one after the other.
        title: the first line above every frame.
        fps: frames per second, one per step; the last frame of an episode lasts at least 1.5 seconds. Default: 5, or 1
            if every episode is a single step; for an environment with a `scene` in real time, with at most 50 frames
            per second.
        dpi: pixels per inch; a frame is 5.2 by 6 inches.
        max_frames: the largest number of frames; the rest of the episodes is left out. Default: no limit.

    Returns:
        The number of frames that were left out at the end.

    Raises:
        ValueError: the environment has no drawing, or the file's format is not supported or cannot be encoded here.
    """
    scene = check_drawing(env).scene
    encode = encoder(path)
    stride = 1
    if fps is None and scene is not None:
        stride = math.ceil(SHORTEST / scene.seconds - 1e-6)
        fps = 1 / (stride * scene.seconds)
    every = list(each_frame(episode, stride))
    frames = every[:max_frames]
    if fps is None:
        fps = 1 if all(frame.last for frame in frames) else 5
    limits: list[Limits | None] = [None] * len(frames)
    if scene is None:  # which is drawn around its center, at one scale
        limits = _of_episodes(frames, [frame_figure(env, frame, title, dpi)[1] for frame in frames])
    seconds = [1 / fps] * len(frames)
    for i, frame in enumerate(frames):
        if frame.last and (i == len(frames) - 1 or not frames[i + 1].last):
            seconds[i] = max(seconds[i], HOLD)
    figures = (frame_figure(env, frame, title, dpi, own)[0] for frame, own in zip(frames, limits, strict=True))
    encode(path, map(_image, figures), seconds)
    return len(every) - len(frames)


def encoder(path: str | Path) -> Callable[[str | Path, Iterable[Image], Sequence[float]], None]:
    """The function that writes pictures with their durations in seconds to a file with the suffix of `path`.

    Raises ValueError if there is none.
    """
    suffix = Path(path).suffix
    if suffix not in ENCODERS:
        raise ValueError(f"film {path}; allowed: a name that ends in {' or '.join(ENCODERS)}")
    if suffix == ".mp4" and find_spec("imageio_ffmpeg") is None:
        raise ValueError(f"film {path} needs imageio-ffmpeg, which is not installed; pip install imageio-ffmpeg")
    return ENCODERS[suffix]


def _gif(path: str | Path, images: Iterable[Image], seconds: Sequence[float]) -> None:
    from PIL import Image

    first, *others = [image.quantize(256, dither=Image.Dither.NONE) for image in images]
    # The format counts hundredths of a second: rounding errors are carried over to the next frame.
    ends = np.round(100 * np.cumsum(seconds)).astype(int)
    duration = [10 * int(stays) for stays in np.diff(ends, prepend=0)]
    first.save(path, "GIF", save_all=True, append_images=others, duration=duration, loop=0)


def _mp4(path: str | Path, images: Iterable[Image], seconds: Sequence[float]) -> None:
    import imageio_ffmpeg

    shortest = min(seconds)
    writer = None
    for image, stays in zip(images, seconds, strict=True):
        if writer is None:  # the width and height of a frame are even, as the codec requires
            writer = imageio_ffmpeg.write_frames(str(path), image.size, fps=1 / shortest, macro_block_size=2)
            writer.send(None)
        for _ in range(round(stays / shortest)):
            writer.send(image.tobytes())
    assert writer is not None
    writer.close()


ENCODERS = {".gif": _gif, ".mp4": _mp4}


def check_drawing(env: Environment | BatchedEnvironment) -> Viewer:
    """The environment's viewer; raises ValueError if it has none."""
    if env.viewer is None:
        raise ValueError(
            f"environment={env.spec.name} has no drawing; allowed: environments whose `viewer` is set, "
            "see docs/adding-an-environment.md"
        )
    return env.viewer


def each_frame(episode: Episode, stride: int = 1) -> Iterator[Frame]:
    """Every `stride`-th step, and the last, of the episode or of every episode of a batch; padding is left out."""
    episode = jax.device_get(episode)
    lengths = np.atleast_1d(episode.length)
    for k, length in enumerate(lengths):
        one = episode if np.ndim(episode.length) == 0 else jax.tree.map(lambda x, k=k: x[k], episode)
        returns = np.cumsum(one.reward)
        for t in sorted({*range(0, length, stride), length - 1}):
            state, action, timestep = jax.tree.map(lambda x, t=t: x[t], (one.state, one.action, one.timestep))
            parts = [f"episode {k + 1} of {len(lengths)}"] if len(lengths) > 1 else []
            parts += [f"step {t + 1} of {length}"] if length > 1 or not parts else []
            parts += [f"reward {one.reward[t]:.2f}"]
            parts += [f"return {returns[t]:.2f}"] if length > 1 else []
            yield Frame(state, action, timestep, "   ".join(parts), t == length - 1)


def _of_episodes(frames: Sequence[Frame], limits: Sequence[Limits]) -> list[Limits | None]:
    """The limits of every frame: those that contain its whole episode, which then has one scale."""
    found: list[Limits | None] = []
    for i, frame in enumerate(frames):
        if frame.last or i == len(frames) - 1:
            own = limits[len(found) : i + 1]
            found += [widest(own)] * len(own)
    return found


def widest(limits: Sequence[Limits]) -> Limits:
    """Axis limits that contain all of these, in the direction of the first."""

    def union(pairs: list[tuple[float, float]]) -> tuple[float, float]:
        low, high = min(min(pair) for pair in pairs), max(max(pair) for pair in pairs)
        return (low, high) if pairs[0][0] <= pairs[0][1] else (high, low)

    return union([x for x, _ in limits]), union([y for _, y in limits])


def frame_figure(
    env: Environment | BatchedEnvironment, frame: Frame, title: str, dpi: int, limits: Limits | None = None
) -> tuple[Figure, Limits]:
    """The frame as a figure, and the limits of its axes: those of the drawing unless others are given."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=dpi)
    axes: Axes = figure.add_axes(AXES)
    check_drawing(env).draw(axes, frame.state, frame.action, frame.timestep)
    if limits is not None:
        axes.set(xlim=limits[0], ylim=limits[1])
    place = {"x": 0.03, "y": 0.985, "ha": "left", "va": "top"}
    figure.suptitle(f"{title}\n{frame.caption}", **place, size=11, linespacing=1.5, parse_math=False)
    return figure, (axes.get_xlim(), axes.get_ylim())


def _image(figure: Figure) -> Image:
    """The figure's pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
