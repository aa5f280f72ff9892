"""The neighbours of an image in an index, in the terminal and on a page.

python tools/search.py runs/triplet query.jpg -k 12
python tools/search.py runs/triplet query.jpg --store postgresql://localhost/search#gallery \
    --where label=cat
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from selfsup.core.cli import run as launch
from selfsup.core.errors import require
from selfsup.core.live import doing, print_sentence
from selfsup.core.paths import check_file
from selfsup.core.words import cosine, counted

if TYPE_CHECKING:
    from selfsup.search.query import SearchResult


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which images of an index look like these."""

    run: Positional[str]
    """A run with an index, the folder of an index, or a folder of embeddings."""
    queries: Positional[tuple[str, ...]]
    """Image files to search with."""
    k: Annotated[int, arg(aliases=["-k"])] = 12
    """Neighbours of each."""
    threshold: float | None = None
    """Cosine above which two images are of the same thing; by default the one that `selfsup verify`
    measured, for a gallery of this size."""
    qdrant: str = ""
    """The vector database of an index that is in one: PATH#COLLECTION or URL#COLLECTION."""
    store: str = ""
    """Search a database that `selfsup store` filled: what --to was there. RUN is the model then."""
    where: tuple[str, ...] = ()
    """Search only rows of the database with these values: COLUMN=VALUE. Several of one column are
    alternatives."""
    page: str = "search.html"
    """Where the page goes; empty for none."""
    open: bool = False
    """Open the page in the browser."""


def main(config: Config) -> None:
    """Search, print the neighbours, write the page."""
    from selfsup.report.page import open_page, write_page
    from selfsup.report.search import search_page
    from selfsup.search.query import search_index
    from selfsup.search.stored_search import search_store

    if config.page:
        check_file(Path(config.page), flag="--page")
    doing("searching")
    require(bool(config.store) or not config.where, "--where is for --store, a database")
    queries, k, threshold = config.queries, config.k, config.threshold
    if config.store:
        result = search_store(
            config.run, queries, config.store, k=k, threshold=threshold, where=config.where
        )
    else:
        result = search_index(config.run, queries, k=k, threshold=threshold, qdrant=config.qdrant)
    print_hits(result)
    print_sentence(" ".join(result.about_threshold))
    if config.page:
        write_page(Path(config.page), search_page(result))
        print(f"page: {config.page}")
        if config.open:
            open_page(Path(config.page))


def print_hits(result: "SearchResult") -> None:
    """Print a line for each neighbour, as wide as a terminal is at least."""
    for query, hits, itself in zip(result.queries, result.hits, result.itself, strict=True):
        verdict = ""
        if result.threshold is not None and hits:
            known = "known" if hits[0].same else "unknown"
            scores = f"nearest {cosine(hits[0].similarity)}, same above {cosine(result.threshold)}"
            verdict = f"  {known}: {scores}, among {counted(result.gallery, 'image')}"
        print_sentence(f"{query}{verdict}")
        if itself:
            print_sentence(f"      it is in the index itself and no hit: {', '.join(itself[:3])}")
        for rank, hit in enumerate(hits, start=1):
            same = "" if hit.same is None else "same   " if hit.same else "unknown"
            print(f"{rank:4d}  {hit.similarity:.3f}  {same:7s}  {hit.name}  {hit.label}")


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
