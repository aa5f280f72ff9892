"""Contrastive losses against their definition in loops, closed forms and reference values."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from selfsup.losses.contrastive import nt_xent

VECTORS: dict[str, Any] = json.loads(Path(__file__).with_name("vectors.json").read_text())


def unit(row: list[float]) -> list[float]:
    length = math.sqrt(sum(x * x for x in row))
    return [x / length if length > 0 else 0.0 for x in row]


def nt_xent_by_the_paper(a: Tensor, b: Tensor, temperature: float) -> float:
    """Equation 1 of the SimCLR paper, one pair at a time."""
    z = [unit(row) for row in a.tolist() + b.tolist()]
    n = len(a)
    total = 0.0
    for i in range(2 * n):
        weight = [
            math.exp(sum(x * y for x, y in zip(z[i], z[k], strict=True)) / temperature)
            for k in range(2 * n)
        ]
        others = sum(weight[k] for k in range(2 * n) if k != i)
        total -= math.log(weight[i + n if i < n else i - n] / others)
    return total / (2 * n)


def two_views(n: int, d: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    both = torch.randn(2, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return both[0], both[1]


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 6),
    d=st.integers(1, 5),
    temperature=st.sampled_from([0.01, 0.07, 0.1, 0.5, 1.0, 5.0]),
    zero_row=st.booleans(),
    seed=st.integers(0, 999),
)
def test_nt_xent_is_equation_1_of_the_paper(
    n: int, d: int, temperature: float, zero_row: bool, seed: int
) -> None:
    a, b = two_views(n, d, seed)
    if zero_row:
        a[n // 2] = 0
    expected = nt_xent_by_the_paper(a, b, temperature)
    assert nt_xent(a, b, temperature=temperature).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("temperature", [0.07, 0.1, 0.5])
def test_nt_xent_has_the_reference_value_and_gradient(temperature: float) -> None:
    case = VECTORS["cases"][f"ntxent_two_view_T{temperature}"]
    x = torch.tensor(VECTORS["E"], dtype=torch.float64, requires_grad=True)
    loss = nt_xent(x[:16], x[16:], temperature=temperature)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.item() == pytest.approx(case["value"], rel=0, abs=1e-10)
    expected = torch.tensor(case["grad"], dtype=torch.float64)
    torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("temperature", [0.07, 0.1, 0.5])
def test_nt_xent_in_float32_has_the_reference_value(temperature: float) -> None:
    x = torch.tensor(VECTORS["E"])
    value = VECTORS["cases"][f"ntxent_two_view_T{temperature}"]["value"]
    loss = nt_xent(x[:16], x[16:], temperature=temperature)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("n", [1, 2, 8])
def test_nt_xent_of_a_collapsed_batch_is_chance_without_gradient(
    n: int, temperature: float
) -> None:
    same = torch.tensor([[1.0, -2.0, 3.0, 0.5]], dtype=torch.float64).repeat(2 * n, 1)
    same.requires_grad_()
    loss = nt_xent(same[:n], same[n:], temperature=temperature)
    (gradient,) = torch.autograd.grad(loss, same)
    assert loss.item() == pytest.approx(math.log(2 * n - 1))
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


def test_nt_xent_of_orthogonal_images_with_equal_views_has_its_closed_form() -> None:
    # Each anchor: one candidate at cosine 1, its view, and four at cosine 0.
    loss = nt_xent(torch.eye(3), torch.eye(3), temperature=0.5)
    assert loss.item() == pytest.approx(math.log(1 + 4 * math.exp(-2)))


def test_nt_xent_of_a_single_image_is_zero() -> None:
    a, b = two_views(1, 4)
    assert nt_xent(a, b, temperature=0.1).item() == pytest.approx(0, abs=1e-12)


def test_nt_xent_does_not_overflow_at_a_tiny_temperature() -> None:
    a = torch.eye(2).requires_grad_()
    # Opposite views: the positive has cosine -1 and another image's view has 0.
    loss = nt_xent(a, -torch.eye(2), temperature=1e-3)
    (gradient,) = torch.autograd.grad(loss, a)
    assert loss.item() == pytest.approx(1000 + math.log(2))
    assert gradient.isfinite().all()


def test_nt_xent_does_not_care_which_view_comes_first() -> None:
    a, b = two_views(5, 4)
    torch.testing.assert_close(nt_xent(a, b, temperature=0.2), nt_xent(b, a, temperature=0.2))


def test_nt_xent_does_not_care_about_the_length_of_rows() -> None:
    a, b = two_views(5, 4)
    scale = torch.tensor([1e-3, 0.1, 1, 10, 1e3], dtype=torch.float64)[:, None]
    torch.testing.assert_close(
        nt_xent(a * scale, b * scale.flip(0), temperature=0.2), nt_xent(a, b, temperature=0.2)
    )


def test_nt_xent_does_not_care_about_the_order_of_images() -> None:
    a, b = two_views(5, 4)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(
        nt_xent(a[order], b[order], temperature=0.2), nt_xent(a, b, temperature=0.2)
    )


def test_nt_xent_cares_about_which_views_belong_together() -> None:
    a, _ = two_views(5, 4)
    assert nt_xent(a, a, temperature=0.2) < nt_xent(a, a.roll(1, 0), temperature=0.2)


def test_the_gradient_of_nt_xent_is_that_of_finite_differences() -> None:
    a, b = (view.requires_grad_() for view in two_views(3, 4))
    assert torch.autograd.gradcheck(lambda x, y: nt_xent(x, y, temperature=0.1), (a, b))


def test_a_zero_row_of_nt_xent_gets_no_gradient_and_harms_no_other() -> None:
    a, b = (view.float() for view in two_views(4, 3))
    a[1] = 0
    a.requires_grad_()
    (gradient,) = torch.autograd.grad(nt_xent(a, b, temperature=0.1), a)
    assert (gradient[1] == 0).all()
    assert gradient.isfinite().all()
    assert gradient.abs().max() < 100


def test_nt_xent_under_autocast_equals_the_float32_result() -> None:
    a, b = (view.float() for view in two_views(8, 8))
    expected = nt_xent(a, b, temperature=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nt_xent(a, b, temperature=0.05).item() == expected.item()


def test_nt_xent_of_bfloat16_embeddings_is_computed_in_float32() -> None:
    a, b = (view.bfloat16() for view in two_views(8, 8))
    expected = nt_xent(a.float(), b.float(), temperature=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nt_xent(a, b, temperature=0.05)
    assert loss.dtype == torch.float32
    assert loss.item() == expected.item()


def test_views_of_different_shape_are_refused_with_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\).*\(2, 4\)"):
        nt_xent(torch.ones(3, 4), torch.ones(2, 4), temperature=0.1)


@pytest.mark.parametrize("temperature", [0.0, -0.5])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match=str(temperature)):
        nt_xent(torch.ones(3, 4), torch.ones(3, 4), temperature=temperature)
