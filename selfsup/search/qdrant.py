"""A collection of embeddings in Qdrant, embedded in a folder or by URL.

A point has the id of an image, its columns as payload and its embedding. What the collection is,
and which parts of a folder it holds, is its metadata.

Shape letters: q queries, d width.
"""

import contextlib
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from torch import Tensor

from selfsup.core.errors import UserError, require
from selfsup.search.stored_rows import NUMBERS, StoredRows, StoreFacts, facts_from, require_same
from selfsup.search.stores import Destination, StoredHit, Where, one_line

POINTS_A_REQUEST = 256  # a server takes 32 MB, of 4,000 numbers in letters too
THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def connect(place: str) -> Any:
    """Open a folder of Qdrant's, or connect to a URL with the key in QDRANT_API_KEY.

    Raises:
        UserError: the client is not installed, the key would be sent in the clear, or nothing
            answers.
    """
    try:
        import qdrant_client
    except ImportError:
        raise UserError("Qdrant needs its client: pip install 'selfsup[qdrant]'") from None
    try:
        if "://" in place:
            client = _connect_to(place, qdrant_client)
        else:
            client = qdrant_client.QdrantClient(path=str(Path(place)))
        client.get_collections()
    except UserError:
        raise
    except Exception as error:  # of many kinds, from httpx, gRPC and its own
        raise UserError(f"no vector database answers at {place}: {one_line(error)}") from None
    return client


def _connect_to(url: str, library: Any) -> Any:
    key = os.environ.get("QDRANT_API_KEY") or None
    parts = urlsplit(url)
    require(
        key is None or parts.scheme == "https" or parts.hostname in THIS_MACHINE,
        f"QDRANT_API_KEY would be sent to {url} unencrypted: give https://",
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Api key is used with an insecure connection")
        # its check of versions warns from a thread beside our own sentence
        return library.QdrantClient(url=url, api_key=key, timeout=60, check_compatibility=False)


@contextlib.contextmanager
def open_collection(destination: Destination) -> Iterator["QdrantCollection"]:
    """Connect to a database.

    Raises:
        UserError: the client is not installed, or nothing answers.
    """
    client = connect(destination.place)
    try:
        yield QdrantCollection(client, destination)
    except UserError:
        raise
    except Exception as error:
        from qdrant_client.common.client_exceptions import QdrantException
        from qdrant_client.http.exceptions import ApiException

        if not isinstance(error, QdrantException | ApiException | ValueError):
            raise
        raise UserError(f"{destination.text}: {one_line(error)}") from None
    finally:
        client.close()


class QdrantCollection:
    """A collection of a database."""

    def __init__(self, client: Any, destination: Destination) -> None:
        """Find the collection, there or not.

        Raises:
            UserError: it is somebody else's.
        """
        from qdrant_client import models

        self.client, self.name, self.place = client, destination.name, destination.text
        self.remote = "://" in destination.place
        self.models = models
        self.facts = self._read_facts()

    def _read_facts(self) -> StoreFacts | None:
        if not self.client.collection_exists(self.name):
            return None
        config = self.client.get_collection(self.name).config
        facts = facts_from((config.metadata or {}).get("selfsup") or {}, self.place)
        vectors = config.params.vectors
        expected = facts.width, self.models.Distance.COSINE
        require(
            (getattr(vectors, "size", 0), getattr(vectors, "distance", "")) == expected,
            f"{self.place} was made again with another width or distance: choose another name",
        )
        return facts

    def begin(self, facts: StoreFacts) -> int:
        """Make or compare the collection."""
        models, old = self.models, self.facts
        if old is None:
            self.client.create_collection(
                self.name,
                models.VectorParams(size=facts.width, distance=models.Distance.COSINE),
                metadata={"selfsup": facts.to_json()},
            )
            if not self.client.get_collection(self.name).config.metadata:
                self.client.delete_collection(self.name)
                raise UserError(f"{self.place} keeps no metadata: Qdrant 1.16 or newer is needed")
            self.facts = self._read_facts()
        else:
            require_same(self.place, old, facts)
            columns = [*old.columns, *(c for c in facts.columns if c not in old.columns)]
            first = old.parts if old.folder == facts.folder and not old.whole else 0
            self._write_facts(replace(facts, columns=columns, parts=first))
        for name in facts.columns if self.remote else ():  # a server may refuse to filter without
            kind = "integer" if name in NUMBERS else "keyword"
            self.client.create_payload_index(self.name, _key(name), kind)
        assert self.facts is not None
        return self.facts.parts

    def _write_facts(self, facts: StoreFacts) -> None:
        self.client.update_collection(self.name, metadata={"selfsup": facts.to_json()})
        self.facts = facts

    def put(self, batches: Iterable[StoredRows], parts: int) -> int:
        """Write all rows of a part, those that are the same too."""
        assert self.facts is not None
        sent = 0
        for rows in batches:
            for start in range(0, len(rows.ids), POINTS_A_REQUEST):
                points = [
                    self.models.PointStruct(
                        id=str(rows.ids[i]),
                        vector=rows.x[i].tolist(),
                        payload={name: values[i] for name, values in rows.columns.items()},
                    )
                    for i in range(start, min(start + POINTS_A_REQUEST, len(rows.ids)))
                ]
                self.client.upsert(self.name, points)
            sent += len(rows.ids)
        self._write_facts(replace(self.facts, parts=parts))
        return sent

    def finish(self, *, ann: bool) -> None:
        """Note that all is there: the database makes its graph by itself, whatever `ann` is."""
        assert self.facts is not None
        self._write_facts(replace(self.facts, whole=True))

    def absent(self, ids: Sequence[UUID]) -> set[UUID]:
        """Which of these rows are not there."""
        there: set[UUID] = set()
        for start in range(0, len(ids), POINTS_A_REQUEST):
            chunk = [str(i) for i in ids[start : start + POINTS_A_REQUEST]]
            points = self.client.retrieve(self.name, chunk, with_payload=False)
            there |= {UUID(str(point.id)) for point in points}
        return set(ids) - there

    def remove(self, ids: Sequence[UUID]) -> None:
        """Delete rows."""
        self.client.delete(self.name, self.models.PointIdsList(points=[str(i) for i in ids]))

    def count(self, where: Where) -> int:
        """How many rows there are."""
        condition = self._condition(where)
        return int(self.client.count(self.name, count_filter=condition, exact=True).count)

    def _condition(self, where: Where) -> Any:
        """A filter; None for all rows."""
        models = self.models
        terms = [
            models.FieldCondition(key=_key(name), match=models.MatchAny(any=list(values)))
            for name, values in where.items()
        ]
        return models.Filter(must=terms) if terms else None

    def search(
        self, queries: Tensor, k: int, where: Where, *, exact: bool = False
    ) -> list[list[StoredHit]]:
        """Search by the database's graph, or exactly."""
        hits = []
        for query in queries:
            answer = self.client.query_points(
                self.name,
                query=query.tolist(),
                limit=k,
                query_filter=self._condition(where),
                search_params=self.models.SearchParams(exact=exact),
            )
            hits.append([StoredHit(float(p.score), dict(p.payload or {})) for p in answer.points])
        return hits


def _key(name: str) -> str:
    """A column in a filter: quoted, where its name would be a path into a payload."""
    return name if name.replace("_", "a").isalnum() else f'"{name}"'
