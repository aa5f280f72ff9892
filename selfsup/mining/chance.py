"""Mining by chance: positives and negatives drawn from a given generator.

A miner returns index tensors and has no gradient. It works on the whole global batch; with a
memory behind the batch only the first `anchors` rows are anchors. Among equal distances any one may
be chosen.

Shape letters: m embeddings, n anchors among them, d width, t triplets, r anchors of a block.
"""

import torch
from torch import Tensor

from selfsup.losses.measures import Distance
from selfsup.losses.relations import Relations, Triplets, join

FARTHEST = 1.4  # just below sqrt 2, where random directions are


@torch.no_grad()
def random(labels: Tensor, *, generator: torch.Generator, anchors: int | None = None) -> Triplets:
    """Each anchor with one positive and one negative, drawn uniformly.

    Args:
        labels: [m] integers.
        generator: on the CPU; the same state gives the same triplets on every process.
        anchors: only the first so many rows are anchors; None: all.

    Returns:
        Anchors, positives and negatives: three index tensors [t], anchors ascending; anchors
        without either are left out.
    """
    relations = Relations(labels, anchors)
    draws = torch.rand(relations.n, 2, generator=generator, dtype=torch.float64)
    draws = draws.to(labels.device)
    found = []
    for part in relations.parts():
        same, other = relations.sides(part)
        valid = (same.any(1) & other.any(1)).nonzero()[:, 0]
        p, n = (
            _pick(mask[valid].double(), draws[part][valid, i])
            for i, mask in enumerate((same, other))
        )
        found.append((part.start + valid, p, n))
    return join(found)


@torch.no_grad()
def distance_weighted(
    embeddings: Tensor,
    labels: Tensor,
    *,
    generator: torch.Generator,
    cutoff: float = 0.5,
    anchors: int | None = None,
) -> Triplets:
    """Each anchor with every positive and a negative drawn by the inverse density of its distance.

    Distances of random points on the sphere pile up at sqrt 2. A negative at distance D is drawn
    with weight 1 / q(D), q(D) = D^(d - 2) (1 - D^2 / 4)^((d - 3) / 2), so that near, middling and
    far ones are met alike. Distances below the cutoff count as the cutoff (else noise wins).

    Source: Wu et al. 2017, https://arxiv.org/abs/1706.07567, section 4. As in the paper's code,
    negatives beyond 1.4, which would cost nothing, are not drawn; an anchor that has only such
    draws among all of them uniformly.

    Args:
        embeddings: [m, d], in any scale; measured at length 1.
        labels: [m] integers.
        generator: on the CPU; the same state gives the same triplets on every process.
        cutoff: the least distance that counts.
        anchors: only the first so many rows are anchors; None: all.

    Returns:
        Anchors, positives and negatives: three index tensors [t], anchors ascending.
    """
    relations = Relations(labels, anchors)
    distance = Distance("euclidean")
    z = distance.prepare(embeddings)
    width = z.shape[1]
    found = []
    for part, apart, same, other in relations.blocks(z, distance):
        far = apart.double().clamp(min=cutoff)
        weight = -(width - 2) * far.log()
        weight -= (width - 3) / 2 * (1 - far.square() / 4).clamp(min=1e-8).log()
        near = other & (apart < FARTHEST)
        other = torch.where(near.any(1, keepdim=True), near, other)
        weight = weight.masked_fill(~near.any(1, keepdim=True), 0).masked_fill(~other, -torch.inf)
        a, p = (same & other.any(1, keepdim=True)).nonzero().unbind(1)
        draws = torch.rand(len(a), generator=generator, dtype=torch.float64).to(z.device)
        n = _pick((weight - weight.amax(1, keepdim=True)).exp()[a], draws)
        found.append((part.start + a, p, n))
    return join(found)


def _pick(weights: Tensor, draws: Tensor) -> Tensor:
    """A column of each row with probability in proportion to its weight. [t, m], [t] -> [t]."""
    sums = weights.cumsum(1)
    place = torch.searchsorted(sums, (draws * sums[:, -1])[:, None], right=True)[:, 0]
    last = weights.shape[1] - 1 - weights.flip(1).gt(0).to(torch.uint8).argmax(1)
    return torch.minimum(place, last)  # a draw just below 1 may round to the very end
