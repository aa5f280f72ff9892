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
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from selfsup.core.errors import UnusableError, UserError, require
from selfsup.core.json_files import read_json
from selfsup.core.paths import exists
from selfsup.core.words import counted

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
    require_whole(folder, manifest)
    for part in range(manifest.parts):
        yield from read_part(folder, manifest, part, columns, rows)


def require_whole(folder: Path, manifest: Manifest) -> None:
    """Refuse a folder whose parts are not all there.

    Raises:
        UserError: parts are missing.
    """
    missing = missing_parts(folder, manifest)
    require(
        not missing,
        f"{folder} has {manifest.parts - len(missing)} of {counted(manifest.parts, 'part')}: the "
        "same selfsup embed again, or with its other --share, makes the others",
    )


def read_part(
    folder: Path,
    manifest: Manifest,
    part: int,
    columns: Sequence[str] | None = None,
    rows: int = 8192,
) -> Iterator[Any]:
    """Yield the rows of a part as Arrow record batches, as `read_batches` does.

    Raises:
        UserError: it is damaged.
    """
    library = parquet("a folder of embeddings")
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


def has_images(data: str) -> bool:
    """Whether images can be read: `data` is no folder of embeddings, or its images are there."""
    folder = Path(data)
    if not data or not is_embedded(folder):
        return True
    where = read_manifest(folder).data
    return exists(where) or not Path(where).is_absolute()


def bad_images(file: Path) -> dict[str, str]:
    """Names of the unreadable images of a part, and why they are.

    Raises:
        UserError: the part is damaged.
    """
    library = parquet("a folder of embeddings")
    try:
        with library.ParquetFile(file) as opened:
            place = opened.schema_arrow.get_field_index("bad")
            groups = [opened.metadata.row_group(i) for i in range(opened.num_row_groups)]
            if all(g.column(place).statistics.null_count == g.num_rows for g in groups):
                return {}
            table = opened.read(["name", "bad"]).to_pylist()
    except (OSError, ValueError, AttributeError) as error:
        raise damaged(file, error) from None
    return {row["name"]: row["bad"] for row in table if row["bad"] is not None}
