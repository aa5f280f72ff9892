"""Triplet losses against their definition in loops, closed forms and reference values."""

import math
from itertools import product
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from selfsup.losses.measures import Distance
from selfsup.losses.triplet import triplet_gaps, triplet_margin, triplet_soft
from selfsup.mining.distances import batch_hard

Kind = Literal["euclidean", "squared", "cosine"]
KINDS: list[Kind] = ["euclidean", "squared", "cosine"]
DISTANCES = [Distance(kind=kind, normalize=unit) for kind, unit in product(KINDS, [True, False])]


def by_definition(x: list[float], y: list[float], distance: Distance) -> float:
    """One distance between two rows, coordinate by coordinate."""
    if distance.normalize or distance.kind == "cosine":
        length_x, length_y = math.hypot(*x), math.hypot(*y)
        x, y = [value / length_x for value in x], [value / length_y for value in y]
    if distance.kind == "cosine":
        return 1 - sum(p * q for p, q in zip(x, y, strict=True))
    squared = sum((p - q) ** 2 for p, q in zip(x, y, strict=True))
    return squared if distance.kind == "squared" else math.sqrt(squared)


def some_triplets(n: int, count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Three different rows at a time, whatever their classes: the loss does not ask."""
    rng = torch.Generator().manual_seed(seed)
    rows = torch.stack([torch.randperm(n, generator=rng)[:3] for _ in range(count)])
    return rows[:, 0], rows[:, 1], rows[:, 2]


def normal(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(3, 8),
    d=st.integers(1, 5),
    count=st.integers(1, 9),
    distance=st.sampled_from(DISTANCES),
    margin=st.sampled_from([0.0, 0.2, 1.0]),
    seed=st.integers(0, 999),
)
def test_triplet_losses_are_their_definition(
    n: int, d: int, count: int, distance: Distance, margin: float, seed: int
) -> None:
    x, triplets = normal(n, d, seed), some_triplets(n, count, seed)
    rows = x.tolist()
    expected = [
        by_definition(rows[a], rows[p], distance) - by_definition(rows[a], rows[q], distance)
        for a, p, q in zip(*(indices.tolist() for indices in triplets), strict=True)
    ]
    hinge = sum(max(gap + margin, 0) for gap in expected) / count
    soft = sum(math.log(1 + math.exp(gap)) for gap in expected) / count
    gaps = triplet_gaps(x, triplets, distance=distance)
    assert gaps.tolist() == pytest.approx(expected, abs=1e-9)
    assert triplet_margin(x, triplets, distance=distance, margin=margin).item() == pytest.approx(
        hinge, abs=1e-9
    )
    assert triplet_soft(x, triplets, distance=distance).item() == pytest.approx(soft, abs=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distance", DISTANCES)
def test_a_collapsed_batch_scores_the_margin_or_log_2_without_gradient(
    distance: Distance, dtype: torch.dtype
) -> None:
    same = torch.tensor([[0.3, -2.0, 0.7]], dtype=dtype).repeat(6, 1).requires_grad_()
    triplets = batch_hard(same, torch.tensor([0, 0, 0, 1, 1, 1]), distance=distance)
    for loss, expected in [
        (triplet_margin(same, triplets, distance=distance, margin=0.2), 0.2),
        (triplet_soft(same, triplets, distance=distance), math.log(2)),
    ]:
        (gradient,) = torch.autograd.grad(loss, same)
        assert loss.item() == pytest.approx(expected)
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-7)


def test_the_margin_loss_is_a_mean_over_all_triplets_also_the_satisfied() -> None:
    x = torch.tensor([[0.0], [1.0], [3.0]])
    triplets = torch.tensor([0, 0]), torch.tensor([1, 2]), torch.tensor([2, 1])
    # The first is satisfied (1 - 3 + 0.2 < 0), the second costs 3 - 1 + 0.2.
    loss = triplet_margin(x, triplets, distance=Distance(normalize=False), margin=0.2)
    assert loss.item() == pytest.approx(2.2 / 2)


def test_a_satisfied_triplet_has_margin_loss_zero_and_pulls_at_nothing() -> None:
    x = torch.tensor([[0.0], [1.0], [3.0]], requires_grad=True)
    triplet = torch.tensor([0]), torch.tensor([1]), torch.tensor([2])
    loss = triplet_margin(x, triplet, distance=Distance(normalize=False), margin=0.2)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.item() == 0
    assert (gradient == 0).all()


def test_descent_pulls_the_positive_nearer_and_pushes_the_negative_away() -> None:
    x = torch.tensor([[0.0], [3.0], [1.0]], requires_grad=True)
    triplet = torch.tensor([0]), torch.tensor([1]), torch.tensor([2])
    loss = triplet_margin(x, triplet, distance=Distance(normalize=False), margin=0.2)
    (gradient,) = torch.autograd.grad(loss, x)
    assert gradient.flatten().tolist() == [0, 1, -1]


@pytest.mark.parametrize("distance", DISTANCES)
def test_gradients_of_triplet_losses_are_those_of_finite_differences(distance: Distance) -> None:
    x, triplets = normal(6, 4).requires_grad_(), some_triplets(6, 5, seed=1)
    assert torch.autograd.gradcheck(
        lambda y: triplet_margin(y, triplets, distance=distance, margin=1.0), (x,)
    )
    assert torch.autograd.gradcheck(lambda y: triplet_soft(y, triplets, distance=distance), (x,))


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_positive_equal_to_its_anchor_leaves_gradients_finite(distance: Distance) -> None:
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0], [2.0, 1.9]], requires_grad=True)
    triplet = torch.tensor([0]), torch.tensor([1]), torch.tensor([2])
    loss = triplet_margin(x, triplet, distance=distance, margin=5.0)
    (gradient,) = torch.autograd.grad(loss, x)
    assert gradient.isfinite().all()
    assert (gradient[2] != 0).any()


def test_the_soft_margin_does_not_overflow() -> None:
    x = torch.tensor([[0.0], [1000.0], [0.0]])
    triplet = torch.tensor([0]), torch.tensor([1]), torch.tensor([2])
    loss = triplet_soft(x, triplet, distance=Distance(normalize=False))
    assert loss.item() == pytest.approx(1000)


def test_a_triplet_loss_without_triplets_is_an_error() -> None:
    none = torch.empty(0, dtype=torch.int64)
    with pytest.raises(ValueError, match="both a positive and a negative"):
        triplet_margin(torch.ones(2, 2), (none, none, none), distance=Distance(), margin=0.2)
    with pytest.raises(ValueError, match="both a positive and a negative"):
        triplet_soft(torch.ones(2, 2), (none, none, none), distance=Distance())
