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
    """A CSV file that grows by rows. On disk only its last row can be incomplete."""

    def __init__(self, path: Path, writes: bool = True):
        self.path = path
        self.writes = writes  # otherwise rows are only kept in memory
        self.rows: list[Row] = []
        self.columns: list[str] = []

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds rows. A new column is added, and is empty in earlier rows."""
        self.rows.extend(dict(row) for row in rows)
        columns = list(dict.fromkeys([*self.columns, *(name for row in rows for name in row)]))
        if columns == self.columns and self.writes:
            with open(self.path, "a", newline="", encoding="utf-8") as file:
                self._writer(file).writerows(map(_cells, rows))
                _flush(file)
        else:
            self.columns = columns
            self.write()

    def read(self, keep: Callable[[int], bool] = lambda step: True) -> None:
        """Reads back the rows of the steps to be kept; nothing if there is no file."""
        if self.path.exists():
            self.columns, rows = read_rows(self.path, ("step",))
            self.rows = [row for row in rows if keep(row["step"])]

    def write(self) -> None:
        """Rewrites all rows."""
        if not self.columns or not self.writes:
            return
        with replacing(self.path) as file:
            writer = self._writer(file)
            writer.writeheader()
            writer.writerows(map(_cells, self.rows))

    def _writer(self, file: TextIO) -> csv.DictWriter:
        return csv.DictWriter(file, self.columns, restval="", lineterminator="\n")


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes a whole CSV file; a NaN is an empty cell."""
    table = Table(path)
    table.columns, table.rows = list(columns), [dict(row) for row in rows]
    table.write()


def read_rows(path: Path, needed: Sequence[str]) -> tuple[list[str], list[Row]]:
    """The columns of a CSV file and its rows as numbers. An empty cell is NaN; an incomplete last row is left out.

    Raises:
        Refusal: the file can't be read, lacks a needed column, or has a cell that is not a number.
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
    """A cell as a number: steps, seeds and points are whole, other cells may be empty, which is NaN."""
    whole = name in ("step", "seed", "point", "parent")
    try:
        if cell == "" and not whole:
            return math.nan
        return int(cell or "") if whole else float(cell or "")
    except ValueError as error:
        kind = "a whole number" if whole else "a number or nothing"
        shown = "missing" if cell is None else repr(cell)
        raise Refusal(f"{path}, line {line}: {name} is {shown}; allowed: {kind}") from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file; numbers that are not finite become `null`."""
    with replacing(path) as file:
        file.write(json.dumps(_finite(content), indent=2) + "\n")


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A temporary file that replaces `path` when it is complete."""
    partial = path.with_name(f"{path.name}.partial")
    with open(partial, "w", newline="", encoding="utf-8") as file:
        yield file
        _flush(file)
    os.replace(partial, path)


def _flush(file: TextIO) -> None:
    """Flushes to disk: a checkpoint, which is flushed too, must never be ahead of the rows before it."""
    file.flush()
    os.fsync(file.fileno())


def _cells(row: Mapping[str, Any]) -> Row:
    """A row for CSV, which has no NaN: a mean over no episodes is an empty cell."""
    return {name: "" if isinstance(x, float) and math.isnan(x) else x for name, x in row.items()}


def _finite(value: Any) -> Any:
    """A value for JSON, which has neither NaN nor infinities; they become `null`."""
    if isinstance(value, Mapping):
        return {name: _finite(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
