"""Mining: which triplets of a batch to learn from.

A miner returns index tensors and has no gradient. It works on the whole global batch.

Shape letters: n embeddings, d embedding width, t triplets.
"""

import torch
from torch import Tensor

from selfsup.numerics import Distance


@torch.no_grad()
def batch_hard(
    embeddings: Tensor, labels: Tensor, *, distance: Distance
) -> tuple[Tensor, Tensor, Tensor]:
    """Each anchor with its farthest positive and its nearest negative (Hermans, equation 5).

    Source: Hermans et al. 2017, https://arxiv.org/abs/1703.07737. An anchor is never its own
    positive. Anchors without a positive or without a negative are left out, so t may be below n.

    Args:
        embeddings: [n, d], in any scale.
        labels: [n] integers.
        distance: to be given to the loss as well.

    Returns:
        Anchors, positives and negatives: three index tensors [t], anchors ascending. Among equal
        distances any one may be chosen.
    """
    apart = distance.matrix(embeddings, embeddings)  # [n, n]
    same = labels[:, None] == labels[None, :]
    positive = same.clone().fill_diagonal_(False)
    anchors = (positive.any(1) & ~same.all(1)).nonzero()[:, 0]
    farthest = apart.masked_fill(~positive, -torch.inf).argmax(1)
    nearest = apart.masked_fill(same, torch.inf).argmin(1)
    return anchors, farthest[anchors], nearest[anchors]
