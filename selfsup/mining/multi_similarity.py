"""Mining of pairs, for losses that weigh an anchor's positives and negatives.

A miner returns index tensors and has no gradient. It works on the whole global batch; with a
memory behind the batch only the first `anchors` rows are anchors. Among equal distances any one may
be chosen.

Shape letters: m embeddings, n anchors among them, d width, t triplets, r anchors of a block.
"""

import torch
from torch import Tensor

from selfsup.losses.measures import Similarity
from selfsup.losses.relations import Pairs, Relations


@torch.no_grad()
def multi_similarity(
    embeddings: Tensor, labels: Tensor, *, epsilon: float, anchors: int | None = None
) -> Pairs:
    """Pairs that could be told apart better: the multi-similarity paper's equations 11 and 12.

    A negative is kept if it is more similar than the least similar positive less epsilon, a
    positive if it is less similar than the most similar negative plus epsilon. Cosines.

    Source: Wang et al. 2019, https://arxiv.org/abs/1904.06627, section 4.1; epsilon 0.1.

    Args:
        embeddings: [m, d], in any scale.
        labels: [m] integers.
        epsilon: how much is let in, in cosines.
        anchors: only the first so many rows are anchors; None: all.

    Returns:
        The pairs, anchors ascending on both sides; an anchor without a positive or without a
        negative has none.
    """
    relations = Relations(labels, anchors)
    measure = Similarity(normalize=True)
    z = measure.prepare(embeddings)
    kept: tuple[list[Tensor], list[Tensor]] = ([], [])
    for part, similar, same, other in relations.blocks(z, measure):
        least = similar.masked_fill(~same, torch.inf).amin(1, keepdim=True)
        most = similar.masked_fill(~other, -torch.inf).amax(1, keepdim=True)
        both = least.isfinite() & most.isfinite()
        kept[0].append((same & both & (similar < most + epsilon)).nonzero())
        kept[1].append((other & both & (similar > least - epsilon)).nonzero())
        for side in kept:
            side[-1][:, 0] += part.start
    (a, p), (b, n) = (torch.cat(side).unbind(1) for side in kept)
    return Pairs(a, p, b, n)
