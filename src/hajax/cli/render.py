"""`hajax render`: episodes of a trained run as an animated GIF, an MP4 or a page for the browser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hajax.cli.arguments import Option, parse_arguments, typed_options, writable
from hajax.runs.console import console
from hajax.runs.errors import Refusal, refusing, simulating
from hajax.runs.files import run_directory
from hajax.viewing import GIF_FRAMES, RENDERERS

USAGE = """\
usage: hajax render DIR [--seed K] [--episodes N] [--stochastic]
                        [--checkpoint STEP] [--max-steps N] [--renderer NAME]
                        [--output FILE]

Runs episodes with a policy of the run in DIR and writes them as an animation,
DIR/episode.gif.

  --seed K           one of the run's seeds (its first)
  --episodes N       episodes, one after the other (1; 8 for --stochastic
                     episodes of a single step)
  --stochastic       sample actions instead of taking the most probable ones
  --checkpoint STEP  the checkpoint of that step (last)
  --max-steps N      steps after which an episode is cut (the environment's own
                     limit); without it a GIF ends after 200 frames, which take
                     9 MB with MuJoCo's renderer
  --renderer NAME    drawing; or for mamujoco/… mujoco, MuJoCo's
                     three-dimensional renderer, which needs OpenGL (mujoco
                     where it works, otherwise drawing)
  --output FILE      write there instead of DIR/episode.gif: a .gif, an .mp4
                     (needs imageio-ffmpeg), or for mamujoco/… an .html with
                     brax's viewer (needs brax, and the network to view it)
"""
KINDS = (".gif", ".mp4", ".html")
OPTIONS = {
    "--seed": Option("int?", None, low=0),
    "--episodes": Option("int?", None, low=1),
    "--stochastic": Option("flag", False),
    "--checkpoint": Option("int?", None, low=0),
    "--max-steps": Option("int?", None, low=1),
    "--renderer": Option("str", "auto"),
    "--output": Option("str?", None),
}


def render(arguments: Sequence[str]) -> int:
    """Runs `hajax render ARGUMENTS`."""
    given = parse_arguments("render", USAGE, arguments, OPTIONS, directories=1)
    if given is None:
        return 0
    output = given.values["--output"]
    if output is not None and Path(output).suffix not in KINDS:
        raise Refusal(f"--output={output}; allowed: a name that ends in {', '.join(KINDS)}")
    if given.values["--renderer"] not in RENDERERS:
        raise Refusal(f"--renderer={given.values['--renderer']}; allowed: {', '.join(RENDERERS[1:])}")
    if given.values["--renderer"] != "auto" and output is not None and Path(output).suffix == ".html":
        raise Refusal(
            f"--renderer={given.values['--renderer']} with --output={output}, which shows brax's viewer; "
            "allowed: without --renderer"
        )
    path, left_out = render_run(run_directory(given.directories[0]), given.values)
    screen = console()
    screen.print(f"animation: {path}", soft_wrap=True)
    if left_out:
        shown = (
            f"The first {GIF_FRAMES} of {GIF_FRAMES + left_out:,} frames; --output FILE.mp4 or --max-steps shows more."
        )
        screen.print(shown, soft_wrap=True)
    return 0


def render_run(path: Path, options: dict[str, Any]) -> tuple[Path, int]:
    """Writes the requested animation; returns its path, and the number of frames left out at the end."""
    import jax

    from hajax.runs.loading import load_run
    from hajax.runs.machine import check_device, use_compilation_cache
    from hajax.runs.programs import fresh_keys
    from hajax.training.recording import record_episode
    from hajax.viewing.film import encoder, render_film
    from hajax.viewing.scenes import check_viewer, drawn, positions, prefer_headless_rendering, viewer

    output = writable(options["--output"], path / "episode.gif")
    prefer_headless_rendering()
    check_device()
    typed = typed_options(options)
    with refusing(typed=typed):
        loaded = load_run(path, "last" if options["--checkpoint"] is None else options["--checkpoint"])
        use_compilation_cache(loaded.settings.compilation_cache)
        seed = loaded.seeds[0] if options["--seed"] is None else options["--seed"]
        state, env = loaded.state(seed), loaded.team.env
    episodes = options["--episodes"] or (8 if options["--stochastic"] and env.spec.max_steps == 1 else 1)
    as_page = output.suffix == ".html"
    with refusing(typed=typed):
        if as_page:
            check_viewer(env, f"--output={output}")
        else:
            encoder(output)
            env = drawn(env, options["--renderer"])
        record = record_episode(
            env,
            loaded.team.algorithm,
            deterministic=not options["--stochastic"],
            max_steps=options["--max-steps"] or loaded.settings.eval.max_steps,
        )
        keys = jax.random.split(fresh_keys([seed], loaded.step)[0], episodes)
        with simulating(env, last=True):
            recorded = jax.block_until_ready(jax.jit(jax.vmap(record, in_axes=(0, None)))(keys, state))
        title = f"{loaded.settings.algo['name']} on {loaded.settings.env['name']}, seed {seed}, {loaded.step:,} steps"
        if as_page:
            output.write_text(viewer(env, positions(env, recorded)), encoding="utf-8")
            return output, 0
        whole = output.suffix != ".gif" or options["--max-steps"]
        return output, render_film(output, env, recorded, title=title, max_frames=None if whole else GIF_FRAMES)
