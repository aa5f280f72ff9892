"""An index in memory of a folder of embeddings."""

from pathlib import Path

import numpy as np
import torch

from selfsup.core.errors import require
from selfsup.core.numerics import normalize
from selfsup.data.embedding_parts import Manifest, read_batches, read_manifest, vectors
from selfsup.search.index import COLUMNS, Index, Rows


def index_of_folder(folder: Path) -> Index:
    """Read a folder of embeddings as an index that is searched exactly.

    Raises:
        UserError: parts are missing or damaged, or the model cannot embed queries.
    """
    manifest = read_manifest(folder)
    require(
        Path(manifest.model).is_dir(),
        f"{folder} was made by {manifest.model}, and queries need the folder of a run or a bundle",
    )
    rows: Rows = {name: [] for name in COLUMNS}
    blocks = []
    for batch in read_batches(folder, manifest, ["name", "label", "sha256", "embedding"]):
        x = vectors(batch)
        readable = ~np.isnan(x[:, 0])
        blocks.append(x[readable])
        for name in ("name", "label", "sha256"):
            words = batch.column(batch.schema.get_field_index(name)).to_pylist()
            rows[name] += [words[i] or "" for i in np.flatnonzero(readable)]
    rows["data"] = [manifest.data] * len(rows["name"])
    rows["split"] = [manifest.split] * len(rows["name"])
    return _index(folder, manifest, np.concatenate(blocks), rows)


def _index(folder: Path, manifest: Manifest, x: np.ndarray, rows: Rows) -> Index:
    embeddings = normalize(torch.from_numpy(x)).numpy()
    return Index(
        folder, manifest.model, manifest.weights, manifest.size, "exact", None, embeddings, rows
    )
