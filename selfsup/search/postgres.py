"""A table of embeddings in PostgreSQL with pgvector.

A row has `id`, the columns of the images and `embedding`, of length 1. What the table is, and
which parts of a folder it holds, is its comment. A part and the comment change in one transaction,
so that what is killed leaves whole parts.

Shape letters: b rows, q queries, d width.
"""

import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, LiteralString
from uuid import UUID

import numpy as np
import psycopg
from psycopg import sql
from torch import Tensor

from selfsup.core.errors import InUseError, UserError, require
from selfsup.search.stored_rows import NUMBERS, StoredRows, StoreFacts, facts_from, require_same
from selfsup.search.stores import Destination, StoredHit, Where, one_line

WIDEST_VECTOR, WIDEST_HALF = 2000, 4000  # that pgvector's graphs take
LONGEST_NAME = 63  # bytes, of a table or column
PATIENCE = 10  # seconds, in which a server notices that the last writer was killed
INCOMING = sql.Identifier("pg_temp", "incoming")
OLDEST = (0, 8)  # the first pgvector that goes on where a filter leaves fewer than k


@contextlib.contextmanager
def open_table(destination: Destination) -> Iterator["PostgresTable"]:
    """Connect to a server; user, password and encryption are libpq's, by environment and files.

    Raises:
        UserError: no server with pgvector answers.
    """
    try:
        connection = psycopg.connect(
            destination.place, autocommit=True, client_encoding="UTF8", connect_timeout=10
        )
    except (psycopg.Error, UnicodeError, ValueError) as error:
        raise UserError(
            f"no PostgreSQL answers at {destination.place}: {one_line(error)}"
        ) from None
    try:
        with connection:
            yield PostgresTable(connection, destination)
    except (psycopg.Error, UnicodeError) as error:
        raise UserError(f"{destination.text}: {one_line(error)}") from None


