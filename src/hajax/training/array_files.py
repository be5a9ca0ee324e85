"""Arrays by name in a directory, written and read by orbax, which is used here and nowhere else."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes `arrays` into the directory `path`, which must not exist; those without elements are left out.

    Raises:
        OSError: they cannot be written, for want of space, say.
    """
    import orbax.checkpoint as ocp  # takes a while, and only runs need it

    try:
        # orbax refuses arrays without elements; whoever reads them knows their shape.
        with _plain(path) as plain, ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(plain, {name: x for name, x in arrays.items() if x.size})
    except Exception as error:
        if told := _os_error(error, path):
            raise told from error
        raise


def read_arrays(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    """The arrays of these names, as they lie in the directory `path`; whether they are intact is not looked at."""
    import orbax.checkpoint as ocp

    how = {name: ocp.RestoreArgs(restore_type=np.ndarray) for name in names}
    wanted = ocp.args.PyTreeRestore(dict.fromkeys(names, 0), restore_args=how, partial_restore=True)
    with _plain(path) as plain, ocp.PyTreeCheckpointer() as checkpointer:
        return dict(checkpointer.restore(plain, args=wanted))


@contextmanager
def _plain(path: Path) -> Iterator[Path]:
    """`path`, absolute and of plain characters.

    orbax and what it stands on take others for patterns and escapes; a path that has them goes by a link to its folder.
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
    """What the operating system said, where orbax tells it as an error of its own."""
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
        if not isinstance(error, OSError) and os.strerror(code) in str(error):
            return OSError(code, os.strerror(code), str(path))
    return None
