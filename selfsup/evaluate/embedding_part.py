"""A part of a folder of embeddings: Arrow tables of chunks, written whole or not at all.

Shape letters: b images of a chunk, d width of an embedding.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selfsup.core.disk import cannot_write, flush
from selfsup.core.errors import require
from selfsup.data.embedding_parts import Manifest, parquet
from selfsup.data.sources import Source
from selfsup.evaluate.features import Chunk, check_finite, rounds_badly

ROWS_A_GROUP = 8192
"""Rows that are held and written at a time."""


@dataclass(frozen=True)
class PartTable:
    """Makes Arrow tables of chunks."""

    source: Source
    columns: Mapping[str, Any]
    manifest: Manifest

    def of_chunks(self, chunks: list[Chunk]) -> Any:
        """The rows of some chunks.

        Raises:
            UserError: an embedding is not finite, or does not fit the type on disk.
        """
        import pyarrow as arrow

        positions = [position for chunk in chunks for position in chunk.positions]
        reasons = [chunk.bad.get(p) for chunk in chunks for p in chunk.positions]
        words = {
            "name": arrow.array([_utf8(self.source.name(p)) for p in positions]),
            **self._labels(positions),
            "sha256": arrow.array([d or None for chunk in chunks for d in chunk.digests]),
            "bad": arrow.array([why if why is None else _utf8(why) for why in reasons], "string"),
        }
        for name, column in self.columns.items():
            cells = [_utf8(column[p]) for p in positions]
            words[self.manifest.columns[name]] = arrow.array(cells, "string")
        words["sha256"] = words["sha256"].cast("string")
        return arrow.table({**words, "embedding": self._embeddings(chunks, reasons)})

    def _labels(self, positions: list[int]) -> dict[str, Any]:
        import pyarrow as arrow

        numbers = [-1] * len(positions)
        if self.source.labels is not None:
            numbers = self.source.labels[positions[0] : positions[-1] + 1].tolist()
        names = [None if n < 0 else _utf8(self.source.classes[n]) for n in numbers]
        return {"label": arrow.array(names, "string"), "class": arrow.array(numbers, "int32")}

    def _embeddings(self, chunks: list[Chunk], reasons: list[str | None]) -> Any:
        import pyarrow as arrow

        x = torch.cat([chunk.features for chunk in chunks])
        bad = np.array([why is not None for why in reasons])
        good = x[torch.from_numpy(~bad)]
        check_finite(good)
        kind = np.dtype(self.manifest.dtype)
        require(
            not rounds_badly(good, kind),
            f"embeddings up to {float(good.abs().max()) if len(good) else 0:.2g} do not fit "
            f"{kind}: give --dtype float32 and another --out",
        )
        x[torch.from_numpy(bad)] = 0
        flat = arrow.array(x.numpy().astype(kind).reshape(-1))
        mask = arrow.array(bad)
        return arrow.FixedSizeListArray.from_arrays(flat, x.shape[1], mask=mask)


def _utf8(word: str) -> str:
    """A word as Parquet can hold it; a byte of a name that is not UTF-8 becomes an escape."""
    return word.encode("utf-8", "backslashreplace").decode()


def write_part(
    file: Path, embedded: Iterator[Chunk], table: PartTable, progress: Callable[[int], None]
) -> None:
    """Write a part under another name and rename it when it is whole.

    Raises:
        UserError: it cannot be written, or an embedding cannot be kept.
    """
    partial = file.with_name(f".{file.name}.part")
    group = max(1, ROWS_A_GROUP // table.manifest.batch)
    try:
        with contextlib.ExitStack() as stack:
            writer: Any = None
            for chunks in _grouped(embedded, group):
                rows = table.of_chunks(chunks)
                writer = writer or stack.enter_context(_writer(partial, rows.schema))
                writer.write_table(rows, row_group_size=len(rows))
                progress(len(rows))
        flush(partial)
        partial.replace(file)
    except OSError as error:
        raise cannot_write(file, error.errno or 0, error) from None
    finally:
        partial.unlink(missing_ok=True)


def _grouped(chunks: Iterator[Chunk], size: int) -> Iterator[list[Chunk]]:
    group: list[Chunk] = []
    for chunk in chunks:
        group.append(chunk)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _writer(file: Path, schema: Any) -> Any:
    """Open a Parquet file; embeddings do not get smaller by compression."""
    words = [name for name in schema.names if name != "embedding"]
    return parquet("selfsup embed").ParquetWriter(
        file,
        schema,
        compression={**dict.fromkeys(words, "zstd"), "embedding.list.element": "none"},
        use_dictionary=[name for name in words if name not in ("name", "sha256")],
        write_statistics=words,
    )
