"""Mining of pairs, for losses that weigh the positives and negatives of an anchor.

A miner returns index tensors, anchors ascending, and has no gradient. It works on the whole global
batch. Among equal distances any may be chosen.

Shape letters: m embeddings, n anchors among them, d width, t triplets, r anchors of a block.
"""

import torch
from torch import Tensor

from selfsup.losses.measures import COSINE
from selfsup.losses.relations import Anchors, Pairs, Relations


@torch.no_grad()
def multi_similarity_pairs(
    embeddings: Tensor, labels: Tensor, *, epsilon: float, anchors: Anchors = None
) -> Pairs:
    """Choose the informative pairs of the multi-similarity paper (equations 11 and 12).

    A negative is chosen if its cosine is above that of the least similar positive minus epsilon; a
    positive if its cosine is below that of the most similar negative plus epsilon.

    Source: Wang et al. 2019, https://arxiv.org/abs/1904.06627, section 4.1; epsilon 0.1.

    Args:
        embeddings: [m, d], in any scale.
        labels: [m] integers.
        epsilon: in cosines; higher chooses more pairs.
        anchors: how many of the first rows are anchors (`Anchors`).

    Returns:
        The pairs; an anchor without a positive or without a negative has none.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.8, 0.6], [0.0, 1.0]])
        >>> pairs = multi_similarity_pairs(x, torch.tensor([0, 0, 1, 1]), epsilon=0.1, anchors=1)
        >>> pairs.positive.tolist(), pairs.negative.tolist()  # cosine 0.6 to 1, 0.8 to 2, 0 to 3
        ([1], [2])
    """
    relations = Relations(labels, anchors)
    z = COSINE.prepare(embeddings)
    positive_pairs: list[Tensor] = []
    negative_pairs: list[Tensor] = []
    for block, similarities, positive, negative in relations.compare_blocks(z, COSINE):
        least = similarities.masked_fill(~positive, torch.inf).amin(1, keepdim=True)
        most = similarities.masked_fill(~negative, -torch.inf).amax(1, keepdim=True)
        valid = least.isfinite() & most.isfinite()
        offset = torch.tensor([block.start, 0], device=z.device)
        hard_positive = positive & valid & (similarities < most + epsilon)
        hard_negative = negative & valid & (similarities > least - epsilon)
        positive_pairs.append(hard_positive.nonzero() + offset)
        negative_pairs.append(hard_negative.nonzero() + offset)
    return Pairs(*torch.cat(positive_pairs).unbind(1), *torch.cat(negative_pairs).unbind(1))
