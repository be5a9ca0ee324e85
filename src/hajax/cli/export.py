"""`hajax export`: the evaluations of several runs as one file that marl-eval reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hajax.cli.arguments import Option, parse_arguments, writable
from hajax.runs.errors import Refusal, user_path
from hajax.runs.files import find_runs
from hajax.runs.marl_eval import FILE, marl_eval_json, read_run
from hajax.runs.tables import write_json

USAGE = """\
usage: hajax export DIR [DIR ...] [--output FILE.json]

Writes the evaluations of one or more runs, finished or not, as one file that
marl-eval reads. A DIR is a run directory or a folder of them, such as a sweep.

  --output FILE    the file to write (marl_eval.json)
"""
OPTIONS = {"--output": Option("str?", None)}


def export(arguments: Sequence[str]) -> int:
    """`hajax export DIR [DIR …] --output FILE`: several run directories as one file for marl-eval."""
    given = parse_arguments("export", USAGE, arguments, OPTIONS, directories=None)
    if given is None:
        return 0
    output = writable(given.values["--output"], Path(FILE))
    if output.suffix != ".json":
        raise Refusal(f"--output={output}; allowed: a file whose name ends in .json")
    paths = find_runs([user_path(name) for name in given.directories])
    write_json(output, marl_eval_json(read_run(path) for path in paths))
    print(f"{output}: {len(paths)} run{'s' if len(paths) > 1 else ''} in marl-eval's format")
    return 0
