"""The page of a search: queries and their neighbours."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from selfsup.core.errors import UserError
from selfsup.data.decode import BadImage, decode
from selfsup.data.open import is_local, open_source
from selfsup.data.sources import Source
from selfsup.report.page import heading, page, paragraph
from selfsup.report.pictures import blank, grid, picture, small
from selfsup.search.index import Index
from selfsup.search.query import Hit, SearchResult

WIDTH = 128  # pixels of a picture


def search_page(result: SearchResult) -> str:
    """Lay out a row for each query: itself, then its neighbours with their similarity."""
    gallery = GalleryPictures(result.index, result.channels)
    parts = []
    for query, hits, itself in zip(result.queries, result.hits, result.itself, strict=True):
        image = small(np.asarray(decode(Path(query), result.channels)), WIDTH)
        pictures = [picture(image, "query", width=WIDTH, jpeg=True)]
        pictures += [gallery.show(hit.row, caption(hit)) for hit in hits]
        verdict = _verdict(hits, result.threshold)
        if itself:
            verdict += f" It is in the index itself, as {itself[0]}, and no hit."
        parts += [heading(query), paragraph(verdict), grid(pictures, "row")]
    return page(f"Search in {result.index.folder}", *parts)


def _verdict(hits: list[Hit], threshold: float | None) -> str:
    """Whether what the query shows is in the index."""
    if not hits:
        return "There is no other image."
    nearest = hits[0]
    if threshold is None:
        return "There is no threshold yet, so same and different are not marked: selfsup verify."
    return (
        f"{'Known' if nearest.same else 'Unknown'}: the nearest is at {nearest.similarity:.3f}, "
        f"the same is above {threshold:.3f}."
    )


def caption(hit: Hit) -> str:
    """Similarity, name and label of a neighbour."""
    mark = "" if hit.same is None else " same" if hit.same else " unknown"
    return f"{hit.similarity:.3f}{mark}\n{hit.name}\n{hit.label}".strip()


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

    def show(self, row: int, words: str) -> str:
        """Draw a picture, or an empty frame where the image is no longer there."""
        name, data, split = (self.index.rows[key][row] for key in ("name", "data", "split"))
        opened = self.opened(data, split)
        if opened is None or name not in opened[1]:
            return blank(f"{words}\nno longer there", width=WIDTH)
        source, positions = opened
        try:
            image = source.pixels(positions[name])
        except BadImage:
            return blank(f"{words}\ncannot be read", width=WIDTH)
        return picture(small(image, WIDTH), words, width=WIDTH, jpeg=min(image.shape[:2]) > 64)
