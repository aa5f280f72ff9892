"""Losses of metric learning and contrastive learning, as nested loops over lists of floats.

Oracles for tests: slow, literal, float64, standard library only. A label loss takes `anchors`: only
the first `anchors` rows are anchors (None: all); positives and negatives are any rows but the
anchor. No valid term raises ValueError. Their small parts and the miners are in mining.py.
"""

import math

from oracles.mining import (
    Labels,
    Row,
    Rows,
    Triplets,
    all_triplets,
    anchor_rows,
    batch_hard,
    between,
    cosine,
    distances,
    dot,
    log_one_plus,
    log_sum_exp,
    mean,
    mean_active,
    multi_similarity_pairs,
    n_pairs,
    negatives,
    positives,
    reduce,
    similarities,
    unit,
)


# ---- two views, no labels ----
def nt_xent(a: Rows, b: Rows, temperature: float) -> float:
    """SimCLR (Chen 2020) eq 1, mean over the 2n anchors; 2n - 1 candidates each."""
    z, n = a + b, len(a)
    terms = []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        s = [cosine(z[i], z[k]) / temperature for k in range(2 * n) if k != i]
        terms.append(-(cosine(z[i], z[j]) / temperature - log_sum_exp(s)))
    return mean(terms)


def info_nce(a: Rows, b: Rows, temperature: float, queue: Rows | None = None) -> float:
    """MoCo (He 2020) eq 1, mean over the rows of a: candidates are b_i and the queue.

    Without a queue they are all rows of b (one direction of CLIP). An empty queue is a queue.
    """
    terms = []
    for i in range(len(a)):
        candidates = b if queue is None else [b[i], *queue]
        s = [cosine(a[i], k) / temperature for k in candidates]
        terms.append(-(cosine(a[i], b[i]) / temperature - log_sum_exp(s)))
    return mean(terms)


def _decoupled(a: Rows, b: Rows, temperature: float, weights: list[float]) -> float:
    """Yeh 2022, L_DC: the positive is not in the denominator; one sum over both views."""
    z, n = a + b, len(a)
    terms = []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        s = [cosine(z[i], z[k]) / temperature for k in range(2 * n) if k not in (i, j)]
        terms.append(-weights[i % n] * cosine(z[i], z[j]) / temperature + log_sum_exp(s))
    return mean(terms)


def dcl(a: Rows, b: Rows, temperature: float) -> float:
    """Decoupled contrastive learning (Yeh 2022): -s_pos/T + log of the 2n - 2 negatives' sum."""
    return _decoupled(a, b, temperature, [1.0 for _ in a])


def dclw(a: Rows, b: Rows, temperature: float, sigma: float = 0.5) -> float:
    """Yeh 2022, DCLW: positive term times w_i = 2 - exp(s_i/sigma) / mean_j exp(s_j/sigma)."""
    pull = [math.exp(cosine(x, y) / sigma) for x, y in zip(a, b, strict=True)]
    return _decoupled(a, b, temperature, [2 - e / mean(pull) for e in pull])


# ---- labels: pairs and triplets ----
def contrastive(
    x: Rows,
    labels: Labels,
    kind: str,
    normalize: bool,
    positive_margin: float,
    negative_margin: float,
    squared: bool,
    reduction: str,
    anchors: int | None = None,
) -> float:
    """Hadsell 2006 eq 4 without its halves, over ordered pairs (i, j), i an anchor, j != i.

    "pairs": one mean over all pairs; "sides": mean over positives + mean over negatives; "active":
    as "sides" over the terms > 0. A side without pairs counts 0; no pair at all is an error.
    """
    d = distances(x, kind, normalize)
    near: list[float] = []
    far: list[float] = []
    for i in anchor_rows(labels, anchors):
        near += [max(0.0, d[i][j] - positive_margin) for j in positives(labels, i)]
        far += [max(0.0, negative_margin - d[i][j]) for j in negatives(labels, i)]
    if squared:
        near, far = [t**2 for t in near], [t**2 for t in far]
    if reduction == "pairs" or not near + far:
        return mean(near + far)
    average = {"sides": mean, "active": mean_active}[reduction]
    return sum(average(side) for side in (near, far) if side)


def triplet(x: Rows, triplets: Triplets, kind: str, normalize: bool, margin: float) -> list[float]:
    """FaceNet (Schroff 2015) eq 2-3, one hinge [d_ap - d_an + margin]+ per triplet."""
    d = distances(x, kind, normalize)
    return [max(0.0, d[a][p] - d[a][n] + margin) for a, p, n in triplets]


