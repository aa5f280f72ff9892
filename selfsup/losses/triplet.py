"""Triplet losses: an anchor is nearer to its own class than to other classes, by a margin.

A miner chooses the triplets; a loss takes their indices. Both get the same `Distance`, so that they
agree. `triplet_windows` is miner and loss in one, for the two choices whose number of triplets
grows with the cube of the batch.

Shape letters: m embeddings, n anchors among them, d width, t triplets, r anchors of a block.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.core.numerics import full_precision, has_float64, with_float64
from selfsup.losses.measures import Distance
from selfsup.losses.relations import Anchors, Relations, Triplets
from selfsup.losses.row_blocks import map_rows


def triplet_gaps(
    embeddings: Tensor, triplets: Triplets, *, distance: Distance, swap: bool = False
) -> Tensor:
    """Compute d(anchor, positive) - d(anchor, negative) of each triplet. [m, d] -> [t].

    Args:
        embeddings: [m, d], in any scale.
        triplets: indices [t] of anchors, positives and negatives.
        distance: the same object that the miner gets.
        swap: use d(positive, negative) where it is smaller (Balntas et al. 2016, section 3.3).

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [3.0]])
        >>> triplets = torch.tensor([0]), torch.tensor([1]), torch.tensor([2])
        >>> triplet_gaps(x, triplets, distance=Distance(normalize=False)).tolist()
        [-2.0]
        >>> triplet_gaps(x, triplets, distance=Distance(normalize=False), swap=True).tolist()
        [-1.0]
    """
    anchor, positive, negative = triplets
    if len(anchor) <= len(embeddings) ** 2:
        a, p, n = (embeddings[index] for index in triplets)
        d_ap, d_an = distance.rowwise(a, p), distance.rowwise(a, n)
        d_pn = distance.rowwise(p, n) if swap else d_an
    else:  # more triplets than pairs: each distance is computed once
        with full_precision(embeddings):
            z = distance.prepare(embeddings)
            distances = distance.differentiable_values(z, z)
        d_ap, d_an = distances[anchor, positive], distances[anchor, negative]
        d_pn = distances[positive, negative] if swap else d_an
    return d_ap - torch.minimum(d_an, d_pn)


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
        distance: the same object that the miner gets.
        margin: in units of the distance.
        active_only: take the mean over the triplets above zero (Hermans' L_BA != 0).
        swap: use d(positive, negative) where it is smaller than d(anchor, negative).

    Returns:
        Scalar, at least 0. A collapsed batch scores exactly the margin, with gradient zero.

    Raises:
        ValueError: there is no triplet.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [1.1]])
        >>> triplets = torch.tensor([0]), torch.tensor([1]), torch.tensor([2])
        >>> loss = triplet_margin(x, triplets, distance=Distance(normalize=False), margin=0.2)
        >>> round(loss.item(), 3)
        0.1
    """
    gaps = _require_some(triplet_gaps(embeddings, triplets, distance=distance, swap=swap))
    losses = F.relu(gaps + margin)
    return losses.sum() / (losses > 0).sum().clamp(min=1) if active_only else losses.mean()


