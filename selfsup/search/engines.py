"""Engines: what finds the neighbours of a query in an index.

Shape letters: n rows, q queries, d width.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from selfsup.core.errors import UserError
from selfsup.search.index import COLUMNS, Index
from selfsup.search.neighbours import nearest
from selfsup.search.products import MEMORY
from selfsup.search.qdrant import POINTS_A_REQUEST, connect


class Hits(NamedTuple):
    """Neighbours in an index, the nearest first."""

    similarity: Tensor
    """Cosine, float32 [q, k]."""
    indices: Tensor
    """int64 [q, k], rows of the index."""


def search(
    index: Index, queries: Tensor, k: int, *, database: str = "", memory: int = MEMORY
) -> Hits:
    """Find the k rows nearest to each query, by the index's own engine.

    Approximate engines may miss a neighbour; those that they return have their exact cosine. Where
    one returns fewer than k, the query is searched exactly.

    Args:
        index: what is searched.
        queries: float32 [q, d] of length 1.
        k: how many, clipped to the index.
        database: of the qdrant engine, as the user names it: an index from somebody else must not
            say where queries are sent.
        memory: bytes to hold besides the embeddings.

    Raises:
        UserError: the index is empty, or its engine is not installed, not there or not named.
    """
    if len(index) == 0:
        raise UserError(f"the index {index.folder} holds no images: add some with selfsup index")
    k = min(k, len(index))
    if index.engine == "exact":
        return _search_exactly(index, queries, k, memory)
    if index.engine == "usearch":
        rows = _search_usearch(index, queries, k)
    else:
        if not database:
            raise UserError(f"this index is in a vector database: give --qdrant, {index.where!r}?")
        rows = _search_qdrant(index, database, queries, k)
    return _complete(index, queries, rows, k, memory)


def _search_exactly(index: Index, queries: Tensor, k: int, memory: int) -> Hits:
    bank = torch.from_numpy(np.array(index.embeddings))
    blocks = list(nearest(queries, bank, k, memory=memory))
    similarity = torch.cat([block.similarity for block in blocks])
    return Hits(similarity, torch.cat([block.indices for block in blocks]))


def _complete(index: Index, queries: Tensor, found: list[list[int]], k: int, memory: int) -> Hits:
    """Exact cosines of the rows that an engine found; an exact search where it found fewer than k.

    A graph of many equal rows is in pieces, and a search stops at the end of one.
    """
    complete = [
        i
        for i, rows in enumerate(found)
        if len(set(rows)) == len(rows) == k and max(rows) < len(index)
    ]
    others = [i for i in range(len(found)) if i not in set(complete)]
    similarity = torch.empty(len(found), k)
    indices = torch.empty(len(found), k, dtype=torch.int64)
    if complete:
        places = torch.tensor([found[i] for i in complete])
        rows = torch.from_numpy(np.array(index.embeddings[places.numpy()]))  # [q, k, d]
        cosines = (rows @ queries[complete][:, :, None])[:, :, 0]
        similarity[complete], order = cosines.sort(dim=1, descending=True)
        indices[complete] = places.gather(1, order)
    if others:
        similarity[others], indices[others] = _search_exactly(index, queries[others], k, memory)
    return Hits(similarity, indices)


def build(index: Index) -> None:
    """Write what the index's engine needs besides the embeddings.

    Raises:
        UserError: the engine is not installed or not there.
    """
    if index.engine == "usearch":
        graph = _usearch().Index(ndim=index.embeddings.shape[1], metric="cos", dtype="f32")
        graph.add(np.arange(len(index)), np.ascontiguousarray(index.embeddings))
        graph.save(str(index.file("index.usearch")))
    elif index.engine == "qdrant":
        _fill_collection(index)


def _search_usearch(index: Index, queries: Tensor, k: int) -> list[list[int]]:
    """The rows that usearch finds for each query, at most k."""
    file = index.file("index.usearch")
    if not file.exists():
        raise UserError(f"{file} is missing: make the index again with selfsup index --ann")
    graph = _usearch().Index.restore(str(file), view=True)
    matches = graph.search(queries.numpy(), k)
    keys = np.atleast_2d(matches.keys).astype(np.int64)
    # of several queries the keys are padded with 0 to k
    counts = getattr(matches, "counts", [keys.shape[1]])
    return [row[:count].tolist() for row, count in zip(keys, counts, strict=True)]


def _usearch() -> Any:
    try:
        import usearch.index
    except ImportError:
        raise UserError("--ann needs usearch: pip install 'selfsup[ann]'") from None
    return usearch.index


def _client(where: str) -> tuple[Any, str]:
    """A database and the collection in it, of PATH#COLLECTION or URL#COLLECTION."""
    place, _, collection = where.partition("#")
    return connect(place), collection or "selfsup"


def _fill_collection(index: Index) -> None:
    """Put every row into a collection of its own, made again."""
    client, collection = _client(index.where)
    from qdrant_client.models import Distance, PointStruct, VectorParams

    if client.collection_exists(collection):
        points, _ = client.scroll(collection, limit=1)
        if any(not set(COLUMNS) <= (point.payload or {}).keys() for point in points):
            raise UserError(
                f"the collection {collection} holds what is not an index of selfsup; choose another"
            )
        client.delete_collection(collection)
    size = int(index.embeddings.shape[1])
    client.create_collection(collection, VectorParams(size=size, distance=Distance.COSINE))
    for start in range(0, len(index), POINTS_A_REQUEST):
        points = [
            PointStruct(
                id=i,
                vector=index.embeddings[i].tolist(),
                payload={name: words[i] for name, words in index.rows.items()},
            )
            for i in range(start, min(start + POINTS_A_REQUEST, len(index)))
        ]
        client.upsert(collection, points)
    client.close()


def _search_qdrant(index: Index, where: str, queries: Tensor, k: int) -> list[list[int]]:
    """The rows that a vector database finds for each query, at most k.

    Raises:
        UserError: there is no such collection, or it is of another index.
    """
    client, collection = _client(where)
    try:
        if not client.collection_exists(collection):
            raise UserError(f"{where} has no collection {collection}: make the index again")
        held = int(client.count(collection, exact=True).count)
        if held != len(index):
            raise UserError(
                f"the collection {where} holds {held} images and the index {len(index)}; make it "
                "again"
            )
        found = []
        for query in queries:
            points = client.query_points(collection, query=query.tolist(), limit=k).points
            found.append([int(point.id) for point in points])
    finally:
        client.close()
    return found
