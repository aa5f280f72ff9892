"""Evaluation by the definitions: plain loops in float64, one query, one pair, one row at a time.

Written from the papers and protocols, without sight of the package. Where sources disagree, the
docstring says which one is followed. numpy serves for singular values and eigenvalues only.

Shape letters: n rows, d embedding width, q queries, g gallery rows.
"""

import math
from collections.abc import Sequence

# Nearest neighbours


def knn_votes(
    similar: list[float], labels: list[int], k: int, temperature: float
) -> dict[int, float]:
    """Sum of exp(s / temperature) per label over the k nearest (InstDisc, Wu et al. 2018).

    Rows tied at the k-th place divide the remaining places; k is clipped to the number of rows.
    """
    k = min(k, len(similar))
    last = sorted(similar, reverse=True)[k - 1]
    places = k - sum(s > last for s in similar)
    tied = sum(s == last for s in similar)
    votes: dict[int, float] = {}
    for s, label in zip(similar, labels, strict=True):
        if s >= last:
            fraction = 1.0 if s > last else places / tied
            votes[label] = votes.get(label, 0.0) + fraction * math.exp(s / temperature)
    return votes


def knn_prediction(similar: list[float], labels: list[int], k: int, temperature: float) -> int:
    """The label with most votes; the smaller one of labels that are equal to a part in 1e9."""
    votes = knn_votes(similar, labels, k, temperature)
    most = max(votes.values())
    return min(label for label, vote in votes.items() if math.isclose(vote, most, rel_tol=1e-9))


# Retrieval


def ranked_matches(similar: list[float], match: list[bool], valid: list[bool]) -> list[bool]:
    """Whether each valid row matches, nearest first; of equal rows those that do not come first."""
    rows = [(-s, m) for s, m, v in zip(similar, match, valid, strict=True) if v]
    return [m for _, m in sorted(rows)]


def retrieval_of_query(
    similar: list[float], match: list[bool], valid: list[bool], ks: Sequence[int]
) -> dict[str, float] | None:
    """All figures of one query; None if no valid row matches.

    MAP@R: Musgrave et al. 2020. CMC@k is `first <= k`. precision@k divides by k always.
    """
    ranked = ranked_matches(similar, match, valid)
    ranks = [i for i, m in enumerate(ranked, start=1) if m]
    if not ranks:
        return None
    r = len(ranks)
    figures = {f"recall@{k}": float(any(ranked[:k])) for k in ks}
    figures |= {f"precision@{k}": sum(ranked[:k]) / k for k in ks}
    figures["r_precision"] = sum(ranked[:r]) / r
    figures["map_at_r"] = sum(j / i for j, i in enumerate(ranks, start=1) if i <= r) / r
    figures["ap"] = sum(j / i for j, i in enumerate(ranks, start=1)) / r
    figures["ap_trapezoid"] = trapezoid(ranks)
    figures["first"] = float(ranks[0])
    figures["reciprocal"] = 1 / ranks[0]
    return figures


def trapezoid(ranks: list[int]) -> float:
    """Area under precision over recall by trapezoids (Oxford's compute_ap.cpp, Market-1501's)."""
    area = 0.0
    for j, i in enumerate(ranks, start=1):
        before = 1.0 if i == 1 else (j - 1) / (i - 1)
        area += (before + j / i) / 2
    return area / len(ranks)


# Verification: a pair is accepted if its score is at least the threshold


def accepted(scores: list[float], same: list[bool], threshold: float, of: bool) -> float:
    """The fraction of the pairs whose `same` is `of` that are accepted: TAR if true, FAR if not."""
    chosen = [s for s, t in zip(scores, same, strict=True) if t == of]
    return sum(s >= threshold for s in chosen) / len(chosen)


def thresholds(scores: list[float]) -> list[float]:
    """The scores seen, ascending, and infinity, which accepts none."""
    return [*sorted(set(scores)), math.inf]


def tar_at_far(scores: list[float], same: list[bool], far: float) -> tuple[float, float, float]:
    """TAR, threshold and actual FAR at the smallest threshold whose FAR is at most `far`.

    The actual FAR is often below the target: nothing is interpolated between thresholds.
    """
    for threshold in thresholds(scores):
        actual = accepted(scores, same, threshold, of=False)
        if actual <= far:
            return accepted(scores, same, threshold, of=True), threshold, actual
    raise AssertionError("infinity accepts none")


def auc(scores: list[float], same: list[bool]) -> float:
    """The chance that a same pair scores above another; ties count half (Hanley & McNeil 1982)."""
    pairs = list(zip(scores, same, strict=True))
    wins = [
        1.0 if p > n else 0.5 if p == n else 0.0
        for p, is_same in pairs
        if is_same
        for n, is_too in pairs
        if not is_too
    ]
    return sum(wins) / len(wins)


def eer(scores: list[float], same: list[bool]) -> float:
    """Where FAR meets FRR = 1 - TAR, on straight lines between neighbouring points of the ROC.

    The points are those of `thresholds`, in order: FAR - FRR falls strictly, from 1 to -1.
    """
    old_far, old_gap = 1.0, 1.0
    for threshold in thresholds(scores):
        far = accepted(scores, same, threshold, of=False)
        gap = far - (1 - accepted(scores, same, threshold, of=True))
        if gap <= 0:
            return old_far + (far - old_far) * old_gap / (old_gap - gap)
        old_far, old_gap = far, gap
    raise AssertionError("infinity accepts none")


def correct(scores: list[float], same: list[bool], threshold: float) -> int:
    """Number of pairs that are classified correctly."""
    return sum((s >= threshold) == t for s, t in zip(scores, same, strict=True))


def best_threshold(scores: list[float], same: list[bool]) -> float:
    """The threshold that tells most pairs right; the largest of equally good ones."""
    return max(thresholds(scores), key=lambda t: (correct(scores, same, t), t))


def kfold_accuracy(scores: list[float], same: list[bool], folds: int) -> list[float]:
    """Accuracy of each fold, pairs i::folds, at the best threshold of the rest (LFW, 2007)."""
    accuracies = []
    for fold in range(folds):
        rest = [i for i in range(len(scores)) if i % folds != fold]
        threshold = best_threshold([scores[i] for i in rest], [same[i] for i in rest])
        held = scores[fold::folds]
        accuracies.append(correct(held, same[fold::folds], threshold) / len(held))
    return accuracies
