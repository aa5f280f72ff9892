"""Signs of embeddings and re-ranking by the definitions: plain loops in float64.

Written from the papers, without sight of the package; numpy serves for singular values and
eigenvalues only.

Shape letters: n rows, d embedding width, q queries, g gallery rows.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rows = Tensor | NDArray[np.floating] | list[list[float]]
Views = Tensor | NDArray[np.floating] | list[list[list[float]]]


# Health without labels


def as_rows(features: Rows) -> list[list[float]]:
    """Features of any kind as lists of float64."""
    rows: list[list[float]] = torch.as_tensor(features, dtype=torch.float64).tolist()
    return rows


def unit_rows(features: Rows) -> list[list[float]]:
    """Rows scaled to length 1."""
    return [[x / math.hypot(*row) for x in row] for row in as_rows(features)]


def mean_row(rows: list[list[float]]) -> list[float]:
    """Mean of the rows."""
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def singular_values(rows: list[list[float]]) -> list[float]:
    """The min(n, d) singular values, largest first."""
    values: list[float] = np.linalg.svd(np.array(rows), compute_uv=False).tolist()
    return values


def centred_singular_values(features: Rows) -> list[float]:
    """Singular values of the features less their mean."""
    rows = as_rows(features)
    mean = mean_row(rows)
    return singular_values([[x - m for x, m in zip(row, mean, strict=True)] for row in rows])


def exp_entropy(values: list[float], eps: float) -> float:
    """exp(- sum p log p) with p = value / sum + eps, not normalised again, and 0 log 0 = 0."""
    total = sum(abs(v) for v in values)
    shares = [v / total + eps for v in values]
    return math.exp(-sum(p * math.log(p) for p in shares if p > 0))


def rankme(features: Rows, eps: float = 1e-7) -> float:
    """RankMe (Garrido et al. 2023, eq. 1): of the features as they are, not centred.

    p_k = sigma_k / |sigma|_1 + eps for the min(n, d) singular values sigma.
    """
    return exp_entropy(singular_values(as_rows(features)), eps)


def effective_rank(features: Rows) -> float:
    """Effective rank (Roy & Vetterli 2007): of singular values, not their squares; centred here.

    Undefined, as in the paper, for a matrix of zeros: rows that are all the same.
    """
    return exp_entropy(centred_singular_values(features), eps=0.0)


def alpha_req(features: Rows, first: int = 1, last: int | None = None) -> float:
    """Minus the slope of log eigenvalue on log rank (Agrawal et al. 2022), least squares.

    Of the centred covariance's eigenvalues above 1e-12 of the largest: ranks first to last, from 1,
    both included. All weigh the same (Stringer et al. 2019 weigh by 1 / rank, over 11 to 500).
    """
    values = [s * s for s in centred_singular_values(features)]
    significant = [v for v in values if v > 1e-12 * values[0]]
    ranks = list(range(first, min(last or len(significant), len(significant)) + 1))
    x = [math.log(rank) for rank in ranks]
    y = [math.log(significant[rank - 1]) for rank in ranks]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    cross = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return -cross / sum((a - mean_x) ** 2 for a in x)


def covariance(rows: list[list[float]], mean: list[float]) -> NDArray[np.float64]:
    """Mean of (x - mean)(x - mean)^T: divided by the number of rows."""
    d = len(mean)
    total = np.zeros((d, d))
    for row in rows:
        for i in range(d):
            for j in range(d):
                total[i, j] += (row[i] - mean[i]) * (row[j] - mean[j]) / len(rows)
    return total


def lidar(views: Views, delta: float = 1e-4, eps: float = 1e-7) -> float:
    """LiDAR (Thilak et al. 2023) of [objects, views, d], each object its own class.

    Means, not unbiased estimates, in both covariances; p = lambda / |lambda|_1 + eps over all d.
    """
    objects: list[list[list[float]]] = torch.as_tensor(views, dtype=torch.float64).tolist()
    means = [mean_row(rows) for rows in objects]
    between = covariance(means, mean_row(means))
    within = sum((covariance(r, m) for r, m in zip(objects, means, strict=True)), 0 * between)
    values, vectors = np.linalg.eigh(within / len(objects) + delta * np.eye(len(between)))
    whiten = vectors @ np.diag(values**-0.5) @ vectors.T
    spread: list[float] = np.linalg.eigvalsh(whiten @ between @ whiten).tolist()
    return exp_entropy([max(v, 0.0) for v in spread], eps)


def squared_distance(a: list[float], b: list[float]) -> float:
    """Squared Euclidean distance."""
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True))


def distinct_pairs(rows: list[list[float]]) -> list[tuple[list[float], list[float]]]:
    """Every pair of two rows, once."""
    return [(rows[i], rows[j]) for i in range(len(rows)) for j in range(i)]


def alignment(a: Rows, b: Rows) -> float:
    """Mean |x - y|^2 over positive pairs, on the sphere (Wang & Isola 2020, alpha 2)."""
    pairs = list(zip(unit_rows(a), unit_rows(b), strict=True))
    return sum(squared_distance(x, y) for x, y in pairs) / len(pairs)


def uniformity(features: Rows, t: float = 2.0) -> float:
    """Log of the mean exp(-t |x - y|^2) over distinct pairs, on the sphere (Wang & Isola 2020)."""
    pairs = distinct_pairs(unit_rows(features))
    return math.log(sum(math.exp(-t * squared_distance(x, y)) for x, y in pairs) / len(pairs))


def mean_cosine(features: Rows) -> float:
    """Mean cosine similarity over distinct pairs."""
    pairs = distinct_pairs(unit_rows(features))
    return sum(a * b for x, y in pairs for a, b in zip(x, y, strict=True)) / len(pairs)


def std_per_dimension(features: Rows) -> float:
    """Mean over dimensions of the unit rows' standard deviation, times sqrt(d): healthy is 1.

    SimSiam (Chen & He 2021) gives it without the factor. Divided by n, not n - 1.
    """
    rows = unit_rows(features)
    n, d = len(rows), len(rows[0])
    variances = [sum((row[j] - m) ** 2 for row in rows) / n for j, m in enumerate(mean_row(rows))]
    return sum(math.sqrt(v) for v in variances) / d * math.sqrt(d)


def hubness(similar: Rows, k: int) -> tuple[float, float]:
    """Skewness of N_k and the fraction of rows with N_k = 0 (Radovanovic et al. 2010).

    N_k: how many other rows have a row among their k nearest; of equal ones the lower index is
    nearer. Population skewness; 0 if every N_k is the same. k is clipped to n - 1.
    """
    matrix = as_rows(similar)
    n = len(matrix)
    counts = [0] * n
    for i, row in enumerate(matrix):
        others = sorted((j for j in range(n) if j != i), key=lambda j: (-row[j], j))
        for j in others[:k]:
            counts[j] += 1
    mean = sum(counts) / n
    second = sum((c - mean) ** 2 for c in counts) / n
    third = sum((c - mean) ** 3 for c in counts) / n
    return (third / second**1.5 if second else 0.0), counts.count(0) / n


# Re-ranking


def nearest_first(row: list[float]) -> list[int]:
    """Indices by distance; of equal ones the lower first."""
    return sorted(range(len(row)), key=lambda j: (row[j], j))


def reciprocal(order: list[list[int]], i: int, k: int) -> set[int]:
    """R(i, k): the k rows nearest to i, and i itself, that have i among theirs (eq. 3)."""
    return {j for j in order[i][: k + 1] if i in order[j][: k + 1]}


def expanded(order: list[list[int]], i: int, k: int) -> set[int]:
    """R*(i, k): and the sets R(j, k/2) that lie in R(i, k) by more than 2/3 (eq. 4 has at least).

    k/2 is rounded to the nearest integer, halves to even.
    """
    near = reciprocal(order, i, k)
    result = set(near)
    for j in near:
        more = reciprocal(order, j, round(k / 2))
        if 3 * len(more & near) > 2 * len(more):
            result |= more
    return result


def encoded(distance: list[list[float]], order: list[list[int]], k1: int) -> list[list[float]]:
    """V (eq. 7): exp(-distance) on R*(i, k1), 0 elsewhere, scaled to sum 1."""
    vectors = []
    for i, row in enumerate(distance):
        near = expanded(order, i, k1)
        weights = [math.exp(-x) if j in near else 0.0 for j, x in enumerate(row)]
        vectors.append([w / sum(weights) for w in weights])
    return vectors


def jaccard(a: list[float], b: list[float]) -> float:
    """1 less the sum of minima over the sum of maxima (eq. 10)."""
    return 1 - sum(map(min, a, b)) / sum(map(max, a, b))


def rerank(features: Rows, q: int, k1: int, k2: int, weight: float) -> list[list[float]]:
    """Distance of q queries to g gallery rows, k-reciprocal (Zhong et al. 2017), as in their code.

    The paper: d is as it comes, neighbours are gallery rows, V is not scaled to sum 1, R(j, k/2)
    joins at 2/3 of overlap. The code (re_ranking.m, H. Luo's Python), followed here: each row of
    squared distances is divided by its largest; all q + g rows are neighbours of all, a row the
    first of its own, beside the k1; V sums to 1; R(j, k/2) joins above 2/3.
    Equally distant rows are taken by index.
    """
    rows = as_rows(features)
    raw = [[squared_distance(a, b) for b in rows] for a in rows]
    distance = [[x / max(row) for x in row] for row in raw]
    order = [nearest_first(row) for row in raw]
    vectors = encoded(distance, order, k1)
    if k2 != 1:  # local query expansion, eq. 11
        vectors = [mean_row([vectors[j] for j in near[:k2]]) for near in order]
    return [
        [
            (1 - weight) * jaccard(vectors[i], vectors[j]) + weight * distance[i][j]
            for j in range(q, len(rows))
        ]
        for i in range(q)
    ]
