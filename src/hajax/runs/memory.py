"""A check that the replay fits into memory, before anything compiles."""

from __future__ import annotations

import os
from pathlib import Path

import jax

# When the replays are in memory twice.
SAVING = "while a checkpoint is written (not with checkpoint.replay=false)"
SELECTING = "while a population is selected"


def free_memory() -> int | None:
    """The free bytes on the first device, or in the machine if that is a CPU; `None` if unknown."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0) if "bytes_limit" in stats else None
    known = [number for number in (_free_in_machine(), _free_in_container()) if number is not None]
    return min(known, default=None)


def _free_in_machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return None


def _free_in_container() -> int | None:
    """The free bytes of a control group (version 2); `None` where there is none, or no limit."""
    group = Path("/sys/fs/cgroup")
    try:
        return int((group / "memory.max").read_text()) - int((group / "memory.current").read_text())
    except (OSError, ValueError):  # `max` is not a number
        return None


def shown_bytes(number: float) -> str:
    """A number of bytes with a decimal unit, such as `300 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.4g} TB"


def memory_warning(
    replay_bytes: int, num_seeds: int, buffer_size: int, *, points: int = 1, twice: str = "", devices: int = 1
) -> str | None:
    """A warning if the replays of all seeds, at all points of a grid, would not fit, and as much again if `twice`.

    `twice` says when. A device with a memory of its own holds one of `devices` equal shares of them.
    """
    needed, free, copies = replay_bytes * num_seeds * points // devices, free_memory(), 2 if twice else 1
    if free is None or copies * needed <= free:
        return None
    fits = int(buffer_size * free / (copies * needed))
    again = f", and as much again {twice}" if twice else ""
    where = "in all" if devices == 1 else "on each device"
    at = f" at each of {points} points" if points > 1 else ""
    return (
        f"algo.buffer_size={buffer_size} takes {shown_bytes(replay_bytes)} for each of num_seeds={num_seeds}{at}, "
        f"{shown_bytes(needed)} {where}{again}, but {shown_bytes(free)} are free; at most {fits} would fit"
    )
