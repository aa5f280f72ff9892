"""Precision, normalising and distances: definitions in loops, and what happens at zero."""

import math
from itertools import product
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from selfsup.core.numerics import (
    at_least_float32,
    full_precision,
    normalize,
    singular_values,
)
from selfsup.losses.measures import Distance

Kind = Literal["euclidean", "squared", "cosine"]
KINDS: list[Kind] = ["euclidean", "squared", "cosine"]
DISTANCES = [Distance(kind=kind, normalize=unit) for kind, unit in product(KINDS, [True, False])]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def between(x: list[float], y: list[float], distance: Distance) -> float:
    if distance.normalize or distance.kind == "cosine":
        x, y = [p / math.hypot(*x) for p in x], [q / math.hypot(*y) for q in y]
    if distance.kind == "cosine":
        return 1 - sum(p * q for p, q in zip(x, y, strict=True))
    return math.dist(x, y) ** (2 if distance.kind == "squared" else 1)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 5),
    m=st.integers(1, 5),
    d=st.integers(1, 5),
    distance=st.sampled_from(DISTANCES),
    seed=st.integers(0, 999),
)
def test_a_matrix_of_distances_is_its_definition(
    n: int, m: int, d: int, distance: Distance, seed: int
) -> None:
    x, y = normal(n, d, seed=seed), normal(m, d, seed=seed + 1000)
    expected = [[between(p, q, distance) for q in y.tolist()] for p in x.tolist()]
    torch.testing.assert_close(
        distance.matrix(x, y), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("distance", DISTANCES)
def test_pairs_of_distances_are_the_diagonal_of_the_matrix(distance: Distance) -> None:
    x, y = normal(6, 4), normal(6, 4, seed=1)
    torch.testing.assert_close(distance.rowwise(x, y), distance.matrix(x, y).diagonal())


@pytest.mark.parametrize("distance", [d for d in DISTANCES if d.kind != "cosine"])
def test_identical_rows_are_exactly_0_apart(distance: Distance) -> None:
    for seed in range(10):
        x = normal(1, 8, seed=seed).float().repeat(40, 1)  # the product form errs from 26 rows on
        assert (distance.matrix(x, x) == 0).all()
        assert (distance.rowwise(x, x) == 0).all()


def test_identical_rows_are_exactly_0_apart_by_cosine_too() -> None:
    for seed in range(10):
        x = normal(1, 8, seed=seed).float().repeat(40, 1)
        assert (Distance(kind="cosine").matrix(x, x) == 0).all()


def test_identical_rows_are_0_apart_by_cosine_to_a_rounding() -> None:
    x = normal(10, 8).float().repeat(4, 1)
    distances = Distance(kind="cosine").matrix(x, x)[:10, 10:20].diagonal()
    torch.testing.assert_close(distances, torch.zeros(10), rtol=0, atol=5e-7)


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_whole_matrix_has_the_values_of_pairs_and_a_gradient(distance: Distance) -> None:
    x, y = normal(5, 3).requires_grad_(), normal(4, 3, seed=1).requires_grad_()

    def whole(a: Tensor, b: Tensor) -> Tensor:
        return distance.differentiable_values(distance.prepare(a), distance.prepare(b))

    torch.testing.assert_close(whole(x, y), distance.matrix(x, y))
    assert torch.autograd.gradcheck(whole, (x, y))


@pytest.mark.parametrize("distance", DISTANCES)
def test_float32_distances_are_the_nearest_to_the_true_ones(distance: Distance) -> None:
    x = normal(30, 16).float()
    x[1] = x[0] + 1e-3 * x[1]  # near, where the product form in float32 errs
    z = distance.prepare(x)
    true = distance.values(z.double(), z.double())
    torch.testing.assert_close(distance.values(z, z).double(), true, rtol=1e-7, atol=1e-9)


def test_a_row_that_is_not_a_number_stays_visible() -> None:
    x = torch.tensor([[math.nan, 1.0], [3.0, 4.0]])
    assert normalize(x)[0].isnan().all()
    assert Distance(normalize=False).rowwise(x, x.flip(0)).isnan().all()


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_gradient_of_a_distance_of_0_is_0(distance: Distance) -> None:
    x = normal(3, 4).float().requires_grad_()
    y = x.detach().clone().requires_grad_()
    for gradient in torch.autograd.grad(distance.rowwise(x, y).sum(), (x, y)):
        torch.testing.assert_close(gradient, torch.zeros(3, 4), rtol=0, atol=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_distance_of_0_does_not_spoil_the_gradients_of_others(distance: Distance) -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0]], requires_grad=True)
    y = torch.tensor([[1.0, 2.0], [0.0, 1.0]])
    (both,) = torch.autograd.grad(distance.rowwise(x, y).sum(), x)
    (alone,) = torch.autograd.grad(distance.rowwise(x[1:], y[1:]).sum(), x)
    assert (alone[1] != 0).any()
    torch.testing.assert_close(both, alone)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_gradient_of_distances_is_that_of_finite_differences(distance: Distance) -> None:
    x, y = normal(3, 4).requires_grad_(), normal(3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(distance.rowwise, (x, y))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("distance", DISTANCES)
def test_distances_of_half_precision_are_float32_also_inside_autocast(
    distance: Distance, half: torch.dtype
) -> None:
    x, y = normal(5, 8).to(half), normal(5, 8, seed=1).to(half)
    pairs, matrix = distance.rowwise(x.float(), y.float()), distance.matrix(x.float(), y.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(distance.rowwise(x, y), pairs, rtol=0, atol=0)
        torch.testing.assert_close(distance.matrix(x, y), matrix, rtol=0, atol=0)


def test_rows_are_scaled_to_length_1() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, -1e-6], [1e20, 0.0]])
    expected = torch.tensor([[0.6, 0.8], [0.0, -1.0], [1.0, 0.0]])
    torch.testing.assert_close(normalize(x), expected)
    torch.testing.assert_close(normalize(x.double()), expected.double())


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-12, 0.9e-8])
def test_a_short_row_keeps_its_direction_with_gradient_zero_and_zeros_stay_zeros(
    length: float,
) -> None:
    x = torch.tensor([[length, 0.0], [3.0, 4.0]], requires_grad=True)
    z = normalize(x)
    (gradient,) = torch.autograd.grad(z.sum(), x)
    assert z[0].tolist() == [float(length > 0), 0]
    assert (gradient[0] == 0).all()
    # d(sum of z)/dx = (1 - z (z . 1)) / |x|
    torch.testing.assert_close(gradient[1], torch.tensor([1 - 0.6 * 1.4, 1 - 0.8 * 1.4]) / 5)


