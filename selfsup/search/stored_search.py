"""A search with images in a database that `selfsup store` filled."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import Tensor

from selfsup.core.errors import require
from selfsup.data.embedding_parts import is_embedded, read_manifest
from selfsup.encoders.bundle import load_bundle
from selfsup.encoders.thresholds import read_gallery_threshold
from selfsup.encoders.weights import fingerprint
from selfsup.search.index import COLUMNS, Index, Rows
from selfsup.search.open_store import open_store
from selfsup.search.query import Hit, SearchResult, check_request
from selfsup.search.stores import Store, StoredHit, Where, parse_destination, parse_where


def search_store(
    run: str | Path,
    queries: Sequence[str | Path],
    store: str,
    *,
    k: int = 12,
    threshold: float | None = None,
    where: Sequence[str] = (),
) -> SearchResult:
    """Find the images of a database that look like the queries, themselves left out.

    Args:
        run: the run or bundle whose model made the embeddings, or the folder of embeddings.
        queries: image files to search with.
        store: postgresql://HOST/DATABASE#TABLE, qdrant:PATH#COLLECTION or qdrant:URL#COLLECTION.
        k: neighbours of each.
        threshold: as for `search_index`.
        where: conditions "column=value"; several of one column are alternatives.

    Raises:
        UserError: the database does not answer or is half filled, its embeddings are of another
            model, or a query cannot be read.
    """
    check_request(queries, k, threshold)
    destination, folder = parse_destination(store), Path(run)
    model = read_manifest(folder).model if is_embedded(folder) else str(folder)
    embedder = load_bundle(model)
    with open_store(destination) as opened:
        facts = opened.facts
        require(facts is not None, f"{store} is not there: selfsup store makes it")
        assert facts is not None
        require(not facts.missing, f"{store} is not whole: {facts.missing}")
        require(
            fingerprint(embedder.encoder) == facts.weights,
            f"{store} has embeddings of {facts.model}, and {model} has other weights",
        )
        embedder.views = replace(embedder.views, size=facts.size)
        conditions = parse_where(where, facts)
        searched = opened.count(conditions)
        x = embedder.embed(queries)
        found = [
            _nearest(
                opened, query, hashlib.sha256(Path(file).read_bytes()).hexdigest(), k, conditions
            )
            for query, file in zip(x, queries, strict=True)
        ]
    measured = None
    if threshold is None:
        measured = read_gallery_threshold(Path(model), searched)
        threshold = None if measured is None else measured.value
    rows: Rows = {name: [] for name in COLUMNS}
    hits = [_hits(rows, *both, threshold) for both in found]
    itself = [[hit.columns["name"] for hit in same] for same, _ in found]
    nothing = np.zeros((len(rows["name"]), 0), np.float32)
    index = Index(folder, model, facts.weights, facts.size, "exact", None, nothing, rows)
    names = tuple(map(str, queries))
    channels = embedder.views.channels
    return SearchResult(index, names, hits, threshold, channels, itself, measured, searched)


def _nearest(
    store: Store, query: Tensor, digest: str, k: int, where: Where
) -> tuple[list[StoredHit], list[StoredHit]]:
    """Rows of the query's own file among the nearest, and the k nearest of other files."""
    asked = k + 1
    while True:
        (hits,) = store.search(query[None], asked, where)
        same = [hit for hit in hits if hit.columns["sha256"] == digest]
        others = [hit for hit in hits if hit.columns["sha256"] != digest]
        if len(others) >= k or len(hits) < asked:
            return same, others[:k]
        asked *= 2


def _append(rows: Rows, hits: list[StoredHit]) -> int:
    """Add hits to `rows`; return the place of the first."""
    start = len(rows["name"])
    for name in COLUMNS:
        rows[name] += [hit.columns.get(name) or "" for hit in hits]
    return start


def _hits(
    rows: Rows, same: list[StoredHit], others: list[StoredHit], threshold: float | None
) -> list[Hit]:
    """Add what was found to `rows`, and return the hits of other files."""
    _append(rows, same)
    first = _append(rows, others)
    return [_hit(hit, first + i, threshold) for i, hit in enumerate(others)]


def _hit(hit: StoredHit, row: int, threshold: float | None) -> Hit:
    same = None if threshold is None else hit.similarity > threshold
    return Hit(hit.columns["name"], hit.columns["label"] or "", hit.similarity, same, row)
