"""k-reciprocal re-ranking: shared neighbours decide which image comes first.

Shape letters: n rows of queries and gallery in one bank, q queries, g gallery rows, d width.
"""

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from selfsup.core.numerics import normalize
from selfsup.search.neighbours import nearest
from selfsup.search.products import MEMORY


def rerank(
    queries: Tensor,
    gallery: Tensor | None,
    *,
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
    memory: int = MEMORY,
) -> Tensor:
    """Compute similarities of queries and gallery in which shared neighbours count.

    Source: Zhong et al. 2017, https://arxiv.org/abs/1701.08398, in the form of its authors' code:
    squared distances of rows of length 1, each row divided by its largest; neighbours among queries
    and gallery together; a set of reciprocal neighbours grows by the half sets of its members that
    overlap it in more than two thirds; weights exp(-distance) scaled to sum 1 and averaged over the
    first k2; Jaccard distance of weights, mixed with the distance itself. Weights are kept sparse.

    Args:
        queries: [q, d].
        gallery: [g, d]; None for the queries among themselves.
        k1: neighbours that have to be mutual.
        k2: neighbours whose weights are averaged, the row itself included; 1 averages nothing.
        weight: of the distance; the rest is the Jaccard distance.
        memory: bytes to hold besides the features.

    Returns:
        float32 [q, g], minus the mixed distance: larger is nearer.

    Raises:
        ValueError: k1 or k2 is below 1, or the weight is not between 0 and 1.
    """
    if min(k1, k2) < 1 or not 0 <= weight <= 1:
        raise ValueError(f"k1 {k1} and k2 {k2} have to be above 0 and weight {weight} in [0, 1]")
    rows = [queries] if gallery is None else [queries, gallery]
    z = normalize(torch.cat(rows).float().cpu())
    neighbours = _itself_and_nearest(z, max(k1 + 1, k2), memory)
    widest = 2 - 2 * torch.cat([(block @ z.T).amin(1) for block in z.split(512)]).double()
    weights = _weights(z, neighbours, k1, widest.clamp(min=1e-12).numpy())
    if k2 > 1:
        nearest_k2 = neighbours[:, :k2]
        equal = np.full(nearest_k2.size, 1 / nearest_k2.shape[1])
        places = np.repeat(np.arange(len(z)), nearest_k2.shape[1]), nearest_k2.flatten()
        mean = csr_array((equal, places), shape=(len(z), len(z)))
        weights = csr_array(mean @ weights)
    first = 0 if gallery is None else len(queries)
    return _mixed_similarity(z, weights, widest, (len(queries), first), weight)


def _itself_and_nearest(z: Tensor, k: int, memory: int) -> np.ndarray:
    """Each row itself and its nearest others. int64 [n, k]."""
    k = min(k, len(z))
    own = torch.arange(len(z))[:, None]
    if k == 1:
        return own.numpy()
    others = [block.indices for block in nearest(z, z, k - 1, exclude_self=True, memory=memory)]
    return torch.cat([own, torch.cat(others)], dim=1).numpy()


def _weights(z: Tensor, neighbours: np.ndarray, k1: int, widest: np.ndarray) -> csr_array:
    """Weights of each row for its reciprocal neighbours and those they bring in. Sparse [n, n]."""
    k, half = k1 + 1, round(k1 / 2) + 1
    sets = [_mutual(neighbours, i, k) for i in range(len(z))]
    halves = [_mutual(neighbours, i, half) for i in range(len(z))]
    rows, columns, values = [], [], []
    for i, own in enumerate(sets):
        grown = set(own.tolist())
        for j in own:
            more = halves[j]
            if len(np.intersect1d(more, own)) > 2 / 3 * len(more):
                grown.update(more.tolist())
        members = np.array(sorted(grown))
        distances = (2 - 2 * (z[members] @ z[i]).double().numpy()) / widest[i]
        weight = np.exp(-np.maximum(distances, 0))
        rows.append(np.full(len(members), i))
        columns.append(members)
        values.append(weight / weight.sum())
    places = np.concatenate(rows), np.concatenate(columns)
    return csr_array((np.concatenate(values), places), shape=(len(z), len(z)))


def _mutual(neighbours: np.ndarray, i: int, k: int) -> np.ndarray:
    """Rows among the first k of i that have i among theirs."""
    first: np.ndarray = neighbours[i, :k]
    mutual: np.ndarray = first[(neighbours[first, :k] == i).any(1)]
    return mutual


def _mixed_similarity(
    z: Tensor, weights: csr_array, widest: Tensor, layout: tuple[int, int], weight: float
) -> Tensor:
    """Minus the mixed distance of each query and gallery row. [q, g].

    `layout` is how many queries there are, and which row the gallery begins with.
    """
    q, first = layout
    columns = weights.tocsc()
    out = torch.empty(q, len(z) - first)
    for i in range(q):
        overlap = np.zeros(len(z))
        for j, own in zip(*_sparse_row(weights, i), strict=True):
            members, theirs = _sparse_row(columns, j)
            overlap[members] += np.minimum(own, theirs)
        jaccard = 1 - overlap[first:] / (2 - overlap[first:])  # weights sum to 1
        distances = (2 - 2 * (z[first:] @ z[i]).double()) / widest[i]
        out[i] = -(weight * distances + (1 - weight) * torch.from_numpy(jaccard)).float()
    return out


def _sparse_row(sparse: csr_array, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Places and values of a row, or of a column of columns."""
    entries = slice(sparse.indptr[i], sparse.indptr[i + 1])
    return sparse.indices[entries], sparse.data[entries]
