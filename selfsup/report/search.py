"""The page of a search: queries and their neighbours."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from selfsup.core.errors import UserError
from selfsup.core.words import cosine
from selfsup.data.decode import BadImage, decode
from selfsup.data.open import is_local, open_source
from selfsup.data.sources import Source
from selfsup.report.page import Light, Section, Verdict, heading, page, paragraph
from selfsup.report.pictures import Mark, Shown, neighbour_row, rows, small
from selfsup.search.index import Index
from selfsup.search.query import Hit, SearchResult

SIDE = 64  # half the shorter side of a stored picture, in pixels
DRAWN = 300  # pictures of a page, about: it stays below 3 MB


def search_page(result: SearchResult) -> str:
    """Lay out a row for each query: itself, then its neighbours with their similarity.

    After some hundred pictures the other queries are listed without.
    """
    gallery = GalleryPictures(result.index, result.channels)
    parts: list[str] = []
    drawn = 0
    for i, (query, hits) in enumerate(zip(result.queries, result.hits, strict=True)):
        itself = result.itself[i] if result.itself else []
        verdict = _verdict(hits, result.threshold)
        if itself:
            verdict += f" It is in the index itself, as {itself[0]}, and no hit."
        parts += [heading(query), paragraph(verdict)]
        if drawn < DRAWN:
            parts.append(_row(result, gallery, i, _label(result.index, itself)))
            drawn += 1 + len(hits)
    return page(
        str(result.index.folder),
        Section("What was found?", [paragraph(KEY), *parts]),
        kind="Search in an index",
        verdict=_of_all(result),
    )


def _row(result: SearchResult, gallery: "GalleryPictures", i: int, own: str) -> str:
    """Draw a query and its hits; `own` is its label, if the index has it."""
    query = result.queries[i]
    image = small(np.asarray(decode(Path(query), result.channels)), SIDE)
    shown = [Shown(image, "query", "query", query)]
    for hit in result.hits[i]:
        shown.append(Shown(gallery.pixels(hit.row), caption(hit, own), mark(hit), hit.name))
    return rows([neighbour_row(shown)], "rows found")


KEY = (
    "The first image of each row is the query, then come the nearest of the index. \u2248 same: "
    "above the threshold, so it is taken for the same thing; unknown: not near enough. \u2713 and "
    "\u2717: of the query's class or of another one, where the index knows the query's class. The "
    "number is the cosine, 1 for equal embeddings. A click enlarges an image."
)


def _of_all(result: SearchResult) -> Verdict:
    """Count the queries that are in the index, and say what the threshold stands for."""
    n, known = len(result.queries), sum(bool(hits and hits[0].same) for hits in result.hits)
    if result.threshold is None:
        words = "No threshold yet: same and different are not told apart"
        return Verdict("unknown", words, result.about_threshold)
    if n > 1:
        words = f"{known} of {n} queries are known, by the threshold"
    else:
        words = f"{'Known' if known else 'Unknown'}, by the threshold"
    doubtful = result.measured is not None and result.measured.told < result.gallery
    light: Light = "good" if known == n and not doubtful else "mixed"
    return Verdict(light, words, result.about_threshold)


def mark(hit: Hit) -> Mark:
    """How a neighbour is marked: taken for the same, or not."""
    return "same" if hit.same else "unmarked"


def _verdict(hits: list[Hit], threshold: float | None) -> str:
    """Whether what the query shows is in the index."""
    if not hits:
        return "There is no other image."
    nearest = hits[0]
    if threshold is None:
        return "There is no threshold yet, so same and different are not marked: selfsup verify."
    return (
        f"{'Known' if nearest.same else 'Unknown'}: "
        f"the nearest is at {cosine(nearest.similarity)}, the same is above {cosine(threshold)}."
    )


def caption(hit: Hit, own: str = "") -> str:
    """Similarity of a neighbour, and its label or name; `own` is the query's label, if known."""
    word = "" if hit.same is None else " same" if hit.same else " unknown"
    its = ""
    if own and hit.label:
        its = "\n\u2713 its class" if hit.label == own else "\n\u2717 another class"
    return f"{hit.similarity:.3f}{word}\n{hit.label or hit.name}{its}"


def _label(index: Index, names: Sequence[str]) -> str:
    """The label of a query that is in the index; empty if it is not."""
    return next((index.rows["label"][index.rows["name"].index(name)] for name in names), "")


class GalleryPictures:
    """Pictures of an index, read where the images still are."""

    def __init__(self, index: Index, channels: int) -> None:
        """Open images with as many channels as the index's model takes."""
        self.index, self.channels = index, channels
        self.opened = lru_cache(maxsize=8)(self._open)

    def _open(self, data: str, split: str) -> tuple[Source, dict[str, int]] | None:
        """Open images of files that are there: an index from elsewhere fetches nothing."""
        if not is_local(data):
            return None
        try:
            source = open_source(data, split=split, channels=self.channels)
        except (UserError, OSError, ValueError):
            return None
        return source, {source.name(i): i for i in range(len(source))}

    def pixels(self, row: int) -> np.ndarray | None:
        """Read a picture; None where the image is no longer there or cannot be read."""
        name, data, split = (self.index.rows[key][row] for key in ("name", "data", "split"))
        opened = self.opened(data, split)
        if opened is None or name not in opened[1]:
            return None
        source, positions = opened
        try:
            return small(source.pixels(positions[name]), SIDE)
        except BadImage:
            return None
