"""Embeddings as files of other libraries: a FAISS index, a Lance data set."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from selfsup.core.disk import cannot_write, code_of
from selfsup.core.errors import UserError, require
from selfsup.data.embedding_parts import Manifest, parquet
from selfsup.search.stored_rows import NUMBERS, StoredRows, StoreFacts, read_rows
from selfsup.search.stores import Destination


def export(destination: Destination, folder: Path, manifest: Manifest, facts: StoreFacts) -> int:
    """Write a folder of embeddings as files of another library; return how many rows it has.

    The new folder has its name only when it is whole.

    Raises:
        UserError: the library is not installed, or the folder is not empty or cannot be written.
    """
    out = Path(destination.place)
    require(
        not out.exists() or (out.is_dir() and not any(out.iterdir())),
        f"{out} is there already: remove it, or give another {destination.kind}:FOLDER",
    )
    write = _write_faiss if destination.kind == "faiss" else _write_lance
    partial = out.with_name(f".{out.name}.part")
    batches = (rows for part in range(manifest.parts) for rows in read_rows(folder, manifest, part))
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        count = write(partial, batches, facts)
        partial.replace(out)
    except (OSError, RuntimeError) as error:  # FAISS raises the latter
        raise cannot_write(out, code_of(error) or 0, error) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return count


def _write_faiss(out: Path, batches: Iterator[StoredRows], facts: StoreFacts) -> int:
    """An exact index of inner products, which are cosines; its ids are lines of rows.parquet."""
    try:
        import faiss
    except ImportError:
        raise UserError("faiss: needs FAISS: pip install 'selfsup[faiss]'") from None
    out.mkdir()
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(facts.width))
    with parquet("faiss:").ParquetWriter(out / "rows.parquet", _schema(facts, False)) as writer:
        for rows in batches:
            numbers = np.arange(index.ntotal, index.ntotal + len(rows.x))
            index.add_with_ids(rows.x, numbers)
            writer.write_batch(_arrow(rows, writer.schema))
    faiss.write_index(index, str(out / "embeddings.faiss"))
    return int(index.ntotal)


def _write_lance(out: Path, batches: Iterator[StoredRows], facts: StoreFacts) -> int:
    """A data set with the columns and a list of fixed size for each embedding."""
    try:
        import lance
    except ImportError:
        raise UserError("lance: needs Lance: pip install 'selfsup[lance]'") from None
    import pyarrow

    schema = _schema(facts, True)
    tables = (_arrow(rows, schema) for rows in batches)
    lance.write_dataset(pyarrow.RecordBatchReader.from_batches(schema, tables), str(out))
    return int(lance.dataset(str(out)).count_rows())


def _schema(facts: StoreFacts, embedding: bool) -> Any:
    """Columns of Arrow, with the facts as the schema's metadata."""
    import pyarrow

    fields = [pyarrow.field("id", pyarrow.string())]
    for name in facts.columns:
        kind = pyarrow.int32() if name in NUMBERS else pyarrow.string()
        fields.append(pyarrow.field(name, kind))
    if embedding:
        fields.append(pyarrow.field("embedding", pyarrow.list_(pyarrow.float32(), facts.width)))
    return pyarrow.schema(fields, {"selfsup": json.dumps(facts.to_json())})


def _arrow(rows: StoredRows, schema: Any) -> Any:
    import pyarrow

    columns: dict[str, Any] = {"id": [str(i) for i in rows.ids], **rows.columns}
    if "embedding" in schema.names:
        flat = pyarrow.array(rows.x.reshape(-1))
        columns["embedding"] = pyarrow.FixedSizeListArray.from_arrays(flat, rows.x.shape[1])
    return pyarrow.RecordBatch.from_pydict(columns, schema=schema)
