"""Stores of embeddings outside of this folder: databases, and files of other libraries."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from uuid import UUID

from torch import Tensor

from selfsup.core.errors import UserError, did_you_mean, require
from selfsup.core.secrets import without_passwords
from selfsup.search.stored_rows import NUMBERS, StoredRows, StoreFacts

FORMS = "postgresql://HOST/DATABASE#TABLE, qdrant:PATH#COLLECTION, qdrant:URL#COLLECTION, "
FORMS += "faiss:FOLDER or lance:FOLDER"
Where = Mapping[str, Sequence[str | int]]
"""Columns, and the values of which a row has one."""


@dataclass(frozen=True)
class Destination:
    """Where embeddings are stored."""

    text: str
    """As the user typed it."""
    kind: str
    place: str
    """A URL, or a path."""
    name: str
    """Of the table or collection."""


class StoredHit(NamedTuple):
    """A row of a store, near to a query."""

    similarity: float
    """Cosine."""
    columns: dict[str, Any]


class Store(Protocol):
    """A database with the rows of folders of embeddings."""

    facts: StoreFacts | None
    """What it says of itself; None until something is stored."""

    def begin(self, facts: StoreFacts) -> int:
        """Make room for the rows of a folder; return the first part that is not there yet.

        Raises:
            UserError: what is there is not a store, or of another model or width.
        """

    def put(self, batches: Iterable[StoredRows], parts: int) -> int:
        """Write a part, after which so many are there; return how many rows are new or changed."""

    def finish(self, *, ann: bool) -> None:
        """Make what a quick search needs, if `ann`, and note that all parts are there."""

    def absent(self, ids: Sequence[UUID]) -> set[UUID]:
        """Which of these rows are not there."""

    def remove(self, ids: Sequence[UUID]) -> None:
        """Delete rows."""

    def count(self, where: Where) -> int:
        """How many rows there are."""

    def search(
        self, queries: Tensor, k: int, where: Where, *, exact: bool = False
    ) -> list[list[StoredHit]]:
        """Find the k rows nearest to each query, [q, d] of length 1, the nearest first.

        Args:
            queries: what is searched for.
            k: how many; fewer come only where there are fewer.
            where: which rows are searched.
            exact: whether to compare with each of them.
        """


def one_line(error: Exception) -> str:
    """What a database answered, without its line breaks."""
    return " ".join(str(error).split())[:300]


def parse_destination(text: str) -> Destination:
    """Read a destination.

    Raises:
        UserError: it has no known form, or a password in it.
    """
    kind, colon, place = text.partition(":")
    require(
        bool(colon) and kind in ("postgresql", "qdrant", "faiss", "lance"),
        f"{text!r} is no destination: give {FORMS}",
    )
    # a user without a password is no secret
    without_user = re.sub(r"^(postgresql://)[\w.%+-]+@", r"\1", text)
    if without_passwords(without_user) != without_user:
        mend = {
            "postgresql": "as PGPASSWORD or in ~/.pgpass",
            "qdrant": "as QDRANT_API_KEY",
        }.get(kind, "elsewhere")
        raise UserError(
            f"{without_passwords(without_user)} has a password in it, which the shell's history "
            f"and lists of processes would keep: give it {mend}"
        )
    if kind in ("faiss", "lance"):
        require(bool(place), f"{text!r} names no folder: give {FORMS}")
        return Destination(text, kind, place, "")
    place, _, name = (text if kind == "postgresql" else place).partition("#")
    require(
        place.startswith("postgresql://") if kind == "postgresql" else bool(place),
        f"{text!r} names no database: give {FORMS}",
    )
    return Destination(text, kind, place, name or "selfsup")


def parse_where(conditions: Sequence[str], facts: StoreFacts) -> Where:
    """Read conditions "column=value"; several of one column are alternatives.

    Raises:
        UserError: one has another form, or there is no such column.
    """
    where: dict[str, list[str | int]] = {}
    for condition in conditions:
        name, equals, value = condition.partition("=")
        require(bool(equals), f"a condition is COLUMN=VALUE, not {condition!r}")
        known = facts.columns
        require(
            name in known,
            f"there is no column {name!r}{did_you_mean(name, known)}. Columns: {', '.join(known)}",
        )
        is_number = name in NUMBERS
        require(
            not is_number or re.fullmatch(r"-?\d{1,9}", value) is not None,
            f"the column {name} has whole numbers, not {value!r}",
        )
        where.setdefault(name, []).append(int(value) if is_number else value)
    return where
