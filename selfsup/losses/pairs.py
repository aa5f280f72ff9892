"""Losses of distances: positives near, negatives beyond a margin, over all pairs of a batch.

Shape letters: m embeddings, n anchors among them, d width, r anchors of a block.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.core.numerics import full_precision
from selfsup.losses.measures import Distance
from selfsup.losses.relations import Pairs, Relations, mean_of
from selfsup.losses.row_blocks import each_row, log_sum_exp

Reduction = Literal["pairs", "sides", "active"]


def contrastive(
    embeddings: Tensor,
    labels: Tensor,
    *,
    distance: Distance,
    positive_margin: float,
    negative_margin: float,
    squared: bool,
    reduction: Reduction,
    anchors: int | None = None,
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
        distance: the one that the miner was given.
        positive_margin: a positive nearer than this costs nothing; in units of the distance.
        negative_margin: a negative farther than this costs nothing.
        squared: whether each term is squared.
        reduction: one mean over all ordered pairs (pairs); the mean over positives plus the mean
            over negatives (sides), so that few positives weigh as much as many negatives; or such
            means over the terms above zero (active).
        anchors: only the first so many rows are anchors; None: all.
        pairs: only these pairs.

    Returns:
        Scalar, at least 0. Collapsed: the margin of negatives (or its square) by the share that
        `reduction` gives them, with gradient zero.

    Raises:
        ValueError: there is no pair.
    """
    relations = Relations(labels, anchors, pairs)
    found = torch.stack(relations.counts()).sum(1)  # positive and negative pairs
    if found.sum() == 0:
        raise ValueError("no anchor of the batch has a positive or a negative")

    def terms(apart: Tensor, part: slice) -> list[Tensor]:
        positive, negative = relations.sides(part)
        pull = F.relu(apart - positive_margin).masked_fill(~positive, 0)
        return [pull, F.relu(negative_margin - apart).masked_fill(~negative, 0)]

    def active(apart: Tensor, part: slice) -> Tensor:
        return torch.stack([(side > 0).sum(1) for side in terms(apart, part)], 1)

    def value(apart: Tensor, part: slice) -> Tensor:
        pull, push = (side.square() if squared else side for side in terms(apart, part))
        return pull.sum(1) / found[0].clamp(min=1) + push.sum(1) / found[1].clamp(min=1)

    with full_precision(embeddings):
        z = distance.prepare(embeddings)
        if reduction == "pairs":
            found = found.sum().expand(2)
        if reduction == "active":
            found = each_row(relations.of(z.detach()), z.detach(), distance, active).sum(0)
        return each_row(relations.of(z), z, distance, value).sum()


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
        distance: plain Euclidean in the paper, not normalised.
        margin: how far a negative should be, in units of the distance; 1 in the paper.

    Returns:
        Scalar, at least 0. Collapsed, with q negatives each: (margin + log(2 q))^2 / 2, with
        gradient zero.

    Raises:
        ValueError: no class has two images, or there is one class.
    """
    relations = Relations(labels)
    anchor, positive = relations.positive_pairs()
    if len(anchor) == 0 or (relations.counts()[1] == 0).any():
        raise ValueError("no anchor of the batch has both a positive and a negative")

    def value(apart: Tensor, part: slice) -> Tensor:
        return log_sum_exp(relations.negatives(margin - apart, part, fill=-torch.inf))

    with full_precision(embeddings):
        z = distance.prepare(embeddings)
        near = each_row(z, z, distance, value, ahead=False)
    joined = torch.logaddexp(near[anchor], near[positive])
    apart = distance.pairs(embeddings[anchor], embeddings[positive])
    return F.relu(joined + apart).square().mean() / 2


def generalized_lifted(
    embeddings: Tensor,
    labels: Tensor,
    *,
    distance: Distance,
    margin: float,
    anchors: int | None = None,
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
        distance: plain Euclidean in the paper, not normalised.
        margin: in units of the distance.
        anchors: only the first so many rows are anchors; None: all.
        pairs: only these pairs.

    Returns:
        Scalar, at least 0. Collapsed, with p positives and q negatives each: margin + log(p q),
        with gradient zero.

    Raises:
        ValueError: no anchor has both a positive and a negative.
    """
    relations = Relations(labels, anchors, pairs)

    def value(apart: Tensor, part: slice) -> Tensor:
        near, positive = relations.positives(apart, part)
        far = relations.negatives(margin - apart, part, fill=-torch.inf)
        near = log_sum_exp(near.masked_fill(~positive, -torch.inf))
        return F.relu(near + log_sum_exp(far))

    positives, negatives = relations.counts()
    with full_precision(embeddings):
        z = distance.prepare(embeddings)
        each = each_row(relations.of(z), z, distance, value)
    valid = (positives > 0) & (negatives > 0)
    return mean_of(each, valid, "both a positive and a negative")