def soft_triplet(x: Rows, triplets: Triplets, kind: str, normalize: bool) -> list[float]:
    """Hermans 2017, soft margin: log(1 + exp(d_ap - d_an)) per triplet."""
    d = distances(x, kind, normalize)
    return [log_one_plus([d[a][p] - d[a][n]]) for a, p, n in triplets]


def batch_hard_triplet(
    x: Rows,
    labels: Labels,
    kind: str,
    normalize: bool,
    margin: float | None,
    reduction: str = "mean",
    anchors: int | None = None,
) -> float:
    """Hermans 2017 eq 5 over the anchors with a positive and a negative; margin None is soft."""
    terms = []
    for _, far, near in batch_hard(x, labels, kind, normalize, anchors):
        hinge = max(0.0, far - near + (margin or 0.0))
        terms.append(log_one_plus([far - near]) if margin is None else hinge)
    return reduce(terms, reduction)


def batch_all(
    x: Rows,
    labels: Labels,
    kind: str,
    normalize: bool,
    margin: float,
    reduction: str,
    anchors: int | None = None,
) -> float:
    """Hermans 2017 eq 6 over every triplet: "mean", or "active", the mean of the terms > 0."""
    return reduce(triplet(x, all_triplets(labels, anchors), kind, normalize, margin), reduction)


def semi_hard_all(
    x: Rows,
    labels: Labels,
    kind: str,
    normalize: bool,
    margin: float,
    reduction: str = "active",
    anchors: int | None = None,
) -> float:
    """FaceNet (Schroff 2015) eq 4: hinges of the triplets with d_ap < d_an < d_ap + margin.

    "active": their mean, 0 if there are none. "mean": their sum over the count of all triplets.
    """
    d = distances(x, kind, normalize)
    terms = []
    for a, p, n in all_triplets(labels, anchors):
        semi_hard = d[a][p] < d[a][n] < d[a][p] + margin
        terms.append(d[a][p] - d[a][n] + margin if semi_hard else 0.0)
    return reduce(terms, reduction)


# ---- labels: n-pairs and angles ----
def npairs(
    x: Rows,
    labels: Labels,
    normalize: bool,
    temperature: float = 1.0,
    regularizer: float = 0.0,
    anchors: int | None = None,
) -> float:
    """Sohn 2016 eq 7: mean of log(1 + sum_j exp((a_i.p_j - a_i.p_i)/T)), j the other pairs.

    Plus regularizer * mean of |a|^2 + |p|^2. Pairs whose first row is no anchor give no term, but
    their positives stay negatives of the others. Fewer than two pairs are an error.
    """
    z = [unit(v) for v in x] if normalize else x
    pairs = n_pairs(labels)
    terms, sizes = [], []
    for a, p in pairs:
        others = [q for _, q in pairs if q != p]
        if a not in anchor_rows(labels, anchors) or not others:
            continue
        terms.append(
            log_one_plus([(dot(z[a], z[q]) - dot(z[a], z[p])) / temperature for q in others])
        )
        sizes.append(dot(z[a], z[a]) + dot(z[p], z[p]))
    return mean(terms) + regularizer * mean(sizes)


def angular_hinge(
    x: Rows, labels: Labels, alpha_degrees: float, anchors: int | None = None
) -> float:
    """Wang 2017 eq 4, unit rows: mean over triplets of [|a-p|^2 - 4 tan^2(alpha) |n-c|^2]+."""
    z = [unit(v) for v in x]
    tan2 = math.tan(math.radians(alpha_degrees)) ** 2
    terms = []
    for a, p, n in all_triplets(labels, anchors):
        centre = [(u + v) / 2 for u, v in zip(z[a], z[p], strict=True)]
        wide = between(z[a], z[p], "squared", False)
        terms.append(max(0.0, wide - 4 * tan2 * between(z[n], centre, "squared", False)))
    return mean(terms)


def angular_f(a: Row, p: Row, n: Row, alpha_degrees: float) -> float:
    """Wang 2017, f of the log-sum form: 4 tan^2(alpha) (a+p).n - 2 (1 + tan^2(alpha)) a.p."""
    tan2 = math.tan(math.radians(alpha_degrees)) ** 2
    both = [u + v for u, v in zip(a, p, strict=True)]
    return 4 * tan2 * dot(both, n) - 2 * (1 + tan2) * dot(a, p)


