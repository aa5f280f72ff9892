"""Losses of patches and KoLeo against the papers' formulas in loops, and at their edges."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import selfsupervised as oracle
from small import normal
from torch import Tensor

from selfsup.losses.clustering import ibot
from selfsup.losses.entropy import koleo
from selfsup.losses.reconstruction import masked_pixels

Rows = list[list[float]]
sizes = st.tuples(st.integers(2, 6), st.integers(1, 4), st.integers(0, 999))


def rows(x: Tensor) -> Rows:
    return [list(map(float, row)) for row in x]


def scores(x: Tensor, layer: Tensor) -> Rows:
    unit = torch.nn.functional.normalize
    return rows(unit(x, dim=1) @ unit(layer, dim=1).T)


def an_ibot(x: Tensor, layer: Tensor, *, weights: Tensor | None = None) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    teachers, fixed = normal(*x.shape, seed=8).to(dtype), normal(*layer.shape, seed=9).to(dtype)
    return ibot(
        x,
        layer,
        teachers,
        fixed,
        normal(len(layer), seed=7).to(dtype),
        torch.linspace(0, 1, len(x)) if weights is None else weights,
        temperature=0.3,
        teacher_temperature=0.2,
    )


@given(sizes)
def test_ibot_is_the_formula_with_a_weight_for_each_patch(size: tuple[int, int, int]) -> None:
    n, d, seed = size
    x, layer, weights = normal(n, d, seed=seed), normal(5, d, seed=seed + 1), torch.rand(n).double()
    weights[0] = 0
    taught, centre = scores(normal(n, d, seed=8), normal(5, d, seed=9)), normal(5, seed=7).tolist()
    expected = oracle.ibot(scores(x, layer), taught, centre, weights.tolist(), 0.3, 0.2)
    assert an_ibot(x, layer, weights=weights).item() == pytest.approx(expected, rel=1e-9)


@given(sizes)
def test_koleo_is_the_formula_on_rows_of_any_length(size: tuple[int, int, int]) -> None:
    n, d, seed = size
    x = normal(n, d, seed=seed)
    assert koleo(x).item() == pytest.approx(oracle.koleo(rows(x)), rel=1e-9, abs=1e-9)
    assert koleo(7 * x).item() == pytest.approx(koleo(x).item(), rel=1e-9, abs=1e-9)


def test_gradients_are_those_of_finite_differences() -> None:
    x, layer = normal(6, 3, seed=1).requires_grad_(), normal(5, 3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(koleo, (x,), eps=1e-6, atol=1e-6)
    assert torch.autograd.gradcheck(an_ibot, (x, layer), eps=1e-6, atol=1e-6)


@pytest.mark.parametrize("n", [2, 3, 9])
def test_equal_rows_have_the_value_of_the_docstring_and_no_gradient(n: int) -> None:
    same = torch.ones(n, 3, dtype=torch.float64).requires_grad_()
    value = koleo(same)
    value.backward()
    assert value.item() == pytest.approx(-math.log(1e-8), rel=1e-12)
    assert same.grad is not None
    assert not same.grad.any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_row_with_a_twin_sends_no_gradient_and_the_others_do(dtype: torch.dtype) -> None:
    twins, pair = [[1.0, 2.0, 0.0]] * 2, [[0.0, 1.0, 3.0], [0.0, 0.5, 3.0]]
    x = torch.tensor(twins + pair, dtype=dtype).requires_grad_()
    koleo(x).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert [bool(row.any()) for row in x.grad] == [False, False, True, True]


def test_a_row_moves_away_from_its_nearest_other_row() -> None:
    x = torch.tensor([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0]], dtype=torch.float64).requires_grad_()
    (gradient,) = torch.autograd.grad(koleo(x), x)
    assert koleo(x.detach() - 0.01 * gradient) < koleo(x.detach())
    assert gradient[0, 1] > 0  # downhill is away from the second row
    assert gradient[1, 1] < 0


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, layer = normal(31, 3, seed=1).requires_grad_(), normal(40, 3, seed=2).requires_grad_()

    def results() -> Tensor:
        of_koleo = koleo(x)
        of_ibot = an_ibot(x, layer)
        gradients = torch.autograd.grad(of_koleo + of_ibot, (x, layer))
        return torch.cat(
            [of_koleo[None], of_ibot[None], *(g.flatten() for g in gradients)]
        ).detach()

    at_once = results()
    monkeypatch.setattr("selfsup.losses.row_blocks.BLOCK_SIZE", 40)
    monkeypatch.setattr("selfsup.losses.row_blocks.MIN_ROWS", 3)
    assert torch.allclose(results(), at_once, rtol=0, atol=1e-12)


def test_a_batch_without_a_masked_patch_has_the_loss_0_and_no_gradient() -> None:
    x = normal(4, 3, seed=1).requires_grad_()
    value = an_ibot(x, normal(5, 3, seed=2), weights=torch.zeros(4))
    value.backward()
    assert value.item() == 0
    assert x.grad is not None
    assert not x.grad.any()


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_is_raised_and_autocast_changes_nothing(half: torch.dtype) -> None:
    x, layer = normal(40, 8, seed=1), normal(6, 8, seed=2)
    for loss in (koleo, lambda rows: an_ibot(rows, layer.to(rows.dtype))):
        low = loss(x.to(half))
        assert low.dtype == torch.float32
        plain = loss(x.float())
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(loss(x.float()), plain)
        assert plain.item() == pytest.approx(loss(x).item(), rel=1e-5)


def test_koleo_of_one_image_is_refused() -> None:
    with pytest.raises(ValueError, match="use a batch of 2 or more"):
        koleo(normal(1, 3))


@given(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(2, 6), st.integers(0, 999)))
def test_masked_pixels_are_the_formula_one_error_an_image(size: tuple[int, ...]) -> None:
    n, m, q, seed = size
    predictions, pixels = normal(n, m, q, seed=seed), 3 * normal(n, m, q, seed=seed + 1) + 5
    errors = masked_pixels(predictions, pixels)
    assert errors.shape == (n,)
    for i, error in enumerate(errors):
        expected = oracle.mae([rows(predictions[i])], [rows(pixels[i])])
        assert error.item() == pytest.approx(expected, rel=1e-9)
    whole = oracle.mae([rows(x) for x in predictions], [rows(x) for x in pixels])
    assert errors.mean().item() == pytest.approx(whole, rel=1e-9)


def test_the_mean_of_each_patch_has_the_error_of_the_docstring_and_one_colour_has_none() -> None:
    pixels = normal(2, 3, 5, seed=1)
    pixels[1] = 0.25
    errors = masked_pixels(torch.zeros_like(pixels), pixels)
    assert errors.tolist() == pytest.approx([1 - 1 / 5, 0.0], abs=1e-5)


def test_light_and_contrast_of_a_patch_do_not_change_its_error() -> None:
    predictions, pixels = normal(2, 3, 5, seed=1), normal(2, 3, 5, seed=2)
    brighter = masked_pixels(predictions, 2 * pixels + 7)
    torch.testing.assert_close(brighter, masked_pixels(predictions, pixels), rtol=1e-5, atol=0)


def test_pixels_have_no_gradient_and_predictions_that_of_finite_differences() -> None:
    predictions, pixels = normal(2, 3, 5, seed=1).requires_grad_(), normal(2, 3, 5, seed=2)
    masked_pixels(predictions, pixels.requires_grad_()).sum().backward()
    assert pixels.grad is None
    fixed = pixels.detach()
    assert torch.autograd.gradcheck(lambda x: masked_pixels(x, fixed), (predictions,))


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_pixels_in_half_precision_are_compared_in_float32(half: torch.dtype) -> None:
    predictions, pixels = normal(2, 3, 64, seed=1), normal(2, 3, 64, seed=2)
    low = masked_pixels(predictions.to(half), pixels.to(half))
    assert low.dtype == torch.float32
    torch.testing.assert_close(low.double(), masked_pixels(predictions, pixels), rtol=0.02, atol=0)


def test_predictions_of_another_number_of_patches_are_refused() -> None:
    with pytest.raises(ValueError, match="differ"):
        masked_pixels(normal(2, 3, 4), normal(2, 1, 4))
