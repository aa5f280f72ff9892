"""At which rank each query finds its matches: what all retrieval figures follow from.

A match is a gallery row of the query's label that the rules do not skip. Its rank is 1 plus the
number of rows that come before it; a row of another label that is equally near counts as before it.
So ties count against the model, a collapsed model ranks everything last, and figures do not depend
on the order of rows.

Shape letters: q queries, g gallery rows, r queries of a block, m matches of a query at most.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from selfsup.core import compiled
from selfsup.core.threads import job_slices, map_ordered
from selfsup.search.gallery import Gallery, Members, Queries, Ranking
from selfsup.search.products import MEMORY, THIN, Metric, comparable, products, row_blocks

FEW = 40
"""Matches that are counted one by one; for more, each similarity is searched among them."""
BYTES_A_PRODUCT = 20
CPU_BLOCK, GPU_BLOCK = 64, 1024  # queries at a time


def rank_matches(
    queries: Queries, gallery: Gallery | None, *, metric: Metric = "cosine", memory: int = MEMORY
) -> Iterator[Ranking]:
    """Rank the matches of each query: the gallery rows of its label, 1 being the nearest row.

    A rank is 1 plus the number of rows before it; rows of other labels that are equally near count
    as before. Rows of the query's label and camera, and of its sequence, are skipped. So a query
    with label 0 and gallery labels (1, 0, 0), nearest first, has ranks 2 and 3.

    The work is done on the device of the features; the ranks are on the CPU.

    Args:
        queries: what is searched with.
        gallery: what is searched; None: the queries, where none finds itself.
        metric: the similarity that ranks.
        memory: bytes to hold besides the features, where blocks are needed.

    Yields:
        A block of queries each, or all at once. 0 stands where a query has fewer matches than
        others.

    Raises:
        ValueError: the gallery is empty, or a feature is not finite.
    """
    exclude_self = gallery is None
    queries = queries.to(queries.x.device)
    gallery = queries if gallery is None else gallery.to(queries.x.device)
    if len(gallery.x) == 0:
        raise ValueError("the gallery is empty")
    x, y = comparable(queries.x, gallery.x, metric)
    rules = MatchRules(queries, gallery, exclude_self=exclude_self)
    on_cpu = x.device.type == "cpu"
    symmetric = metric == "cosine" and queries.cameras is None and queries.sequences is None
    if (
        exclude_self
        and symmetric
        and 1 < rules.same_label.most <= FEW
        and on_cpu
        and compiled.available()
    ):
        from selfsup.search.symmetric_ranks import rank_among_themselves

        yield rank_among_themselves(y, queries.labels)
        return

    def search(rows: slice) -> Ranking:
        return Ranking(rows, rules.ranks(products(x[rows], y), rows).cpu())

    room = memory // (len(y) * BYTES_A_PRODUCT)
    if on_cpu:
        yield from map_ordered(job_slices(len(x), CPU_BLOCK, room), search)
    else:
        yield from map(search, row_blocks(len(x), max(THIN, min(GPU_BLOCK, room))))


class MatchRules:
    """Which gallery rows match a query, and which it skips."""

    def __init__(self, queries: Queries, gallery: Gallery, *, exclude_self: bool) -> None:
        """Group the gallery; with `exclude_self` it is the queries, which skip themselves."""
        self.queries, self.gallery, self.exclude_self = queries, gallery, exclude_self
        self.same_label = Members.build(gallery.labels, queries.labels)
        self.same_sequence = None
        if queries.sequences is not None and gallery.sequences is not None:
            self.same_sequence = Members.build(gallery.sequences, queries.sequences)

    def ranks(self, similarity: Tensor, rows: slice) -> Tensor:
        """Rank each query's matches, [r, g] -> [r, m]. `similarity` is written over."""
        places, real = self.same_label.rows(rows)
        own = similarity.gather(1, places)
        matching = real & ~self._skipped(places, rows)
        own = own.masked_fill(~matching, -torch.inf)
        _remove(similarity, places, real)  # what is left can come before a match
        if self.same_sequence is not None:
            _remove(similarity, *self.same_sequence.rows(rows))
        own, counts = own.sort(dim=1, descending=True).values, matching.sum(1, keepdim=True)
        step = torch.arange(own.shape[1], device=own.device)
        ranks = count_not_below(similarity, own) + step + 1
        return torch.where(step < counts, ranks, 0)[:, : max(1, int(counts.max()))]

    def _skipped(self, places: Tensor, rows: slice) -> Tensor:
        """Rows of the query's label that it skips. [r, m]."""
        skipped = torch.zeros_like(places, dtype=torch.bool)
        if self.exclude_self:
            itself = torch.arange(rows.start, rows.stop, device=places.device)
            skipped |= places == itself[:, None]
        for of_query, of_gallery in (
            (self.queries.cameras, self.gallery.cameras),
            (self.queries.sequences, self.gallery.sequences),
        ):
            if of_query is not None and of_gallery is not None:
                skipped |= of_gallery[places] == of_query[rows, None]
        return skipped


def _remove(similarity: Tensor, places: Tensor, real: Tensor) -> None:
    """Write -inf to the real places of each row, in place. [r, g], [r, m], [r, m]."""
    places = torch.where(real, places, places[:, :1])  # writing twice does no harm
    unchanged = similarity.gather(1, places)  # for rows without a real place
    similarity.scatter_(1, places, torch.where(real.any(1, keepdim=True), -torch.inf, unchanged))


def count_not_below(similarity: Tensor, own: Tensor) -> Tensor:
    """Count, for each match of a query, the similarities of that row that are equal or larger.

    Args:
        similarity: float32 [r, g].
        own: [r, m], the similarities of the row's matches. They must be in descending order: with
            more than `FEW` the counts are wrong otherwise.

    Returns:
        int64 [r, m]. For similarity (0.9, 0.5, 0.7) and own (0.7, 0.2): (2, 3).
    """
    if own.shape[1] <= FEW:
        not_below = torch.empty_like(similarity)  # 0 and 1 as floats: the quickest to add up
        columns = own.T[:, :, None]
        counts = [torch.ge(similarity, column, out=not_below).sum(1) for column in columns]
        return torch.stack(counts, dim=1).long()
    ascending = own.flip(1).contiguous()
    place = torch.searchsorted(ascending, similarity, right=True)  # own ones not above it
    passed = torch.zeros(len(own), own.shape[1] + 1, dtype=torch.int64, device=own.device)
    passed.scatter_add_(1, place, torch.ones_like(place))
    return passed.flip(1).cumsum(1)[:, :-1]
