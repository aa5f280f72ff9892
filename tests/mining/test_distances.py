"""Batch-hard mining against Hermans' equation 5 in loops."""

import math
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup.losses.measures import Distance
from selfsup.mining.distances import batch_hard

DISTANCES = [
    Distance(normalize=False),
    Distance(normalize=True),
    Distance(kind="squared", normalize=False),
    Distance(kind="cosine"),
]
RAW = Distance(normalize=False)


def between(x: list[float], y: list[float], distance: Distance) -> float:
    """One distance; a zero row stays zero when scaled, at a cosine distance of 1/2 from others."""
    if distance.normalize or distance.kind == "cosine":
        x = [value / (math.hypot(*x) or 1) for value in x]
        y = [value / (math.hypot(*y) or 1) for value in y]
    if distance.kind == "cosine":
        return math.dist(x, y) ** 2 / 2
    return math.dist(x, y) ** (2 if distance.kind == "squared" else 1)


def hardest_by_loops(
    rows: list[list[float]], labels: list[int], distance: Distance
) -> list[tuple[int, float, float]]:
    """Each valid anchor, the distance to its farthest positive and to its nearest negative."""
    triplets = []
    for i, row in enumerate(rows):
        positives: list[float] = []
        negatives: list[float] = []
        for j, other in enumerate(rows):
            if j != i:
                same = labels[i] == labels[j]
                (positives if same else negatives).append(between(row, other, distance))
        if positives and negatives:
            triplets.append((i, max(positives), min(negatives)))
    return triplets


# Points of a small grid: equal rows and equal distances are common.
POINTS = st.lists(
    st.tuples(st.integers(-2, 2), st.integers(-2, 2), st.sampled_from([0, 1, 2, 7])),
    min_size=1,
    max_size=10,
)


@settings(max_examples=25, deadline=None)
@given(points=POINTS, distance=st.sampled_from(DISTANCES))
def test_batch_hard_finds_the_hardest_of_each_class(
    points: list[tuple[int, int, int]], distance: Distance
) -> None:
    rows = [[float(x), float(y)] for x, y, _ in points]
    labels = [label for _, _, label in points]
    anchors, positives, negatives = batch_hard(
        torch.tensor(rows, dtype=torch.float64), torch.tensor(labels), distance=distance
    )
    expected = hardest_by_loops(rows, labels, distance)
    assert anchors.tolist() == [anchor for anchor, _, _ in expected]
    # Distances, not indices: among equals any one may be chosen.
    for a, p, n, (_, farthest, nearest) in zip(
        anchors.tolist(), positives.tolist(), negatives.tolist(), expected, strict=True
    ):
        assert p != a
        assert labels[p] == labels[a] != labels[n]
        assert between(rows[a], rows[p], distance) == pytest.approx(farthest, abs=1e-7)
        assert between(rows[a], rows[n], distance) == pytest.approx(nearest, abs=1e-7)


def test_batch_hard_of_points_on_a_line_can_be_seen() -> None:
    x = torch.tensor([[0.0], [1.0], [4.0], [5.0], [9.0]])
    labels = torch.tensor([3, 3, 3, 8, 8])
    anchors, positives, negatives = batch_hard(x, labels, distance=RAW)
    assert anchors.tolist() == [0, 1, 2, 3, 4]
    assert positives.tolist() == [2, 2, 0, 4, 3]
    assert negatives.tolist() == [3, 3, 3, 2, 2]


def test_an_image_alone_in_its_class_is_a_negative_but_no_anchor() -> None:
    x = torch.tensor([[0.0], [1.0], [3.0]])
    anchors, positives, negatives = batch_hard(x, torch.tensor([5, 5, -1]), distance=RAW)
    assert (anchors.tolist(), positives.tolist(), negatives.tolist()) == ([0, 1], [1, 0], [2, 2])


@pytest.mark.parametrize("labels", [[4, 4, 4], [0, 1, 2]])
def test_a_batch_of_one_class_or_of_singletons_has_no_triplets(labels: list[int]) -> None:
    triplets = batch_hard(torch.eye(3), torch.tensor(labels), distance=Distance())
    assert [indices.tolist() for indices in triplets] == [[], [], []]
    assert {indices.dtype for indices in triplets} == {torch.int64}


def test_an_equal_row_is_a_positive_but_a_row_is_never_its_own() -> None:
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0], [1.0, 2.0], [3.0, 0.0]])
    anchors, positives, _ = batch_hard(x, torch.tensor([0, 0, 1, 1]), distance=RAW)
    assert anchors.tolist() == [0, 1, 2, 3]
    assert positives.tolist() == [1, 0, 3, 2]


@pytest.mark.parametrize("kind", ["euclidean", "squared", "cosine"])
def test_a_negative_equal_to_the_anchor_is_the_nearest(
    kind: Literal["euclidean", "squared", "cosine"],
) -> None:
    x = torch.tensor([[1.0, 2.0], [2.0, 1.0], [1.0, 2.1], [1.0, 2.0]])
    _, _, negatives = batch_hard(x, torch.tensor([0, 0, 1, 1]), distance=Distance(kind=kind))
    assert negatives[0] == 3


def test_normalising_changes_which_positive_is_farthest() -> None:
    # Row 1 is far along the same direction, row 2 near but at a right angle.
    x = torch.tensor([[1.0, 0.0], [9.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 0, 0, 1])
    assert batch_hard(x, labels, distance=Distance(normalize=False))[1][0] == 1
    assert batch_hard(x, labels, distance=Distance(normalize=True))[1][0] == 2


def test_mining_keeps_no_graph() -> None:
    x = torch.eye(4).requires_grad_()
    triplets = batch_hard(x, torch.tensor([0, 0, 1, 1]), distance=Distance())
    assert not any(indices.requires_grad for indices in triplets)
