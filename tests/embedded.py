"""Folders of embeddings whose numbers a test chooses."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from selfsup.data.embedding_parts import Manifest, part_file, read_manifest
from selfsup.search.open_store import open_store
from selfsup.search.stored_rows import facts_of, read_rows
from selfsup.search.stores import parse_destination


def unit(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Random rows of length 1."""
    x = np.random.default_rng(seed).normal(size=(n, d))
    rows: np.ndarray = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return rows


def embedded_folder(
    folder: Path,
    x: np.ndarray,
    *,
    part: int = 256,
    names: Sequence[str] = (),
    labels: Sequence[str | None] = (),
    columns: Mapping[str, Sequence[str | None]] | None = None,
    bad: Sequence[int] = (),
    model: str = "model",
    weights: str = "w" * 64,
    data: str = "/images",
) -> Path:
    """Write parts as `selfsup embed` does."""
    n, width = x.shape
    names = names or [f"{i:06d}.jpg" for i in range(n)]
    labels = labels or [f"class{i % 5}" for i in range(n)]
    columns = columns or {}
    manifest = Manifest(
        format=1, model=model, weights=weights, network="Net", size=32, view=["bicubic", 1.0],
        data=data, split="", labels="", images={}, rows=n, rows_a_part=part, batch=64,
        dtype=str(x.dtype), labelled=True, classes=[f"class{i}" for i in range(5)],
        columns={name: name for name in columns},
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(manifest.parts):
        rows = manifest.positions(number)
        flat = pyarrow.array(x[rows.start : rows.stop].reshape(-1))
        mask = pyarrow.array([i in bad for i in rows])
        table = {
            "name": pyarrow.array([names[i] for i in rows], "string"),
            "label": pyarrow.array([labels[i] for i in rows], "string"),
            "class": pyarrow.array([i % 5 for i in rows], "int32"),
            "sha256": pyarrow.array([f"{i:064x}" for i in rows], "string"),
            "bad": pyarrow.array(["cut" if i in bad else None for i in rows], "string"),
            **{
                c: pyarrow.array([words[i] for i in rows], "string") for c, words in columns.items()
            },
            "embedding": pyarrow.FixedSizeListArray.from_arrays(flat, width, mask=mask),
        }
        pyarrow.parquet.write_table(pyarrow.table(table), part_file(folder, number))
    (folder / "embeddings.json").write_text(manifest.to_json())
    return folder


def store_first_part(folder: Path, to: str) -> None:
    """Store as much of a folder of embeddings as a load that ended after its first part."""
    manifest = read_manifest(folder)
    with open_store(parse_destination(to)) as store:
        store.begin(facts_of(folder, manifest))
        store.put(read_rows(folder, manifest, 0), 1)
