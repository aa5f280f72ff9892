"""At which rank each query finds its matches: what all retrieval figures follow from.

A match is a gallery row of the query's label that the rules do not leave out. Its rank is 1 plus
the number of rows that come before it; rows without a match that are as near as it come before it
too. So ties count against the model, a collapsed one ranks everything last, and figures do not
depend on the order of rows.

Shape letters: q queries, g gallery rows, r queries of a piece, m matches of a query at most.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from selfsup.core import compiled
from selfsup.core.threads import job_slices, map_ordered
from selfsup.search.products import MEMORY, Metric, comparable, products
from selfsup.search.sides import Members, Ranked, Side


def ranked(
    queries: Side,
    gallery: Side | None,
    *,
    metric: Metric = "cosine",
    memory: int = MEMORY,
) -> Iterator[Ranked]:
    """The ranks of each query's matches, a piece of the queries after another.

    Args:
        queries: what is searched with.
        gallery: what is searched; None for the queries themselves, each against all the others.
        metric: what is near.
        memory: bytes to hold beside the features.

    Raises:
        ValueError: the gallery is empty, or a feature is not finite.
    """
    alone = gallery is None
    other = queries if gallery is None else gallery
    if len(other.x) == 0:
        raise ValueError("the gallery is empty")
    x, y = comparable(queries.x, other.x, metric)
    rules = Rules(queries, other, alone=alone)
    symmetric = metric == "cosine" and queries.cameras is None and queries.sequences is None
    if alone and symmetric and 1 < rules.same.most <= FEW and compiled.available():
        from selfsup.search.symmetric_ranks import ranked_among_themselves

        yield ranked_among_themselves(y, queries.labels)
        return

    def search(rows: slice) -> Ranked:
        return Ranked(rows, rules.ranks(products(x[rows], y), rows))

    yield from map_ordered(job_slices(len(x), 64, memory // (len(y) * 20)), search)


class Rules:
    """Which gallery rows a query matches, and which it does not meet."""

    def __init__(self, queries: Side, gallery: Side, *, alone: bool) -> None:
        """For `alone` the queries are the gallery, and none meets itself."""
        self.queries, self.gallery, self.alone = queries, gallery, alone
        self.same = Members.of(gallery.labels, queries.labels)
        self.kin = None
        if queries.sequences is not None and gallery.sequences is not None:
            self.kin = Members.of(gallery.sequences, queries.sequences)

    def ranks(self, similar: Tensor, rows: slice) -> Tensor:
        """Of each query's matches, from its similarities, which are written over. [r, g]."""
        places, there = self.same.of_rows(rows)
        own = similar.gather(1, places)
        allowed = there & ~self._left_out(places, rows)
        own = own.masked_fill(~allowed, -torch.inf)
        _strike(similar, places, there)  # what is left after this are the matches' rivals
        if self.kin is not None:
            _strike(similar, *self.kin.of_rows(rows))
        own, matches = own.sort(dim=1, descending=True).values, allowed.sum(1, keepdim=True)
        step = torch.arange(own.shape[1])
        ranks = rivals(similar, own) + step + 1
        return torch.where(step < matches, ranks, 0)[:, : max(1, int(matches.max()))]

    def _left_out(self, places: Tensor, rows: slice) -> Tensor:
        """Rows of the query's label that it does not meet. [r, m]."""
        out = torch.zeros_like(places, dtype=torch.bool)
        if self.alone:
            out |= places == torch.arange(rows.start, rows.stop)[:, None]
        for of_query, of_gallery in (
            (self.queries.cameras, self.gallery.cameras),
            (self.queries.sequences, self.gallery.sequences),
        ):
            if of_query is not None and of_gallery is not None:
                out |= of_gallery[places] == of_query[rows, None]
        return out


def _strike(similar: Tensor, places: Tensor, there: Tensor) -> None:
    """Write -inf to those places of each row that are there, in place. [r, g], [r, m], [r, m]."""
    places = torch.where(there, places, places[:, :1])  # struck twice does no harm
    kept = similar.gather(1, places)  # of a list without any
    similar.scatter_(1, places, torch.where(there.any(1, keepdim=True), -torch.inf, kept))


def rivals(similar: Tensor, own: Tensor) -> Tensor:
    """How many of each row's similarities are not below each of its own.

    Args:
        similar: float32 [r, g].
        own: [r, m], descending.

    Returns:
        int64 [r, m].
    """
    if own.shape[1] <= FEW:
        not_below = torch.empty_like(similar)  # zeros and ones as floats: the quickest to add up
        counts = [torch.ge(similar, one, out=not_below).sum(1) for one in own.T[:, :, None]]
        return torch.stack(counts, dim=1).long()
    ascending = own.flip(1).contiguous()
    place = torch.searchsorted(ascending, similar, right=True)  # own ones that are not above it
    passed = torch.zeros(len(own), own.shape[1] + 1, dtype=torch.int64)
    passed.scatter_add_(1, place, torch.ones_like(place))
    return passed.flip(1).cumsum(1)[:, :-1]


FEW = 40
"""Matches that are counted one by one; for more, each similarity is searched among them."""
