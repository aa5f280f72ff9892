"""Triplet losses: an anchor nearer to its own class than to others, by a margin.

Which triplets is the miner's business; a loss takes their indices. Miner and loss get the same
`Distance`, so they cannot disagree.

Shape letters: n embeddings, d embedding width, t triplets.
"""

import torch.nn.functional as F
from torch import Tensor

from selfsup.numerics import Distance

Triplets = tuple[Tensor, Tensor, Tensor]


def gaps(embeddings: Tensor, triplets: Triplets, *, distance: Distance) -> Tensor:
    """d(anchor, positive) - d(anchor, negative) of each triplet. [n, d] -> [t].

    Args:
        embeddings: [n, d], in any scale.
        triplets: indices [t] of anchors, positives and negatives.
        distance: the one that the miner was given.
    """
    anchor, positive, negative = (embeddings[index] for index in triplets)
    return distance.pairs(anchor, positive) - distance.pairs(anchor, negative)


def triplet_margin(
    embeddings: Tensor, triplets: Triplets, *, distance: Distance, margin: float
) -> Tensor:
    """Mean over triplets of [d_ap - d_an + margin]+ (FaceNet, equation 2; Hermans, equation 1).

    Source: Schroff et al. 2015, https://arxiv.org/abs/1503.03832 (squared distance, margin 0.2);
    Hermans et al. 2017, https://arxiv.org/abs/1703.07737 (not squared). The mean is over all
    triplets given; some libraries take it over those above zero only.

    Args:
        embeddings: [n, d], in any scale.
        triplets: indices [t] of anchors, positives and negatives.
        distance: the one that the miner was given.
        margin: in units of the distance.

    Returns:
        Scalar, at least 0. A collapsed batch scores exactly the margin, with gradient zero.

    Raises:
        ValueError: there is no triplet.
    """
    return F.relu(_some(gaps(embeddings, triplets, distance=distance)) + margin).mean()


def triplet_soft(embeddings: Tensor, triplets: Triplets, *, distance: Distance) -> Tensor:
    """Mean over triplets of log(1 + exp(d_ap - d_an)), the soft margin (Hermans, section 2).

    Source: Hermans et al. 2017, https://arxiv.org/abs/1703.07737.

    Args:
        embeddings: [n, d], in any scale.
        triplets: indices [t] of anchors, positives and negatives.
        distance: the one that the miner was given.

    Returns:
        Scalar, above 0. A collapsed batch scores log 2, with gradient zero.

    Raises:
        ValueError: there is no triplet.
    """
    return F.softplus(_some(gaps(embeddings, triplets, distance=distance))).mean()


def _some(gap: Tensor) -> Tensor:
    if len(gap) == 0:
        raise ValueError("no anchor of the batch has both a positive and a negative")
    return gap
