"""Distances, miners and small sums, as nested loops over lists of floats.

Oracles for tests: slow, literal, float64. `anchors`: only the first `anchors` rows are anchors
(None: all rows); positives and negatives are any rows but the anchor. Ties may come out in any
order, so miners that pick one row return its distance, not its index.
"""

import math

Row = list[float]
Labels = list[int]
Rows = list[list[float]]
Triplets = list[tuple[int, int, int]]


def dot(x: Row, y: Row) -> float:
    """Inner product."""
    return math.fsum(a * b for a, b in zip(x, y, strict=True))


def unit(x: Row) -> Row:
    """Row of length one; a row no longer than 1e-8 becomes the zero row."""
    length = math.sqrt(dot(x, x))
    return [v / length for v in x] if length > 1e-8 else [0.0 for _ in x]


def cosine(x: Row, y: Row) -> float:
    """Cosine similarity."""
    return dot(unit(x), unit(y))


def between(x: Row, y: Row, kind: str, normalize: bool) -> float:
    """Distance: "euclidean" |x-y|, "squared" |x-y|^2, "cosine" half of |x-y|^2 of unit rows."""
    if normalize or kind == "cosine":
        x, y = unit(x), unit(y)
    squared = math.fsum((a - b) ** 2 for a, b in zip(x, y, strict=True))
    scale = {"euclidean": math.sqrt(squared), "squared": squared, "cosine": squared / 2}
    return scale[kind]


def distances(x: Rows, kind: str, normalize: bool) -> Rows:
    """Table of `between` for all ordered pairs of rows."""
    return [[between(a, b, kind, normalize) for b in x] for a in x]


def similarities(x: Rows) -> Rows:
    """Table of `cosine` for all ordered pairs of rows."""
    return [[cosine(a, b) for b in x] for a in x]


def log_sum_exp(terms: list[float]) -> float:
    """log of the sum of exponentials; ValueError if there are none."""
    if not terms:
        raise ValueError("no terms under the logarithm")
    top = max(terms)
    return top + math.log(math.fsum(math.exp(t - top) for t in terms))


def log_one_plus(terms: list[float]) -> float:
    """log(1 + sum of exponentials); 0 if there are none. One term: the softplus."""
    top = max([0.0, *terms])
    return top + math.log(math.exp(-top) + math.fsum(math.exp(t - top) for t in terms))


def mean(terms: list[float]) -> float:
    """Mean; ValueError if there are no terms."""
    if not terms:
        raise ValueError("no valid term")
    return math.fsum(terms) / len(terms)


def mean_active(terms: list[float]) -> float:
    """Mean of the terms above zero; 0 if none is, ValueError if there are no terms."""
    active = [t for t in terms if t > 0]
    return mean(active) if active else 0.0 * mean(terms)


def reduce(terms: list[float], reduction: str) -> float:
    """ "mean" or "active"."""
    return {"mean": mean, "active": mean_active}[reduction](terms)


def anchor_rows(labels: Labels, anchors: int | None) -> range:
    """Indices of the rows that act as anchors."""
    return range(len(labels) if anchors is None else anchors)


def positives(labels: Labels, i: int) -> list[int]:
    """Rows of the same label, never i itself."""
    return [j for j in range(len(labels)) if j != i and labels[j] == labels[i]]


def negatives(labels: Labels, i: int) -> list[int]:
    """Rows of another label."""
    return [j for j in range(len(labels)) if labels[j] != labels[i]]


def all_triplets(labels: Labels, anchors: int | None = None) -> Triplets:
    """Every (anchor, positive, negative); FaceNet (Schroff 2015), section 3.1."""
    return [
        (a, p, n)
        for a in anchor_rows(labels, anchors)
        for p in positives(labels, a)
        for n in negatives(labels, a)
    ]


def n_pairs(labels: Labels) -> list[tuple[int, int]]:
    """Sohn 2016: (first row, second row) of each class that has two, classes ascending."""
    pairs = []
    for label in sorted(set(labels)):
        rows = [i for i in range(len(labels)) if labels[i] == label]
        if len(rows) >= 2:
            pairs.append((rows[0], rows[1]))
    return pairs


