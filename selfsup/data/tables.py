"""Image files on disk that a manifest names: a .csv, .jsonl or .parquet."""

import csv
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from selfsup.core.errors import UserError
from selfsup.core.json_files import parse_json
from selfsup.data.decode import SUFFIXES, read_bytes
from selfsup.data.labels import encode_words, text_of
from selfsup.data.sources import Columns, ImageSource, Source

LONGEST_FIELD = (1 << 31) - 1
"""Most characters of a field in a CSV; Python's own limit is 131,072."""


def manifest(file: Path, *, split: str, labels: str, channels: int) -> Source:
    """Open a table with a path on each row, relative to the table's folder."""
    rows = _rows(file)
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or not row.get("path"):
            raise UserError(_no_path(file, i + 1, row))
    if not rows:
        raise UserError(f"{file} has no rows")
    if labels not in ("label", "", *rows[0]):
        raise UserError(
            f"{file} has no column {labels!r}; it has {', '.join(filter(None, rows[0]))}"
        )
    if split:
        known = sorted({text_of(row.get("split")) for row in rows})
        rows = [row for row in rows if text_of(row.get("split")) == split]
        if not rows:
            raise UserError(f"{file} has no rows with split {split!r}; it has {', '.join(known)}")
    columns = {
        name: [text_of(row.get(name)) for row in rows]
        for name in dict.fromkeys(name for row in rows for name in row if name)
    }
    paths = columns.pop("path")
    numbers: Tensor | None = None
    classes: list[str] = []
    if columns.pop(labels, None) is not None:
        numbers, classes = encode_words(file, [row.get(labels) for row in rows])
    return file_source(file.parent, paths, numbers, classes, channels=channels, columns=columns)


def _no_path(file: Path, number: int, row: Any) -> str:
    """Say that a row has no path, and what to do."""
    names = [name for name in row if name] if isinstance(row, dict) else []
    if "path" in names:
        return f"{file} has no path in row {number}: give it the file of an image"
    text = f"{file} has no column path (its columns: {', '.join(names) or 'none'}) in row {number}"
    if any("\0" in name for name in names):
        return f"{file} is not in UTF-8 (it looks like UTF-16): save it as UTF-8"
    separators = {";": "semicolons", "\t": "tabs", "|": "bars"}
    for sign, kind in separators.items():
        if len(names) == 1 and sign in names[0]:
            return f"{text}: it is separated by {kind}; write it with commas"
    return f"{text}; rename the column with the files of the images to path"


def _rows(file: Path) -> list[dict[str, Any]]:
    try:
        if file.suffix.lower() == ".parquet":
            try:
                import pyarrow.parquet
            except ImportError:
                raise UserError(f"{file} needs pyarrow: pip install 'selfsup[data]'") from None
            table: list[dict[str, Any]] = pyarrow.parquet.read_table(file).to_pylist()
            return table
        with file.open(newline="", encoding="utf-8-sig") as lines:
            if file.suffix.lower() == ".csv":
                return _csv_rows(file, lines)
            return [parse_json(line) for line in lines if line.strip()]
    except UnicodeDecodeError:
        raise UserError(f"{file} is not in UTF-8 ({_encoding(file)}): save it as UTF-8") from None
    except (OSError, ValueError, csv.Error) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot read {file}: {error}") from None


def _encoding(file: Path) -> str:
    """Guess an encoding that is not UTF-8."""
    with file.open("rb") as opened:
        mark = opened.read(2)
    return "it looks like UTF-16" if mark in (b"\xff\xfe", b"\xfe\xff") else "it may be Latin-1"


def _csv_rows(file: Path, lines: Iterable[str]) -> list[dict[str, Any]]:
    """Read a CSV with fields of any length.

    A row is added at the end: if it does not come back alone, a quote before it was never closed.

    Raises:
        UserError: a quote is never closed, or a row has more fields than the header.
    """
    end = "the end of the file"
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        reader = csv.reader(chain(lines, [end]))
        starts, rows = [1], []
        for row in reader:
            rows.append(row)
            starts.append(reader.line_num + 1)
    finally:
        csv.field_size_limit(before)
    if rows.pop() != [end]:
        raise UserError(f"{file}: a quote in the row from line {starts[len(rows)]} is never closed")
    header, records = (rows[0], rows[1:]) if rows else ([], [])
    table = []
    for line, row in zip(starts[1:], records, strict=False):
        if any(row[len(header) :]):
            raise UserError(
                f"{file} has {len(row)} fields in line {line} and {len(header)} columns: put "
                "fields that hold commas in quotes"
            )
        if row:
            record = dict.fromkeys(header) | dict(zip(header, row, strict=False))
            if any(_has_rows(field, header) for field in row):
                raise UserError(f"{file}: a quote in the row from line {line} closes rows later")
            table.append(record)
    return table


def _has_rows(field: str, header: Sequence[str]) -> bool:
    """Whether a field holds rows of the table, by the names of images at the place of the path."""
    place = header.index("path") if "path" in header else 0
    rows = [line.split(",") for line in field.split("\n")[1:]]
    names = [row[place].strip('"\r ').lower() for row in rows if len(row) == len(header) > 1]
    return any(name.endswith(SUFFIXES) for name in names)


def file_source(
    root: Path,
    paths: Sequence[str],
    labels: Tensor | None,
    classes: Sequence[str],
    *,
    channels: int = 3,
    columns: Columns | None = None,
) -> ImageSource:
    """Make a source of image files below `root`, read with a closed list of formats."""
    load = _Files(root, paths)
    return ImageSource(load, paths, labels, classes, channels=channels, columns=columns)


class _Files:
    """Bytes of files; a class and no closure, so that it can be sent to worker processes."""

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        self.root, self.paths = root, paths

    def __call__(self, position: int) -> bytes:
        return read_bytes(self.root / self.paths[position])
