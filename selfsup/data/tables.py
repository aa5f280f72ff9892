"""Image files on disk: those below a folder, or those that a manifest names."""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup.core.errors import UserError
from selfsup.data.decode import SUFFIXES, read_bytes
from selfsup.data.sources import Columns, ImageSource, Source


def folder(root: Path, *, channels: int) -> Source:
    """List every image below `root` by the bytes of its path; labels if all are in folders."""
    found_paths: list[str] = []
    seen: set[str] = set()
    for inside, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(inside)
        if real in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        found_paths += [
            os.path.relpath(os.path.join(inside, name), root)
            for name in names
            if name.lower().endswith(SUFFIXES) and not name.startswith(".")
        ]
    if not found_paths:
        raise UserError(f"{root} holds no images ({', '.join(SUFFIXES)})")
    paths = sorted((Path(p).as_posix() for p in found_paths), key=os.fsencode)
    labels: Tensor | None = None
    classes: list[str] = []
    if all("/" in path for path in paths):
        labels, classes = encode_labels([path.split("/", 1)[0] for path in paths])
    return file_source(root, paths, labels, classes, channels=channels)


def manifest(file: Path, *, split: str, labels: str, channels: int) -> Source:
    """Open a table with a path on each row, relative to the table's folder."""
    rows = _rows(file)
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or not row.get("path"):
            columns_of_row = ", ".join(filter(None, row)) if isinstance(row, dict) else "none"
            raise UserError(
                f"{file} has no column path (its columns: {columns_of_row}) in row {i + 1}"
            )
    if not rows:
        raise UserError(f"{file} has no rows")
    if labels != "label" and labels not in rows[0]:
        raise UserError(
            f"{file} has no column {labels!r}; it has {', '.join(filter(None, rows[0]))}"
        )
    if split:
        known = sorted({_word(row.get("split")) for row in rows})
        rows = [row for row in rows if _word(row.get("split")) == split]
        if not rows:
            raise UserError(f"{file} has no rows with split {split!r}; it has {', '.join(known)}")
    columns = {
        name: [_word(row.get(name)) for row in rows]
        for name in dict.fromkeys(name for row in rows for name in row if name)
    }
    paths = columns.pop("path")
    numbers: Tensor | None = None
    classes: list[str] = []
    if all(columns.get(labels, [""])):
        numbers, classes = encode_labels(columns.pop(labels))
    return file_source(file.parent, paths, numbers, classes, channels=channels, columns=columns)


def _word(value: Any) -> str:
    return "" if value is None else str(value)


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
                return list(csv.DictReader(lines))
            return [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file}: {error}") from None


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


def column_labels(where: Path, columns: Columns, name: str) -> tuple[Tensor | None, list[str]]:
    """Use a column as labels; None where some images have no word.

    Raises:
        UserError: there is no such column.
    """
    if name not in columns:
        raise UserError(f"{where} has no column {name!r}; it has {', '.join(columns) or 'none'}")
    words = list(columns[name])
    return encode_labels(words) if all(words) else (None, [])


def encode_labels(words: Sequence[str]) -> tuple[Tensor, list[str]]:
    """Number label words in their sorted order: the numbers, and the words."""
    classes, index = np.unique(np.asarray(words, dtype=str), return_inverse=True)
    return torch.from_numpy(index.astype(np.int64)), classes.tolist()


def encode_class_numbers(
    where: Path | str, labels: np.ndarray, names: np.ndarray | None
) -> tuple[Tensor, list[str]]:
    """Number labels 0, 1, 2..., and name each: by `names`, else by the label itself.

    Raises:
        UserError: a label has no name.
    """
    values, index = np.unique(labels, return_inverse=True)
    if names is not None and names.ndim == 1 and not 0 <= values.min() <= values.max() < len(names):
        raise UserError(f"{where} names {len(names)} classes and has label {values.max()}")
    classes = values if names is None or names.ndim != 1 else names[values]
    return torch.from_numpy(index.astype(np.int64)), [str(name) for name in classes]
