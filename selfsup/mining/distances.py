"""Mining by distance: the hardest, the easiest, the semi-hard and all triplets of a batch.

A miner returns index tensors and has no gradient. It works on the whole global batch; with a
memory behind the batch only the first `anchors` rows are anchors. Among equal distances any one may
be chosen.

Shape letters: m embeddings, n anchors among them, d width, t triplets, r anchors of a block.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from selfsup.core.numerics import full_precision
from selfsup.losses.measures import Distance
from selfsup.losses.relations import Relations, Triplets, join
from selfsup.losses.row_blocks import LEAST, parts


@torch.no_grad()
def batch_hard(
    embeddings: Tensor, labels: Tensor, *, distance: Distance, anchors: int | None = None
) -> Triplets:
    """Each anchor with its farthest positive and its nearest negative (Hermans, equation 5).

    Source: Hermans et al. 2017, https://arxiv.org/abs/1703.07737. An anchor is never its own
    positive. Anchors without a positive or without a negative are left out, so t may be below n.

    Args:
        embeddings: [m, d], in any scale.
        labels: [m] integers.
        distance: to be given to the loss as well.
        anchors: only the first so many rows are anchors; None: all.

    Returns:
        Anchors, positives and negatives: three index tensors [t], anchors ascending.
    """
    relations = Relations(labels, anchors)
    z = distance.prepare(embeddings)
    positives, negatives = relations.counts()
    if relations.largest > FEW:
        return extremes(
            embeddings,
            labels,
            distance=distance,
            positive="hardest",
            negative="hardest",
            anchors=anchors,
        )
    n = _nearest_negatives(z, relations, distance)
    p = torch.empty_like(n)
    for part in parts(relations.n, len(z), times=8):
        column, positive = relations.members(part)
        apart = (z[column] - z[part][:, None]).square().sum(2).masked_fill(~positive, -1)
        p[part] = column.gather(1, apart.argmax(1, keepdim=True))[:, 0]
    a = ((positives > 0) & (negatives > 0)).nonzero()[:, 0]
    return a, p[a], n[a]


FEW = 64  # up to so many images of a class, an anchor's positives are measured one by one


def _nearest_negatives(z: Tensor, relations: Relations, distance: Distance) -> Tensor:
    """The nearest negative of each anchor; any row where there is none. [m, d] -> [n].

    The product form finds it in most rows beyond any doubt that rounding leaves. Where the two
    nearest are closer than that, distances are measured.
    """
    nearest = torch.empty(relations.n, dtype=torch.int64, device=z.device)
    lead = z.new_empty(relations.n)
    half = z.square().sum(1) / 2
    for part in parts(relations.n, len(z), times=8):
        with full_precision(z):
            score = torch.addmm(-half, z[part], z.T)  # larger is nearer: (|x|^2 - |x - y|^2) / 2
        score.scatter_(1, relations.members(part)[0], -torch.inf)
        two, column = score.topk(min(2, len(z)), dim=1)
        nearest[part], lead[part] = column[:, 0], two[:, 0] - two[:, -1]
    # a sum of d products errs by d roundings of its largest terms at most
    longest = half.max().sqrt()
    terms = 2 * half[: relations.n].sqrt() * longest + longest**2
    doubt = (z.shape[1] + 2) * torch.finfo(z.dtype).eps * 2 * terms
    for rows in (lead <= doubt).nonzero()[:, 0].split(LEAST):
        apart = distance.values(z[rows], z)
        same = relations.labels[rows, None] == relations.labels
        nearest[rows] = apart.masked_fill(same, torch.inf).argmin(1)
    return nearest


@torch.no_grad()
def extremes(
    embeddings: Tensor,
    labels: Tensor,
    *,
    distance: Distance,
    positive: Literal["hardest", "easiest"],
    negative: Literal["hardest", "semi-hard"],
    anchors: int | None = None,
) -> Triplets:
    """Each anchor with one positive and one negative, by their distance.

    Source: Xuan et al. 2020, https://arxiv.org/abs/1904.04370, whose easy positive is the nearest
    one. A semi-hard negative is the nearest that is farther than that positive; anchors without
    such a negative are left out.

    Args:
        embeddings: [m, d], in any scale.
        labels: [m] integers.
        distance: to be given to the loss as well.
        positive: the farthest (hardest) or the nearest (easiest).
        negative: the nearest of all (hardest) or the nearest beyond the positive (semi-hard).
        anchors: only the first so many rows are anchors; None: all.

    Returns:
        Anchors, positives and negatives: three index tensors [t], anchors ascending.
    """
    relations = Relations(labels, anchors)
    z = distance.prepare(embeddings)
    found = []
    for part, apart, same, other in relations.blocks(z, distance):
        if positive == "hardest":
            near, p = apart.masked_fill(~same, -torch.inf).max(1)
        else:
            near, p = apart.masked_fill(~same, torch.inf).min(1)
        if negative == "semi-hard":
            other &= apart > near[:, None]
        far, n = apart.masked_fill(~other, torch.inf).min(1)
        valid = (near.isfinite() & far.isfinite()).nonzero()[:, 0]
        found.append((part.start + valid, p[valid], n[valid]))
    return join(found)


@torch.no_grad()
def semi_hard(
    embeddings: Tensor,
    labels: Tensor,
    *,
    distance: Distance,
    margin: float,
    anchors: int | None = None,
) -> Triplets:
    """Each anchor with every positive and the nearest negative inside the margin behind it.

    That is d_ap < d_an < d_ap + margin; pairs without such a negative are left out.

    Source: Schroff et al. 2015, https://arxiv.org/abs/1503.03832, section 3.2. TF Addons has no
    upper bound and falls back to the farthest negative; with a margin of infinity this is that
    without the fallback.

    Args:
        embeddings: [m, d], in any scale.
        labels: [m] integers.
        distance: to be given to the loss as well.
        margin: in units of the distance.
        anchors: only the first so many rows are anchors; None: all.

    Returns:
        Anchors, positives and negatives: three index tensors [t], anchors ascending.
    """
    relations = Relations(labels, anchors)
    z = distance.prepare(embeddings)
    found = []
    for part, apart, _, other in relations.blocks(z, distance):
        far, order = apart.masked_fill(~other, torch.inf).sort(1)
        p, chosen = relations.members(part)  # [r, k]
        near = apart.gather(1, p)
        place = torch.searchsorted(far, near, right=True)
        d_an = F.pad(far, (0, 1), value=torch.inf).gather(1, place)
        a, slot = (chosen & d_an.isfinite() & (d_an < near + margin)).nonzero().unbind(1)
        found.append((part.start + a, p[a, slot], order[a, place[a, slot]]))
    return join(found)


@torch.no_grad()
def semi_hard_all(
    embeddings: Tensor,
    labels: Tensor,
    *,
    distance: Distance,
    margin: float,
    anchors: int | None = None,
) -> Triplets:
    """Every triplet with d_ap < d_an < d_ap + margin, as pytorch-metric-learning understands it.

    Source: Schroff et al. 2015, https://arxiv.org/abs/1503.03832, equation 4.

    Args:
        embeddings: [m, d], in any scale.
        labels: [m] integers.
        distance: to be given to the loss as well.
        margin: in units of the distance.
        anchors: only the first so many rows are anchors; None: all.

    Returns:
        Anchors, positives and negatives: three index tensors [t], anchors ascending.
    """
    relations = Relations(labels, anchors)
    z = distance.prepare(embeddings)
    found = []
    for part, apart, same, other in relations.blocks(z, distance):
        a, p = same.nonzero().unbind(1)
        near, far = apart[a, p][:, None], apart[a]
        i, n = (other[a] & (far > near) & (far < near + margin)).nonzero().unbind(1)
        found.append((part.start + a[i], p[i], n))
    return join(found)


@torch.no_grad()
def all_triplets(labels: Tensor, *, anchors: int | None = None) -> Triplets:
    """Every valid triplet (Hermans' batch-all): their number grows with the cube of the batch.

    Source: Hermans et al. 2017, https://arxiv.org/abs/1703.07737, equation 4.

    Args:
        labels: [m] integers.
        anchors: only the first so many rows are anchors; None: all.

    Returns:
        Anchors, positives and negatives: three index tensors [t], anchors ascending.
    """
    relations = Relations(labels, anchors)
    found = []
    for part in relations.parts():
        same, other = relations.sides(part)
        a, p = same.nonzero().unbind(1)
        i, n = other[a].nonzero().unbind(1)
        found.append((part.start + a[i], p[i], n))
    return join(found)
