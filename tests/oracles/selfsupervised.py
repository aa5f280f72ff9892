"""Self-supervised losses without labels, LARS and the moving teacher, as nested loops over floats.

Oracles for tests: slow, literal, float64, standard library only. Rows are [n][width]; a list of
Rows is one entry per view, row i of every view being image i. "At length 1": `unit`. No valid
term raises ValueError.
"""

import math

from oracles.mining import Row, Rows, cosine, dot, log_sum_exp, mean, unit


def columns(x: Rows) -> Rows:
    """The columns as rows."""
    return [[row[k] for row in x] for k in range(len(x[0]))]


def log_softmax(x: Row, temperature: float) -> Row:
    """Logarithm of exp(x_k/T) / sum_j exp(x_j/T)."""
    total = log_sum_exp([v / temperature for v in x])
    return [v / temperature - total for v in x]


def soft_cross_entropy(targets: Rows, logits: Rows, temperature: float) -> float:
    """Mean over the rows of -sum_k target_k log softmax(logits/T)_k."""
    pairs = zip(targets, logits, strict=True)
    return mean([-dot(t, log_softmax(x, temperature)) for t, x in pairs])


def contrast(anchors: Rows, candidates: Rows, temperature: float) -> float:
    """Cross entropy of anchor i against all candidates at length 1, the i-th its positive; mean."""
    table = [[cosine(a, c) for c in candidates] for a in anchors]
    return mean([-log_softmax(row, temperature)[i] for i, row in enumerate(table)])


def cov(x: Row, y: Row, count: int) -> float:
    """sum_b (x_b - mean x) (y_b - mean y) / count."""
    mx, my = mean(x), mean(y)
    return math.fsum((p - mx) * (q - my) for p, q in zip(x, y, strict=True)) / count


def cosine_regression(p: Rows, z: Rows) -> float:
    """BYOL (Grill 2020) eq 2, one direction: mean over the rows of 2 - 2 cos(p_i, z_i)."""
    return mean([2 - 2 * cosine(x, y) for x, y in zip(p, z, strict=True)])


def negative_cosine(p: Rows, z: Rows) -> float:
    """SimSiam (Chen 2021) eq 1, one direction: mean over the rows of -cos(p_i, z_i)."""
    return mean([-cosine(x, y) for x, y in zip(p, z, strict=True)])


def moco_v3(q1: Rows, q2: Rows, k1: Rows, k2: Rows, temperature: float) -> float:
    """MoCo v3 (Chen 2021) Algorithm 1: the SUM of ctr(q1, k2) and ctr(q2, k1), each times 2 T."""
    return 2 * temperature * (contrast(q1, k2, temperature) + contrast(q2, k1, temperature))


def nnclr(p1: Rows, p2: Rows, z1: Rows, z2: Rows, support: Rows, temperature: float) -> float:
    """NNCLR (Dwibedi 2021) eq 3-4: NN(z1_i) against the rows of p2, NN(z2_i) against p1; mean."""
    near1 = [max(support, key=lambda row: cosine(z, row)) for z in z1]
    near2 = [max(support, key=lambda row: cosine(z, row)) for z in z2]
    return contrast(near1, p2, temperature) / 2 + contrast(near2, p1, temperature) / 2


def barlow_twins(a: Rows, b: Rows, off_diagonal: float, scale: float, eps: float = 1e-5) -> float:
    """Zbontar 2021 eq 1-2: scale * (sum_i (1 - C_ii)^2 + off_diagonal * sum_{i != j} C_ij^2).

    C_ij is the correlation of columns a_i, b_j, deviations sqrt(biased variance + eps) (BatchNorm).
    """
    n, total = len(a), 0.0
    for i, x in enumerate(columns(a)):
        for j, y in enumerate(columns(b)):
            c = cov(x, y, n) / math.sqrt(cov(x, x, n) + eps) / math.sqrt(cov(y, y, n) + eps)
            total += (1 - c) ** 2 if i == j else off_diagonal * c**2
    return scale * total


def vicreg(
    a: Rows,
    b: Rows,
    invariance: float,
    variance: float,
    covariance: float,
    target: float = 1.0,
    eps: float = 1e-4,
) -> float:
    """VICReg (Bardes 2022) eq 1-6, with the authors' code's mean over dims of s and halves of v.

    v = mean over dims of [target - sqrt(var + eps)]+, c = 1/d sum_{i != j} cov_ij^2, both n - 1.
    """
    n, dims = len(a), range(len(a[0]))
    s = mean([(x[k] - y[k]) ** 2 for x, y in zip(a, b, strict=True) for k in dims])
    v = c = 0.0
    for x in (columns(a), columns(b)):
        v += mean([max(0.0, target - math.sqrt(cov(x[k], x[k], n - 1) + eps)) for k in dims]) / 2
        off = [cov(x[i], x[j], n - 1) ** 2 for i in dims for j in dims if i != j]
        c += math.fsum(off) / len(dims)
    return invariance * s + variance * v + covariance * c


