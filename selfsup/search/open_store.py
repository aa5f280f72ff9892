"""Open the database of a destination; its client is imported only then."""

from contextlib import AbstractContextManager

from selfsup.core.errors import UserError
from selfsup.search.stores import Destination, Store


def open_store(destination: Destination) -> AbstractContextManager[Store]:
    """Connect to a database.

    Raises:
        UserError: its client is not installed, nothing answers, or it is no database.
    """
    if destination.kind == "postgresql":
        try:
            from selfsup.search.postgres import open_table
        except ImportError:
            raise UserError(
                "PostgreSQL needs its client: pip install 'selfsup[postgres]'"
            ) from None
        return open_table(destination)
    if destination.kind == "qdrant":
        from selfsup.search.qdrant import open_collection

        return open_collection(destination)
    raise UserError(
        f"{destination.text} is a folder, written anew by each selfsup store: only "
        "databases are searched here and lose single rows"
    )
