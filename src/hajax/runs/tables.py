"""The files of a run: CSV tables that grow by rows, and files that are replaced as a whole."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from hajax.runs.errors import Refusal

Row = dict[str, Any]
RUN = "a run directory, or a folder of them (config.yaml, metrics.csv, timing.csv in each)"


class Table:
    """A CSV file that grows by rows. Every state of it on the disk is whole rows, but perhaps for the last."""

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[Row] = []
        self.columns: list[str] = []

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds rows; a column that is new in them joins, and is empty in the rows before."""
        self.rows.extend(dict(row) for row in rows)
        columns = list(dict.fromkeys([*self.columns, *(name for row in rows for name in row)]))
        if columns == self.columns:
            with open(self.path, "a", newline="", encoding="utf-8") as file:
                self._writer(file).writerows(map(_cells, rows))
                _flush(file)
        else:
            self.columns = columns
            self.write()

    def read(self, keep: Callable[[int], bool] = lambda step: True) -> None:
        """Reads back what was written at the steps to be kept; nothing if there is no file."""
        if self.path.exists():
            self.columns, rows = read_rows(self.path, ("step",))
            self.rows = [row for row in rows if keep(row["step"])]

    def write(self) -> None:
        """Writes all rows anew."""
        if not self.columns:
            return
        with replacing(self.path) as file:
            writer = self._writer(file)
            writer.writeheader()
            writer.writerows(map(_cells, self.rows))

    def _writer(self, file: TextIO) -> csv.DictWriter:
        return csv.DictWriter(file, self.columns, restval="", lineterminator="\n")


def read_rows(path: Path, needed: Sequence[str]) -> tuple[list[str], list[Row]]:
    """The columns of a CSV file and its rows as numbers: an empty cell is NaN, a last row half written is left out.

    Raises:
        Refusal: the file can't be read, lacks a column that is needed, or holds something that is no number.
    """
    lines = read_text(path).splitlines(keepends=True)
    reader = csv.DictReader(line for line in lines if line.endswith("\n"))
    columns = list(reader.fieldnames or ())
    for name in needed:
        if name not in columns:
            raise Refusal(f"{path}, line 1 has no column {name}; allowed: a file with {', '.join(needed)}")
    return columns, [{name: _number(path, reader.line_num, name, row[name]) for name in columns} for row in reader]


def read_text(path: Path) -> str:
    """A file of a run; `Refusal` if it can't be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise Refusal(f"{path} can't be read ({reason}); allowed: {RUN}") from error


def _number(path: Path, line: int, name: str, cell: str | None) -> float:
    """A cell as a number: steps and seeds whole, anything else possibly empty, which is NaN."""
    whole = name in ("step", "seed")
    try:
        if cell == "" and not whole:
            return math.nan
        return int(cell or "") if whole else float(cell or "")
    except ValueError as error:
        kind = "a whole number" if whole else "a number or nothing"
        shown = "missing" if cell is None else repr(cell)
        raise Refusal(f"{path}, line {line}: {name} is {shown}; allowed: {kind}") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file of JSON; numbers that are not finite become `null`."""
    with replacing(path) as file:
        file.write(json.dumps(_finite(content), indent=2) + "\n")


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A file that takes the place of `path` when it is complete, and not before."""
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "w", newline="", encoding="utf-8") as file:
        yield file
        _flush(file)
    os.replace(partial, path)


def _flush(file: TextIO) -> None:
    """To the disk: a checkpoint, which is flushed too, must never be ahead of the rows before it."""
    file.flush()
    os.fsync(file.fileno())


def _cells(row: Mapping[str, Any]) -> Row:
    """CSV has no NaN: a mean over no episodes is an empty cell."""
    return {name: "" if isinstance(x, float) and math.isnan(x) else x for name, x in row.items()}


def _finite(value: Any) -> Any:
    """JSON has neither NaN nor infinities; they become `null`."""
    if isinstance(value, Mapping):
        return {name: _finite(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
