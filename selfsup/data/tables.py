"""Image files on disk that a manifest names: a .csv, .jsonl or .parquet."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor

from selfsup.core.errors import UserError
from selfsup.core.json_files import parse_json
from selfsup.data.decode import SUFFIXES, read_bytes
from selfsup.data.labels import encode_words, text_of
from selfsup.data.sources import Columns, ImageSource, Source
from selfsup.data.texts import Texts, TextsWriter, texts

LONGEST_FIELD = (1 << 31) - 1
"""Most characters of a field in a CSV; Python's own limit is 131,072."""
BATCH = 8192  # rows of a .parquet that are Python objects at a time


def manifest(file: Path, *, split: str, labels: str, channels: int) -> Source:
    """Open a table with a path on each row, relative to the table's folder."""
    table = _Table(labels)
    header: list[str] | None = None
    known = set()
    for i, row in enumerate(_rows(file)):
        if not isinstance(row, dict) or not row.get("path"):
            raise UserError(_no_path(file, i + 1, row))
        header = list(row) if header is None else header
        if split:
            known.add(word := text_of(row.get("split")))
        if not split or word == split:
            table.add(row)
    if header is None:
        raise UserError(f"{file} has no rows")
    if labels not in ("label", "", *header):
        raise UserError(
            f"{file} has no column {labels!r}; it has {', '.join(filter(None, header))}"
        )
    if not table.rows:
        names = ", ".join(sorted(known))
        raise UserError(f"{file} has no rows with split {split!r}; it has {names}")
    columns = table.columns()
    paths = columns.pop("path")
    numbers: Tensor | None = None
    classes: list[str] = []
    if columns.pop(labels, None) is not None:
        numbers, classes = encode_words(file, table.labels)
    return file_source(file.parent, paths, numbers, classes, channels=channels, columns=columns)


class _Table:
    """Columns of words, collected row by row: dictionaries of all rows would take 600 bytes each.

    Cells of the labels stay as they are, each different word once.
    """

    def __init__(self, labels: str) -> None:
        self.name = labels
        self.rows = 0
        self.labels: list[Any] = []
        self._words: dict[str, str] = {}
        self._writers: dict[str, TextsWriter] = {}

    def add(self, row: dict[str, Any]) -> None:
        for name, value in row.items():
            if name not in self._writers:
                if not name:
                    continue
                self._writers[name] = TextsWriter()
            writer = self._writers[name]
            writer.fill(self.rows)  # rows of a .jsonl before it may not have the column
            writer.add(value if type(value) is str else text_of(value))
        label = row.get(self.name)
        if type(label) is str:
            label = self._words.setdefault(label, label)
        self.labels.append(label)
        self.rows += 1

    def columns(self) -> dict[str, Texts]:
        for writer in self._writers.values():
            writer.fill(self.rows)
        return {name: writer.texts() for name, writer in self._writers.items()}


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


def _rows(file: Path) -> Iterator[Any]:
    """Read a table row by row.

    Raises:
        UserError: it cannot be read.
    """
    try:
        if file.suffix.lower() == ".parquet":
            yield from _parquet_rows(file)
            return
        with file.open(newline="", encoding="utf-8-sig") as lines:
            if file.suffix.lower() == ".csv":
                yield from _csv_rows(file, lines)
            else:
                yield from (parse_json(line) for line in lines if line.strip())
    except UnicodeDecodeError:
        raise UserError(f"{file} is not in UTF-8 ({_encoding(file)}): save it as UTF-8") from None
    except (OSError, ValueError, csv.Error) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot read {file}: {error}") from None


def _parquet_rows(file: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{file} needs pyarrow: pip install 'selfsup[data]'") from None
    with pyarrow.parquet.ParquetFile(file) as table:
        for batch in table.iter_batches(BATCH):
            yield from batch.to_pylist()


def _encoding(file: Path) -> str:
    """Guess an encoding that is not UTF-8."""
    with file.open("rb") as opened:
        mark = opened.read(2)
    return "it looks like UTF-16" if mark in (b"\xff\xfe", b"\xfe\xff") else "it may be Latin-1"


def _csv_rows(file: Path, lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Read a CSV with fields of any length.

    A row is added at the end: if it does not come back alone, a quote before it was never closed.

    Raises:
        UserError: a quote is never closed, or a row has more fields than the header.
    """
    end = "the end of the file"
    reader = csv.reader(chain(lines, [end]))
    line, row = 1, _next_row(reader)
    after = reader.line_num + 1
    header: list[str] | None = None
    while (following := _next_row(reader)) is not None:
        if header is None:
            header = row or []
        elif row:
            yield _record(file, line, row, header)
        line, row, after = after, following, reader.line_num + 1
    if row != [end]:
        raise UserError(f"{file}: a quote in the row from line {line} is never closed")


def _next_row(reader: Iterator[list[str]]) -> list[str] | None:
    """Read a row; the limit of fields is the process's, and others may rely on it."""
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        return next(reader, None)
    finally:
        csv.field_size_limit(before)


def _record(file: Path, line: int, row: list[str], header: list[str]) -> dict[str, Any]:
    """Name the fields of a row.

    Raises:
        UserError: there are more than the header has, or one holds rows of the table.
    """
    if any(row[len(header) :]):
        raise UserError(
            f"{file} has {len(row)} fields in line {line} and {len(header)} columns: put "
            "fields that hold commas in quotes"
        )
    if any("\n" in field and _has_rows(field, header) for field in row):
        raise UserError(f"{file}: a quote in the row from line {line} closes rows later")
    return dict.fromkeys(header) | dict(zip(header, row, strict=False))


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
    names = paths if isinstance(paths, Texts) else texts(paths)
    load = _Files(root, names)
    return ImageSource(load, names, labels, classes, channels=channels, columns=columns)


class _Files:
    """Bytes of files; a class and no closure, so that it can be sent to worker processes."""

    def __init__(self, root: Path, paths: Sequence[str]) -> None:
        self.root, self.paths = root, paths

    def __call__(self, position: int) -> bytes:
        return read_bytes(self.root / self.paths[position])
