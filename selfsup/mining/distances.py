"""Mining by distance: hard, easy, semi-hard and all triplets of a batch.

A miner returns index tensors, anchors ascending, and has no gradient. It works on the whole global
batch. Among equal distances any may be chosen.

Shape letters: m embeddings, n anchors among them, d width, t triplets, r anchors of a block.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.core.numerics import full_precision, scale_to_one
from selfsup.losses.measures import Distance
from selfsup.losses.relations import Anchors, Relations, Triplets, join_triplets
from selfsup.losses.row_blocks import MIN_ROWS, split_rows


@torch.no_grad()
def batch_hard(
    embeddings: Tensor, labels: Tensor, *, distance: Distance, anchors: Anchors = None
) -> Triplets:
    """Choose each anchor's farthest positive and nearest negative (Hermans, equation 5).

    Source: Hermans et al. 2017, https://arxiv.org/abs/1703.07737. An anchor is never its own
    positive. Anchors without a positive or without a negative are left out, so t may be below n.

    Args:
        embeddings: [m, d], in any scale.
        labels: [m] integers.
        distance: the same object that the loss gets.
        anchors: how many of the first rows are anchors (`Anchors`).

    Returns:
        Indices [t] of anchors, positives and negatives.

    Example:
        >>> x, labels = torch.tensor([[0.0], [1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1, 1])
        >>> a, p, n = batch_hard(x, labels, distance=Distance(normalize=False))
        >>> a.tolist(), p.tolist(), n.tolist()
        ([0, 1, 2, 3], [1, 0, 3, 2], [2, 2, 1, 1])
    """
    relations = Relations(labels, anchors, device=embeddings.device)
    on_host = embeddings.device.type == "cpu"
    if relations.largest_class > SMALL_CLASS or not on_host:  # see `_nearest_negatives`
        return batch_easy_hard(
            embeddings,
            labels,
            distance=distance,
            positive="hardest",
            negative="hardest",
            anchors=anchors,
        )
    z = scale_to_one(distance.prepare(embeddings))
    n = _nearest_negatives(z, relations, distance)
    p = torch.empty_like(n)
    widest = max(len(z), relations.largest_class * z.shape[1])  # values held for an anchor
    for block in split_rows(relations.anchor_count, widest, z.device, scale=8):
        column, positive = relations.class_members(block)
        squares = (z[column] - z[block][:, None]).square().sum(2).masked_fill(~positive, -1)
        p[block] = column.gather(1, squares.argmax(1, keepdim=True))[:, 0]
    a = relations.complete_anchors()
    return a, p[a], n[a]


SMALL_CLASS = 64  # up to this size, distances to the positives are computed one by one


def _nearest_negatives(z: Tensor, relations: Relations, distance: Distance) -> Tensor:
    """Find the nearest negative of each anchor; any row where there is none. [m, d] -> [n].

    By one product in the rows' precision, with a bound on its rounding. Example for unit rows of
    width 128 in float32, whose scores err by at most (128 + 2) x 1.2e-7 x 3 = 4.7e-5:

        scores 0.40 and 0.31      the order is certain: the first row is the nearest
        scores 0.40 and 0.39999   the order is not: `distance.values` decides, exactly
        scores 0.40 and 0.40      equal rows are such a case too

    Which rows are uncertain depends on the embeddings, so that a GPU would be waited for.
    """
    nearest = torch.empty(relations.anchor_count, dtype=torch.int64, device=z.device)
    gap = z.new_empty(relations.anchor_count)
    half_square = z.square().sum(1) / 2
    for block in split_rows(relations.anchor_count, len(z), z.device, scale=8):
        with full_precision(z):
            score = torch.addmm(-half_square, z[block], z.T)  # (|x|^2 - |x - y|^2) / 2
        score.scatter_(1, relations.class_members(block)[0], -torch.inf)
        best, column = score.topk(min(2, len(z)), dim=1)
        nearest[block], gap[block] = column[:, 0], best[:, 0] - best[:, -1]
    # a sum of d products errs by at most d roundings of its largest terms
    longest = half_square.max().sqrt()
    terms = 2 * half_square[: relations.anchor_count].sqrt() * longest + longest**2
    error_bound = (z.shape[1] + 2) * torch.finfo(z.dtype).eps * 2 * terms
    for rows in (gap <= error_bound).nonzero()[:, 0].split(MIN_ROWS):
        distances = distance.values(z[rows], z)
        same = relations.labels[rows, None] == relations.labels
        nearest[rows] = distances.masked_fill(same, torch.inf).argmin(1)
    return nearest


@torch.no_grad()
def batch_easy_hard(
    embeddings: Tensor,
    labels: Tensor,
    *,
    distance: Distance,
    positive: Literal["hardest", "easiest"],
    negative: Literal["hardest", "semi-hard"],
    anchors: Anchors = None,
) -> Triplets:
    """Choose one positive and one negative of each anchor, easy or hard.

    Source: Xuan et al. 2020, https://arxiv.org/abs/1904.04370, whose easy positive is the nearest
    one. A semi-hard negative is the nearest that is farther than that positive; anchors without
    such a negative are left out.

    Args:
        embeddings: [m, d], in any scale.
        labels: [m] integers.
        distance: the same object that the loss gets.
        positive: the farthest (hardest) or the nearest (easiest).
        negative: the nearest of all (hardest) or the nearest beyond the positive (semi-hard).
        anchors: how many of the first rows are anchors (`Anchors`).

    Returns:
        Indices [t] of anchors, positives and negatives.

    Example:
        >>> x, labels = torch.tensor([[0.0], [2.0], [1.0], [3.0]]), torch.tensor([0, 0, 1, 1])
        >>> settings = dict(positive="easiest", negative="semi-hard")
        >>> a, p, n = batch_easy_hard(x, labels, distance=Distance(normalize=False), **settings)
        >>> a.tolist(), p.tolist(), n.tolist()  # rows 1 and 2 have no negative beyond 2.0
        ([0, 3], [1, 2], [3, 0])
    """
    relations = Relations(labels, anchors, device=embeddings.device)
    z = distance.prepare(embeddings)
    chosen = []
    for _, distances, is_positive, is_negative in relations.compare_blocks(z, distance):
        if positive == "hardest":
            d_ap, p = distances.masked_fill(~is_positive, -torch.inf).max(1)
        else:
            d_ap, p = distances.masked_fill(~is_positive, torch.inf).min(1)
        if negative == "semi-hard":
            is_negative &= distances > d_ap[:, None]
        d_an, n = distances.masked_fill(~is_negative, torch.inf).min(1)
        chosen.append((d_ap.isfinite() & d_an.isfinite(), p, n))
    valid, p, n = join_triplets(chosen)
    # which anchors have a semi-hard negative depends on the embeddings: a GPU is waited for
    a = relations.complete_anchors() if negative == "hardest" else valid.nonzero()[:, 0]
    return a, p[a], n[a]


@torch.no_grad()
def semi_hard(
    embeddings: Tensor,
    labels: Tensor,
    *,
    distance: Distance,
    margin: float,
    anchors: Anchors = None,
) -> Triplets:
    """Choose the nearest semi-hard negative of each positive pair: d_ap < d_an < d_ap + margin.

    Pairs without such a negative are left out.

    Source: Schroff et al. 2015, https://arxiv.org/abs/1503.03832, section 3.2. TF Addons has no
    upper bound and falls back to the farthest negative; with a margin of infinity this is that
    without the fallback.

    Args:
        embeddings: [m, d], in any scale.
        labels: [m] integers.
        distance: the same object that the loss gets.
        margin: in units of the distance.
        anchors: how many of the first rows are anchors (`Anchors`).

    Returns:
        Indices [t] of anchors, positives and negatives.

    Example:
        >>> x, labels = torch.tensor([[0.0], [1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1, 1])
        >>> a, p, n = semi_hard(x, labels, distance=Distance(normalize=False), margin=3.0)
        >>> a.tolist(), p.tolist(), n.tolist()  # of 2 and 3, rows 0 and 1 are at 3, 2 and 5, 4
        ([0, 1, 2, 3], [1, 0, 3, 2], [2, 2, 0, 1])
    """
    relations = Relations(labels, anchors, device=embeddings.device)
    z = distance.prepare(embeddings)
    triplets = []
    for block, distances, _, negative in relations.compare_blocks(z, distance):
        sorted_distances, order = distances.masked_fill(~negative, torch.inf).sort(1)
        p, positive = relations.class_members(block)  # [r, k]
        d_ap = distances.gather(1, p)
        place = torch.searchsorted(sorted_distances, d_ap, right=True)
        d_an = F.pad(sorted_distances, (0, 1), value=torch.inf).gather(1, place)
        a, column = (positive & d_an.isfinite() & (d_an < d_ap + margin)).nonzero().unbind(1)
        triplets.append((block.start + a, p[a, column], order[a, place[a, column]]))
    return join_triplets(triplets)


@torch.no_grad()
def semi_hard_all(
    embeddings: Tensor,
    labels: Tensor,
    *,
    distance: Distance,
    margin: float,
    anchors: Anchors = None,
) -> Triplets:
    """List every semi-hard triplet: d_ap < d_an < d_ap + margin.

    Source: Schroff et al. 2015, https://arxiv.org/abs/1503.03832, equation 4. This is what
    pytorch-metric-learning calls semi-hard.

    Args:
        embeddings: [m, d], in any scale.
        labels: [m] integers.
        distance: the same object that the loss gets.
        margin: in units of the distance.
        anchors: how many of the first rows are anchors (`Anchors`).

    Returns:
        Indices [t] of anchors, positives and negatives.

    Example:
        >>> x, labels = torch.tensor([[0.0], [1.0], [3.0], [5.0]]), torch.tensor([0, 0, 1, 1])
        >>> a, p, n = semi_hard_all(x, labels, distance=Distance(normalize=False), margin=3.5)
        >>> list(zip(a.tolist(), p.tolist(), n.tolist()))
        [(0, 1, 2), (1, 0, 2), (1, 0, 3), (2, 3, 0), (3, 2, 0), (3, 2, 1)]
    """
    relations = Relations(labels, anchors, device=embeddings.device)
    z = distance.prepare(embeddings)
    triplets = []
    for block, distances, _, negative in relations.compare_blocks(z, distance):
        a, p = relations.positive_pairs(block)
        row = a - block.start
        d_ap, d_an = distances[row, p][:, None], distances[row]
        i, n = (negative[row] & (d_an > d_ap) & (d_an < d_ap + margin)).nonzero().unbind(1)
        triplets.append((a[i], p[i], n))
    return join_triplets(triplets)


@torch.no_grad()
def all_triplets(
    labels: Tensor, *, anchors: Anchors = None, device: torch.device | None = None
) -> Triplets:
    """List every valid triplet (batch-all); their number grows with the cube of the batch.

    Source: Hermans et al. 2017, https://arxiv.org/abs/1703.07737, equation 4.

    Args:
        labels: [m] integers.
        anchors: how many of the first rows are anchors (`Anchors`).
        device: of the indices; None: that of the labels.

    Returns:
        Indices [t] of anchors, positives and negatives.

    Example:
        >>> a, p, n = all_triplets(torch.tensor([0, 0, 1]))
        >>> list(zip(a.tolist(), p.tolist(), n.tolist()))
        [(0, 1, 2), (1, 0, 2)]
    """
    relations = Relations(labels, anchors, device=device)
    negatives = relations.counts()[1]
    triplets = []
    for block in relations.blocks():
        a, p = relations.positive_pairs(block)
        _, negative = relations.masks(block)
        size = int((relations.counts()[0] * negatives)[block].sum())
        i, n = nonzero_of_size(negative[a - block.start], size).unbind(1)
        triplets.append((a[i], p[i], n))
    return join_triplets(triplets)


def nonzero_of_size(mask: Tensor, size: int) -> Tensor:
    """Indices of the `size` places that are true, without a wait for a GPU to count them."""
    return mask.nonzero() if mask.device.type == "cpu" else mask.nonzero_static(size=size)
