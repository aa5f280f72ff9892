"""Losses of pairs by distance: positives near, negatives beyond a margin.

Shape letters: m embeddings, n anchors among them, d width, r anchors of a block.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.core.numerics import full_precision
from selfsup.losses.measures import Distance
from selfsup.losses.relations import Anchors, Pairs, Relations, masked_mean
from selfsup.losses.row_blocks import log_sum_exp, map_rows

Reduction = Literal["pairs", "sides", "active"]


def pair_contrastive(
    embeddings: Tensor,
    labels: Tensor,
    *,
    distance: Distance,
    positive_margin: float,
    negative_margin: float,
    squared: bool,
    reduction: Reduction,
    anchors: Anchors = None,
    pairs: Pairs | None = None,
) -> Tensor:
    """Margin contrastive loss: [d - m+]+ of positives and [m- - d]+ of negatives, or their squares.

    Source: Hadsell et al. 2006, equation 4, http://yann.lecun.com/exdb/publis/pdf/hadsell-chopra-lecun-06.pdf,
    with m+ = 0, squares, and half of this value. Libraries differ: TF Addons squares without the
    half and takes one mean over all pairs (`reduction` pairs, squared); pytorch-metric-learning
    does not square and adds the means of terms above zero of both sides (active).

    Args:
        embeddings: [m, d] in any scale.
        labels: [m] integers.
        distance: the same object that the miner gets.
        positive_margin: a positive nearer than this costs nothing; in units of the distance.
        negative_margin: a negative farther than this costs nothing.
        squared: whether each term is squared.
        reduction: one mean over all ordered pairs (pairs); the mean over positives plus the mean
            over negatives (sides), so that few positives weigh as much as many negatives; or such
            means over the terms above zero (active).
        anchors: how many of the first rows are anchors (`Anchors`).
        pairs: only these pairs.

    Returns:
        Scalar, at least 0. Collapsed: the margin of negatives (or its square) by the weight that
        `reduction` gives them, with gradient zero.

    Raises:
        ValueError: there is no pair.

    Example:
        >>> x, labels = torch.tensor([[0.0], [0.1], [0.3]]), torch.tensor([0, 0, 1])
        >>> settings = dict(positive_margin=0, negative_margin=0.5, squared=False)
        >>> raw = Distance(normalize=False)
        >>> loss = pair_contrastive(x, labels, distance=raw, reduction="sides", **settings)
        >>> round(loss.item(), 3)  # 0.1 of positives, (0.2 + 0.3) / 2 of negatives
        0.35
    """
    relations = Relations(labels, anchors, pairs, embeddings.device)
    counts = torch.stack(relations.counts()).sum(1)  # of positive and of negative pairs
    if counts.sum() == 0:
        raise ValueError("no anchor of the batch has a positive or a negative")

    def terms(distances: Tensor, block: slice) -> list[Tensor]:
        positive, negative = relations.masks(block)
        pull = F.relu(distances - positive_margin).masked_fill(~positive, 0)
        return [pull, F.relu(negative_margin - distances).masked_fill(~negative, 0)]

    def count_active(distances: Tensor, block: slice) -> Tensor:
        return torch.stack([(side > 0).sum(1) for side in terms(distances, block)], 1)

    def reduce_terms(distances: Tensor, block: slice) -> Tensor:
        pull, push = (side.square() if squared else side for side in terms(distances, block))
        return pull.sum(1) / counts[0] + push.sum(1) / counts[1]

    with full_precision(embeddings):
        z = distance.prepare(embeddings)
        if reduction == "pairs":
            counts = counts.sum().expand(2)
        if reduction == "active":
            detached = z.detach()
            rows = relations.anchor_rows(detached)
            counts = map_rows(rows, detached, distance, count_active).sum(0)
        counts = relations.send(counts).clamp(min=1)
        rows = relations.anchor_rows(z)
        return map_rows(rows, z, distance, reduce_terms, equal_weights=True).sum()


def lifted_structure(
    embeddings: Tensor, labels: Tensor, *, distance: Distance, margin: float
) -> Tensor:
    """Lifted structured loss: each positive pair against all negatives of both its ends.

    The mean over positive pairs (i, j) of [J]+^2 / 2 with J = log(sum over negatives k of i of
    exp(margin - d_ik) + sum over negatives l of j of exp(margin - d_jl)) + d_ij.

    Source: Oh Song et al. 2016, https://arxiv.org/abs/1511.06452, equation 4. All negatives count
    (the paper's code adds a random choice). pytorch-metric-learning and TF Addons agree.

    Args:
        embeddings: [m, d] in any scale.
        labels: [m] integers.
        distance: Euclidean and not normalised in the paper.
        margin: how far a negative should be, in units of the distance; 1 in the paper.

    Returns:
        Scalar, at least 0. Collapsed, with q negatives each: (margin + log(2 q))^2 / 2, with
        gradient zero.

    Raises:
        ValueError: no class has two images, or there is one class.

    Example:
        >>> x, labels = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([0, 0, 1])
        >>> loss = lifted_structure(x, labels, distance=Distance(normalize=False), margin=4.0)
        >>> round(loss.item(), 3)
        0.862
    """
    relations = Relations(labels, device=embeddings.device)
    anchor, positive = relations.positive_pairs()
    if len(anchor) == 0 or (relations.counts()[1] == 0).any():
        raise ValueError("no anchor of the batch has both a positive and a negative")

    def log_negatives(distances: Tensor, block: slice) -> Tensor:
        return log_sum_exp(relations.negative_values(margin - distances, block, fill=-torch.inf))

    with full_precision(embeddings):
        z = distance.prepare(embeddings)
        negative_terms = map_rows(z, z, distance, log_negatives, equal_weights=False)
    negative_term = torch.logaddexp(negative_terms[anchor], negative_terms[positive])
    positive_distance = distance.rowwise(embeddings[anchor], embeddings[positive])
    return F.relu(negative_term + positive_distance).square().mean() / 2


def generalized_lifted(
    embeddings: Tensor,
    labels: Tensor,
    *,
    distance: Distance,
    margin: float,
    anchors: Anchors = None,
    pairs: Pairs | None = None,
) -> Tensor:
    """Lifted loss of anchors: all positives against all negatives (Hermans, equation 7).

    The mean over anchors with both of [log(sum over positives p of exp(d_ap)) +
    log(sum over negatives n of exp(margin - d_an))]+.

    Source: Hermans et al. 2017, https://arxiv.org/abs/1703.07737, section 2. There it is a sum;
    pytorch-metric-learning takes this mean.

    Args:
        embeddings: [m, d] in any scale.
        labels: [m] integers.
        distance: Euclidean and not normalised in the paper.
        margin: in units of the distance.
        anchors: how many of the first rows are anchors (`Anchors`).
        pairs: only these pairs.

    Returns:
        Scalar, at least 0. Collapsed, with p positives and q negatives each: margin + log(p q),
        with gradient zero.

    Raises:
        ValueError: no anchor has both a positive and a negative.

    Example:
        >>> x, labels = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0, 0, 1])
        >>> loss = generalized_lifted(x, labels, distance=Distance(normalize=False), margin=2.0)
        >>> round(loss.item(), 3)  # anchors 0 and 1: [1 + 2 - 3]+ and [1 + 2 - 2]+
        0.5
    """
    relations = Relations(labels, anchors, pairs, embeddings.device)

    def hinge(distances: Tensor, block: slice) -> Tensor:
        positive_distances, positive = relations.positive_values(distances, block)
        positive_term = log_sum_exp(positive_distances.masked_fill(~positive, -torch.inf))
        negatives = relations.negative_values(margin - distances, block, fill=-torch.inf)
        return F.relu(positive_term + log_sum_exp(negatives))

    positives, negatives = relations.counts()
    valid = (positives > 0) & (negatives > 0)
    with full_precision(embeddings):
        z = distance.prepare(embeddings)
        rows = relations.anchor_rows(z)
        terms = map_rows(rows, z, distance, hinge, equal_weights=bool(valid.all()))
    return masked_mean(terms, valid, "both a positive and a negative")
