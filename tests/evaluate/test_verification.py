"""Verification against counting every pair."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.evaluation import auc, best_threshold, eer, kfold_accuracy, tar_at_far
from sklearn.metrics import roc_auc_score

from selfsup.core.numerics import normalize
from selfsup.evaluate.verification import (
    Curve,
    best_accepted,
    fold_accuracies,
    fold_balanced_accuracies,
    label_pairs,
)

VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text())
PAIRS = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30).filter(
    lambda pairs: 0 < sum(same for _, same in pairs) < len(pairs)
)


@settings(max_examples=100, deadline=None)
@given(PAIRS, st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.5, 0.99]))
def test_rates_are_those_of_counting_also_with_ties(
    pairs: list[tuple[int, bool]], target: float
) -> None:
    scores, same = [float(s) for s, _ in pairs], [truth for _, truth in pairs]
    curve = Curve(torch.tensor(scores), torch.tensor(same))
    point = curve.at_far(target)
    tar, _, far = tar_at_far(scores, same, target)
    assert (point.tar, point.far) == pytest.approx((tar, far))
    assert point.far <= target
    assert curve.auc == pytest.approx(auc(scores, same))
    assert curve.auc == pytest.approx(roc_auc_score(same, scores))
    assert curve.eer == pytest.approx(eer(scores, same))


def test_the_threshold_accepts_what_is_above_it() -> None:
    curve = Curve(torch.tensor([0.9, 0.8, 0.5, 0.4]), torch.tensor([True, False, True, False]))
    assert curve.at_far(0.0) == pytest.approx((0.8, 0.5, 0.0))
    assert curve.at_far(0.5) == pytest.approx((0.4, 1.0, 0.5))
    assert (curve.at_far(1.0).tar, curve.at_far(1.0).far) == (1.0, 1.0)


@settings(max_examples=50, deadline=None)
@given(PAIRS.filter(lambda pairs: len(pairs) >= 4), st.integers(2, 4))
def test_each_fold_has_its_threshold_from_the_others(
    pairs: list[tuple[int, bool]], folds: int
) -> None:
    scores, same = [float(s) for s, _ in pairs], [truth for _, truth in pairs]
    accuracies = fold_accuracies(torch.tensor(scores), torch.tensor(same), folds)
    assert accuracies.tolist() == pytest.approx(kfold_accuracy(scores, same, folds))
    assert best_accepted(torch.tensor(scores), torch.tensor(same)) == best_threshold(scores, same)


@pytest.mark.parametrize("target", ["0.1", "0.01", "0.001"])
def test_rates_are_those_of_the_reference_vectors(target: str) -> None:
    x = normalize(torch.tensor(VECTORS["inputs"]["E"], dtype=torch.float64))
    labels = torch.tensor(VECTORS["inputs"]["labels"])
    pairs, same = label_pairs(labels, most=10**6, seed=0)
    distances = (x[pairs[:, 0]] - x[pairs[:, 1]]).square().sum(1)
    expected = VECTORS["metrics"]["verification_all_pairs_sqL2_norm"]
    assert int(same.sum()) == expected["num_pos"]
    assert int((~same).sum()) == expected["num_neg"]
    point = Curve(-distances, same).at_far(float(target))
    theirs = expected["tar_at_far"][target]
    assert -point.threshold == pytest.approx(theirs["threshold"], abs=1e-9)
    assert (point.tar, point.far) == pytest.approx((theirs["TAR"], theirs["FAR"]))


def test_pairs_of_one_kind_alone_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 pairs of one label and 0 of two"):
        Curve(torch.ones(3), torch.ones(3, dtype=torch.bool))


def test_fewer_pairs_than_folds_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 pairs do not make 10 folds"):
        fold_accuracies(torch.ones(3), torch.ones(3, dtype=torch.bool))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=2, max_size=25), st.integers(1, 400), st.integers(0, 99)
)
def test_pairs_of_labels_are_different_pairs_and_as_many_as_there_are(
    labels: list[int], most: int, seed: int
) -> None:
    y = torch.tensor(labels)
    pairs, same = label_pairs(y, most=most, seed=seed)
    listed = [tuple(pair) for pair in pairs.tolist()]
    assert len(set(listed)) == len(listed)
    assert all(0 <= i < j < len(labels) for i, j in listed)
    assert same.tolist() == [labels[i] == labels[j] for i, j in listed]
    n = len(labels)
    positive = sum(labels[i] == labels[j] for i in range(n) for j in range(i + 1, n))
    assert int(same.sum()) == min(most, positive)
    assert int((~same).sum()) == min(most, n * (n - 1) // 2 - positive)
    assert torch.equal(label_pairs(y, most=most, seed=seed)[0], pairs)


def test_pairs_of_two_labels_are_found_at_once_where_they_are_rare() -> None:
    labels = torch.zeros(60000, dtype=torch.int64)
    labels[[7, 59999]] = 1
    pairs, same = label_pairs(labels, most=1000, seed=0)
    two = pairs[~same]
    assert len(two) == 1000
    assert len({tuple(pair) for pair in two.tolist()}) == 1000
    assert (labels[two[:, 0]] != labels[two[:, 1]]).all()


def balanced(scores: list[float], same: list[bool], threshold: float) -> float:
    """The mean over kinds of pairs of the fraction that is right."""
    kinds = []
    for kind in (True, False):
        right = [(s >= threshold) == kind for s, t in zip(scores, same, strict=True) if t == kind]
        if right:
            kinds.append(sum(right) / len(right))
    return sum(kinds) / len(kinds)


@settings(max_examples=50, deadline=None)
@given(PAIRS.filter(lambda pairs: len(pairs) >= 8), st.integers(2, 4))
def test_balanced_accuracy_is_that_of_counting_each_kind(
    pairs: list[tuple[int, bool]], folds: int
) -> None:
    scores, same = [float(s) for s, _ in pairs], [truth for _, truth in pairs]
    expected = []
    for fold in range(folds):
        rest = [i for i in range(len(scores)) if i % folds != fold]
        few, truth = [scores[i] for i in rest], [same[i] for i in rest]
        if len(set(truth)) < 2:
            return
        best = max(balanced(few, truth, t) for t in [*few, math.inf])
        threshold = max(  # of equally good ones the highest
            t for t in [*few, math.inf] if balanced(few, truth, t) > best - 1e-9
        )
        expected.append(balanced(scores[fold::folds], same[fold::folds], threshold))
    actual = fold_balanced_accuracies(torch.tensor(scores), torch.tensor(same), folds)
    assert actual.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("different", [20, 200, 2000])
def test_balanced_accuracy_of_noise_is_a_half_whatever_the_mixture(different: int) -> None:
    g = torch.Generator().manual_seed(0)
    same = torch.arange(different + 20) < 20
    order = torch.randperm(len(same), generator=g)
    scores = torch.rand(len(same), generator=g)
    accuracy = fold_balanced_accuracies(scores[order], same[order]).mean()
    assert float(accuracy) == pytest.approx(0.5, abs=0.15)
    collapsed = fold_balanced_accuracies(torch.ones(len(same)), same[order]).mean()
    assert float(collapsed) == pytest.approx(0.5, abs=0.15)
