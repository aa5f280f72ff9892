"""A folder of embeddings into a database, or into files of another library.

python tools/store.py embeddings/ --to postgresql://localhost/search#gallery
python tools/store.py embeddings/ --to qdrant:http://localhost:6333#gallery
python tools/store.py embeddings/ --to lance:gallery.lance
python tools/store.py embeddings/ --to postgresql://localhost/search#gallery --remove old.jpg
"""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from selfsup.core.cli import run as launch
from selfsup.core.errors import UserError, require
from selfsup.core.live import print_sentence
from selfsup.core.words import counted


@dataclass(frozen=True, kw_only=True)
class Config:
    """Write embeddings to a database, or as files of another library; --remove takes some out."""

    embeddings: Positional[str]
    """The folder that selfsup embed wrote."""
    to: str
    """postgresql://HOST/DATABASE#TABLE, qdrant:PATH#COLLECTION, qdrant:URL#COLLECTION,
    faiss:FOLDER or lance:FOLDER; TABLE and COLLECTION are "selfsup" where none is given. Passwords
    are read from PGPASSWORD, ~/.pgpass, QDRANT_API_KEY."""
    ann: bool = True
    """Make an index of the table that is searched quickly and nearly exactly (HNSW)."""
    remove: tuple[str, ...] = ()
    """Names of images to take out of the database; nothing is written then."""
    remove_list: str = ""
    """File with such names, one a line."""


def main(config: Config) -> None:
    """Store or remove, and say what there is."""
    from selfsup.search.storing import remove_rows, store_folder

    folder = Path(config.embeddings)
    if config.remove or config.remove_list:
        names = [*config.remove, *_lines(config.remove_list)]
        require(
            bool(names), f"--remove-list {config.remove_list} has no names; nothing was removed"
        )
        rows = remove_rows(folder, config.to, names)
        removed = counted(len(set(names)), "image was", "images were")
        print_sentence(f"{config.to}: {removed} removed; it holds {rows:,}")
        return
    stored = store_folder(folder, config.to, ann=config.ann)
    manifest = stored.manifest
    if stored.first:
        print_sentence(
            f"{stored.first} of {counted(manifest.parts, 'part was', 'parts were')} there"
        )
    print_sentence(
        f"{config.to}: {counted(manifest.rows, 'image')}, {stored.width} wide; "
        f"{counted(stored.changed, 'row is', 'rows are')} new or changed, it holds {stored.rows:,}"
    )


def _lines(file: str) -> list[str]:
    """The lines of a file; none without one.

    Raises:
        UserError: it cannot be read.
    """
    if not file:
        return []
    try:
        return Path(file).read_text().splitlines()
    except (OSError, UnicodeError) as error:
        raise UserError(f"--remove-list {file} cannot be read: {error}") from None


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
