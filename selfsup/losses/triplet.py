"""Triplet losses: an anchor nearer to its own class than to others, by a margin.

Which triplets is the miner's business; a loss takes their indices. Miner and loss get the same
`Distance`, so they cannot disagree. `triplet_windows` is miner and loss in one, for the two choices
whose triplets grow with the cube of the batch.

Shape letters: m embeddings, n anchors among them, d width, t triplets, r anchors of a block.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.core.numerics import full_precision
from selfsup.losses.measures import Distance
from selfsup.losses.relations import Relations, Triplets
from selfsup.losses.row_blocks import each_row


def gaps(
    embeddings: Tensor, triplets: Triplets, *, distance: Distance, swap: bool = False
) -> Tensor:
    """d(anchor, positive) - d(anchor, negative) of each triplet. [m, d] -> [t].

    Args:
        embeddings: [m, d], in any scale.
        triplets: indices [t] of anchors, positives and negatives.
        distance: the one that the miner was given.
        swap: use d(positive, negative) where it is smaller (Balntas et al. 2016, section 3.3).
    """
    anchor, positive, negative = triplets
    if len(anchor) <= len(embeddings) ** 2:
        a, p, n = (embeddings[index] for index in triplets)
        near, far = distance.pairs(a, p), distance.pairs(a, n)
        other = distance.pairs(p, n) if swap else far
    else:  # so many triplets share their pairs
        with full_precision(embeddings):
            z = distance.prepare(embeddings)
            apart = distance.whole(z, z)
        near, far = apart[anchor, positive], apart[anchor, negative]
        other = apart[positive, negative] if swap else far
    return near - torch.minimum(far, other)


def triplet_margin(
    embeddings: Tensor,
    triplets: Triplets,
    *,
    distance: Distance,
    margin: float,
    active_only: bool = False,
    swap: bool = False,
) -> Tensor:
    """Mean over triplets of [d_ap - d_an + margin]+ (FaceNet, equation 2; Hermans, equation 1).

    Source: Schroff et al. 2015, https://arxiv.org/abs/1503.03832 (squared distance, margin 0.2);
    Hermans et al. 2017, https://arxiv.org/abs/1703.07737 (not squared). pytorch-metric-learning
    takes the mean over triplets above zero by default; torch's own adds 1e-6 to each coordinate.

    Args:
        embeddings: [m, d], in any scale.
        triplets: indices [t] of anchors, positives and negatives.
        distance: the one that the miner was given.
        margin: in units of the distance.
        active_only: take the mean over the triplets above zero (Hermans' L_BA != 0).
        swap: use d(positive, negative) where it is smaller than d(anchor, negative).

    Returns:
        Scalar, at least 0. A collapsed batch scores exactly the margin, with gradient zero.

    Raises:
        ValueError: there is no triplet.
    """
    gap = _some(gaps(embeddings, triplets, distance=distance, swap=swap))
    each = F.relu(gap + margin)
    return each.sum() / (each > 0).sum().clamp(min=1) if active_only else each.mean()


def triplet_soft(
    embeddings: Tensor, triplets: Triplets, *, distance: Distance, swap: bool = False
) -> Tensor:
    """Mean over triplets of log(1 + exp(d_ap - d_an)), the soft margin (Hermans, section 2).

    Source: Hermans et al. 2017, https://arxiv.org/abs/1703.07737. Libraries agree on the formula.

    Args:
        embeddings: [m, d], in any scale.
        triplets: indices [t] of anchors, positives and negatives.
        distance: the one that the miner was given.
        swap: use d(positive, negative) where it is smaller than d(anchor, negative).

    Returns:
        Scalar, above 0. A collapsed batch scores log 2, with gradient zero.

    Raises:
        ValueError: there is no triplet.
    """
    return F.softplus(_some(gaps(embeddings, triplets, distance=distance, swap=swap))).mean()


def angular_hinge(embeddings: Tensor, triplets: Triplets, *, degrees: float) -> Tensor:
    """Mean over triplets of [|a - p|^2 - 4 tan^2(alpha) |n - (a + p) / 2|^2]+ (equation 4).

    Source: Wang et al. 2017, https://arxiv.org/abs/1708.01682. All three at length 1. At 45 degrees
    it is mostly 0 for unit vectors; `npairs.angular` is the form that the paper trains with.

    Args:
        embeddings: [m, d], in any scale.
        triplets: indices [t] of anchors, positives and negatives.
        degrees: alpha, the largest angle at the negative.

    Returns:
        Scalar, at least 0. A collapsed batch scores 0, with gradient zero.

    Raises:
        ValueError: there is no triplet, or alpha is not between 0 and 90 degrees.
    """
    return F.relu(_some(angular_gaps(embeddings, triplets, degrees=degrees))).mean()


def angular_gaps(embeddings: Tensor, triplets: Triplets, *, degrees: float) -> Tensor:
    """|a - p|^2 - 4 tan^2(alpha) |n - (a + p) / 2|^2 of each triplet. [m, d] -> [t]."""
    if not 0 < degrees < 90:
        raise ValueError(f"alpha must be between 0 and 90 degrees, not {degrees}")
    with full_precision(embeddings):
        z = Distance(normalize=True).prepare(embeddings)
        a, p, n = (z[index] for index in triplets)
        far = 4 * math.tan(math.radians(degrees)) ** 2 * (n - (a + p) / 2).square().sum(1)
        return (a - p).square().sum(1) - far


def triplet_windows(
    embeddings: Tensor,
    labels: Tensor,
    *,
    distance: Distance,
    margin: float,
    semi_hard: bool,
    active_only: bool,
    anchors: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The margin loss of every triplet, or of every semi-hard one, without listing them.

    The negatives that a positive at d_ap meets with a loss above zero lie in a window below
    d_ap + margin (semi-hard: above d_ap too). With few positives each is held against a row of
    distances; with many, the row is sorted and windows come from prefix sums, so that time is
    m^2 log m. Memory is linear in m, where triplets are m^3.

    Source: Hermans et al. 2017, https://arxiv.org/abs/1703.07737, equation 4 (batch-all); Schroff
    et al. 2015, https://arxiv.org/abs/1503.03832, equation 4, with all negatives inside the margin
    as pytorch-metric-learning has them.

    Args:
        embeddings: [m, d], in any scale.
        labels: [m] integers.
        distance: between embeddings.
        margin: in units of the distance.
        semi_hard: only triplets with d_ap < d_an < d_ap + margin.
        active_only: the mean over triplets above zero; otherwise over every valid triplet. Of
            semi-hard ones all are above zero, and the mean is over these.
        anchors: only the first so many rows are anchors; None: all.

    Returns:
        The loss, a scalar, at least 0 (0 where no triplet is chosen), and how many triplets are
        above zero, int64. A collapsed batch scores the margin with gradient zero (semi-hard: 0,
        since none is).

    Raises:
        ValueError: there is no triplet.
    """
    relations = Relations(labels, anchors)
    positives, negatives = relations.counts()
    valid = (positives * negatives).sum()
    if valid == 0:
        raise ValueError("no anchor of the batch has both a positive and a negative")

    def value(apart: Tensor, part: slice) -> Tensor:
        near, positive = relations.positives(apart, part)
        far = relations.negatives(apart, part, fill=torch.inf)
        sums = _sums_one_by_one if near.shape[1] <= FEW else _sums_by_sorting
        return sums(near, positive, far, margin, semi_hard)

    with full_precision(embeddings):
        z = distance.prepare(embeddings)
        total, active = each_row(relations.of(z), z, distance, value).double().sum(0)
    count = active.detach() if active_only or semi_hard else valid
    return total.to(z.dtype) / count.clamp(min=1).to(z.dtype), active.detach().long()


FEW = 16  # positives up to which holding each against the row is faster than sorting it


def _sums_one_by_one(
    near: Tensor, positive: Tensor, far: Tensor, margin: float, semi_hard: bool
) -> Tensor:
    """Each row's sum of losses above zero and their number: [r, 2].

    Of distances to positives [r, k] (those of which `positive` is true) and to negatives [r, m],
    infinite where there is none.
    """
    total, number = near.new_zeros(2, len(near))
    for d_ap, real in zip(near.split(1, dim=1), positive.split(1, dim=1), strict=True):
        loss = d_ap + margin - far  # [r, m]
        chosen = ~(loss <= 0) & real  # also of nan, which has to show
        if semi_hard:
            chosen &= ~(far <= d_ap)
        total = total + loss.masked_fill(~chosen, 0).sum(1)
        number = number + chosen.sum(1)
    return torch.stack([total, number], 1)


def _sums_by_sorting(
    near: Tensor, positive: Tensor, far: Tensor, margin: float, semi_hard: bool
) -> Tensor:
    """The same by prefix sums of sorted negatives: float64 [r, 2]."""
    far = far.sort(1)[0]
    with torch.no_grad():
        high = torch.searchsorted(far, near + margin)
        low = torch.searchsorted(far, near, right=True) if semi_hard else high * 0
        high = torch.maximum(high, low)
        number = ((high - low) * positive).double()
    sums = F.pad(far.masked_fill(far == torch.inf, 0).double().cumsum(1), (1, 0))
    within = (sums.gather(1, high) - sums.gather(1, low)) * positive
    total = (near.double() + margin) * number - within
    return torch.stack([total.sum(1), number.sum(1)], 1)


def _some(gap: Tensor) -> Tensor:
    if len(gap) == 0:
        raise ValueError("no anchor of the batch has both a positive and a negative")
    return gap