def multi_similarity_pairs(
    x: Rows, labels: Labels, epsilon: float, anchors: int | None = None
) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """Wang 2019 eq 11-12: negatives with s > min positive - eps, positives with s < max neg. + eps.

    An anchor without any positive (negative) keeps no negative (positive).
    """
    s = similarities(x)
    pos_pairs, neg_pairs = set(), set()
    for i in anchor_rows(labels, anchors):
        pos, neg = positives(labels, i), negatives(labels, i)
        for k in neg:
            if pos and s[i][k] > min(s[i][j] for j in pos) - epsilon:
                neg_pairs.add((i, k))
        for k in pos:
            if neg and s[i][k] < max(s[i][j] for j in neg) + epsilon:
                pos_pairs.add((i, k))
    return pos_pairs, neg_pairs


def batch_hard(
    x: Rows, labels: Labels, kind: str, normalize: bool, anchors: int | None = None
) -> list[tuple[int, float, float]]:
    """Hermans 2017 eq 5: (anchor, farthest positive distance, nearest negative distance).

    Anchors without a positive or without a negative are left out.
    """
    d = distances(x, kind, normalize)
    chosen = []
    for a in anchor_rows(labels, anchors):
        pos, neg = positives(labels, a), negatives(labels, a)
        if pos and neg:
            chosen.append((a, max(d[a][p] for p in pos), min(d[a][n] for n in neg)))
    return chosen


def semi_hard_nearest(
    x: Rows, labels: Labels, kind: str, normalize: bool, margin: float, anchors: int | None = None
) -> list[tuple[int, int, float]]:
    """FaceNet (Schroff 2015) eq 4: (a, p, d_an), the nearest negative with d_ap < d_an < d_ap + m.

    Every ordered positive pair; those without such a negative are left out.
    """
    d = distances(x, kind, normalize)
    chosen = []
    for a in anchor_rows(labels, anchors):
        for p in positives(labels, a):
            far = [d[a][n] for n in negatives(labels, a) if d[a][p] < d[a][n] < d[a][p] + margin]
            if far:
                chosen.append((a, p, min(far)))
    return chosen


def semi_hard_triplets(
    x: Rows, labels: Labels, kind: str, normalize: bool, margin: float, anchors: int | None = None
) -> set[tuple[int, int, int]]:
    """FaceNet (Schroff 2015) eq 4: all (a, p, n) with d_ap < d_an < d_ap + margin, both strict."""
    d = distances(x, kind, normalize)
    triplets = all_triplets(labels, anchors)
    return {(a, p, n) for a, p, n in triplets if d[a][p] < d[a][n] < d[a][p] + margin}


def easy_positive(
    x: Rows, labels: Labels, kind: str, normalize: bool, anchors: int | None = None
) -> list[tuple[int, float, float | None]]:
    """Xuan 2020: (a, nearest positive distance, distance of the nearest negative beyond it).

    Strictly beyond, no upper bound; None if no negative is farther (a triplet to leave out, as the
    authors' code and pytorch-metric-learning do). Anchors need a positive and a negative.
    """
    d = distances(x, kind, normalize)
    chosen: list[tuple[int, float, float | None]] = []
    for a in anchor_rows(labels, anchors):
        pos, neg = positives(labels, a), negatives(labels, a)
        if pos and neg:
            nearest = min(d[a][p] for p in pos)
            farther = [d[a][n] for n in neg if d[a][n] > nearest]
            chosen.append((a, nearest, min(farther) if farther else None))
    return chosen


def distance_weights(
    x: Rows,
    labels: Labels,
    cutoff: float = 0.5,
    dim: int | None = None,
    beyond: float = 1.4,
    anchors: int | None = None,
) -> Rows:
    """Wu 2017 section 4, unit rows: row a = probability of each row to be the negative of anchor a.

    Paper: w = min(lambda, 1/q(d)), q(d) = d^(dim-2) (1 - d^2/4)^((dim-3)/2). The authors' code: d
    lifted to `cutoff` (so lambda = 1/q(cutoff)), weight 0 unless d < `beyond` (margin + beta). An
    anchor without a negative that near: a zero row (their code then draws from the whole batch).
    """
    d = distances(x, "euclidean", True)
    size = len(x[0]) if dim is None else dim
    table = []
    for a in anchor_rows(labels, anchors):
        logs = {}
        for n in negatives(labels, a):
            lifted = max(d[a][n], cutoff)
            if lifted < beyond:
                log_q = (size - 2) * math.log(lifted)
                log_q += (size - 3) / 2 * math.log(1 - lifted**2 / 4)
                logs[n] = -log_q
        total = log_sum_exp(list(logs.values())) if logs else 0.0
        table.append([math.exp(logs[n] - total) if n in logs else 0.0 for n in range(len(x))])
    return table
