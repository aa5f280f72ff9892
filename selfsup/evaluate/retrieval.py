"""Retrieval: each image searches all the others for images of its class.

Shape letters: n images, d width, q queries with a match, r images of the query's class but itself.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from selfsup.numerics import normalize

RECALLS = (1, 2, 4, 8)


class Retrieval(NamedTuple):
    """Figures of each query, so that a mean has an interval; all [q]."""

    recall: dict[int, Tensor]
    """Recall@k: whether one of the k nearest is of the query's class."""
    r_precision: Tensor
    """Share of the r nearest that are of the query's class."""
    map_at_r: Tensor
    """1/r times the sum over ranks k up to r of precision@k where rank k is of the class."""
    left_out: int
    """Queries whose class has no other image."""


def retrieval(
    features: Tensor,
    labels: Tensor,
    *,
    distance: Literal["cosine", "euclidean"] = "cosine",
    chunk: int = 1024,
) -> Retrieval:
    """Leave-one-out retrieval figures.

    Source: Musgrave et al. 2020, https://arxiv.org/abs/2003.08505, section 3.1 (R-precision and
    MAP@R). The query is never among its neighbours, also where another image is equal to it.

    Args:
        features: [n, d].
        labels: [n] integers, compared as such.
        distance: how neighbours are ranked; cosine ranks like euclidean on unit vectors.
        chunk: queries at a time, which bounds memory at chunk x n.

    Raises:
        ValueError: no image has another of its class.
    """
    x = normalize(features.float()) if distance == "cosine" else features.float()
    _, index, counts = labels.unique(return_inverse=True, return_counts=True)
    others = counts[index] - 1  # [n]
    queries = (others > 0).nonzero()[:, 0]
    if len(queries) == 0:
        raise ValueError(f"none of the {len(labels)} images has another of its class")
    found: dict[int, list[Tensor]] = {k: [] for k in RECALLS}
    r_precision, map_at_r = [], []
    square = x.square().sum(1)
    for part in queries.split(chunk):
        score = x[part] @ x.T  # [chunk, n], larger is nearer
        if distance == "euclidean":
            score = 2 * score - square
        score[torch.arange(len(part)), part] = -torch.inf
        depth = min(len(x) - 1, max(int(others[part].max()), max(RECALLS)))
        hits = labels[score.topk(depth, dim=1).indices] == labels[part, None]
        for k in RECALLS:
            found[k].append(hits[:, :k].any(1))
        r = others[part]
        within = hits & (torch.arange(depth) < r[:, None])
        precision = within.cumsum(1) / torch.arange(1, depth + 1)
        r_precision.append(within.sum(1) / r)
        map_at_r.append((precision * within).sum(1) / r)
    return Retrieval(
        recall={k: torch.cat(parts) for k, parts in found.items()},
        r_precision=torch.cat(r_precision),
        map_at_r=torch.cat(map_at_r),
        left_out=len(labels) - len(queries),
    )
