"""Contrastive losses against their definition in loops and closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import losses as oracle
from torch import Tensor

from selfsup.losses import symmetric
from selfsup.losses.contrastive import dcl, dclw, info_nce, nt_xent


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
    expected = oracle.nt_xent(a.tolist(), b.tolist(), temperature)
    assert nt_xent(a, b, temperature=temperature).item() == pytest.approx(expected, abs=1e-9)


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
    loss = nt_xent(a, -torch.eye(2), temperature=1 / 690)
    (gradient,) = torch.autograd.grad(loss, a)
    assert loss.item() == pytest.approx(690 + math.log(2))
    assert gradient.isfinite().all()


def test_a_temperature_at_which_sums_would_overflow_is_refused_with_the_lowest() -> None:
    for dtype in (torch.float32, torch.float64):
        a = torch.eye(2, dtype=dtype)
        with pytest.raises(ValueError, match=r"1/690 .* not 0\.001$"):
            nt_xent(a, a, temperature=1e-3)


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


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 6),
    d=st.integers(1, 4),
    q=st.integers(0, 5),
    temperature=st.sampled_from([0.02, 0.07, 0.1, 0.5, 1.0]),
    zero_row=st.booleans(),
    seed=st.integers(0, 999),
)
def test_info_nce_and_decoupled_losses_are_the_papers_formulas(
    n: int, d: int, q: int, temperature: float, zero_row: bool, seed: int
) -> None:
    a, b = two_views(n, d, seed)
    if zero_row:
        a[n // 2] = 0
    x, y = a.tolist(), b.tolist()
    queue = two_views(q, d, seed + 1)[0] if q else None
    rows = None if queue is None else queue.tolist()
    actual = info_nce(a, b, temperature=temperature, queue=queue).item()
    assert actual == pytest.approx(oracle.info_nce(x, y, temperature, rows), rel=1e-9, abs=1e-9)
    if n == 1:
        with pytest.raises(ValueError, match="one image has no negatives"):
            dcl(a, b, temperature=temperature)
        return
    actual = dcl(a, b, temperature=temperature).item()
    assert actual == pytest.approx(oracle.dcl(x, y, temperature), rel=1e-9, abs=1e-9)
    actual = dclw(a, b, temperature=temperature, sigma=0.4).item()
    assert actual == pytest.approx(oracle.dclw(x, y, temperature, 0.4), rel=1e-9, abs=1e-9)


def test_the_gradients_of_info_nce_and_dcl_are_those_of_finite_differences() -> None:
    a, b = (view.requires_grad_() for view in two_views(3, 4))
    queue = two_views(5, 4, 1)[0]
    assert torch.autograd.gradcheck(lambda x, y: info_nce(x, y, temperature=0.3), (a, b))
    assert torch.autograd.gradcheck(
        lambda x, y: info_nce(x, y, temperature=0.3, queue=queue), (a, b)
    )
    assert torch.autograd.gradcheck(lambda x, y: dcl(x, y, temperature=0.3), (a, b))


def test_the_weights_of_dclw_have_no_gradient() -> None:
    a, b = (view.requires_grad_() for view in two_views(3, 4))
    # With the weights at 1, which a large sigma makes them, the gradient is that of dcl.
    actual = torch.autograd.grad(dclw(a, b, temperature=0.3, sigma=1e9), (a, b))
    expected = torch.autograd.grad(dcl(a, b, temperature=0.3), (a, b))
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("n", [2, 8])
def test_collapsed_batches_of_views_score_their_chance_without_gradient(n: int) -> None:
    same = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64).repeat(2 * n, 1)
    same.requires_grad_()
    queue = same.detach()[:1].repeat(9, 1)
    for loss, chance in (
        (dcl(same[:n], same[n:], temperature=0.1), 2 * n - 2),
        (dclw(same[:n], same[n:], temperature=0.1, sigma=0.5), 2 * n - 2),
        (info_nce(same[:n], same[n:], temperature=0.1), n),
        (info_nce(same[:n], same[n:], temperature=0.1, queue=queue), 10),
    ):
        (gradient,) = torch.autograd.grad(loss, same)
        assert loss.item() == pytest.approx(math.log(chance))
        torch.testing.assert_close(gradient, torch.zeros_like(gradient), rtol=0, atol=1e-12)


@pytest.mark.parametrize("cached", [0, 10**6])
@pytest.mark.parametrize("side", [1, 3, 4, 100])
def test_blocks_of_the_symmetric_matrix_change_nothing(
    side: int, cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = (view.requires_grad_() for view in two_views(5, 4))
    expected = oracle.nt_xent(a.tolist(), b.tolist(), 0.2)
    whole = torch.autograd.grad(nt_xent(a, b, temperature=0.2), (a, b))
    monkeypatch.setattr(symmetric, "BLOCK_ROWS", side)
    monkeypatch.setattr(symmetric, "CACHED_BLOCKS", cached)
    loss = nt_xent(a, b, temperature=0.2)
    assert loss.item() == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(torch.autograd.grad(loss, (a, b)), whole, rtol=0, atol=1e-13)
    assert torch.autograd.gradcheck(lambda x, y: nt_xent(x, y, temperature=0.2), (a, b))


@pytest.mark.parametrize("temperature", [0.0015, 0.005, 0.0138, 0.0139, 0.0249, 0.0251, 0.05])
def test_low_temperatures_are_exact_in_float32_too(temperature: float) -> None:
    a, b = (view.float().requires_grad_() for view in two_views(6, 3))
    with torch.no_grad():
        b[0] = -a[0]  # the other view is the farthest of all
    expected = oracle.nt_xent(a.tolist(), b.tolist(), temperature)
    loss = nt_xent(a, b, temperature=temperature)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    x, y = a.detach().double().requires_grad_(), b.detach().double().requires_grad_()
    exact = torch.autograd.grad(nt_xent(x, y, temperature=temperature), (x, y))
    for gradient, expected_gradient in zip(torch.autograd.grad(loss, (a, b)), exact, strict=True):
        torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-3, atol=1e-3)


def test_products_in_bfloat16_are_right_to_three_digits() -> None:
    a, b = (view.float().requires_grad_() for view in two_views(64, 32))
    loss, half = (
        nt_xent(a, b, temperature=0.5, products=products) for products in (None, torch.bfloat16)
    )
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(loss.item(), rel=1e-3)
    assert half.item() != loss.item()
    for exact, rounded in zip(
        torch.autograd.grad(loss, (a, b)), torch.autograd.grad(half, (a, b)), strict=True
    ):
        assert (exact - rounded).norm() < 1e-2 * exact.norm()


def test_a_loss_without_a_gradient_asked_for_is_the_same() -> None:
    a, b = two_views(5, 4)
    with torch.no_grad():
        expected = nt_xent(a, b, temperature=0.2)
    assert nt_xent(a.requires_grad_(), b, temperature=0.2).item() == expected.item()
