"""Random mining: positives and negatives drawn with a given generator.

A miner returns index tensors, anchors ascending, and has no gradient. It works on the whole global
batch. Among equal distances any may be chosen.

Shape letters: m embeddings, n anchors among them, d width, t triplets, r anchors of a block.
"""

import torch
from torch import Tensor

from selfsup.core.numerics import has_float64, with_float64
from selfsup.core.transfers import send
from selfsup.losses.measures import Distance
from selfsup.losses.relations import Anchors, Relations, Triplets, join_triplets

FARTHEST = 1.4  # just below sqrt 2, the usual distance of random directions


@torch.no_grad()
def random_triplets(
    labels: Tensor,
    *,
    generator: torch.Generator,
    anchors: Anchors = None,
    device: torch.device | None = None,
) -> Triplets:
    """Draw one positive and one negative of each anchor, uniformly.

    Anchors without a positive or without a negative are left out.

    Args:
        labels: [m] integers.
        generator: on the CPU; the same state gives the same triplets on every process.
        anchors: how many of the first rows are anchors (`Anchors`).
        device: of the indices; None: that of the labels.

    Returns:
        Indices [t] of anchors, positives and negatives.

    Example:
        >>> g = torch.Generator().manual_seed(0)
        >>> a, p, n = random_triplets(torch.tensor([0, 0, 1]), generator=g)
        >>> a.tolist(), p.tolist(), n.tolist()  # the third row has no positive
        ([0, 1], [1, 0], [2, 2])
    """
    device = device or labels.device
    relations = Relations(labels, anchors, device=_device_of_draws(device))
    draws = torch.rand(relations.anchor_count, 2, generator=generator, dtype=torch.float64)
    draws = relations.send(draws)
    triplets = []
    for block in relations.blocks():
        valid = relations.complete_anchors(block)
        p, n = (
            _pick(mask[valid - block.start].double(), draws[valid, i])
            for i, mask in enumerate(relations.masks(block))
        )
        triplets.append((valid, p, n))
    return _on(device, join_triplets(triplets))


@torch.no_grad()
def distance_weighted(
    embeddings: Tensor,
    labels: Tensor,
    *,
    generator: torch.Generator,
    cutoff: float = 0.5,
    anchors: Anchors = None,
) -> Triplets:
    """Draw a negative for each positive pair, weighted by the inverse density of its distance.

    Most distances of random points on the sphere are near sqrt 2. A negative at distance D is drawn
    with weight 1 / q(D), q(D) = D^(d - 2) (1 - D^2 / 4)^((d - 3) / 2), so that all distances are
    drawn equally often. Below the cutoff noise dominates: such distances count as the cutoff.

    Source: Wu et al. 2017, https://arxiv.org/abs/1706.07567, section 4. As in the paper's code,
    negatives beyond 1.4, which have no loss, are not drawn. An anchor that has only such negatives
    draws among all of them uniformly.

    Args:
        embeddings: [m, d], in any scale; measured at length 1.
        labels: [m] integers.
        generator: on the CPU; the same state gives the same triplets on every process.
        cutoff: smallest distance; shorter ones count as this.
        anchors: how many of the first rows are anchors (`Anchors`).

    Returns:
        Indices [t] of anchors, positives and negatives.

    Example:
        >>> x, labels = torch.eye(3).repeat_interleave(2, 0), torch.tensor([0, 0, 1, 1, 2, 2])
        >>> g = torch.Generator().manual_seed(0)
        >>> a, p, n = distance_weighted(x, labels, generator=g)
        >>> a.tolist(), p.tolist()
        ([0, 1, 2, 3, 4, 5], [1, 0, 3, 2, 5, 4])
    """
    rows = with_float64(embeddings)
    relations = Relations(labels, anchors, device=rows.device)
    distance = Distance("euclidean")
    z = distance.prepare(rows)
    width = z.shape[1]
    has_negatives = bool((relations.counts()[1] > 0).any())  # then every anchor has
    triplets = []
    for block, distances, _, negative in relations.compare_blocks(z, distance):
        clamped = distances.double().clamp(min=cutoff)
        weight = -(width - 2) * clamped.log()
        weight -= (width - 3) / 2 * (1 - clamped.square() / 4).clamp(min=1e-8).log()
        near = negative & (distances < FARTHEST)
        has_near = near.any(1, keepdim=True)
        negative = torch.where(has_near, near, negative)
        weight = weight.masked_fill(~has_near, 0).masked_fill(~negative, -torch.inf)
        a, p = relations.positive_pairs(block if has_negatives else slice(0))
        draws = torch.rand(len(a), generator=generator, dtype=torch.float64)
        weight = (weight - weight.amax(1, keepdim=True)).exp()
        triplets.append((a, p, _pick(weight[a - block.start], relations.send(draws))))
    return _on(embeddings.device, join_triplets(triplets))


def _device_of_draws(device: torch.device) -> torch.device:
    """Where weights in float64 can be: that device, or the host."""
    return device if has_float64(device) else torch.device("cpu")


def _on(device: torch.device, triplets: Triplets) -> Triplets:
    a, p, n = (send(x, device) for x in triplets)
    return a, p, n


def _pick(weights: Tensor, draws: Tensor) -> Tensor:
    """Pick a column of each row, with probability proportional to weight. [t, m], [t] -> [t]."""
    sums = weights.cumsum(1)
    place = torch.searchsorted(sums, (draws * sums[:, -1])[:, None], right=True)[:, 0]
    last = weights.shape[1] - 1 - weights.flip(1).gt(0).to(torch.uint8).argmax(1)
    return torch.minimum(place, last)  # a draw just below 1 may round to the very end
