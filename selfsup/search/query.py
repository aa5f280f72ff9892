"""A search with images: open the index, embed the queries, find their neighbours."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from selfsup.core.errors import require
from selfsup.encoders.bundle import load_bundle
from selfsup.encoders.weights import fingerprint
from selfsup.search import engines
from selfsup.search import index as store
from selfsup.search.index import Index


class Hit(NamedTuple):
    """A neighbour of a query."""

    name: str
    label: str
    """The name of its class; empty where there is none."""
    similarity: float
    """Cosine."""
    same: bool | None
    """Whether it is above the threshold; None without a threshold."""
    row: int
    """Of the index or gallery."""


@dataclass(frozen=True)
class SearchResult:
    """The neighbours of each query."""

    index: Index
    queries: tuple[str, ...]
    hits: list[list[Hit]]
    """For each query, the nearest first."""
    threshold: float | None
    """Cosine above which two images are of the same thing."""
    channels: int = 3
    """That images are opened with."""


def search_index(
    run: str | Path,
    queries: Sequence[str | Path],
    *,
    k: int = 12,
    threshold: float | None = None,
    qdrant: str = "",
) -> SearchResult:
    """Find the images of an index that look like the queries.

    Args:
        run: a run or bundle with an index, or the folder of an index.
        queries: image files to search with.
        k: neighbours of each, clipped to the index.
        threshold: cosine above which two images are of the same thing; by default the index's.
        qdrant: the vector database of an index that is in one: PATH#COLLECTION or URL#COLLECTION.

    Raises:
        UserError: there is no index, its model has other weights by now, or a query cannot be read.
    """
    require(k > 0, f"-k must be above 0, not {k}")
    require(len(queries) > 0, "give an image to search with")
    folder = Path(run)
    index = store.read(folder if (folder / "index.json").exists() else folder / "index")
    embedder = load_bundle(index.model)
    require(
        fingerprint(embedder.encoder) == index.weights,
        f"{index.model} has other weights than when the index was made: selfsup index again",
    )
    embedder.views = replace(embedder.views, size=index.size)
    nearest = engines.search(index, embedder.embed(queries), k, database=qdrant)
    threshold = index.threshold if threshold is None else threshold
    hits = [
        [_hit(index, row, cosine, threshold) for cosine, row in zip(*both, strict=True)]
        for both in zip(nearest.similarity.tolist(), nearest.indices.tolist(), strict=True)
    ]
    names = tuple(str(query) for query in queries)
    return SearchResult(index, names, hits, threshold, embedder.views.channels)


def _hit(index: Index, row: int, similarity: float, threshold: float | None) -> Hit:
    same = None if threshold is None else similarity > threshold
    return Hit(index.rows["name"][row], index.rows["label"][row], similarity, same, row)
