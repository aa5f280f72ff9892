"""A search with images: open the index, embed the queries, find their neighbours."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from selfsup.core.errors import require
from selfsup.core.words import cosine, counted
from selfsup.data.embedding_parts import is_embedded
from selfsup.encoders.bundle import load_bundle
from selfsup.encoders.thresholds import GalleryThreshold, read_gallery_threshold
from selfsup.encoders.weights import fingerprint
from selfsup.search import engines
from selfsup.search import index as store
from selfsup.search.embedded_index import index_of_folder
from selfsup.search.index import Index


class Hit(NamedTuple):
    """A neighbour of a query."""

    name: str
    label: str
    """The name of its class; empty where there is none."""
    similarity: float
    """Cosine."""
    same: bool | None
    """Whether it is above the threshold; None without a threshold."""
    row: int
    """Of the index or gallery."""


@dataclass(frozen=True)
class SearchResult:
    """The neighbours of each query."""

    index: Index
    queries: tuple[str, ...]
    hits: list[list[Hit]]
    """For each query, the nearest first."""
    threshold: float | None
    """Cosine above which two images are of the same thing."""
    channels: int = 3
    """That images are opened with."""
    itself: list[list[str]] = field(default_factory=list)
    """For each query, names of images of the index that are the same file; they are no hits."""
    measured: GalleryThreshold | None = None
    """Where the threshold is from; None for one that was given."""
    searched: int | None = None
    """Images that a database searched, of which `index` has only the nearest; None: all of it."""

    @property
    def gallery(self) -> int:
        """How many images were searched."""
        return len(self.index) if self.searched is None else self.searched

    @property
    def about_threshold(self) -> list[str]:
        """What the threshold stands for in a gallery of this size, in sentences."""
        size = self.gallery
        if self.threshold is None:
            return ["There is no threshold yet; selfsup verify measures one."]
        sentences = [
            f"Images above a cosine of {cosine(self.threshold)} are taken for the same thing."
        ]
        if self.measured is None and self.threshold == self.index.threshold:
            return [*sentences, "The index has it from when it was made."]
        if self.measured is None:
            return sentences
        if self.measured.of_a_pair < self.threshold:
            sentences.append(
                f"For one pair it would be {cosine(self.measured.of_a_pair)}: the more images are "
                "searched, the more pass by chance."
            )
        if self.measured.told < size:
            return [
                *sentences,
                "It was measured with pairs that suffice for "
                f"{counted(self.measured.told, 'image')}, and the index holds {size:,}: false ones "
                "may pass. Run selfsup verify on more images, or give a higher --threshold.",
            ]
        if self.measured.false_alarms is not None:
            sentences.append(
                f"Among {counted(size, 'image')} at most {self.measured.false_alarms:.1%} of "
                "searches for something else find one that passes, as selfsup verify measured."
            )
        return sentences


def check_request(queries: Sequence[str | Path], k: int, threshold: float | None) -> None:
    """Refuse a search for nothing.

    Raises:
        UserError: k is not above 0, the threshold is no cosine, or there is no query.
    """
    fits = threshold is None or -1 <= threshold <= 1
    require(fits, f"--threshold is a cosine, from -1 to 1, not {threshold}")
    require(k > 0, f"-k must be above 0, not {k}")
    require(len(queries) > 0, "give an image to search with")


def search_index(
    run: str | Path,
    queries: Sequence[str | Path],
    *,
    k: int = 12,
    threshold: float | None = None,
    qdrant: str = "",
) -> SearchResult:
    """Find the images of an index that look like the queries, themselves left out.

    Args:
        run: a run or bundle with an index, the folder of an index, or a folder of embeddings.
        queries: image files to search with.
        k: neighbours of each, clipped to the index.
        threshold: cosine above which two images are of the same thing; by default that which
            `selfsup verify` measured for a gallery of this size.
        qdrant: the vector database of an index that is in one: PATH#COLLECTION or URL#COLLECTION.

    Raises:
        UserError: there is no index, its model has other weights by now, or a query cannot be read.
    """
    check_request(queries, k, threshold)
    folder = Path(run)
    again = "selfsup index again"
    if is_embedded(folder):
        index, again = index_of_folder(folder), f"its embeddings are {folder}; selfsup embed again"
    else:
        index = store.read(folder if (folder / "index.json").exists() else folder / "index")
    embedder = load_bundle(index.model)
    require(
        fingerprint(embedder.encoder) == index.weights,
        f"{index.model} has other weights than when the index was made: {again}",
    )
    embedder.views = replace(embedder.views, size=index.size)
    x = embedder.embed(queries)
    same = [_rows_of(index, Path(query)) for query in queries]
    most = k + max(map(len, same))
    nearest = engines.search(index, x, most, database=qdrant)
    measured = None
    if threshold is None:
        measured = read_gallery_threshold(Path(index.model), len(index))
        if measured is None and index.threshold is not None:
            threshold = index.threshold  # taken for its size when the index was made
        else:
            threshold = None if measured is None else measured.value
    hits = [
        [_hit(index, row, cosine, threshold) for cosine, row in pairs if row not in itself][:k]
        for pairs, itself in zip(_pairs(nearest), same, strict=True)
    ]
    names = tuple(str(query) for query in queries)
    itself = [[index.rows["name"][row] for row in sorted(rows)] for rows in same]
    return SearchResult(index, names, hits, threshold, embedder.views.channels, itself, measured)


def _pairs(nearest: engines.Hits) -> Iterator[list[tuple[float, int]]]:
    """Cosine and row of each neighbour of each query."""
    for cosines, rows in zip(nearest.similarity.tolist(), nearest.indices.tolist(), strict=True):
        yield list(zip(cosines, rows, strict=True))


def _rows_of(index: Index, query: Path) -> set[int]:
    """Rows of the index that are the query itself: the same file, or one of the same bytes."""
    content = hashlib.sha256(query.read_bytes()).hexdigest()
    return {row for row, other in enumerate(index.rows["sha256"]) if other == content}


def _hit(index: Index, row: int, similarity: float, threshold: float | None) -> Hit:
    same = None if threshold is None else similarity > threshold
    return Hit(index.rows["name"][row], index.rows["label"][row], similarity, same, row)
