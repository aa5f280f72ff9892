"""Retrieval figures: how well a query finds the images of its label.

Shape letters: n images, d width, q queries with a match, r of a piece, m matches of a query.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from selfsup.search.products import MEMORY, Metric, pieces
from selfsup.search.ranks import Rules, ranked
from selfsup.search.rerank import rerank
from selfsup.search.sides import Ranked, Side

CUTS = (1, 2, 4, 8)


class Retrieval(NamedTuple):
    """Figures of each query, so that a mean has an interval."""

    figures: dict[str, Tensor]
    """float64 [q] by name."""
    queries: Tensor
    """int64 [q], which queries they are of: those that have a match."""
    left_out: int
    """Queries without a match."""


def retrieval(
    queries: Side,
    gallery: Side | None = None,
    *,
    cuts: Sequence[int] = CUTS,
    metric: Metric = "cosine",
    memory: int = MEMORY,
) -> Retrieval:
    """All figures of a search.

    Args:
        queries: what is searched with.
        gallery: what is searched; None for leave-one-out among the queries.
        cuts: the k of Recall@k and precision@k.
        metric: what is near.
        memory: bytes to hold beside the features.

    Raises:
        ValueError: no query has a match, the gallery is empty, or a feature is not finite.
    """
    return _gathered(ranked(queries, gallery, metric=metric, memory=memory), len(queries.x), cuts)


def reranked(
    queries: Side,
    gallery: Side | None = None,
    *,
    cuts: Sequence[int] = CUTS,
    memory: int = MEMORY,
) -> Retrieval:
    """The same by similarities after k-reciprocal re-ranking (see `rerank`).

    Raises:
        ValueError: as `retrieval`, or all similarities do not fit in the memory.
    """
    other = queries if gallery is None else gallery
    size = 4 * len(queries.x) * len(other.x)
    if size > memory:
        raise ValueError(f"re-ranking holds {size >> 20} MB of similarities; give more --memory")
    similar = rerank(queries.x, None if gallery is None else gallery.x, memory=memory)
    rules = Rules(queries, other, alone=gallery is None)
    parts = (Ranked(rows, rules.ranks(similar[rows], rows)) for rows in pieces(len(queries.x), 64))
    return _gathered(parts, len(queries.x), cuts)


def _gathered(found: Iterable[Ranked], total: int, cuts: Sequence[int]) -> Retrieval:
    """Figures of all queries that have a match."""
    parts: dict[str, list[Tensor]] = {}
    which = []
    for part in found:
        there = part.matches > 0
        which.append(there.nonzero()[:, 0] + part.rows.start)
        for name, values in figures_of(part.ranks[there], cuts).items():
            parts.setdefault(name, []).append(values)
    with_match = torch.cat(which) if which else torch.zeros(0, dtype=torch.int64)
    if len(with_match) == 0:
        raise ValueError(f"none of the {total} queries has a match")
    figures = {name: torch.cat(values) for name, values in parts.items()}
    return Retrieval(figures, with_match, total - len(with_match))


def figures_of(ranks: Tensor, cuts: Sequence[int]) -> dict[str, Tensor]:
    """Figures of queries from the ranks of their matches.

    Recall@k: whether a match is among the k nearest (CMC at rank k for re-identification).
    precision@k: share of the k nearest that match; of a smaller gallery the rest count as wrong.
    R-precision: share of the R nearest that match, R being how many there are.
    MAP@R: 1/R times the sum over matches at ranks up to R of the precision there (Musgrave et al.
        2020, https://arxiv.org/abs/2003.08505, section 3.1).
    mAP: the mean over matches of the precision at their rank (the finite sum).
    mAP (trapezoid): the area below the same points joined by lines, as Oxford5k and Market-1501
        compute it; half a point to three lower.
    MRR: one by the rank of the first match.

    Args:
        ranks: int64 [r, m], ascending from 1, 0 where there are no more; one at least in each row.
        cuts: the k's.

    Returns:
        float64 [r] by name.
    """
    there = ranks > 0
    count = there.sum(1).double()
    rank = torch.where(there, ranks, 1).double()
    nth = torch.arange(1, ranks.shape[1] + 1, dtype=torch.float64)
    precision = torch.where(there, nth / rank, 0)
    before = torch.where(rank > 1, (nth - 1) / (rank - 1).clamp(min=1), 1)
    among = there & (rank <= count[:, None])
    return {
        **{f"Recall@{k}": (ranks[:, 0] <= k).double() for k in cuts},
        **{f"precision@{k}": (there & (rank <= k)).sum(1).double() / k for k in cuts if k > 1},
        "R-precision": among.sum(1).double() / count,
        "MAP@R": (precision * among).sum(1) / count,
        "mAP": precision.sum(1) / count,
        "mAP (trapezoid)": torch.where(there, (precision + before) / 2, 0).sum(1) / count,
        "MRR": 1 / rank[:, 0],
    }
