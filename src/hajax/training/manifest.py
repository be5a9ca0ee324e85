"""The manifest of a checkpoint: its contents, its format version, and the checksums that reveal damage."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hajax import __version__

FORMAT = 2  # raised with every change of the format; only this version is read
MANIFEST = "manifest.json"


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, of another format, or of another configuration."""


class FormatError(CheckpointError):
    """A checkpoint of another format."""


class Checkpoint(NamedTuple):
    """A checkpoint with an intact manifest. Its arrays have not been read yet."""

    path: Path
    step: int
    facts: dict[str, Any]  # JSON data saved beside the arrays
    arrays: dict[str, dict[str, Any]]  # name -> shape, dtype, sha256
    files: dict[str, dict[str, Any]]  # path under the checkpoint -> bytes, sha256


ADVICE = "allowed: a checkpoint as it was saved; remove this one to fall back on the one before it"


def sha256(array: np.ndarray) -> str:
    """The SHA-256 of the array's bytes in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()


def _file_sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def write_manifest(path: Path, step: int, facts: dict[str, Any], arrays: Mapping[str, tuple[np.ndarray, str]]) -> None:
    """Writes the manifest of the files under `path` and of `arrays`, each given with the dtype of its leaf."""
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    manifest = {
        "format": FORMAT,
        "hajax": __version__,
        "step": step,
        "facts": facts,
        "arrays": {
            name: {"shape": list(x.shape), "dtype": dtype, "sha256": sha256(x)} for name, (x, dtype) in arrays.items()
        },
        "files": {
            file.relative_to(path).as_posix(): {"bytes": file.stat().st_size, "sha256": _file_sha256(file)}
            for file in files
        },
    }
    text = json.dumps(manifest | {"sha256": digest(manifest)}, indent=1)
    (path / MANIFEST).write_text(text + "\n", encoding="utf-8")


def digest(manifest: Mapping[str, Any]) -> str:
    """The SHA-256 of a manifest's canonical JSON, without the digest itself."""
    content = {name: value for name, value in manifest.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_manifest(path: Path) -> Checkpoint:
    """The checkpoint at `path`.

    Raises:
        FormatError: it is of another format.
        CheckpointError: its manifest is missing or damaged.
    """
    file = path / MANIFEST
    try:
        manifest = json.loads(file.read_bytes())
        intact = manifest["sha256"] == digest(manifest)
    except FileNotFoundError as error:
        raise CheckpointError(f"{file} is missing; {ADVICE}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file} is damaged (it can't be read); {ADVICE}") from error
    version = manifest.get("format")
    if isinstance(version, int) and version != FORMAT:  # before the digest, which other formats may compute differently
        raise FormatError(
            f"{path} has format {version}, written by hajax {manifest.get('hajax')}; allowed: {FORMAT}, which this "
            f"hajax {__version__} reads (go on with the one that wrote it)"
        )
    if not intact:
        raise CheckpointError(f"{file} is damaged (its SHA-256 differs); {ADVICE}")
    return Checkpoint(path, manifest["step"], manifest["facts"], manifest["arrays"], manifest["files"])


def check_file(path: Path, name: str, entry: Mapping[str, Any]) -> None:
    """Raises CheckpointError unless the file `name` under `path` has the size and checksum of `entry`."""
    file = path / name
    if not file.is_file():
        raise CheckpointError(f"{file} is missing; {ADVICE}")
    if (size := file.stat().st_size) != entry["bytes"]:
        raise CheckpointError(f"{file} is damaged ({size} bytes of {entry['bytes']}); {ADVICE}")
    if _file_sha256(file) != entry["sha256"]:
        raise CheckpointError(f"{file} is damaged (its SHA-256 differs); {ADVICE}")
