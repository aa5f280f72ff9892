"""A folder of embeddings as a source: rows from its parts, pixels from where its images are.

Shape letters: n images, d width of an embedding.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup.augment.boxes import CropSpec
from selfsup.core.errors import UnusableError, UserError, require
from selfsup.data.embedding_parts import read_batches, read_manifest, vectors
from selfsup.data.fingerprint import difference, fingerprint
from selfsup.data.labels import encode_words
from selfsup.data.sources import Columns, Crops, Source
from selfsup.data.subset import Subset


class Words(Sequence[str]):
    """Words of an Arrow array, without a Python object for each; null is empty."""

    def __init__(self, array: Any) -> None:
        """Take an array of strings."""
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return [word or "" for word in self.array[i].to_pylist()]
        return self.array[int(i)].as_py() or ""

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), 8192):
            yield from self[start : start + 8192]


class EmbeddedSource:
    """Images by their rows in a folder of embeddings; pixels are read where the images are."""

    in_memory = False

    def __init__(self, folder: Path, open_images: Callable[..., Source], *, channels: int) -> None:
        """Open a folder.

        Args:
            folder: of embeddings.
            open_images: `open_source`, for the images that it was made of.
            channels: of these.

        Raises:
            UserError: parts are missing or damaged.
        """
        self.folder = folder
        self.manifest = read_manifest(folder)
        self.channels = channels
        self._open_images = open_images
        self.classes: Sequence[str] = self.manifest.classes
        numbers = self.read("class").to_numpy(zero_copy_only=False)
        self.labels = torch.from_numpy(numbers.astype(np.int64)) if self.manifest.labelled else None
        self.columns: Columns = _Columns(self)

    def __len__(self) -> int:
        return self.manifest.rows

    def read(self, column: str) -> Any:
        """A column of all parts as one Arrow array."""
        import pyarrow

        batches = read_batches(self.folder, self.manifest, [column])
        array = pyarrow.chunked_array([batch.column(0) for batch in batches])
        if pyarrow.types.is_string(array.type):
            array = array.cast(pyarrow.large_string())  # two gigabytes and more in one array
        return array.combine_chunks()

    @cached_property
    def names(self) -> Words:
        """Name of each image."""
        return Words(self.read("name"))

    @cached_property
    def digests(self) -> Words:
        """sha256 of each image's file, or of its pixels; empty for an unreadable one."""
        return Words(self.read("sha256"))

    @cached_property
    def bad(self) -> list[int]:
        """Positions of the unreadable images."""
        reasons = np.asarray(self.read("bad").is_valid())
        return np.flatnonzero(reasons).tolist()

    def embeddings(self, positions: Sequence[int] | None = None) -> Tensor:
        """Rows at ascending positions, by default all. float32 [n, d]; nan where unreadable."""
        wanted = np.arange(len(self)) if positions is None else np.asarray(positions)
        blocks, start = [], 0
        for batch in read_batches(self.folder, self.manifest, ["embedding"]):
            low, high = np.searchsorted(wanted, [start, start + batch.num_rows])
            if high > low:
                blocks.append(vectors(batch)[wanted[low:high] - start])
            start += batch.num_rows
        return torch.from_numpy(np.concatenate(blocks))

    @cached_property
    def images(self) -> Source:
        """The images that were embedded.

        Raises:
            UserError: they are not there any more, or others are.
        """
        made = self.manifest
        why = f"the images of {self.folder} are needed for this"
        try:
            source = self._open_images(
                made.data, split=made.split, labels=made.labels, channels=self.channels
            )
        except UserError as error:
            raise UnusableError(f"{why}, and cannot be opened: {error}") from None
        other = difference(source, made.images, fingerprint(source))
        require(not other, f"{why}, and {made.data} has other images by now: {other}")
        return source

    def name(self, position: int) -> str:
        """Its name among the images."""
        return self.names[position]  # type: ignore[no-any-return]

    def crops(self, positions: Sequence[int], *specs: CropSpec) -> Crops:
        """Crops of the images."""
        return self.images.crops(positions, *specs)

    def pixels(self, position: int) -> np.ndarray:
        """Its pixels among the images."""
        return self.images.pixels(position)

    def stored(self, position: int) -> bytes | None:
        """Its bytes among the images."""
        return self.images.stored(position)


class _Columns(Mapping[str, Sequence[str]]):
    """Columns of the table, each read when it is wanted."""

    def __init__(self, source: EmbeddedSource) -> None:
        self.source = source
        self.read: dict[str, Words] = {}

    def __getitem__(self, name: str) -> Sequence[str]:
        if name not in self.read:
            self.read[name] = Words(self.source.read(self.source.manifest.columns[name]))
        return self.read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.source.manifest.columns)

    def __len__(self) -> int:
        return len(self.source.manifest.columns)


def embedded(
    folder: Path, open_images: Callable[..., Source], *, split: str, labels: str, channels: int
) -> Source:
    """Open a folder of embeddings, which stands for its images.

    Raises:
        UserError: parts are missing, or there is no such split or column.
    """
    source = EmbeddedSource(folder, open_images, channels=channels)
    if not labels:
        source.labels, source.classes = None, []
    elif labels not in ("label", source.manifest.labels):
        known = ", ".join(source.columns) or "none"
        require(labels in source.columns, f"{folder} has no column {labels!r}. Columns: {known}")
        source.labels, source.classes = encode_words(folder, list(source.columns[labels]))
    if not split or split == source.manifest.split:
        return source
    require(
        "split" in source.columns,
        f"{folder} has no splits; a split is the column of a manifest that was embedded",
    )
    words = source.columns["split"]
    rows = [i for i, word in enumerate(words) if word == split]
    has = ", ".join(sorted(set(words)))
    require(bool(rows), f"{folder} has no rows with split {split!r}; it has {has}")
    return Subset(source, rows)


def embedded_rows(source: Source) -> tuple[EmbeddedSource, list[int] | None] | None:
    """The folder behind a source, and the rows of it that the source has; None for all of them.

    Returns:
        None if the source is of images.
    """
    if isinstance(source, EmbeddedSource):
        return source, None
    if not isinstance(source, Subset):
        return None
    inner = embedded_rows(source.source)
    if inner is None:
        return None
    folder, rows = inner
    return folder, source.positions if rows is None else [rows[i] for i in source.positions]


def stored_digest(source: Source, position: int) -> str | None:
    """The sha256 of an image as its folder of embeddings has it, "" if it could not be read.

    Returns:
        None if the source is of images.
    """
    if isinstance(source, Subset):
        return stored_digest(source.source, source.positions[position])
    return source.digests[position] if isinstance(source, EmbeddedSource) else None
