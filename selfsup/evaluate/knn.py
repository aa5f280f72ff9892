"""Weighted k-nearest-neighbour classification of frozen features.

Shape letters: n features of the bank, q queries, d width, c classes.
"""

import torch
from torch import Tensor

from selfsup.numerics import normalize


def knn_predict(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor | None = None,
    *,
    k: int,
    temperature: float,
    chunk: int = 1024,
) -> Tensor:
    """The class with the largest sum of exp(cosine / temperature) over the k nearest neighbours.

    Source: Wu et al. 2018, https://arxiv.org/abs/1805.01978, section 3.4. Features are scaled to
    length 1 and similarities are float32. k is clipped to the bank. Between classes of equal sum
    the smaller label wins.

    Args:
        bank: [n, d] features of labelled images.
        labels: [n] integers.
        queries: [q, d] features to classify; None classifies the bank, each row by all the others.
        k: neighbours that vote.
        temperature: the smaller, the more the nearest ones count.
        chunk: queries at a time, which bounds memory at chunk x n.

    Returns:
        int64 [q], labels from the bank.

    Raises:
        ValueError: the bank is empty, or has one row where each is to be classified by the others.
    """
    alone = queries is None
    available = len(bank) - alone
    if available < 1:
        raise ValueError(f"{len(bank)} images are too few to find a neighbour")
    bank = normalize(bank.float())
    queries = bank if queries is None else normalize(queries.float())
    classes, index = labels.unique(return_inverse=True)
    predictions = []
    for start in range(0, len(queries), chunk):
        similar = queries[start : start + chunk] @ bank.T  # [chunk, n]
        if alone:
            own = torch.arange(len(similar))
            similar[own, start + own] = -torch.inf
        near, which = similar.topk(min(k, available), dim=1)
        weight = ((near - near[:, :1]) / temperature).exp()  # scaled by the first: no overflow
        votes = torch.zeros(len(near), len(classes)).scatter_add_(1, index[which], weight)
        predictions.append(classes[votes.argmax(1)])
    return torch.cat(predictions)
