"""A folder of embeddings: part files in Parquet, which `selfsup embed` writes.

embeddings.json        of which model, images and view, and how many rows a part has
part-00000.parquet     a row for each image, in their order; unreadable ones too
part-00001.parquet     ...
bad_images.csv         the unreadable ones, if there are any

A row has `name`, `label` (the word; null without one), `class` (its number, -1 without one),
`sha256` of the file, `embedding` (a list of fixed size, as the network gives it; null for an
unreadable image), `bad` (why it cannot be read, else null), and the columns of the table of images.

Shape letters: n images, d width of an embedding.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup.augment.boxes import CropSpec
from selfsup.core.errors import UnusableError, UserError, require
from selfsup.core.json_files import read_json
from selfsup.core.paths import exists
from selfsup.data.fingerprint import difference, fingerprint
from selfsup.data.labels import encode_words
from selfsup.data.sources import Columns, Crops, Source
from selfsup.data.subset import Subset

MANIFEST = "embeddings.json"
FORMAT = 1
OWN = ("name", "label", "class", "sha256", "bad", "embedding")
"""Columns that every part has; one of the table that is called so gets a line below at its end."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that the rows depend on."""

    format: int
    model: str
    """Path of the run or bundle, or the model's name."""
    weights: str
    """sha256 of its weights."""
    network: str
    """Its class and pooling."""
    size: int
    """Side of its images, in pixels."""
    view: list[Any]
    """Resampling, crop, squash and normalisation."""
    data: str
    split: str
    labels: str
    """Where the images are, as `--data`, `--split` and `--labels`."""
    images: dict[str, Any]
    """Fingerprint of the images."""
    rows: int
    rows_a_part: int
    batch: int
    """Images that were embedded together: networks round by it."""
    dtype: str
    labelled: bool
    classes: list[str]
    columns: dict[str, str]
    """Columns of the table, each with its name in the parts."""

    @property
    def parts(self) -> int:
        """Number of part files."""
        return -(-self.rows // self.rows_a_part)

    def positions(self, part: int) -> range:
        """Positions of the images of a part."""
        start = part * self.rows_a_part
        return range(start, min(start + self.rows_a_part, self.rows))

    def to_json(self) -> str:
        """The text of the file."""
        return json.dumps({**asdict(self), "parts": self.parts}, indent=1) + "\n"


def part_file(folder: Path, part: int) -> Path:
    """The file of a part."""
    return folder / f"part-{part:05d}.parquet"


def is_embedded(folder: Path) -> bool:
    """Whether a folder is one of embeddings."""
    return exists(str(folder / MANIFEST))


def read_manifest(folder: Path) -> Manifest:
    """Read what a folder's rows depend on.

    Raises:
        UserError: it is damaged, or of a newer version.
    """
    try:
        record = read_json(folder / MANIFEST)
        if record["format"] > FORMAT:
            raise UserError(f"{folder} was written by a newer selfsup: pip install -U selfsup")
        return Manifest(**{field.name: record[field.name] for field in fields(Manifest)})
    except FileNotFoundError:
        raise UserError(f"{folder} has no {MANIFEST}; selfsup embed writes it") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UnusableError(f"{folder / MANIFEST} cannot be read: {error}") from None


def missing_parts(folder: Path, manifest: Manifest) -> list[int]:
    """Numbers of the parts that are not there yet."""
    return [part for part in range(manifest.parts) if not part_file(folder, part).exists()]


def parquet(what: str) -> Any:
    """Import what reads and writes Parquet for `what`.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{what} needs pyarrow: pip install 'selfsup[data]'") from None
    return pyarrow.parquet


def read_batches(
    folder: Path, manifest: Manifest, columns: Sequence[str] | None = None, rows: int = 8192
) -> Iterator[Any]:
    """Yield the rows of all parts as Arrow record batches, in order.

    Args:
        folder: of the parts.
        manifest: of the folder.
        columns: those to read; by default all.
        rows: of a batch, at most.

    Raises:
        UserError: parts are missing, or one is damaged.
    """
    library = parquet("a folder of embeddings")
    missing = missing_parts(folder, manifest)
    require(
        not missing,
        f"{folder} has {manifest.parts - len(missing)} of {manifest.parts} parts: the same selfsup "
        "embed again makes the others",
    )
    for part in range(manifest.parts):
        file, read = part_file(folder, part), 0
        try:
            with library.ParquetFile(file) as opened:
                for batch in opened.iter_batches(rows, columns=columns):
                    read += batch.num_rows
                    yield batch
        except (OSError, ValueError, KeyError) as error:
            raise damaged(file, error) from None
        if read != len(manifest.positions(part)):
            raise damaged(file, f"{read} rows, not {len(manifest.positions(part))}")


def damaged(file: Path, why: object) -> UserError:
    """Make the error that says what to do with a part that cannot be used."""
    words = str(why).split("\n")[0]
    return UnusableError(
        f"{file} cannot be read ({words}): remove it, and the same selfsup embed makes it anew"
    )


def vectors(batch: Any) -> np.ndarray:
    """Embeddings of an Arrow batch, float32 [n, d]; nan for an unreadable image."""
    column = batch.column(batch.schema.get_field_index("embedding"))
    width = column.type.list_size
    x = np.full((len(column), width), np.nan, np.float32)
    valid = ~np.asarray(column.is_null())
    x[valid] = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return x


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


def has_images(data: str) -> bool:
    """Whether images can be read: `data` is no folder of embeddings, or its images are there."""
    folder = Path(data)
    if not data or not is_embedded(folder):
        return True
    where = read_manifest(folder).data
    return exists(where) or not Path(where).is_absolute()
