"""Retrieval figures: how well a query finds the images of its label.

Shape letters: n images, d width, q queries with a match, r of a block, m matches of a query.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from selfsup.search.gallery import Gallery, Queries, Ranking
from selfsup.search.products import MEMORY, Metric, row_blocks
from selfsup.search.ranks import MatchRules, rank_matches
from selfsup.search.rerank import rerank

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
    queries: Queries,
    gallery: Gallery | None = None,
    *,
    cuts: Sequence[int] = CUTS,
    metric: Metric = "cosine",
    memory: int = MEMORY,
) -> Retrieval:
    """Compute all figures of a search.

    Args:
        queries: what is searched with.
        gallery: what is searched; None for leave-one-out among the queries.
        cuts: the k of Recall@k and precision@k.
        metric: the similarity that ranks.
        memory: bytes to hold besides the features.

    Raises:
        ValueError: no query has a match, the gallery is empty, or a feature is not finite.
    """
    rankings = rank_matches(queries, gallery, metric=metric, memory=memory)
    return _collect(rankings, queries, cuts)


def retrieval_after_reranking(
    queries: Queries,
    gallery: Gallery | None = None,
    *,
    cuts: Sequence[int] = CUTS,
    memory: int = MEMORY,
) -> Retrieval:
    """Compute the same from similarities after k-reciprocal re-ranking (see `rerank`).

    Raises:
        ValueError: as `retrieval`, or all similarities do not fit in the memory.
    """
    cpu = torch.device("cpu")
    searched = (queries if gallery is None else gallery).to(cpu)
    size = 4 * len(queries.x) * len(searched.x)
    if size > memory:
        raise ValueError(f"re-ranking needs {size >> 20} MB for similarities: give more --memory")
    similarity = rerank(queries.x, None if gallery is None else gallery.x, memory=memory)
    rules = MatchRules(queries.to(cpu), searched, exclude_self=gallery is None)
    rankings = (
        Ranking(rows, rules.ranks(similarity[rows], rows))
        for rows in row_blocks(len(queries.x), 64)
    )
    return _collect(rankings, queries, cuts)


def _collect(rankings: Iterable[Ranking], queries: Queries, cuts: Sequence[int]) -> Retrieval:
    """Figures of all queries that have a match."""
    blocks: dict[str, list[Tensor]] = {}
    which = []
    for ranking in rankings:
        matched = ranking.match_counts > 0
        which.append(matched.nonzero()[:, 0] + ranking.rows.start)
        for name, values in figures_from_ranks(ranking.ranks[matched], cuts).items():
            blocks.setdefault(name, []).append(values)
    with_match = torch.cat(which) if which else torch.zeros(0, dtype=torch.int64)
    if len(with_match) == 0:
        other = "" if queries.cameras is None else " by another camera"
        other += "" if queries.sequences is None else " in another sequence"
        raise ValueError(
            f"none of the {len(queries.x)} queries has a match: no other image of its label{other}"
        )
    figures = {name: torch.cat(values) for name, values in blocks.items()}
    return Retrieval(figures, with_match, len(queries.x) - len(with_match))


def figures_from_ranks(ranks: Tensor, cuts: Sequence[int]) -> dict[str, Tensor]:
    """Compute figures of queries from the ranks of their matches.

    Recall@k: whether a match is among the k nearest (CMC at rank k for re-identification).
    precision@k: fraction of the k nearest that match; of a smaller gallery the rest count as wrong.
    R-precision: fraction of the R nearest that match, R being how many there are.
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
    real = ranks > 0
    count = real.sum(1).double()
    rank = torch.where(real, ranks, 1).double()
    nth = torch.arange(1, ranks.shape[1] + 1, dtype=torch.float64)
    precision = torch.where(real, nth / rank, 0)
    before = torch.where(rank > 1, (nth - 1) / (rank - 1).clamp(min=1), 1)
    within_r = real & (rank <= count[:, None])
    return {
        **{f"Recall@{k}": (ranks[:, 0] <= k).double() for k in cuts},
        **{f"precision@{k}": (real & (rank <= k)).sum(1).double() / k for k in cuts if k > 1},
        "R-precision": within_r.sum(1).double() / count,
        "MAP@R": (precision * within_r).sum(1) / count,
        "mAP": precision.sum(1) / count,
        "mAP (trapezoid)": torch.where(real, (precision + before) / 2, 0).sum(1) / count,
        "MRR": 1 / rank[:, 0],
    }
