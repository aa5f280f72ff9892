"""The rows of a folder of embeddings into a store, part by part, and rows out of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from selfsup.core.errors import require
from selfsup.core.live import doing
from selfsup.core.progress import bar
from selfsup.data.embedding_parts import Manifest, read_manifest, require_whole
from selfsup.search.exports import export
from selfsup.search.open_store import open_store
from selfsup.search.stored_rows import facts_of, read_rows, row_id
from selfsup.search.stores import parse_destination

FOLDERS = ("faiss", "lance")


class Stored(NamedTuple):
    """What a call has stored, and what there is."""

    manifest: Manifest
    width: int
    first: int
    """The part that it began with: those before were there."""
    changed: int
    """Rows that are new or differ; of a database that does not say, all that were sent."""
    rows: int
    """Rows that the destination holds now, with those of other folders."""


def store_folder(folder: Path, to: str, *, ann: bool = True) -> Stored:
    """Write the readable images of a folder of embeddings to a destination.

    An image that is there already, by data, split and name, is replaced. What was killed goes on
    with the part that it was at.

    Args:
        folder: of embeddings.
        to: postgresql://HOST/DATABASE#TABLE, qdrant:PATH#COLLECTION, qdrant:URL#COLLECTION,
            faiss:FOLDER or lance:FOLDER.
        ann: whether a table gets a graph that is searched approximately.

    Raises:
        UserError: parts are missing or damaged, or the destination is not there or of others.
    """
    destination = parse_destination(to)
    manifest = read_manifest(folder)
    require_whole(folder, manifest)
    facts = facts_of(folder, manifest)
    if destination.kind in FOLDERS:
        written = export(destination, folder, manifest, facts)
        return Stored(manifest, facts.width, 0, written, written)
    doing("connecting")
    changed = 0
    with open_store(destination) as store:
        first = store.begin(facts)
        doing("")
        with bar(f"rows to {destination.name}", manifest.rows) as advance:
            for part in range(manifest.parts):
                if part >= first:
                    changed += store.put(read_rows(folder, manifest, part), part + 1)
                advance(len(manifest.positions(part)))
        doing("making the index")
        store.finish(ann=ann)
        doing("")
        return Stored(manifest, facts.width, first, changed, store.count({}))


def remove_rows(folder: Path, to: str, names: Sequence[str]) -> int:
    """Take images of a folder of embeddings out of a database; return how many rows it has then.

    Raises:
        UserError: the database has no image of a name, of which nothing is removed.
    """
    manifest = read_manifest(folder)
    ids = {row_id(manifest, name): name for name in names}
    with open_store(parse_destination(to)) as store:
        require(store.facts is not None, f"{to} is not there: selfsup store makes it")
        absent = store.absent(list(ids))
        require(
            not absent,
            f"{to} has no image {min(ids[i] for i in absent)!r} of {folder}; nothing was removed"
            if absent
            else "",
        )
        store.remove(list(ids))
        return store.count({})
