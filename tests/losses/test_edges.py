"""What formulas leave open: weights without gradient, chosen pairs, refusals, empty cases."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from oracles import losses as oracle
from oracles import mining
from torch import Tensor

import selfsup.losses.row_blocks
from selfsup.losses.contrastive import dcl, dclw, info_nce, nt_xent
from selfsup.losses.measures import Distance
from selfsup.losses.npairs import angular, angular_n_pairs, n_pairs, n_pairs_angular
from selfsup.losses.pairs import generalized_lifted, pair_contrastive
from selfsup.losses.proxies import arcface, cosface, proxy_anchor
from selfsup.losses.relations import Pairs
from selfsup.losses.similarity import circle, class_nt_xent, multi_similarity, supcon
from selfsup.losses.triplet import angular_hinge, triplet_margin, triplet_windows

MIXED = [0, 1, 0, 2, 1, 0, 3]  # classes of three, two, two, and one alone
UNIT = Distance()


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.1, 0.005, 0.0015])
def test_nt_xent_of_equal_views_is_0_at_low_temperatures_since_the_positive_is_a_candidate(
    temperature: float,
) -> None:
    x = torch.eye(3)
    expected = math.log(1 + 4 * math.exp(-1 / temperature))
    assert nt_xent(x, x, temperature=temperature).item() == pytest.approx(expected, abs=1e-4)


def test_the_gradient_of_dclw_is_that_of_its_formula_with_its_weights_held_fixed() -> None:
    a, b = normal(4, 3, 0).requires_grad_(), normal(4, 3, 1).requires_grad_()
    pull = [
        math.exp(mining.cosine(x, y) / 0.4) for x, y in zip(a.tolist(), b.tolist(), strict=True)
    ]
    weights = torch.tensor([2 - e / (sum(pull) / 4) for e in pull], dtype=torch.float64)
    expected = dcl(a, b, temperature=0.3) - ((weights - 1) * F.cosine_similarity(a, b) / 0.3).mean()
    actual = dclw(a, b, temperature=0.3, sigma=0.4)
    assert actual.item() == pytest.approx(expected.item())
    torch.testing.assert_close(
        torch.autograd.grad(actual, (a, b)), torch.autograd.grad(expected, (a, b))
    )


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "nt-xent": lambda x: nt_xent(x[:3], x[3:6], temperature=0.3),
    "dcl": lambda x: dcl(x[:3], x[3:6], temperature=0.3),
    "info-nce": lambda x: info_nce(x[:3], x[3:6], temperature=0.3),
    "supcon": lambda x: supcon(x, torch.tensor(MIXED), temperature=0.3),
    "cosface": lambda x: cosface(x, torch.tensor(MIXED), normal(4, 3, 8), margin=0.3, scale=4),
    "contrastive": lambda x: pair_contrastive(
        x,
        torch.tensor(MIXED),
        distance=UNIT,
        positive_margin=0,
        negative_margin=1,
        squared=True,
        reduction="sides",
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_that_is_weighed_in_a_sum_has_its_gradient_weighed_alike(name: str) -> None:
    x = normal(7, 3, 2).requires_grad_()
    (alone,) = torch.autograd.grad(LOSSES[name](x), x)
    (weighed,) = torch.autograd.grad(3 * LOSSES[name](x) + 0.5 * x.sum(), x)
    torch.testing.assert_close(weighed, 3 * alone + 0.5)


Chosen = Callable[[Tensor, Tensor, Pairs], Tensor]
Papers = Callable[[list[list[float]], list[int], int], float]
CHOOSING: dict[str, tuple[Chosen, Papers]] = {
    "contrastive": (
        lambda x, y, pairs: pair_contrastive(
            x,
            y,
            distance=UNIT,
            positive_margin=0.1,
            negative_margin=1.2,
            squared=False,
            reduction="sides",
            pairs=pairs,
        ),
        lambda x, y, n: oracle.contrastive(x, y, "euclidean", True, 0.1, 1.2, False, "sides", n),
    ),
    "generalized lifted": (
        lambda x, y, pairs: generalized_lifted(x, y, distance=UNIT, margin=1, pairs=pairs),
        lambda x, y, n: oracle.generalized_lifted(x, y, "euclidean", True, 1, n),
    ),
    "circle": (
        lambda x, y, pairs: circle(x, y, margin=0.25, gamma=16, pairs=pairs),
        lambda x, y, n: oracle.circle(x, y, 0.25, 16, n),
    ),
    "multi-similarity": (
        lambda x, y, pairs: multi_similarity(x, y, alpha=2, beta=50, base=0.5, pairs=pairs),
        lambda x, y, n: oracle.multi_similarity(x, y, 2, 50, 0.5, None, n) * n / len(x),
    ),
}


@pytest.mark.parametrize("least", [32, 2])
@pytest.mark.parametrize("name", CHOOSING)
def test_the_pairs_of_some_anchors_give_the_loss_of_these_anchors(
    name: str, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selfsup.losses.row_blocks, "BLOCK_SIZE", 1)
    monkeypatch.setattr(selfsup.losses.row_blocks, "MIN_ROWS", least)
    ours, theirs = CHOOSING[name]
    x, n = normal(7, 3, 4), 5
    near = [(i, j) for i in range(n) for j in mining.positives(MIXED, i)]
    far = [(i, j) for i in range(n) for j in mining.negatives(MIXED, i)]
    (a, p), (b, q) = (torch.tensor(side).T for side in (near, far))
    actual = ours(x, torch.tensor(MIXED), Pairs(a, p, b, q))
    assert actual.item() == pytest.approx(theirs(x.tolist(), MIXED, n))


@pytest.mark.parametrize("normalize", [True, False])
def test_n_pairs_angular_passes_its_settings_to_both_parts(normalize: bool) -> None:
    x = normal(7, 3, 5)
    actual = n_pairs_angular(
        x,
        torch.tensor(MIXED),
        normalize=normalize,
        temperature=0.4,
        regularizer=0.3,
        degrees=38,
        weight=1.5,
    )
    expected = oracle.npairs(x.tolist(), MIXED, normalize, 0.4, 0.3)
    expected += 1.5 * oracle.angular_npairs(x.tolist(), MIXED, 38)
    assert actual.item() == pytest.approx(expected)


@pytest.mark.parametrize("few", [16, 0])
@pytest.mark.parametrize("semi_hard", [True, False])
def test_windows_count_the_triplets_above_zero(
    few: int, semi_hard: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfsup.losses.triplet.FEW_POSITIVES", few)
    x, labels = normal(7, 3, 6), torch.tensor(MIXED)
    d = mining.distances(x.tolist(), "euclidean", True)
    gaps = [(d[a][p], d[a][n]) for a, p, n in mining.all_triplets(MIXED, 6)]
    chosen = [n < p + 0.3 and (n > p or not semi_hard) for p, n in gaps]
    _, active = triplet_windows(
        x, labels, distance=UNIT, margin=0.3, semi_hard=semi_hard, active_only=False, anchors=6
    )
    assert 0 < sum(chosen) < len(chosen)
    assert (active.item(), active.dtype) == (sum(chosen), torch.int64)


def test_semi_hard_windows_are_a_mean_over_their_own_triplets_whatever_the_reduction() -> None:
    x = normal(7, 3, 6)
    actual = triplet_windows(
        x, torch.tensor(MIXED), distance=UNIT, margin=0.7, semi_hard=True, active_only=False
    )[0]
    expected = oracle.semi_hard_all(x.tolist(), MIXED, "euclidean", True, 0.7, "active")
    assert actual.item() == pytest.approx(expected)


@pytest.mark.parametrize("few", [16, 0])
def test_a_negative_as_far_as_the_positive_or_at_the_margin_is_not_semi_hard(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfsup.losses.triplet.FEW_POSITIVES", few)
    x = torch.tensor([[0.0], [2.0], [-2.0], [3.0]], dtype=torch.float64)
    raw = Distance(normalize=False)
    loss, active = triplet_windows(
        x,
        torch.tensor([0, 0, 1, 2]),
        distance=raw,
        margin=1.0,
        semi_hard=True,
        active_only=True,
        anchors=1,
    )
    assert (loss.item(), active.item()) == (0, 0)
    # All triplets: the one at the margin costs nothing and does not count, the other costs it.
    loss, active = triplet_windows(
        x,
        torch.tensor([0, 0, 1, 2]),
        distance=raw,
        margin=1.0,
        semi_hard=False,
        active_only=True,
        anchors=1,
    )
    assert (loss.item(), active.item()) == (1, 1)


def test_a_mean_over_active_triplets_is_0_where_none_is() -> None:
    x = torch.tensor([[0.0], [1.0], [9.0]], requires_grad=True)
    triplet = torch.tensor([0]), torch.tensor([1]), torch.tensor([2])
    raw = Distance(normalize=False)
    loss = triplet_margin(x, triplet, distance=raw, margin=0.2, active_only=True)
    assert loss.item() == 0
    assert (torch.autograd.grad(loss, x)[0] == 0).all()


def test_proxies_of_a_single_class_have_nothing_to_tell_apart() -> None:
    x, w, labels = normal(3, 2, 0), normal(1, 2, 1), torch.zeros(3, dtype=torch.int64)
    x.requires_grad_()
    for loss in (
        arcface(x, labels, w, margin=0.5, scale=8),
        cosface(x, labels, w, margin=0.3, scale=8),
    ):
        assert loss.item() == 0
        assert (torch.autograd.grad(loss, x)[0] == 0).all()


@pytest.mark.parametrize("labels", [[0, 1, 4], [0, -1, 3]])
def test_a_label_without_a_proxy_is_refused_with_the_numbers(labels: list[int]) -> None:
    x, w, y = normal(3, 2, 0), normal(4, 2, 1), torch.tensor(labels)
    message = f"labels are {min(labels)} to {max(labels)}, but proxies are 0 to 3"
    with pytest.raises(ValueError, match=message):
        arcface(x, y, w, margin=0.5, scale=8)
    with pytest.raises(ValueError, match=message):
        cosface(x, y, w, margin=0.3, scale=8)
    with pytest.raises(ValueError, match=message):
        proxy_anchor(x, y, w, margin=0.1, alpha=32)


def test_the_highest_label_may_be_that_of_the_last_proxy() -> None:
    x, w = normal(2, 2, 0), normal(4, 2, 1)
    expected = oracle.cosface(x.tolist(), [0, 3], w.tolist(), 0.3, 8)
    actual = cosface(x, torch.tensor([0, 3]), w, margin=0.3, scale=8)
    assert actual.item() == pytest.approx(expected)


@pytest.mark.parametrize("temperature", [0.0, -0.5])
def test_every_temperature_and_sigma_has_to_be_positive(temperature: float) -> None:
    x, y, t = normal(7, 3, 0), torch.tensor(MIXED), temperature
    calls: list[Callable[[], Tensor]] = [
        lambda: supcon(x, y, temperature=t),
        lambda: class_nt_xent(x, y, temperature=t),
        lambda: n_pairs(x, y, normalize=True, temperature=t, regularizer=0),
        lambda: info_nce(x, x, temperature=t),
        lambda: dcl(x, x, temperature=t),
        lambda: dclw(x, x, temperature=t, sigma=0.5),
        lambda: dclw(x, x, temperature=0.1, sigma=t),
    ]
    for refused in calls:
        with pytest.raises(ValueError, match=f"must be above 0, not {t}"):
            refused()


@pytest.mark.parametrize("degrees", [-1.0, 0.0, 90.0])
def test_an_angle_has_to_be_between_0_and_90_degrees(degrees: float) -> None:
    x, y = normal(7, 3, 0), torch.tensor(MIXED)
    triplet = torch.tensor([0]), torch.tensor([2]), torch.tensor([1])
    calls: list[Callable[[], Tensor]] = [
        lambda: angular(x, y, degrees=degrees),
        lambda: angular_n_pairs(x, y, degrees=degrees),
        lambda: angular_hinge(x, triplet, degrees=degrees),
    ]
    for refused in calls:
        with pytest.raises(ValueError, match="between 0 and 90 degrees"):
            refused()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_along_its_proxy_leaves_the_gradient_of_arcface_finite(dtype: torch.dtype) -> None:
    w = normal(40, 5, 1).to(dtype)
    x, labels = (3 * w).requires_grad_(), torch.arange(40)
    loss = arcface(x, labels, w, margin=0.5, scale=8)
    expected = oracle.arcface(w.tolist(), labels.tolist(), w.tolist(), 0.5, 8)
    assert loss.item() == pytest.approx(expected, rel=1e-3)
    assert torch.autograd.grad(loss, x)[0].isfinite().all()


@pytest.mark.parametrize("few", [16, 0])
def test_without_a_margin_no_triplet_is_semi_hard(
    few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfsup.losses.triplet.FEW_POSITIVES", few)
    x = torch.tensor([[0.0], [2.0], [-2.0], [3.0]])  # a negative as far as the positive
    loss, active = triplet_windows(
        x,
        torch.tensor([0, 0, 1, 2]),
        distance=Distance(normalize=False),
        margin=0.0,
        semi_hard=True,
        active_only=True,
    )
    assert (loss.item(), active.item()) == (0, 0)
