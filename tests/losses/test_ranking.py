"""Every ranking loss against the papers' formulas in loops, and what all of them have in common."""

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from losses.cases import CASES, mined_multi_similarity
from oracles import losses as oracle
from torch import Tensor

import selfsup.losses.row_blocks
from selfsup.losses import triplet
from selfsup.losses.measures import Similarity

PROXIED = ("arcface", "cosface", "proxy-anchor")  # whose proxies separate them
MIXED = [0, 1, 0, 2, 1, 0, 3]  # classes of three, two, two, and one alone


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, list[int], int]:
    """Uneven classes, singletons, one class, one row, equal rows, a zero row, one dimension."""
    n, d = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    labels = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    x = normal(n, d, draw(st.integers(0, 999)))
    match draw(st.sampled_from(["plain", "plain", "plain", "equal", "pair", "zero"])):
        case "equal":
            x = x[:1].repeat(n, 1)
        case "pair":
            x[-1] = x[0]
        case "zero":
            x[0] = 0
    return x, labels, draw(st.integers(1, n))


def same_answer(ours: object, theirs: object, x: Tensor, y: list[int], n: int | None) -> None:
    try:
        expected = theirs(x.tolist(), y, n)  # type: ignore[operator]
    except ValueError:
        with pytest.raises(ValueError, match=r".") as error:
            ours(x, torch.tensor(y), n)  # type: ignore[operator]
        assert len(str(error.value).split()) > 5
        return
    actual = ours(x, torch.tensor(y), n)  # type: ignore[operator]
    assert actual.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=25, deadline=None)
@given(batch=batches())
def test_a_loss_is_the_papers_formula(name: str, batch: tuple[Tensor, list[int], int]) -> None:
    x, labels, anchors = batch
    case = CASES[name]
    if "semi-hard" in name:  # a zero row is at 1 from all unit rows, to a rounding that decides
        assume(x.norm(dim=1).min() > 0)
    same_answer(case.ours, case.theirs, x, labels, anchors if case.anchors else None)


@settings(max_examples=40, deadline=None)
@given(batch=batches())
def test_multi_similarity_of_mined_pairs_is_the_papers(
    batch: tuple[Tensor, list[int], int],
) -> None:
    x, labels, anchors = batch
    try:
        expected = oracle.multi_similarity(x.tolist(), labels, 2, 50, 0.5, 0.1, anchors)
        actual = mined_multi_similarity(x, torch.tensor(labels), anchors)
    except ValueError:
        return  # nothing was mined, which the method counts
    assert actual.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("alone", ["last", "first"])
@pytest.mark.parametrize("name", CASES)
def test_a_gradient_is_that_of_finite_differences(name: str, alone: str) -> None:
    if name == "circle":
        return  # its weights have no gradient by definition: tested by its own
    mixed = MIXED if alone == "last" else MIXED[::-1]  # a row that counts nothing, at either end
    x, labels = normal(7, 3, 1).requires_grad_(), torch.tensor(mixed)
    assert torch.autograd.gradcheck(lambda z: CASES[name].ours(z, labels, None), (x,))


@pytest.mark.parametrize("name", CASES)
def test_blocks_of_a_few_rows_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = normal(7, 3, 2).requires_grad_(), torch.tensor(MIXED)
    results = []
    for least in (32, 2):
        monkeypatch.setattr(selfsup.losses.row_blocks, "BLOCK_SIZE", 1)
        monkeypatch.setattr(selfsup.losses.row_blocks, "MIN_ROWS", least)
        loss = CASES[name].ours(x, labels, None)
        results.append((loss, torch.autograd.grad(loss, x)[0]))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in CASES if n.startswith(("batch-all", "semi-hard"))])
