"""The folder of an index.

index.json            which encoder, how many rows of which width, which engine, which writing
embeddings-3.npy      float32 [n, d], rows of length 1, mapped when opened, of the third writing
images-3.parquet      a line for each row: name, data, split, label, sha256
index-3.usearch       the approximate engine's own file, if there is one

index.json is written last and names the writing that it is of, so that an index whose writing was
cut short is the old one.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from selfsup.core.disk import cannot_write, flush
from selfsup.core.errors import UserError
from selfsup.core.json_files import read_json
from selfsup.core.secrets import without_passwords
from selfsup.data.arrays import BROKEN
from selfsup.data.embedding_parts import parquet

FORMAT = 1
COLUMNS = ("name", "data", "split", "label", "sha256")
Engine = Literal["exact", "usearch", "qdrant"]
Rows = dict[str, list[str]]


@dataclass(frozen=True)
class Index:
    """The contents of the folder."""

    folder: Path
    model: str
    """The run or bundle that made the embeddings, and makes those of queries: its path."""
    weights: str
    """sha256 of its weights: embeddings of other weights would not fit."""
    size: int
    """Side of the images that they were made of, in pixels."""
    engine: Engine
    threshold: float | None
    """Cosine above which two images are of the same thing."""
    embeddings: np.ndarray
    rows: Rows
    where: str = ""
    """Path or URL and collection of a vector database, for people: a search names its own."""
    writing: int = 0
    """How often the folder has been written."""

    def __len__(self) -> int:
        return len(self.rows["name"])

    def file(self, name: str) -> Path:
        """The file of this writing, for a name like embeddings.npy."""
        stem, kind = name.split(".")
        return self.folder / f"{stem}-{self.writing}.{kind}"


def empty(folder: Path, model: str, weights: str, size: int) -> Index:
    """Make an index without images, of no width yet."""
    rows: Rows = {name: [] for name in COLUMNS}
    nothing = np.zeros((0, 0), np.float32)
    return Index(folder, model, weights, size, "exact", None, nothing, rows)


def add(index: Index, embeddings: np.ndarray, rows: Rows) -> Index:
    """Add images; those that are in the index already, by data and name, are replaced.

    `embeddings` are float32 [m, d] of length 1, `rows` m words for each of COLUMNS.
    """
    last = {key: i for i, key in enumerate(_keys(rows))}  # of two equal names the later
    new = sorted(last.values())
    unchanged = [i for i, key in enumerate(_keys(index.rows)) if key not in last]
    joined = {
        name: _select(index.rows[name], unchanged) + _select(rows[name], new) for name in COLUMNS
    }
    old = index.embeddings[unchanged] if unchanged else embeddings[:0]
    return replace(index, embeddings=np.concatenate([old, embeddings[new]]), rows=joined)


def remove(index: Index, names: Sequence[str]) -> Index:
    """Take the images of these names out.

    Raises:
        UserError: there is no image of a name.
    """
    wanted = set(names)
    missing = sorted(wanted - set(index.rows["name"]))
    if missing:
        raise UserError(f"{index.folder} has no image {missing[0]!r}; nothing was removed")
    remaining = [i for i, name in enumerate(index.rows["name"]) if name not in wanted]
    rows = {name: _select(words, remaining) for name, words in index.rows.items()}
    return replace(index, embeddings=index.embeddings[remaining], rows=rows)


def _keys(rows: Rows) -> list[tuple[str, str, str]]:
    return list(zip(rows["data"], rows["split"], rows["name"], strict=True))


def _select(words: Sequence[str], places: Sequence[int]) -> list[str]:
    return [words[i] for i in places]


def write(index: Index, build: Callable[[Index], None]) -> None:
    """Write the index to its folder; `build` makes what the engine needs, before index.json.

    Raises:
        UserError: pyarrow is missing, or the folder cannot be written to.
    """
    library = parquet("an index")
    import pyarrow

    index = replace(index, writing=index.writing + 1)
    record = {
        "format": FORMAT,
        "writing": index.writing,
        "model": index.model,
        "weights": index.weights,
        "size": index.size,
        "engine": index.engine,
        "where": without_passwords(index.where),
        "threshold": index.threshold,
        "images": len(index),
        "width": int(index.embeddings.shape[1]),
    }
    columns = {name: _column(index.rows[name]) for name in COLUMNS}
    try:
        index.folder.mkdir(parents=True, exist_ok=True)
        np.save(index.file("embeddings.npy"), np.ascontiguousarray(index.embeddings, np.float32))
        library.write_table(pyarrow.table(columns), index.file("images.parquet"))
        build(index)
        for name in ("embeddings.npy", "images.parquet"):
            flush(index.file(name))
        unfinished = index.folder / ".index.json.part"
        unfinished.write_text(json.dumps(record, indent=2) + "\n")
        unfinished.replace(index.folder / "index.json")
        for old in index.folder.glob("*-*.*"):
            if not old.stem.endswith(f"-{index.writing}"):
                old.unlink()
    except OSError as error:
        raise cannot_write(index.folder, error.errno or 0, error) from None


def read(folder: Path) -> Index:
    """Read the index in a folder; its embeddings are mapped.

    Raises:
        UserError: there is none, it is not whole, or of a newer version.
    """
    library = parquet("an index")
    try:
        record = read_json(folder / "index.json")
        if record["format"] > FORMAT:
            raise UserError(f"{folder} was written by a newer selfsup: pip install -U selfsup")
        empty_index = Index(
            folder=folder,
            model=str(record["model"]),
            weights=str(record["weights"]),
            size=int(record["size"]),
            engine=record["engine"],
            threshold=record["threshold"],
            embeddings=np.zeros((0, 0), np.float32),
            rows={},
            where=str(record["where"]),
            writing=int(record["writing"]),
        )
        file = empty_index.file("embeddings.npy")
        embeddings = np.load(file, mmap_mode="r", allow_pickle=False)
        table = library.read_table(empty_index.file("images.parquet"))
        rows = {name: _words(table[name]) for name in COLUMNS}
        index = replace(empty_index, embeddings=embeddings, rows=rows)
        shape = record["images"], record["width"]
    except FileNotFoundError as error:
        missing = Path(error.filename).name
        raise UserError(
            f"{folder} is no index: {missing} is missing; selfsup index makes one"
        ) from None
    except BROKEN as error:
        raise UserError(f"the index {folder} cannot be read: {error}") from None
    if embeddings.shape != shape or len(index) != shape[0]:
        raise UserError(
            f"the index {folder} is not whole: {shape[0]} images, {embeddings.shape[0]} embeddings "
            f"and {len(index)} names; make it again with selfsup index"
        )
    return index


def _column(words: Sequence[str]) -> Any:
    """Words as strings; as bytes if a file's name is not UTF-8."""
    import pyarrow

    try:
        return pyarrow.array(words, pyarrow.string())
    except UnicodeEncodeError:
        coded = [word.encode("utf-8", "surrogateescape") for word in words]
        return pyarrow.array(coded, pyarrow.binary())


def _words(column: Any) -> list[str]:
    return [word.decode("utf-8", "surrogateescape") for word in column.cast("binary").to_pylist()]
