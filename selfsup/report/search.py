"""The page of a search: queries and their neighbours."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from selfsup.core.errors import UserError
from selfsup.data.decode import BadImage, decode
from selfsup.data.open import open_source
from selfsup.data.sources import Source
from selfsup.report.page import blank, grid, heading, page, paragraph, picture, small
from selfsup.search.engines import Found
from selfsup.search.index import Index

WIDTH = 128  # pixels of a picture


def search_page(
    index: Index,
    queries: Sequence[str],
    found: Found,
    threshold: float | None,
    *,
    channels: int = 3,
) -> str:
    """A row for each query: itself, then its neighbours with their similarity."""
    gallery = Gallery(index, channels)
    parts = []
    for i, query in enumerate(queries):
        best = float(found.similar[i, 0])
        verdict = "No threshold is known, so that nobody can say what is the same."
        if threshold is not None:
            known = "Known" if best > threshold else "Unknown"
            verdict = f"{known}: the nearest is at {best:.3f}, the same is above {threshold:.3f}."
        own = picture(
            small(np.asarray(decode(Path(query), channels)), WIDTH), "query", width=WIDTH, jpeg=True
        )
        shown = [
            gallery.shown(place, caption(index, similar, place, threshold))
            for similar, place in zip(
                found.similar[i].tolist(), found.places[i].tolist(), strict=True
            )
        ]
        parts += [heading(query), paragraph(verdict), grid([own, *shown], "row")]
    return page(f"Search in {index.folder}", *parts)


def caption(index: Index, similar: float, place: int, threshold: float | None) -> str:
    """What is known of a neighbour."""
    lines = [f"{similar:.3f}"]
    if threshold is not None:
        lines[0] += " same" if similar > threshold else " unknown"
    return "\n".join([*lines, index.rows["name"][place], index.rows["label"][place]]).strip()


class Gallery:
    """Pictures of an index, read where the images still lie."""

    def __init__(self, index: Index, channels: int) -> None:
        """Of its rows, opened with as many channels as its model takes."""
        self.index, self.channels = index, channels
        self.opened = lru_cache(maxsize=8)(self._open)

    def _open(self, data: str, split: str) -> tuple[Source, dict[str, int]] | None:
        try:
            source = open_source(data, split=split, channels=self.channels)
        except UserError:
            return None
        return source, {source.name(i): i for i in range(len(source))}

    def shown(self, place: int, words: str) -> str:
        """A picture, or a frame where the image is no longer there."""
        name, data, split = (self.index.rows[key][place] for key in ("name", "data", "split"))
        opened = self.opened(data, split)
        if opened is None or name not in opened[1]:
            return blank(f"{words}\nno longer there", width=WIDTH)
        source, places = opened
        try:
            image = source.pixels(places[name])
        except BadImage:
            return blank(f"{words}\ncannot be read", width=WIDTH)
        return picture(small(image, WIDTH), words, width=WIDTH, jpeg=min(image.shape[:2]) > 64)