def triplet_soft(
    embeddings: Tensor, triplets: Triplets, *, distance: Distance, swap: bool = False
) -> Tensor:
    """Mean over triplets of log(1 + exp(d_ap - d_an)), the soft margin (Hermans, section 2).

    Source: Hermans et al. 2017, https://arxiv.org/abs/1703.07737. Libraries agree on the formula.

    Args:
        embeddings: [m, d], in any scale.
        triplets: indices [t] of anchors, positives and negatives.
        distance: the same object that the miner gets.
        swap: use d(positive, negative) where it is smaller than d(anchor, negative).

    Returns:
        Scalar, above 0. A collapsed batch scores log 2, with gradient zero.

    Raises:
        ValueError: there is no triplet.

    Example:
        >>> x = torch.tensor([[0.0], [1.0], [1.1]])
        >>> triplets = torch.tensor([0]), torch.tensor([1]), torch.tensor([2])
        >>> round(triplet_soft(x, triplets, distance=Distance(normalize=False)).item(), 3)
        0.644
    """
    gaps = triplet_gaps(embeddings, triplets, distance=distance, swap=swap)
    return F.softplus(_require_some(gaps)).mean()


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

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
        >>> triplets = torch.tensor([0]), torch.tensor([1]), torch.tensor([2])
        >>> round(angular_hinge(x, triplets, degrees=45).item(), 3)
        1.657
    """
    return F.relu(_require_some(angular_gaps(embeddings, triplets, degrees=degrees))).mean()


def angular_gaps(embeddings: Tensor, triplets: Triplets, *, degrees: float) -> Tensor:
    """Compute |a - p|^2 - 4 tan^2(alpha) |n - (a + p) / 2|^2 of each triplet. [m, d] -> [t]."""
    if not 0 < degrees < 90:
        raise ValueError(f"alpha must be between 0 and 90 degrees, not {degrees}")
    with full_precision(embeddings):
        z = Distance(normalize=True).prepare(embeddings)
        a, p, n = (z[index] for index in triplets)
        push = 4 * math.tan(math.radians(degrees)) ** 2 * (n - (a + p) / 2).square().sum(1)
        return (a - p).square().sum(1) - push


def triplet_windows(
    embeddings: Tensor,
    labels: Tensor,
    *,
    distance: Distance,
    margin: float,
    semi_hard: bool,
    active_only: bool,
    anchors: Anchors = None,
) -> tuple[Tensor, Tensor]:
    """Margin loss of every triplet, or of every semi-hard one, without listing them.

    For a positive at distance d_ap, the negatives with a loss above zero are in a window: below
    d_ap + margin (semi-hard: also above d_ap). With few positives each one is compared with the row
    of distances. With many, the row is sorted and a window's sum is a difference of prefix sums, so
    that time is m^2 log m. Memory is linear in m, where triplets are m^3.

    Source: Hermans et al. 2017, https://arxiv.org/abs/1703.07737, equation 4 (batch-all); Schroff
    et al. 2015, https://arxiv.org/abs/1503.03832, equation 4, with all negatives inside the margin
    as pytorch-metric-learning has them.

    Args:
        embeddings: [m, d], in any scale.
        labels: [m] integers.
        distance: between embeddings.
        margin: in units of the distance.
        semi_hard: only triplets with d_ap < d_an < d_ap + margin.
        active_only: take the mean over triplets above zero; otherwise over every valid triplet.
            Semi-hard ones are all above zero, and the mean is over these.
        anchors: how many of the first rows are anchors (`Anchors`).

    Returns:
        The loss, a scalar, at least 0 (0 where no triplet is chosen), and how many triplets are
        above zero, int64. A collapsed batch scores the margin with gradient zero (semi-hard: 0,
        since none is).

    Raises:
        ValueError: there is no triplet.

    Example:
        >>> x, labels = torch.tensor([[0.0], [1.0], [1.5]]), torch.tensor([0, 0, 1])
        >>> settings = dict(margin=1.0, semi_hard=False, active_only=True)
        >>> raw = Distance(normalize=False)
        >>> loss, active = triplet_windows(x, labels, distance=raw, **settings)
        >>> round(loss.item(), 3), active.item()  # [1 - 1.5 + 1]+ and [1 - 0.5 + 1]+
        (1.0, 2)
    """
    relations = Relations(labels, anchors, device=embeddings.device)
    positives, negatives = relations.counts()
    valid = int((positives * negatives).sum())
    if valid == 0:
        raise ValueError("no anchor of the batch has both a positive and a negative")

    def sum_losses(distances: Tensor, block: slice) -> Tensor:
        d_ap, positive = relations.positive_values(distances, block)
        d_an = relations.negative_values(distances, block, fill=torch.inf)
        loop = d_ap.shape[1] <= FEW_POSITIVES or not has_float64(d_ap.device)
        sum_windows = _sum_by_loop if loop else _sum_by_sorting
        return sum_windows(d_ap, positive, d_an, margin, semi_hard)

    with full_precision(embeddings):
        z = distance.prepare(embeddings)
        sums = map_rows(relations.anchor_rows(z), z, distance, sum_losses, equal_weights=True)
        total, active = with_float64(sums).double().sum(0)
    count = active.detach() if active_only or semi_hard else torch.full_like(active, valid)
    return total.to(z) / count.clamp(min=1).to(z), active.detach().long().to(z.device)


FEW_POSITIVES = 16  # up to this number, a loop over positives is faster than sorting the row


def _sum_by_loop(
    d_ap: Tensor, positive: Tensor, d_an: Tensor, margin: float, semi_hard: bool
) -> Tensor:
    """Sum of each row's losses above zero, and their number: [r, 2].

    Args:
        d_ap: [r, k] distances to positives, where `positive` [r, k] is true.
        positive: [r, k].
        d_an: [r, m] distances to negatives, infinite elsewhere.
        margin: in units of the distance.
        semi_hard: only negatives beyond the positive.
    """
    total, count = d_ap.new_zeros(2, len(d_ap))
    for near, valid in zip(d_ap.split(1, dim=1), positive.split(1, dim=1), strict=True):
        loss = near + margin - d_an  # [r, m]
        active = ~(loss <= 0) & valid  # true of nan, which must not be hidden
        if semi_hard:
            active &= ~(d_an <= near)
        total = total + loss.masked_fill(~active, 0).sum(1)
        count = count + active.sum(1)
    return torch.stack([total, count], 1)


def _sum_by_sorting(
    d_ap: Tensor, positive: Tensor, d_an: Tensor, margin: float, semi_hard: bool
) -> Tensor:
    """As `_sum_by_loop`, from prefix sums of sorted negatives: float64 [r, 2]."""
    d_an = d_an.sort(1)[0]
    with torch.no_grad():
        high = torch.searchsorted(d_an, d_ap + margin)
        low = torch.searchsorted(d_an, d_ap, right=True) if semi_hard else high * 0
        high = torch.maximum(high, low)
        count = ((high - low) * positive).double()
    sums = F.pad(d_an.masked_fill(d_an == torch.inf, 0).double().cumsum(1), (1, 0))
    window = (sums.gather(1, high) - sums.gather(1, low)) * positive
    total = (d_ap.double() + margin) * count - window
    return torch.stack([total.sum(1), count.sum(1)], 1)


def _require_some(gaps: Tensor) -> Tensor:
    if len(gaps) == 0:
        raise ValueError("no anchor of the batch has both a positive and a negative")
    return gaps