def angular(
    x: Rows,
    labels: Labels,
    alpha_degrees: float,
    normalize: bool = True,
    anchors: int | None = None,
) -> float:
    """Wang 2017, log-sum form, over all ordered positive pairs; negatives: all other classes."""
    z = [unit(v) for v in x] if normalize else x
    terms = []
    for a in anchor_rows(labels, anchors):
        neg = negatives(labels, a)
        for p in positives(labels, a) if neg else []:
            terms.append(log_one_plus([angular_f(z[a], z[p], z[n], alpha_degrees) for n in neg]))
    return mean(terms)


def angular_npairs(
    x: Rows,
    labels: Labels,
    alpha_degrees: float,
    normalize: bool = True,
    anchors: int | None = None,
) -> float:
    """Wang 2017 eq 7 on the n-pair batch; negatives: the other classes' positives only."""
    z = [unit(v) for v in x] if normalize else x
    pairs = n_pairs(labels)
    terms = []
    for a, p in pairs:
        others = [q for _, q in pairs if q != p]
        if a in anchor_rows(labels, anchors) and others:
            terms.append(log_one_plus([angular_f(z[a], z[p], z[q], alpha_degrees) for q in others]))
    return mean(terms)


def npairs_angular(
    x: Rows, labels: Labels, alpha_degrees: float, weight: float = 2.0, anchors: int | None = None
) -> float:
    """Wang 2017, joint loss on unit rows: n-pairs + weight * angular (weight 2 in the paper)."""
    return npairs(x, labels, True, anchors=anchors) + weight * angular_npairs(
        x, labels, alpha_degrees, anchors=anchors
    )


# ---- labels: structure of the whole batch ----
def lifted(
    x: Rows, labels: Labels, kind: str, normalize: bool, margin: float, anchors: int | None = None
) -> float:
    """Song 2016 eq 4: mean over ordered positive pairs of [J]+^2 / 2 (= 1/(2|P|) unordered).

    J_ij = log(sum_k exp(m - d_ik) + sum_l exp(m - d_jl)) + d_ij; i is an anchor, j any row.
    """
    d = distances(x, kind, normalize)
    terms = []
    for i in anchor_rows(labels, anchors):
        neg = negatives(labels, i)
        for j in positives(labels, i) if neg else []:
            pushes = [margin - d[i][k] for k in neg] + [margin - d[j][k] for k in neg]
            terms.append(max(0.0, log_sum_exp(pushes) + d[i][j]) ** 2 / 2)
    return mean(terms)


def generalized_lifted(
    x: Rows, labels: Labels, kind: str, normalize: bool, margin: float, anchors: int | None = None
) -> float:
    """Hermans 2017, L_LG: [log sum_p exp(d_ap) + log sum_n exp(m - d_an)]+, mean over anchors.

    Anchors without a positive or without a negative are left out; neither squared nor halved.
    """
    d = distances(x, kind, normalize)
    terms = []
    for a in anchor_rows(labels, anchors):
        pos, neg = positives(labels, a), negatives(labels, a)
        if pos and neg:
            pull = log_sum_exp([d[a][p] for p in pos])
            push = log_sum_exp([margin - d[a][n] for n in neg])
            terms.append(max(0.0, pull + push))
    return mean(terms)


def multi_similarity(
    x: Rows,
    labels: Labels,
    alpha: float,
    beta: float,
    base: float,
    epsilon: float | None = None,
    anchors: int | None = None,
) -> float:
    """Wang 2019 eq 15, with the pairs of eq 11-12 if epsilon is given; 1/m over ALL m anchors.

    An anchor that kept no pair counts 0 in that mean (so mining out everything gives 0).
    """
    s = similarities(x)
    rows = list(anchor_rows(labels, anchors))
    pos_pairs = {(i, k) for i in rows for k in positives(labels, i)}
    neg_pairs = {(i, k) for i in rows for k in negatives(labels, i)}
    if not pos_pairs | neg_pairs:
        raise ValueError("no pair")
    if epsilon is not None:
        pos_pairs, neg_pairs = multi_similarity_pairs(x, labels, epsilon, anchors)
    terms = []
    for i in rows:
        pull = [-alpha * (s[i][k] - base) for j, k in sorted(pos_pairs) if j == i]
        push = [beta * (s[i][k] - base) for j, k in sorted(neg_pairs) if j == i]
        terms.append(log_one_plus(pull) / alpha + log_one_plus(push) / beta)
    return mean(terms)


