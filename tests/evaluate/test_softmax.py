"""Cross-entropy over many rows against autograd in float64, in both forms."""

import pytest
import torch

from selfsup.evaluate import softmax
from selfsup.evaluate.softmax import cross_entropy


@pytest.mark.parametrize("n", [1, 4, 6, 301])
@pytest.mark.parametrize("c", [1, 2, 7, 40])
def test_value_and_gradient_are_autograds(
    form: str, monkeypatch: pytest.MonkeyPatch, n: int, c: int
) -> None:
    monkeypatch.setattr(softmax, "CHUNK", 100)
    g = torch.Generator().manual_seed(n + c)
    x, classes = torch.randn(n, 9, generator=g), torch.randint(c, (n,), generator=g)
    weight, bias = torch.randn(c, 9, generator=g), torch.randn(c, generator=g)
    wide = [t.double().requires_grad_() for t in (weight, bias)]
    expected = torch.nn.functional.cross_entropy(
        x.double() @ wide[0].T + wide[1], classes, reduction="sum"
    )
    by_weight, by_bias = torch.autograd.grad(expected, wide)
    summed = cross_entropy(x, classes, weight, bias)
    assert summed.loss == pytest.approx(expected.item(), rel=1e-6, abs=1e-6)
    torch.testing.assert_close(summed.by_weight.double(), by_weight, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(summed.by_bias.double(), by_bias, rtol=1e-5, atol=1e-5)


def test_huge_logits_do_not_overflow(form: str) -> None:
    x, classes = torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 0])
    summed = cross_entropy(x, classes, torch.tensor([[1e4], [0.0]]), torch.zeros(2))
    assert summed.loss == pytest.approx(1e4)
    assert summed.by_weight.tolist() == [[1.0], [-1.0]]


def test_threads_change_nothing_but_the_order_of_sums(form: str) -> None:
    g = torch.Generator().manual_seed(0)
    x, classes = torch.randn(9000, 5, generator=g), torch.randint(3, (9000,), generator=g)
    weight, bias = torch.randn(3, 5, generator=g), torch.zeros(3)
    one = cross_entropy(x, classes, weight, bias)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        three = cross_entropy(x, classes, weight, bias)
    finally:
        torch.set_num_threads(before)
    assert three.loss == one.loss
    assert torch.equal(three.by_weight, one.by_weight)