def tico(a: Rows, b: Rows, covariance: Rows, beta: float, rho: float) -> tuple[float, Rows]:
    """TiCo (Zhu 2022): 1 - mean a_i.b_i + rho * mean a_i^T C a_i, rows at length 1; and the new C.

    C = beta * covariance + (1 - beta) * 1/n sum_i a_i a_i^T, the C of this step.
    """
    a, b = [unit(x) for x in a], [unit(y) for y in b]
    dims = range(len(a[0]))
    batch = [[mean([x[i] * x[j] for x in a]) for j in dims] for i in dims]
    c = [[beta * covariance[i][j] + (1 - beta) * batch[i][j] for j in dims] for i in dims]
    agreement = mean([dot(x, y) for x, y in zip(a, b, strict=True)])
    energy = mean([math.fsum(x[i] * c[i][j] * x[j] for i in dims for j in dims) for x in a])
    return 1 - agreement + rho * energy, c


def sinkhorn(scores: Rows, epsilon: float, rounds: int) -> Rows:
    """SwAV (Caron 2020) appendix A, in logs: codes [n][k] of scores [n][k], each row sums to 1.

    Q = exp(scores/epsilon), total 1; a round: prototypes sum to 1/K, then samples to 1/B.
    """
    n, kinds = len(scores), len(scores[0])
    total = log_sum_exp([s / epsilon for row in scores for s in row])
    q = [[s / epsilon - total for s in row] for row in scores]
    for _ in range(rounds):
        for k in range(kinds):
            mass = log_sum_exp([row[k] for row in q]) + math.log(kinds)
            for row in q:
                row[k] -= mass
        q = [[v - log_sum_exp(row) - math.log(n) for v in row] for row in q]
    return [[math.exp(v - log_sum_exp(row)) for v in row] for row in q]


def swav(
    z: list[Rows],
    prototypes: Rows,
    temperature: float,
    epsilon: float,
    rounds: int,
    codes: int = 2,
    queue: Rows | None = None,
) -> float:
    """SwAV (Caron 2020) eq 1-2: codes of each of the first `codes` views, predicted by the others.

    Rows, prototypes and queue at length 1. Mean over code views of the mean over the other views
    of the mean over images of -sum_k q_k log softmax(s/T)_k. The queue only shapes the codes.
    """
    tables = [[[cosine(x, c) for c in prototypes] for x in view] for view in z]
    queued = [[cosine(x, c) for c in prototypes] for x in queue or []]
    terms = []
    for code in range(codes):
        q = sinkhorn(tables[code] + queued, epsilon, rounds)[: len(z[code])]
        others = [tables[view] for view in range(len(z)) if view != code]
        terms.append(mean([soft_cross_entropy(q, s, temperature) for s in others]))
    return mean(terms)


def dino(
    students: list[Rows],
    teachers: list[Rows],
    centre: Row,
    student_temperature: float,
    teacher_temperature: float,
) -> float:
    """DINO (Caron 2021) eq 3 on logits: mean over the pairs of different views, then over images.

    Targets softmax((teacher - centre)/Tt); teacher view t and student view t are the same picture.
    """
    terms = []
    for t, view in enumerate(teachers):
        centred = [[v - c for v, c in zip(row, centre, strict=True)] for row in view]
        targets = [[math.exp(v) for v in log_softmax(row, teacher_temperature)] for row in centred]
        others = [students[s] for s in range(len(students)) if s != t]
        terms += [soft_cross_entropy(targets, x, student_temperature) for x in others]
    return mean(terms)


def dino_centre(centre: Row, teachers: list[Rows], momentum: float) -> Row:
    """DINO (Caron 2021) eq 4: m c + (1 - m) * mean over the images of all teacher views."""
    means = [mean(column) for column in columns([row for view in teachers for row in view])]
    return [momentum * c + (1 - momentum) * m for c, m in zip(centre, means, strict=True)]


def epps_pulley(x: list[float], points: int = 17, limit: float = 5.0) -> float:
    """LeJEPA (Balestriero 2025) Algorithm 1: N * integral of |phi_N - phi|^2 phi over [-l, l].

    phi_N(t) = mean exp(i t x), phi(t) = exp(-t^2/2); trapezoid rule over `points` even points.
    """
    step = 2 * limit / (points - 1)
    area = 0.0
    for k in range(points):
        t = -limit + k * step
        phi = math.exp(-(t**2) / 2)
        real = mean([math.cos(t * v) for v in x]) - phi
        imaginary = mean([math.sin(t * v) for v in x])
        width = step / 2 if k in (0, points - 1) else step
        area += width * (real**2 + imaginary**2) * phi
    return len(x) * area