def test_half_precision_becomes_float32_and_the_rest_stays() -> None:
    kinds = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
    after = [at_least_float32(torch.ones(1, dtype=kind)).dtype for kind in kinds]
    assert after == [torch.float32, torch.float32, torch.float32, torch.float64]


def test_full_precision_switches_autocast_off_and_only_inside() -> None:
    x = torch.ones(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with full_precision(x):
            assert (x @ x).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16


def test_rows_that_differ_by_a_millionth_of_their_length_have_a_distance() -> None:
    x, y = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1e-6]])
    assert Distance(normalize=False).matrix(x, y).item() == pytest.approx(1e-6, rel=1e-3)


def test_identical_rows_of_float64_are_exactly_0_apart() -> None:
    x = normal(1, 8).repeat(40, 1)  # the product form errs from 26 rows on
    assert (Distance(normalize=False).matrix(x, x) == 0).all()


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (16, 16), (1, 5)])
@pytest.mark.parametrize("kind", ["full", "of rank 3", "nearly collapsed", "zero"])
def test_singular_values_are_those_of_a_decomposition(shape: tuple[int, int], kind: str) -> None:
    g = np.random.default_rng(0)
    x = g.standard_normal(shape)
    if kind == "of rank 3":
        x = g.standard_normal((shape[0], 3)) @ g.standard_normal((3, shape[1]))
    if kind == "nearly collapsed":
        x = 1e-6 * x + g.standard_normal(shape[1])
    x = x * (kind != "zero")
    values = singular_values(torch.tensor(x, dtype=torch.float32)).numpy()
    expected = np.linalg.svd(x.astype(np.float32).astype(float), compute_uv=False)[::-1]
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-7 * expected.max())
