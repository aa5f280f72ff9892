"""Engines: what finds the neighbours of a query in an index.

Shape letters: n rows, q queries, d width.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from selfsup.core.errors import UserError
from selfsup.search.index import COLUMNS, Index
from selfsup.search.neighbours import nearest
from selfsup.search.products import MEMORY

POINTS_A_REQUEST = 1000


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

    Approximate engines may miss a neighbour; those that they return have their exact cosine.

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
        raise UserError(f"the index {index.folder} holds no images; add some: selfsup index --data")
    k = min(k, len(index))
    if index.engine == "exact":
        bank = torch.from_numpy(np.array(index.embeddings))
        blocks = list(nearest(queries, bank, k, memory=memory))
        similarity = torch.cat([block.similarity for block in blocks])
        return Hits(similarity, torch.cat([block.indices for block in blocks]))
    if index.engine == "usearch":
        indices = _search_usearch(index, queries, k)
    else:
        if not database:
            raise UserError(f"this index is in a vector database: give --qdrant, {index.where!r}?")
        indices = _search_qdrant(database, queries, k)
    rows = torch.from_numpy(np.array(index.embeddings[indices.numpy()]))  # [q, k, d]
    similarity, order = (rows @ queries[:, :, None])[:, :, 0].sort(dim=1, descending=True)
    return Hits(similarity, indices.gather(1, order))


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


def _search_usearch(index: Index, queries: Tensor, k: int) -> Tensor:
    file = index.file("index.usearch")
    if not file.exists():
        raise UserError(f"{file} is missing: make the index again with selfsup index --ann")
    graph = _usearch().Index.restore(str(file), view=True)
    matches = graph.search(queries.numpy(), k)
    return torch.from_numpy(np.atleast_2d(matches.keys).astype(np.int64))


def _usearch() -> Any:
    try:
        import usearch.index
    except ImportError:
        raise UserError("--ann needs usearch: pip install 'selfsup[ann]'") from None
    return usearch.index


def _client(where: str) -> tuple[Any, str]:
    """A database and the collection in it, of PATH#COLLECTION or URL#COLLECTION."""
    try:
        import qdrant_client
    except ImportError:
        raise UserError("--qdrant needs its client: pip install 'selfsup[qdrant]'") from None
    place, _, collection = where.partition("#")
    try:
        if "://" in place:
            client = qdrant_client.QdrantClient(url=place, timeout=60)
        else:
            client = qdrant_client.QdrantClient(path=str(Path(place)))
        client.get_collections()
    except Exception as error:  # of many kinds, from httpx, gRPC and its own
        sentence = str(error).split("\n")[0][:200]
        raise UserError(f"no vector database answers at {place}: {sentence}") from None
    return client, collection or "selfsup"


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


def _search_qdrant(where: str, queries: Tensor, k: int) -> Tensor:
    client, collection = _client(where)
    indices = []
    for query in queries:
        points = client.query_points(collection, query=query.tolist(), limit=k).points
        indices.append([int(point.id) for point in points])
    client.close()
    if any(len(row) < k for row in indices):
        raise UserError(f"the collection {where} holds fewer images than the index; make it again")
    return torch.tensor(indices)