class PostgresTable:
    """A table of a server."""

    def __init__(self, connection: psycopg.Connection[Any], destination: Destination) -> None:
        """Find the table of a connection, there or not.

        Raises:
            UserError: the table is somebody else's.
        """
        self.connection, self.place = connection, destination.text
        name = destination.name.split(".")
        self._check_names(name)
        require("%" not in destination.name, f"{self.place}: a table's name has no % here")
        self.table = sql.Identifier(*name)
        self.facts = self._read_facts()
        self.columns: list[str] = []

    @property
    def kind(self) -> LiteralString:
        """The type of an embedding; a graph takes wide ones only in half precision."""
        assert self.facts is not None
        return "vector" if self.facts.width <= WIDEST_VECTOR else "halfvec"

    def _check_names(self, names: Sequence[str]) -> None:
        for name in names:
            require(
                0 < len(name.encode("utf-8", "replace")) <= LONGEST_NAME and "\0" not in name,
                f"{name!r} is no name of a table or column in PostgreSQL: it has 1 to "
                f"{LONGEST_NAME} bytes",
            )

    def _require_pgvector(self) -> None:
        """Make the extension, where it is not made yet."""
        statement = "SELECT extversion FROM pg_extension WHERE extname = 'vector'"
        row = self.connection.execute(statement).fetchone()
        if row is None:
            try:
                self.connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            except psycopg.Error as error:
                raise UserError(
                    f"{self.place} has no pgvector ({one_line(error)}): install it on the server, "
                    "then CREATE EXTENSION vector as the database's owner"
                ) from None
            row = self.connection.execute(statement).fetchone()
        version = row[0] if row else "0.0"
        require(
            tuple(int(number) for number in version.split(".")[:2]) >= OLDEST,
            f"{self.place} has pgvector {version}, and 0.8 or newer is needed: ALTER EXTENSION "
            "vector UPDATE",
        )

    def _read_facts(self) -> StoreFacts | None:
        row = self._execute("SELECT to_regclass(%s)::oid", self.table.as_string(self.connection))
        if row[0][0] is None:
            return None
        ((comment,),) = self._execute("SELECT obj_description(%s, 'pg_class')", row[0][0])
        try:
            record = json.loads(comment or "{}")
        except ValueError:
            record = {}
        return facts_from(record if isinstance(record, dict) else {}, self.place)

    def _execute(self, statement: Any, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement and return its rows."""
        cursor = self.connection.execute(statement, values or None)
        return cursor.fetchall() if cursor.description else []

    def begin(self, facts: StoreFacts) -> int:
        """Make or compare the table."""
        self._check_names(facts.columns)
        self.columns = facts.columns
        self._require_pgvector()
        self._lock()
        require(
            facts.width <= WIDEST_HALF,
            f"embeddings are {facts.width} wide, and pgvector's index takes up to {WIDEST_HALF}",
        )
        with self.connection.transaction():
            old = self._read_facts()  # another process may have made it
            if old is not None:
                require_same(self.place, old, facts)
                columns = [*old.columns, *(c for c in facts.columns if c not in old.columns)]
                first = old.parts if old.folder == facts.folder and not old.whole else 0
                facts = replace(facts, columns=columns, parts=first)
            self.facts = facts
            self._make(facts)
            self._write_facts(facts)
        return facts.parts

    def _lock(self) -> None:
        """Be the only one that stores in the table, until the connection ends."""
        self._execute("SELECT set_config('lock_timeout', %s, false)", f"{PATIENCE:d}s")
        name = self.table.as_string(self.connection)
        try:
            self._execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", name)
        except psycopg.errors.LockNotAvailable:
            raise InUseError(
                f"another selfsup store writes to {self.place}, or the server has not noticed yet "
                "that it was killed: wait for it"
            ) from None
        self._execute("SET lock_timeout = 0")

    def _make(self, facts: StoreFacts) -> None:
        """Make the table and those of its columns that are not there."""
        self._execute(
            sql.SQL(
                "CREATE TABLE IF NOT EXISTS {} (id uuid PRIMARY KEY, embedding {} NOT NULL)"
            ).format(self.table, sql.SQL(f"{self.kind}({facts.width:d})"))
        )
        for name in facts.columns:
            self._execute(
                sql.SQL("ALTER TABLE {} ADD COLUMN IF NOT EXISTS {} {}").format(
                    self.table,
                    sql.Identifier(name),
                    sql.SQL("integer" if name in NUMBERS else "text"),
                )
            )

    def _write_facts(self, facts: StoreFacts) -> None:
        text = json.dumps(facts.to_json())
        self._execute(sql.SQL("COMMENT ON TABLE {} IS {}").format(self.table, sql.Literal(text)))
        self.facts = facts

    def put(self, batches: Iterable[StoredRows], parts: int) -> int:
        """Copy a part beside the table, then insert or change what differs."""
        assert self.facts is not None
        with self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.execute(
                sql.SQL("CREATE TEMP TABLE {} (LIKE {}) ON COMMIT DROP").format(
                    INCOMING, self.table
                )
            )
            self._copy(cursor, batches)
            cursor.execute(self._upsert())
            changed = int(cursor.rowcount)
            self._write_facts(replace(self.facts, parts=parts))
        return changed

    def _copy(self, cursor: Any, batches: Iterable[StoredRows]) -> None:
        """Copy rows in PostgreSQL's binary format."""
        columns = sql.SQL(", ").join(map(sql.Identifier, ["id", *self.columns, "embedding"]))
        types = ["int4" if name in NUMBERS else "text" for name in self.columns]
        with cursor.copy(
            sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(INCOMING, columns)
        ) as copy:
            copy.set_types(["uuid", *types, "bytea"])  # a vector's bytes are sent as they are
            for rows in batches:
                values = [rows.columns[name] for name in self.columns]
                for row in zip(rows.ids, *values, self._binary(rows.x), strict=True):
                    copy.write_row(row)

    def _binary(self, x: np.ndarray) -> list[bytes]:
        """Rows as pgvector receives them: two numbers of 16 bits, d and 0, then the values."""
        header = np.array([x.shape[1], 0], ">u2").tobytes()
        number = ">f4" if self.kind == "vector" else ">f2"
        return [header + row.tobytes() for row in x.astype(number)]

    def _upsert(self) -> sql.Composed:
        """The statement that inserts new rows and changes different ones; of equal ids the last."""
        changing = [sql.Identifier(name) for name in (*self.columns, "embedding")]
        excluded = [sql.SQL("excluded.{}").format(name) for name in changing]
        comma = sql.SQL(", ")
        return sql.SQL(
            "INSERT INTO {table} AS t (id, {columns}) SELECT DISTINCT ON (id) id, {columns} "
            "FROM {incoming} ORDER BY id, ctid DESC ON CONFLICT (id) DO UPDATE SET "
            "({columns}) = ROW({excluded}) WHERE ({old}) IS DISTINCT FROM ({excluded})"
        ).format(
            table=self.table,
            incoming=INCOMING,
            columns=comma.join(changing),
            excluded=comma.join(excluded),
            old=comma.join(sql.SQL("t.{}").format(name) for name in changing),
        )

    def finish(self, *, ann: bool) -> None:
        """Make a graph of the embeddings, if there is none, and count for the planner."""
        assert self.facts is not None
        with self.connection.transaction():
            if ann and not self._has_graph():
                self._execute(
                    sql.SQL("CREATE INDEX ON {} USING hnsw (embedding {})").format(
                        self.table, sql.SQL(f"{self.kind}_cosine_ops")
                    )
                )
            self._write_facts(replace(self.facts, whole=True))
        self._execute(sql.SQL("ANALYZE {}").format(self.table))

    def _has_graph(self) -> bool:
        indexes = self._execute(
            "SELECT 1 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON "
            "a.oid = c.relam WHERE i.indrelid = to_regclass(%s) AND a.amname = 'hnsw'",
            self.table.as_string(self.connection),
        )
        return bool(indexes)

    def absent(self, ids: Sequence[UUID]) -> set[UUID]:
        """Which of these rows are not there."""
        there = sql.SQL("SELECT id FROM {} WHERE id = ANY(%s)").format(self.table)
        return set(ids) - {row[0] for row in self._execute(there, list(ids))}

    def remove(self, ids: Sequence[UUID]) -> None:
        """Delete rows."""
        self._execute(sql.SQL("DELETE FROM {} WHERE id = ANY(%s)").format(self.table), list(ids))

    def count(self, where: Where) -> int:
        """How many rows there are."""
        condition, values = self._condition(where)
        statement = sql.SQL("SELECT count(*) FROM {}{}").format(self.table, condition)
        return int(self._execute(statement, *values)[0][0])

    def _condition(self, where: Where) -> tuple[sql.Composable, list[list[str | int]]]:
        """A WHERE clause and its values."""
        terms = [sql.SQL("{} = ANY(%s)").format(_identifier(name)) for name in where]
        clause = sql.SQL(" WHERE ") + sql.SQL(" AND ").join(terms) if terms else sql.SQL("")
        return clause, [list(values) for values in where.values()]

    def search(
        self, queries: Tensor, k: int, where: Where, *, exact: bool = False
    ) -> list[list[StoredHit]]:
        """Search by the graph, where the planner thinks it quicker; exactly if that has too few."""
        exact = exact or not self._has_graph()
        hits = []
        for query in queries:
            nearest = self._nearest(query, k, where, exact=exact)
            if len(nearest) < k and not exact:
                nearest = self._nearest(query, k, where, exact=True)
            hits.append(nearest)
        return hits

    def _nearest(self, query: Tensor, k: int, where: Where, *, exact: bool) -> list[StoredHit]:
        assert self.facts is not None
        condition, values = self._condition(where)
        names = self.facts.columns
        # the distance to a row of zeros is nan, its cosine 0; a graph orders by the plain one alone
        distance = "COALESCE(NULLIF({}, 'NaN'), 1)" if exact else "{}"
        statement = sql.SQL(
            "SELECT {distance} AS distance, {columns} FROM {table}{condition} "
            "ORDER BY distance LIMIT %s"
        ).format(
            distance=sql.SQL(distance.format(f"embedding <=> %s::{self.kind}")),
            columns=sql.SQL(", ").join(map(_identifier, names)),
            table=self.table,
            condition=condition,
        )
        vector = "[" + ",".join(map(repr, query.tolist())) + "]"
        settings = {
            "hnsw.ef_search": str(min(1000, max(100, 2 * k))),
            "hnsw.iterative_scan": "strict_order",
        }
        with self.connection.transaction():
            for name, value in settings.items():
                self._execute("SELECT set_config(%s, %s, true)", name, value)
            rows = self._execute(statement, vector, *values, k)
        hits = []
        for distance, *values in rows:
            cosine = 0.0 if math.isnan(distance) else 1 - distance
            hits.append(StoredHit(cosine, dict(zip(names, values, strict=True))))
        return hits


def _identifier(name: str) -> sql.Identifier:
    """A column in a statement that has values, where % would announce one."""
    return sql.Identifier(name.replace("%", "%%"))
