"""Named arrays in a directory, written and read by orbax. No other module uses orbax."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes `arrays` into the directory `path`, which must not exist. Arrays without elements are omitted.

    Raises:
        OSError: writing fails, for example because the disk is full.
    """
    try:
        # orbax refuses arrays without elements. Their shapes are in the manifest.
        with _plain(path) as plain, _checkpointer() as checkpointer:
            checkpointer.save(plain, {name: x for name, x in arrays.items() if x.size})
    except Exception as error:
        if told := _os_error(error, path):
            raise told from error
        raise


def read_arrays(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """The arrays with these names in the directory `path`. Their checksums are not verified."""
    import orbax.checkpoint as ocp

    how = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
    wanted = ocp.args.PyTreeRestore(dict.fromkeys(names, 0), restore_args=how, partial_restore=True)
    with _plain(path) as plain, _checkpointer() as checkpointer:
        return dict(checkpointer.restore(plain, args=wanted))


def _checkpointer() -> Any:
    """orbax's checkpointer for this process alone, which is not to wait for others of a run."""
    import orbax.checkpoint as ocp  # slow to import, and needed only by runs

    this = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=this, active_processes={this}, barrier_sync_key_prefix=str(this)
    )
    return ocp.Checkpointer(ocp.PyTreeCheckpointHandler(multiprocessing_options=alone), multiprocessing_options=alone)


@contextmanager
def _plain(path: Path) -> Iterator[Path]:
    """An absolute path to `path` of plain characters.

    orbax and its dependencies interpret other characters as patterns or escapes. A path with such characters is
    replaced by one through a temporary symbolic link to its parent directory.
    """
    if re.fullmatch(r"[\w./=,+-]+", str(path.absolute()), re.ASCII):
        yield path.absolute()
        return
    places = [place for place in (tempfile.gettempdir(), "/tmp", "/var/tmp") if re.fullmatch(r"[\w./-]+", place)]
    with tempfile.TemporaryDirectory(prefix="hajax-", dir=next(iter(places), None)) as folder:
        link = Path(folder) / "link"
        link.symlink_to(path.absolute().parent, target_is_directory=True)
        yield link / path.name


def _os_error(error: Exception, path: Path) -> OSError | None:
    """The error of the operating system that orbax has wrapped in another exception; `None` if there is none."""
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
        if not isinstance(error, OSError) and os.strerror(code) in str(error):
            return OSError(code, os.strerror(code), str(path))
    return None
