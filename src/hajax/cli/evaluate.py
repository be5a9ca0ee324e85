"""`hajax evaluate`: the returns of a trained run's policies over fresh episodes, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from hajax.cli.arguments import Option, parse_arguments, typed_options, writable
from hajax.runs.console import console
from hajax.runs.errors import refusing, simulating
from hajax.runs.files import run_directory

USAGE = """\
usage: hajax evaluate DIR [--episodes 100] [--seed K] [--stochastic]
                          [--checkpoint STEP] [--max-steps N] [--output FILE]

Runs whole episodes with the policies of the run in DIR, prints their returns,
and writes DIR/evaluation.json.

  --episodes N       episodes per seed (100)
  --seed K           one of the run's seeds instead of all of them
  --stochastic       sample actions instead of taking the most probable ones
  --checkpoint STEP  the checkpoint of that step (last)
  --max-steps N      steps after which an episode is cut (the environment's own
                     limit)
  --output FILE      write the results there instead of DIR/evaluation.json
"""
OPTIONS = {
    "--episodes": Option("int", 100, low=1),
    "--seed": Option("int?", None, low=0),
    "--stochastic": Option("flag", False),
    "--checkpoint": Option("int?", None, low=0),
    "--max-steps": Option("int?", None, low=1),
    "--output": Option("str?", None),
}


def evaluate(arguments: Sequence[str]) -> int:
    """Runs `hajax evaluate ARGUMENTS`."""
    given = parse_arguments("evaluate", USAGE, arguments, OPTIONS, directories=1)
    if given is None:
        return 0
    import numpy as np

    from hajax.runs.directory import summarize_returns
    from hajax.runs.tables import write_json

    path = run_directory(given.directories[0])
    output = writable(given.values["--output"], path / "evaluation.json")
    step, seeds, results = play(path, given.values)
    returns = np.stack([results["episode_return"][k] for k in range(len(seeds))])
    report = {
        "run": str(path),
        "step": step,
        "episodes": given.values["--episodes"],
        "deterministic": not given.values["--stochastic"],
        "seeds": list(seeds),
        "return": summarize_returns(returns.mean(axis=1)),
        "episode_returns": returns.tolist(),
        "episode_length": [float(x) for x in results["episode_length"].mean(axis=1)],
        "metrics": {
            name: [float(x) for x in value.mean(axis=1)]
            for name, value in results.items()
            if name not in ("episode_return", "episode_length")
        },
    }
    write_json(output, report)
    screen = console()
    screen.print(results_table(report, returns))
    screen.print(f"results: {output}", soft_wrap=True)
    return 0


def play(path: Path, options: dict[str, Any]) -> tuple[int, tuple[int, ...], dict[str, Any]]:
    """The step of the checkpoint, the seeds, and results `[num_seeds, episodes]`."""
    import jax

    from hajax.runs.loading import load_run
    from hajax.runs.machine import check_device, use_compilation_cache
    from hajax.runs.programs import check_finished, fresh_keys
    from hajax.training import make_evaluate

    checkpoint = "last" if options["--checkpoint"] is None else options["--checkpoint"]
    check_device()
    with refusing(typed=typed_options(options)):
        loaded = load_run(path, checkpoint)
        use_compilation_cache(loaded.settings.compilation_cache)
        seeds = loaded.seeds if options["--seed"] is None else (options["--seed"],)
        states = jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *(loaded.state(seed) for seed in seeds))
        evaluator = make_evaluate(
            loaded.team.env,
            loaded.team.algorithm,
            num_episodes=options["--episodes"],
            max_steps=options["--max-steps"] or loaded.settings.eval.max_steps,
            deterministic=not options["--stochastic"],
        )
    with simulating(loaded.team.env, last=True):
        results = jax.device_get(jax.jit(jax.vmap(evaluator))(fresh_keys(seeds, loaded.step), states))
    finished = results.pop("finished")
    if options["--max-steps"] is None and loaded.settings.eval.max_steps is None:
        check_finished(loaded.team.env.spec, finished)
    return loaded.step, seeds, results


def results_table(report: dict[str, Any], returns: Any) -> Table:
    """Mean, standard deviation and standard error of the return of every seed, and the means of other metrics."""
    from hajax.training.evaluation import RETURN_OF

    how = "deterministic" if report["deterministic"] else "stochastic"
    metrics = {name: x for name, x in report["metrics"].items() if not name.startswith(RETURN_OF)}
    table = Table(
        title=f"{report['run']} after {report['step']:,} steps per seed",
        caption=f"{report['episodes']} episodes per seed, {how}",
    )
    for column in ("seed", "mean return", "standard deviation", "standard error", "length", *metrics):
        table.add_column(column, justify="right")
    for k, (seed, own) in enumerate(zip(report["seeds"], returns, strict=True)):
        error = own.std() / own.size**0.5
        others = [f"{values[k]:.3f}" for values in metrics.values()]
        length = f"{report['episode_length'][k]:.1f}"
        table.add_row(str(seed), f"{own.mean():.2f}", f"{own.std():.2f}", f"{error:.2f}", length, *others)
    if len(report["seeds"]) > 1:
        table.add_section()
        low, high = report["return"]["ci95"]
        table.add_row("IQM", f"{report['return']['iqm']:.2f}", f"[{low:.2f}, {high:.2f}]", "", "")
    return table
