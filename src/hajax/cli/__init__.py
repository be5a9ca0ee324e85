"""The `hajax` command.

Each command imports only what it needs, and JAX last, so that help and errors are quick.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from hajax import __version__
from hajax.runs.errors import (
    Refusal,
    RunError,
    hide_repeated_errors,
    machine_limit,
    one_of,
    print_warnings_of_simulators,
)

USAGE = """\
hajax: heterogeneous-agent reinforcement learning in JAX

usage: hajax COMMAND [ARGUMENTS]

commands:
  train      train an algorithm on an environment
  evaluate   returns of a trained run over episodes
  render     an episode as an animation
  plot       learning curves, comparisons of runs
  export     runs as one file for marl-eval
  list       show algorithms, environments, presets

  hajax train algo=happo env=mpe/simple_spread num_seeds=4 out_dir=runs/spread
  hajax evaluate runs/spread
  hajax plot runs/spread runs/other

options:
  -h, --help       this text; `hajax COMMAND --help` for one command
  --version        the version

exit codes: 0 done, 1 a run failed, 2 refused (nothing was written),
130 interrupted"""


COMMANDS = {
    "train": "hajax.cli.train:train",
    "evaluate": "hajax.cli.evaluate:evaluate",
    "render": "hajax.cli.render:render",
    "plot": "hajax.cli.plot:plot",
    "export": "hajax.cli.export:export",
    "list": "hajax.cli.listing:list_everything",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0, 1 if a run failed, 2 if refused, 130 if interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # names may be undecodable, and a terminal may lack characters
        sys.stdout.reconfigure(errors="backslashreplace")
    hide_repeated_errors()
    print_warnings_of_simulators()
    command, arguments = (argv[0], argv[1:]) if argv else ("--help", [])
    try:
        return _dispatch(command, arguments)
    except Refusal as refusal:
        return _say(command, refusal, 2)
    except RunError as error:
        return _say(command, error, 1)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has exited
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if (limit := machine_limit(error)) is None:
            raise
        return _say(command, limit, 1)


def _say(command: str, message: object, code: int) -> int:
    """Prints the error in one line, and returns the exit code."""
    print(f"hajax {command}: {message}" if command in COMMANDS else f"hajax: {message}", file=sys.stderr)
    return code


def _dispatch(command: str, arguments: list[str]) -> int:
    if command in ("-h", "--help", "help"):
        print(USAGE)
        return 0
    if command == "--version":
        print(f"hajax {__version__}")
        return 0
    if command not in COMMANDS:
        raise Refusal(one_of("command", command, COMMANDS))
    if os.getcwd() not in sys.path:  # for `env=module:function`, as with `python -m hajax`
        sys.path.insert(0, os.getcwd())
    module, function = COMMANDS[command].split(":")
    return getattr(import_module(module), function)(arguments)