def supcon(x: Rows, labels: Labels, temperature: float, anchors: int | None = None) -> float:
    """Khosla 2020 eq 2, L_out, mean over the anchors that have a positive; no T/T_base factor."""
    s = [[v / temperature for v in row] for row in similarities(x)]
    terms = []
    for i in anchor_rows(labels, anchors):
        total = [s[i][k] for k in range(len(x)) if k != i]
        pos = positives(labels, i)
        if pos:
            terms.append(-mean([s[i][p] - log_sum_exp(total) for p in pos]))
    return mean(terms)


def class_nt_xent(x: Rows, labels: Labels, temperature: float, anchors: int | None = None) -> float:
    """SimCLR eq 1 with class labels: mean over ordered positive pairs; the denominator holds
    this positive and all negatives, not the other positives."""
    s = [[v / temperature for v in row] for row in similarities(x)]
    terms = []
    for i in anchor_rows(labels, anchors):
        neg = negatives(labels, i)
        for p in positives(labels, i) if neg else []:
            terms.append(-(s[i][p] - log_sum_exp([s[i][p]] + [s[i][n] for n in neg])))
    return mean(terms)


def circle(
    x: Rows,
    labels: Labels,
    m: float,
    gamma: float,
    anchors: int | None = None,
    weights_from: Rows | None = None,
) -> float:
    """Sun 2020 eq 6: one term per anchor that has both a positive and a negative; their mean.

    `weights_from`: rows that give alpha (default x); held fixed, slopes are of detached alpha.
    """
    s = similarities(x)
    w = s if weights_from is None else similarities(weights_from)
    terms = []
    for i in anchor_rows(labels, anchors):
        pos, neg = positives(labels, i), negatives(labels, i)
        if pos and neg:
            push = [gamma * max(0.0, w[i][n] + m) * (s[i][n] - m) for n in neg]
            pull = [-gamma * max(0.0, 1 + m - w[i][p]) * (s[i][p] - (1 - m)) for p in pos]
            terms.append(log_one_plus([u + v for u in push for v in pull]))
    return mean(terms)


# ---- a row of weights, or a proxy, for each class ----
def _classify(
    cosines: Rows, targets: list[float], labels: Labels, scale: float, anchors: int | None
) -> float:
    """Mean cross-entropy of scale * cosines, the true class's cosine replaced by its target."""
    terms = []
    for i in anchor_rows(labels, anchors):
        logits = [scale * c for c in cosines[i]]
        logits[labels[i]] = scale * targets[i]
        terms.append(log_sum_exp(logits) - logits[labels[i]])
    return mean(terms)


def arcface(
    x: Rows,
    labels: Labels,
    weights: Rows,
    margin_radians: float,
    scale: float,
    anchors: int | None = None,
) -> float:
    """Deng 2019 eq 3: target cos(theta + m); beyond theta = pi - m, cos(theta) - m sin(m)."""
    cosines = [[cosine(v, w) for w in weights] for v in x]
    targets = []
    for i in range(len(x)):
        theta = math.acos(max(-1.0, min(1.0, cosines[i][labels[i]])))
        if theta <= math.pi - margin_radians:
            targets.append(math.cos(theta + margin_radians))
        else:
            targets.append(math.cos(theta) - margin_radians * math.sin(margin_radians))
    return _classify(cosines, targets, labels, scale, anchors)


def cosface(
    x: Rows, labels: Labels, weights: Rows, margin: float, scale: float, anchors: int | None = None
) -> float:
    """Wang (CosFace) 2018 eq 4: target cos(theta) - m."""
    cosines = [[cosine(v, w) for w in weights] for v in x]
    targets = [cosines[i][labels[i]] - margin for i in range(len(x))]
    return _classify(cosines, targets, labels, scale, anchors)


def proxy_anchor(x: Rows, labels: Labels, proxies: Rows, margin: float, alpha: float) -> float:
    """Kim 2020 eq 4: pull averaged over the proxies present in the batch, push over all proxies.

    The proxies are the anchors, so there is no `anchors` here. Empty batch: an error.
    """
    pulls, pushes = [], []
    for c, proxy in enumerate(proxies):
        pos = [cosine(v, proxy) for v, label in zip(x, labels, strict=True) if label == c]
        neg = [cosine(v, proxy) for v, label in zip(x, labels, strict=True) if label != c]
        if pos:
            pulls.append(log_one_plus([-alpha * (s - margin) for s in pos]))
        pushes.append(log_one_plus([alpha * (s + margin) for s in neg]))
    return mean(pulls) + mean(pushes)
