"""The neighbours of an image in an index, in the terminal and on a page.

python tools/search.py runs/triplet query.jpg -k 12
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from selfsup.core.cli import run as launch

if TYPE_CHECKING:
    from torch import Tensor

    from selfsup.encoders.bundle import Embedder
    from selfsup.search.engines import Found
    from selfsup.search.index import Index


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which images of an index look like these."""

    run: Positional[str]
    """A run with an index, or the folder of an index."""
    queries: Positional[tuple[str, ...]]
    """Image files to search with."""
    k: Annotated[int, arg(aliases=["-k"])] = 12
    """Neighbours of each."""
    threshold: float | None = None
    """Cosine above which two images are of the same thing; by default what tools/verify.py
    found."""
    qdrant: str = ""
    """The vector database of an index that is in one: PATH#COLLECTION or URL#COLLECTION."""
    page: str = "search.html"
    """Where the page goes; empty for none."""


def main(config: Config) -> None:
    """Embed the queries, find, tell, draw."""
    from dataclasses import replace

    from selfsup.core.errors import require
    from selfsup.encoders.bundle import load_bundle
    from selfsup.encoders.weights import fingerprint
    from selfsup.report.page import write_page
    from selfsup.report.search import search_page
    from selfsup.search import engines
    from selfsup.search import index as store

    require(config.k > 0, f"-k must be above 0, not {config.k}")
    require(bool(config.queries), "give an image to search with")
    folder = Path(config.run)
    index = store.read(folder if (folder / "index.json").exists() else folder / "index")
    embedder = load_bundle(index.model)
    require(
        fingerprint(embedder.encoder) == index.weights,
        f"{index.model} has other weights than when the index was made: tools/index.py again",
    )
    embedder.views = replace(embedder.views, size=index.size)
    queries = embed(embedder, config.queries)
    found = engines.search(index, queries, config.k, database=config.qdrant)
    threshold = index.threshold if config.threshold is None else config.threshold
    print_hits(index, config, found, threshold)
    if config.page:
        channels = embedder.views.channels
        page = search_page(index, config.queries, found, threshold, channels=channels)
        write_page(Path(config.page), page)
        print(f"page: {config.page}")


def embed(embedder: "Embedder", files: tuple[str, ...]) -> "Tensor":
    """Embeddings of the queries.

    Raises:
        UserError: one cannot be read.
    """
    import torch

    from selfsup.core.errors import UserError
    from selfsup.data.decode import BadImage

    rows = []
    for file in files:
        try:
            rows.append(embedder.embed([file]))
        except BadImage as error:
            raise UserError(f"{file} cannot be read: {error}") from None
    return torch.cat(rows)


def print_hits(index: "Index", config: Config, found: "Found", threshold: float | None) -> None:
    """A line for each neighbour, as wide as a terminal is at least."""
    for i, query in enumerate(config.queries):
        best = float(found.similar[i, 0])
        verdict = "no threshold is known: run tools/verify.py, then tools/index.py"
        if threshold is not None:
            known = "known" if best > threshold else "unknown"
            verdict = f"{known}: nearest {best:.3f}, same above {threshold:.3f}"
        print(f"{query}  {verdict}")
        rows = zip(found.similar[i].tolist(), found.places[i].tolist(), strict=True)
        for rank, (similar, place) in enumerate(rows, start=1):
            same = "" if threshold is None else "same   " if similar > threshold else "unknown"
            label = index.rows["label"][place]
            print(f"{rank:4d}  {similar:.3f}  {same:7s}  {index.rows['name'][place]}  {label}")


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
