"""Rows of a folder of embeddings as stores hold them: an id, columns, an embedding of length 1.

Shape letters: b rows of a batch, d width of an embedding.
"""

import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from selfsup.core.errors import require
from selfsup.core.numerics import normalize
from selfsup.core.words import counted
from selfsup.data.embedding_parts import Manifest, read_part, vectors

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "selfsup embedding")
OWN = ("name", "label", "class", "sha256", "data", "split")
"""Columns that every row has."""
NUMBERS = ("class",)
"""Columns of whole numbers; the others are text."""


class StoredRows(NamedTuple):
    """Readable images of a batch."""

    ids: list[uuid.UUID]
    columns: dict[str, list[Any]]
    """A value for each row; None where there is none."""
    x: np.ndarray
    """float32 [b, d] of length 1."""


@dataclass(frozen=True, kw_only=True)
class StoreFacts:
    """What a store says of itself, as JSON: what its rows were made by, and what it lacks."""

    model: str
    weights: str
    network: str
    size: int
    view: list[Any]
    """Of the model and its images, as in the manifest of a folder."""
    width: int
    columns: list[str]
    folder: str
    """Digest of the manifest that was stored last."""
    parts: int
    of: int
    """How many parts of that folder are there."""
    whole: bool
    """Whether that folder has been stored to its end."""

    def to_json(self) -> dict[str, Any]:
        """The facts as a store keeps them."""
        return {"selfsup": 1, **asdict(self)}

    @property
    def missing(self) -> str:
        """What a search lacks, in a sentence; empty for a whole store."""
        if self.whole:
            return ""
        return (
            f"{self.parts} of {counted(self.of, 'part is', 'parts are')} there, and no index "
            "perhaps: the same selfsup store again goes on"
        )


def facts_from(record: Mapping[str, Any], place: str) -> StoreFacts:
    """Read the facts of a store.

    Raises:
        UserError: they are not those of a store of this version.
    """
    names = StoreFacts.__dataclass_fields__
    require(
        record.get("selfsup") == 1 and names.keys() <= record.keys(),
        f"{place} is there and was not made by this version of selfsup store: choose another name",
    )
    return StoreFacts(**{name: record[name] for name in names})


def facts_of(folder: Path, manifest: Manifest) -> StoreFacts:
    """The facts of a store that has nothing of a folder yet.

    Raises:
        UserError: a part is damaged, or no image is readable.
    """
    width = 0
    for batch in read_part(folder, manifest, 0, ["embedding"], rows=1):
        width = vectors(batch).shape[1]
        break
    return StoreFacts(
        model=manifest.model,
        weights=manifest.weights,
        network=manifest.network,
        size=manifest.size,
        view=manifest.view,
        width=width,
        columns=list(_columns(manifest)),
        folder=hashlib.sha256(manifest.to_json().encode()).hexdigest(),
        parts=0,
        of=manifest.parts,
        whole=False,
    )


def require_same(place: str, old: StoreFacts, new: StoreFacts) -> None:
    """Refuse rows that an older store's do not compare with.

    Raises:
        UserError: they are of another width, model or view.
    """
    require(
        old.width == new.width,
        f"{place} has embeddings that are {old.width} wide, and these are {new.width} wide: choose "
        "another name",
    )
    for field in ("weights", "network", "size", "view"):
        before, now = getattr(old, field), getattr(new, field)
        require(
            before == now,
            f"{place} has embeddings of {old.model}, and these are of {new.model} with another "
            f"{field} ({str(before)[:40]}, not {str(now)[:40]}): choose another name",
        )


def row_id(manifest: Manifest, name: str) -> uuid.UUID:
    """The id of an image: the same whenever the image of that name is stored."""
    return uuid.uuid5(NAMESPACE, json.dumps([manifest.data, manifest.split, name]))


def read_rows(folder: Path, manifest: Manifest, part: int) -> Iterator[StoredRows]:
    """Yield the readable images of a part, a few thousand at a time.

    Raises:
        UserError: the part is damaged.
    """
    columns = _columns(manifest)
    read = [name for name in dict.fromkeys(columns.values()) if name]
    for batch in read_part(folder, manifest, part, [*read, "embedding"]):
        x = vectors(batch)
        readable = np.flatnonzero(~np.isnan(x[:, 0]))
        words = {name: batch.column(batch.schema.get_field_index(name)) for name in read}
        constants = {"data": manifest.data, "split": manifest.split}
        rows = {
            name: words[inner].take(readable).to_pylist()
            if inner
            else [constants[name]] * len(readable)
            for name, inner in columns.items()
        }
        ids = [row_id(manifest, name) for name in rows["name"]]
        yield StoredRows(ids, rows, normalize(torch.from_numpy(x[readable])).numpy())


def _columns(manifest: Manifest) -> dict[str, str]:
    """The columns of a store, each with its name in the parts; empty for one that is not there.

    A table's own `split` is what `--split` chooses by, and stands for the folder's.
    """
    columns = {name: "" if name in ("data", "split") else name for name in OWN}
    for inner in manifest.columns.values():
        columns[inner + "_" * (inner in ("id", "data"))] = inner
    return columns
