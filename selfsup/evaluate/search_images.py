"""The images of a retrieval: features with the columns that decide which images a query skips."""

from typing import NamedTuple

import torch
from torch import Tensor

from selfsup.config import RetrievalConfig
from selfsup.core.errors import UserError
from selfsup.data.sources import Source
from selfsup.data.subset import labelled_images
from selfsup.evaluate.features import Features
from selfsup.evaluate.model import EvaluatedModel, embed, open_images, where
from selfsup.evaluate.shared_classes import match_classes
from selfsup.search.gallery import Gallery

JUNK = ("1", "true", "yes", "junk")
"""Words that mark an image to leave out, in any case."""


class SearchImages(NamedTuple):
    """A gallery, or queries."""

    features: Features
    rows: Gallery
    """The same rows with labels, cameras and sequences as numbers."""

    def with_sequences(self, sequences: Tensor) -> "SearchImages":
        """The same with other numbers of sequences."""
        return self._replace(rows=self.rows._replace(sequences=sequences))


def search_images(
    model: EvaluatedModel, config: RetrievalConfig
) -> tuple[SearchImages, SearchImages | None]:
    """Embed the gallery, and the queries if there are any of their own.

    Words of a column get the same numbers in both; junk is left out of the gallery.

    Raises:
        UserError: images have no labels, a column is missing, the gallery is all junk, or no class
            is in both.
    """
    opened = open_images(model, config.data, config.split, config)
    sources = [labelled_images(opened, config.data)]
    if config.queries or config.queries_split:
        data = config.queries or config.data
        opened = open_images(model, data, config.queries_split, config)
        sources.append(labelled_images(opened, data))
    cameras: dict[str, int] = {}
    sequences: dict[str, int] = {}
    images: list[SearchImages] = []
    for source in sources:
        features = embed(model, source, config)
        if images:
            gallery = where(config.data, config.split)
            queries = where(config.queries or config.data, config.queries_split)
            features = match_classes(images[0].features, features, gallery, queries)
        elif config.junk:
            features = _without_junk(source, config.junk, features)
        rows = Gallery(
            features.x,
            features.labels,
            _numbered(source, config.camera, features, cameras),
            _numbered(source, config.sequence, features, sequences),
        )
        images.append(SearchImages(features, rows))
    return images[0], images[1] if len(images) > 1 else None


def _without_junk(source: Source, column: str, features: Features) -> Features:
    words = _words(source, column, features)
    rows = [i for i, word in enumerate(words) if word.lower() not in JUNK]
    if not rows:
        raise UserError(f"every image of the gallery is junk by column {column!r}")
    return features.select(rows)


def _numbered(
    source: Source, column: str, features: Features, numbers: dict[str, int]
) -> Tensor | None:
    """A column's words as numbers, new words added to `numbers`; None without a column."""
    if not column:
        return None
    words = _words(source, column, features)
    return torch.tensor([numbers.setdefault(word, len(numbers)) for word in words])


def _words(source: Source, column: str, features: Features) -> list[str]:
    """A column's words for the images that could be read."""
    if column not in source.columns:
        names = ", ".join(source.columns) or "none"
        raise UserError(f"the images have no column {column!r}. Columns: {names}")
    words = source.columns[column]
    return [words[i] for i in features.positions.tolist()]
