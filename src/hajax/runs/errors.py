"""Errors of the command line, each in one line: refused requests, failed runs, and limits of the machine."""

from __future__ import annotations

import errno
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hajax.places import user_place
from hajax.validation import nearest

# How the file with the error of a run of a sweep ends if another run is in its directory.
BESIDE = ".error.txt"


class Refusal(ValueError):
    """A request refused before anything was written. Its text is one line: field, value and allowed values."""

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))


def user_path(text: str | Path) -> Path:
    """The typed path with `~` expanded; `Refusal` if there is no such home directory."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise Refusal(f"{text}: {error}; allowed: a directory's name") from error


class RunError(Exception):
    """A run that began and cannot continue, in one line. Earlier checkpoints are kept."""

    def __init__(self, message: str):
        super().__init__(" ".join(str(message).split()))


class SimulatorFailure(RunError):
    """A simulator raised an error or broke its interface; `details` is the traceback in its process."""

    def __init__(self, message: str, details: str):
        super().__init__(message)
        self.details = details


@contextmanager
def simulating(env: Any, *, last: bool = False) -> Iterator[None]:
    """Turns JAX's error about a simulator of the environment into a `SimulatorFailure`; the `last` time ends them."""
    try:
        yield
    except Exception as error:
        fault = None if env.host is None else env.host.fault
        if fault is None or type(error).__name__ != "JaxRuntimeError":
            raise
        raise SimulatorFailure(str(fault), fault.details) from error
    finally:
        if last and env.host is not None:
            env.host.close()


@contextmanager
def refusing(
    kinds: tuple[type[Exception], ...] = (ValueError,), typed: Mapping[str, tuple[str, Any]] | None = None
) -> Iterator[None]:
    """Turns errors of the library of these kinds into refusals.

    `typed` maps the names of settings in their messages to names at the command line and given values:
    `{"clip": ("algo.clip", 0.2)}`. An error in the user's own code keeps its kind and its place.
    """
    try:
        yield
    except Refusal as refusal:
        if not typed:
            raise
        raise Refusal(as_typed(str(refusal), typed)) from refusal
    except kinds as error:
        at = user_place(error)
        message = as_typed(str(error), typed or {})
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise Refusal(f"{kind}{message} ({at})" if at else message) from error


def as_typed(message: str, typed: Mapping[str, tuple[str, Any]]) -> str:
    """The message with names and values of settings as typed: `algo.order=sorted` for `order='sorted'`."""

    def replaced(found: re.Match[str]) -> str:
        name, value = typed[found[1]]
        for written in {repr(value), str(value), repr(tuple(value)) if isinstance(value, list) else ""}:
            if written and message.startswith(written, found.end()):
                lengths[found.end()] = len(written)
                return f"{name}={shown(value)}"
        return f"{name}="

    if not typed:
        return message
    lengths: dict[int, int] = {}  # of values that were replaced with their names, by their first position
    parts, end = [], 0
    for found in re.finditer(rf"(?<![\w.])({'|'.join(map(re.escape, typed))})=", message):
        parts += [message[end : found.start()], replaced(found)]
        end = found.end() + lengths.get(found.end(), 0)
    return "".join([*parts, message[end:]])


def shown(value: Any) -> str:
    """The value as the user would write it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{name}:{shown(entry)}' for name, entry in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(shown(entry) for entry in value)}]"
    return str(value)


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their names as typed: `{"algo.clip": 0.2, …}`."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return found


# Errors of the operating system that concern the machine and not the program. Others are raised with a traceback.
NO_SPACE, TOO_LONG = (errno.ENOSPC, errno.EDQUOT), errno.ENAMETOOLONG
LIMITS = (
    *NO_SPACE,
    TOO_LONG,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EFBIG,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOLCK,
)


def machine_limit(error: BaseException) -> str | None:
    """One line for an error about a missing resource (space, memory, permission); `None` for any other."""
    if isinstance(error, OSError) and error.errno in LIMITS:
        place = f": {error.filename}" if error.filename else ""
        advice = dict.fromkeys(NO_SPACE, "; free some space and continue with resume=true")
        advice[TOO_LONG] = "; allowed: a shorter name"
        return f"{error.strerror}{place}{advice.get(error.errno, '')}"
    text = str(error)
    if isinstance(error, MemoryError) or re.search(r"out of memory|RESOURCE_EXHAUSTED|bad_alloc", text, re.IGNORECASE):
        needed = re.search(r"(?:allocat\w+|of) ([\d.]+ ?[KMGT]?i?B|\d+ bytes)", text)
        asked = f" for {needed[1]}" if needed else ""
        return (
            f"not enough memory{asked}; smaller num_seeds, num_envs, rollout_length, eval.episodes or "
            "algo.buffer_size take less, and resume=true continues from the last checkpoint"
        )
    return None


def one_of(field: str, value: Any, allowed: Iterable[str]) -> str:
    """`field=value is unknown; did you mean …? allowed: …` for a name that isn't in a list."""
    names = list(allowed)
    close = nearest(str(value), names)
    hint = f" did you mean {' or '.join(close)}?" if close else ""
    return f"{field}={value} is unknown;{hint} allowed: {', '.join(names)}"


def unknown_key(key: str, value: Any, keys: Iterable[str]) -> str:
    """`key=value: there is no setting key`, with the nearest names, or those of its section if none is near."""
    names = list(keys)
    close = nearest(key, names)
    if close:
        return f"{key}={value}: there is no setting {key}; did you mean {' or '.join(close)}?"
    section = key.rpartition(".")[0]
    beside = [name for name in names if name.rpartition(".")[0] == section] or [n for n in names if "." not in n]
    return f"{key}={value}: there is no setting {key}; allowed: {', '.join(beside)}"


_usual_hook = sys.unraisablehook


def hide_repeated_errors() -> None:
    """Suppresses what orbax prints about an error in addition to raising it.

    It logs the error of each of its threads, and closes the event loop to which tensorstore still reports: a traceback
    for every array.
    """
    logging.getLogger("absl").addFilter(_is_not_repeated)
    sys.unraisablehook = _hook


class _Printed(logging.Handler):
    """Prints messages as warnings of the command line, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"hajax: warning: {record.getMessage()}", file=sys.stderr)


def print_warnings_of_simulators() -> None:
    """Prints what is logged about simulators and their workers."""
    logger = logging.getLogger("hajax.simulators")
    if not logger.handlers:
        logger.addHandler(_Printed())
        logger.propagate = False


def _is_not_repeated(record: logging.LogRecord) -> bool:
    return "_SignalingThread.run() raised an exception" not in record.getMessage()


def _hook(unraisable: sys.UnraisableHookArgs) -> None:
    if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"):
        _usual_hook(unraisable)
