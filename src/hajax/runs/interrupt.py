"""Ctrl-C, and the signals of a cluster or a closed terminal: the run saves and stops."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# Ctrl-C; signals of schedulers before a machine is reclaimed or a limit is reached; a closed terminal.
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")


@contextmanager
def stop_on_interrupt(
    signals: Sequence[str] = SIGNALS,
    message: str = "stopping as soon as what is compiling or running is done and saved; Ctrl-C again stops without "
    "saving",
) -> Iterator[threading.Event]:
    """Sets the event at the first of `signals`; a second Ctrl-C or SIGTERM raises KeyboardInterrupt immediately.

    Nothing is raised at the first signal, so that no library can swallow it or be left half imported: the code inside
    checks the event between steps. SIGHUP stays ignored where it already is, as under `nohup`.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield stop
        return

    def handler(signum: int, frame: Any) -> None:
        if signum == getattr(signal, "SIGHUP", None):
            _leave_terminal()
        if stop.is_set():
            if signum in (signal.SIGINT, signal.SIGTERM):
                raise KeyboardInterrupt
            return
        stop.set()
        print(message, file=sys.stderr)

    numbers = {name: getattr(signal, name) for name in signals if hasattr(signal, name)}
    if "SIGHUP" in numbers and signal.getsignal(numbers["SIGHUP"]) is signal.SIG_IGN:
        del numbers["SIGHUP"]
    previous = {number: signal.signal(number, handler) for number in numbers.values()}
    try:
        yield stop
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def _leave_terminal() -> None:
    """Discards further output, because writing to a closed terminal is an error."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            if os.isatty(descriptor):
                os.dup2(nowhere, descriptor)
        os.close(nowhere)


def raise_if_set(stop: threading.Event) -> None:
    """Raises KeyboardInterrupt if the event is set; called before anything is written."""
    if stop.is_set():
        raise KeyboardInterrupt
