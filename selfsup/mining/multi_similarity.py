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
    relations = Relations(labels, anchors, device=embeddings.device)
    z = COSINE.prepare(embeddings)
    positive_pairs: list[tuple[Tensor, Tensor]] = []
    negative_pairs: list[tuple[Tensor, Tensor]] = []
    for block, similarities, positive, negative in relations.compare_blocks(z, COSINE):
        least = similarities.masked_fill(~positive, torch.inf).amin(1, keepdim=True)
        most = similarities.masked_fill(~negative, -torch.inf).amax(1, keepdim=True)
        valid = least.isfinite() & most.isfinite()
        hard_positive = positive & valid & (similarities < most + epsilon)
        hard_negative = negative & valid & (similarities > least - epsilon)
        places = places_of(hard_positive, hard_negative)
        for pairs, place in zip((positive_pairs, negative_pairs), places, strict=True):
            anchor, partner = place.unbind(1)
            pairs.append((anchor + block.start, partner))
    positive_pair, negative_pair = (
        [torch.cat(column) for column in zip(*pairs, strict=True)]
        for pairs in (positive_pairs, negative_pairs)
    )
    return Pairs(*positive_pair, *negative_pair)


def places_of(*masks: Tensor) -> list[Tensor]:
    """Indices of the places of each mask that are true: `nonzero`, with one wait for a GPU."""
    if masks[0].device.type == "cpu":
        return [mask.nonzero() for mask in masks]
    sizes = torch.stack([mask.sum() for mask in masks]).tolist()
    return [mask.nonzero_static(size=size) for mask, size in zip(masks, sizes, strict=True)]
