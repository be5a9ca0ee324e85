"""Ctrl-C, and the SIGTERM with which a cluster takes a machine back, that let a run end in good order."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """Sets the event at the first Ctrl-C or SIGTERM; a second one raises KeyboardInterrupt at once.

    Nothing is raised in between, so that no library can swallow it or be left half imported: whoever works inside
    looks at the event between steps.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield stop
        return

    def handler(signum: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        print(
            "stopping as soon as what is compiling or running is done and saved; Ctrl-C again stops without saving",
            file=sys.stderr,
        )

    previous = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def raise_if_set(stop: threading.Event) -> None:
    """Ends what has not begun to write yet."""
    if stop.is_set():
        raise KeyboardInterrupt