def sigreg(z: Rows, directions: Rows, points: int = 17, limit: float = 5.0) -> float:
    """LeJEPA (Balestriero 2025): mean over directions, at length 1, of epps_pulley of z.u."""
    return mean([epps_pulley([dot(x, unit(u)) for x in z], points, limit) for u in directions])


def lejepa(z: list[Rows], directions: Rows, global_views: int, weight: float) -> float:
    """LeJEPA (Balestriero 2025) Algorithm 2: (1 - weight) * prediction + weight * mean sigreg.

    Prediction: mean over views, images and dims of (centre - z)^2, centre: mean of the first views.
    """
    squares = []
    for view in z:
        for i, row in enumerate(view):
            centre = [mean([other[i][k] for other in z[:global_views]]) for k in range(len(row))]
            squares += [(c - v) ** 2 for c, v in zip(centre, row, strict=True)]
    regulariser = mean([sigreg(view, directions) for view in z])
    return (1 - weight) * mean(squares) + weight * regulariser


def lars_steps(
    weights: list[Row],
    gradients: list[list[Row]],
    lr: float,
    momentum: float,
    weight_decay: float,
    trust: float,
    adapted: list[bool],
) -> list[Row]:
    """LARS (You 2017) as the BYOL and Barlow Twins code: gradients[step][tensor]; the last weights.

    u = g + wd w, times trust |w|/|u| if both > 0 (not adapted: g); m = momentum m + u; w -= lr m.
    """
    weights = [list(w) for w in weights]
    buffers = [[0.0 for _ in w] for w in weights]
    for step in gradients:
        for i, g in enumerate(step):
            w, u, ratio = weights[i], list(g), 1.0
            if adapted[i]:
                u = [x + weight_decay * y for x, y in zip(g, w, strict=True)]
                size, update = math.sqrt(dot(w, w)), math.sqrt(dot(u, u))
                if size > 0 and update > 0:
                    ratio = trust * size / update
            buffers[i] = [momentum * m + ratio * x for m, x in zip(buffers[i], u, strict=True)]
            weights[i] = [x - lr * m for x, m in zip(w, buffers[i], strict=True)]
    return weights


def teacher_after(teacher: Row, students: list[Row], momenta: list[float]) -> Row:
    """BYOL (Grill 2020) eq 1 for each step: t = m t + (1 - m) s."""
    for student, m in zip(students, momenta, strict=True):
        teacher = [m * t + (1 - m) * s for t, s in zip(teacher, student, strict=True)]
    return list(teacher)


def ibot(
    students: Rows,
    teachers: Rows,
    centre: Row,
    weights: Row,
    student_temperature: float,
    teacher_temperature: float,
) -> float:
    """iBOT (Zhou 2022) eq 2 on logits of patches: sum of weight * -sum_k P_t,k log P_s,k.

    P_t = softmax((teacher - centre)/Tt). Weight 1 / (masked of its view) / views: the mean over
    views of the mean over masked patches.
    """
    total = 0.0
    for student, teacher, weight in zip(students, teachers, weights, strict=True):
        centred = [v - c for v, c in zip(teacher, centre, strict=True)]
        target = [math.exp(v) for v in log_softmax(centred, teacher_temperature)]
        total -= weight * dot(target, log_softmax(student, student_temperature))
    return total


def koleo(x: Rows, eps: float = 1e-8) -> float:
    """KoLeo (Sablayrolles 2019): -1/n sum_i log(min_{j != i} |x_i - x_j| + eps), at length 1."""
    x = [unit(row) for row in x]
    nearest = [min(math.dist(a, b) for j, b in enumerate(x) if j != i) for i, a in enumerate(x)]
    return -mean([math.log(distance + eps) for distance in nearest])


def mae(predictions: list[Rows], pixels: list[Rows], eps: float = 1e-6) -> float:
    """MAE (He 2022): mean over images and masked patches of (prediction - normalised pixels)^2.

    Each patch less its mean, over sqrt(variance + eps), the variance with n - 1 (the paper's code).
    """
    errors = []
    for patches, image in zip(predictions, pixels, strict=True):
        for guess, patch in zip(patches, image, strict=True):
            spread = math.sqrt(cov(patch, patch, len(patch) - 1) + eps)
            target = [(v - mean(patch)) / spread for v in patch]
            errors.append(mean([(g - t) ** 2 for g, t in zip(guess, target, strict=True)]))
    return mean(errors)
