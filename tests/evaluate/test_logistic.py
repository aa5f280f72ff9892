"""Logistic regression against scikit-learn's objective, and heads at once against one by one."""

import warnings

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from selfsup.evaluate.logistic import Problem, minimise
from selfsup.evaluate.sgd_probe import Heads, sweep


def data(n: int, d: int, c: int, *, ill: bool) -> tuple[Tensor, Tensor]:
    """Overlapping classes; ill: widths over four orders of magnitude, far from 0, turned."""
    g = torch.Generator().manual_seed(0)
    classes = torch.arange(n) % c
    x = torch.randn(n, d, generator=g) + 0.5 * torch.randn(c, d, generator=g)[classes]
    if ill:
        x = x * torch.logspace(0, -4, d) + torch.randn(d, generator=g)
        x = x @ torch.linalg.qr(torch.randn(d, d, generator=g)).Q
    return x, classes


def objective(weight: Tensor, bias: Tensor, x: Tensor, y: Tensor, strength: float) -> float:
    """scikit-learn's, divided by strength and images, in float64."""
    logits = x.double() @ weight.double().T + bias.double()
    loss = nn.functional.cross_entropy(logits, y)
    return float(loss + weight.double().square().sum() / (2 * strength * len(x)))


@pytest.mark.parametrize("ill", [False, True])
@pytest.mark.parametrize("strength", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("c", [2, 5])
def test_the_objective_is_as_low_as_scikit_learn_gets_it(
    ill: bool, strength: float, c: int
) -> None:
    x, y = data(300, 8, c, ill=ill)
    fit = Problem(x, y, c).fit(strength)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ill-conditioned features it does not converge
        peer = LogisticRegression(C=strength, max_iter=2000, tol=1e-6, solver="newton-cg")
        peer.fit(x.double().numpy(), y.numpy())
    weight, bias = torch.from_numpy(peer.coef_), torch.from_numpy(peer.intercept_)
    if c == 2:  # one row stands for the difference of two
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        strength_of_peer = strength
        theirs = objective(2 * weight, 2 * bias, x, y, strength_of_peer)
    else:
        theirs = objective(weight, bias, x, y, strength)
    ours = objective(fit.weight, fit.bias, x, y, strength)
    assert fit.converged
    assert fit.objective == pytest.approx(ours, rel=1e-5)
    assert ours <= theirs * (1 + 1e-4) + 1e-6


def test_a_fit_that_begins_elsewhere_ends_at_the_same_place() -> None:
    x, y = data(200, 6, 3, ill=False)
    problem = Problem(x, y, 3)
    cold = problem.fit(1.0)
    warm = problem.fit(1.0, problem.fit(1e-3))
    torch.testing.assert_close(cold.weight, warm.weight, atol=2e-2, rtol=0)
    assert cold.objective == pytest.approx(warm.objective, rel=1e-5)


def test_the_minimum_of_a_quadratic_is_found_in_few_steps() -> None:
    curvature = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    calls = []

    def at(x: Tensor) -> tuple[float, Tensor]:
        calls.append(x)
        return float((curvature * (x - 1) ** 2).sum() / 2), curvature * (x - 1)

    point, value, converged = minimise(at, torch.zeros(3, dtype=torch.float64), tolerance=1e-8)
    torch.testing.assert_close(point, torch.ones(3, dtype=torch.float64))
    assert converged
    assert value == pytest.approx(0, abs=1e-12)
    assert len(calls) < 40


def test_what_cannot_converge_says_so() -> None:
    def at(x: Tensor) -> tuple[float, Tensor]:
        return float(x.sum()), torch.ones_like(x)  # falls for ever

    assert not minimise(at, torch.zeros(2), tolerance=1e-3)[2]


def test_heads_at_once_are_heads_one_by_one() -> None:
    x, y = data(96, 5, 3, ill=False)
    rates = torch.tensor([0.01, 0.3])
    heads = Heads(5, 3, rates)
    alone = [nn.Linear(5, 3) for _ in rates]
    for head in alone:
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    peers = [
        torch.optim.SGD(head.parameters(), lr=float(rate), momentum=0.9)
        for head, rate in zip(alone, rates, strict=True)
    ]
    for step in range(6):
        rows = slice(16 * step, 16 * step + 16)
        heads.step(x[rows], y[rows], 1.0)
        for head, peer in zip(alone, peers, strict=True):
            peer.zero_grad()
            nn.functional.cross_entropy(head(x[rows]), y[rows]).backward()
            peer.step()
    for i, head in enumerate(alone):
        torch.testing.assert_close(heads.weight[3 * i : 3 * i + 3], head.weight.detach())
        torch.testing.assert_close(heads.bias[3 * i : 3 * i + 3], head.bias.detach())
        assert torch.equal(heads.predict(x)[i], head(x).argmax(1))


def test_a_sweep_takes_the_rate_that_does_best_on_held_out_images() -> None:
    x, y = data(600, 6, 3, ill=False)
    names = torch.tensor([5, 2**24 + 1, 9])
    probe = sweep(x[:500], names[y[:500]], x[500:], seed=0, rates=(0.05, 1e38), epochs=5, batch=64)
    assert probe.setting == 0.05
    assert (probe.predictions == names[y[500:]]).double().mean() > 0.5
    again = sweep(x[:500], names[y[:500]], x[500:], seed=0, rates=(0.05, 1e38), epochs=5, batch=64)
    assert torch.equal(again.predictions, probe.predictions)


def test_the_test_images_take_no_part_in_a_sweep() -> None:
    x, y = data(200, 6, 3, ill=False)
    whole = sweep(x[:150], y[:150], x[150:], seed=0, epochs=2)
    wild = torch.cat([x[150:160], x[160:] * 1e3])
    assert torch.equal(
        sweep(x[:150], y[:150], wild, seed=0, epochs=2).predictions[:10], whole.predictions[:10]
    )