def test_many_positives_by_sorting_give_what_few_give_one_by_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, labels = normal(9, 3, 7).requires_grad_(), torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 3])
    results = []
    for few in (9, 0):
        monkeypatch.setattr(triplet, "FEW_POSITIVES", few)
        loss = CASES[name].ours(x, labels, None)
        results.append((loss, torch.autograd.grad(loss, x)[0]))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-12)
    expected = CASES[name].theirs(x.tolist(), labels.tolist(), None)
    assert results[1][0].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_a_collapsed_batch_has_no_gradient(name: str) -> None:
    for dtype in (torch.float32, torch.float64):
        same = torch.tensor([[0.3, -2.0, 0.7]], dtype=dtype).repeat(7, 1).requires_grad_()
        loss = CASES[name].ours(same, torch.tensor(MIXED), None)
        (gradient,) = torch.autograd.grad(loss, same)
        assert loss.isfinite()
        if name not in PROXIED and name != "n-pairs raw":  # whose regulariser shrinks
            size = 2e-6 if dtype == torch.float32 else 1e-12
            torch.testing.assert_close(
                gradient.sum(0) if "raw" in name else gradient,
                torch.zeros_like(gradient),
                rtol=0,
                atol=size * max(1, abs(loss.item())) * 10,
            )


@pytest.mark.parametrize("name", CASES)
def test_a_zero_row_and_equal_rows_leave_gradients_finite_and_small(name: str) -> None:
    x = normal(7, 3, 3)
    x[0] = 0
    x[2] = x[5]
    x.requires_grad_()
    loss = CASES[name].ours(x, torch.tensor(MIXED), None)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.isfinite()
    assert gradient.abs().max() < 1e3


@pytest.mark.parametrize("name", CASES)
def test_half_precision_under_autocast_is_measured_in_float32(name: str) -> None:
    x = normal(7, 3, 4).bfloat16()
    labels = torch.tensor(MIXED)
    expected = CASES[name].ours(x.float(), labels, None)
    leaf = x.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = CASES[name].ours(leaf, labels, None)
    assert actual.dtype == torch.float32
    assert actual.item() == pytest.approx(expected.item(), rel=1e-6)
    assert torch.autograd.grad(actual, leaf)[0].isfinite().all()


@pytest.mark.parametrize("name", [n for n in CASES if "n-pairs" not in n])
def test_the_order_of_a_batch_does_not_matter(name: str) -> None:
    x, labels = normal(7, 3, 5), torch.tensor(MIXED)
    order = torch.tensor([3, 6, 1, 0, 5, 2, 4])
    expected = CASES[name].ours(x, labels, None).item()
    assert CASES[name].ours(x[order], labels[order], None).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    "name", [n for n in CASES if n not in ("arcface", "cosface", "proxy-anchor")]
)
def test_labels_are_only_compared(name: str) -> None:
    x, labels = normal(7, 3, 6), torch.tensor(MIXED)
    expected = CASES[name].ours(x, labels, None).item()
    named = torch.tensor([7, -40, 10**9, 11])[labels]
    if "n-pairs" not in name:  # which go by the order of classes, in sums of floats alone
        named = named.flip(0)
        x = x.flip(0)
    assert CASES[name].ours(x, named, None).item() == pytest.approx(expected)


def test_log_sums_of_nothing_are_minus_infinity_and_0() -> None:
    x = torch.tensor([[1000.0, -1000.0], [-math.inf, -math.inf]], requires_grad=True)
    total = selfsup.losses.row_blocks.log_sum_exp(x)
    assert total.tolist() == [1000.0, -math.inf]
    one_more = selfsup.losses.row_blocks.log_1_plus_sum_exp(x)
    assert one_more.tolist() == [1000.0, 0.0]
    for actual in (total, one_more):
        (gradient,) = torch.autograd.grad(actual.sum(), x, retain_graph=True)
        assert gradient.tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_rows_of_different_weight_have_the_gradient_of_their_weighted_sum() -> None:
    x, weight = normal(7, 3, 1).requires_grad_(), torch.arange(7.0, dtype=torch.float64)
    gradients = []
    for in_forward in (True, False):
        terms = selfsup.losses.row_blocks.map_rows(
            x,
            x,
            Similarity(),
            lambda values, block: values.exp().sum(1),
            equal_weights=None if in_forward else False,
        )
        gradients.append(torch.autograd.grad((terms * weight).sum(), x)[0])
    (expected,) = torch.autograd.grad(((x @ x.T).exp().sum(1) * weight).sum(), x)
    torch.testing.assert_close(gradients[0], expected)
    torch.testing.assert_close(gradients[1], expected)
