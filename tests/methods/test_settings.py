"""Ranking methods: each setting arrives in the formula that it belongs to."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import pytest
import torch
from oracles import losses as oracle
from oracles.mining import all_triplets, batch_hard, distances, multi_similarity_pairs
from small import HALF, WIDTH, encoder, normal

from selfsup.config import MemoryConfig, PairsConfig, ProxiesConfig, TripletConfig
from selfsup.config.finetuning import (
    ArcFaceConfig,
    CircleConfig,
    ContrastiveConfig,
    CosFaceConfig,
    Miner,
    MultiSimilarityConfig,
    NPairsConfig,
    PairLoss,
    ProxyAnchorConfig,
)
from selfsup.core.errors import UserError
from selfsup.core.seeds import StepInfo
from selfsup.losses.measures import Distance
from selfsup.losses.pairs import generalized_lifted, pair_contrastive
from selfsup.losses.relations import Pairs
from selfsup.losses.similarity import circle
from selfsup.methods.method import OneView
from selfsup.methods.pair_ranking import USED_SETTINGS, PairRanking
from selfsup.methods.proxy_ranking import ProxyRanking
from selfsup.methods.triplet_ranking import Triplet

LABELS = [0, 1, 0, 2, 1, 0, 3]  # classes of three, two, and two images alone
OLD = [1, 0, 3, 2]
MEMORY = MemoryConfig(size=6, start=0.5)


X, BEFORE = normal(7, WIDTH, seed=1), normal(4, WIDTH, seed=2)
ROWS, MANY, ALL = X.tolist(), [*X.tolist(), *BEFORE.tolist()], [*LABELS, *OLD]


def loss_of(method: Triplet | PairRanking | ProxyRanking, info: StepInfo = HALF) -> float:
    return method.double().loss(OneView(X), torch.tensor(LABELS), info).item()


def remembering(method: Triplet | PairRanking) -> Triplet | PairRanking:
    """The method after a step on other rows."""
    method.double().after_step(OneView(BEFORE), torch.tensor(OLD), StepInfo(4, 10, 0))
    return method


def by_loops(
    config: TripletConfig, triplets: list[tuple[int, int, int]], rows: list[list[float]]
) -> float:
    """Balntas' swap and either reduction, over the triplets."""
    d = distances(rows, config.distance, config.normalize)
    far = [min(d[a][n], d[p][n]) if config.swap else d[a][n] for a, p, n in triplets]
    gaps = [d[a][p] - f for (a, p, _), f in zip(triplets, far, strict=True)]
    if config.loss == "soft":
        return sum(math.log(1 + math.exp(gap)) for gap in gaps) / len(gaps)
    hinges = [max(0.0, gap + config.margin) for gap in gaps]
    active = [hinge for hinge in hinges if hinge > 0] if config.active_only else hinges
    return sum(active) / len(active)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize("active_only", [False, True])
@pytest.mark.parametrize("loss", ["margin", "soft"])
@pytest.mark.parametrize("kind", ["euclidean", "squared", "cosine"])
@pytest.mark.parametrize("normalize", [False, True])
def test_batch_all_has_the_margin_distance_and_reduction_that_were_set(
    swap: bool,
    active_only: bool,
    loss: Literal["margin", "soft"],
    kind: Literal["euclidean", "squared", "cosine"],
    normalize: bool,
) -> None:
    config = TripletConfig(
        dim=WIDTH,
        miner="batch-all",
        margin=0.37,
        loss=loss,
        swap=swap,
        active_only=active_only and loss == "margin",
        distance=kind,
        normalize=normalize,
        memory=MEMORY,
    )
    expected = by_loops(config, all_triplets(LABELS), ROWS)
    assert loss_of(Triplet(encoder(), config)) == pytest.approx(expected)
    expected = by_loops(config, all_triplets(ALL, 7), MANY)
    assert loss_of(remembering(Triplet(encoder(), config))) == pytest.approx(expected)


def test_the_angular_hinge_has_the_degrees_that_were_set() -> None:
    config = TripletConfig(dim=WIDTH, miner="batch-all", loss="angular", degrees=21)
    expected = oracle.angular_hinge(ROWS, LABELS, 21)
    assert expected > 0
    assert loss_of(Triplet(encoder(), config)) == pytest.approx(expected)


def chosen_by(miner: Miner, margin: float) -> list[tuple[int, int, int]]:
    """What each miner is named after, of the batch with its memory behind it."""
    d = distances(MANY, "euclidean", True)
    triplets = []
    for a in range(7):
        near = sorted((d[a][p], p) for x, p, _ in set(all_triplets(ALL, 7)) if x == a)
        far = sorted((d[a][n], n) for x, _, n in set(all_triplets(ALL, 7)) if x == a)
        if not near:
            continue
        for d_ap, p in {"easy-positive": near[:1], "semi-hard": sorted(set(near))}.get(
            miner, near[-1:]
        ):
            most = d_ap + margin if miner == "semi-hard" else math.inf
            beyond = [n for d_an, n in far if miner == "batch-hard" or d_ap < d_an < most]
            triplets += [(a, p, n) for n in beyond[:1]]
    return triplets


@pytest.mark.parametrize("miner", ["batch-hard", "semi-hard", "easy-positive", "hard-positive"])
def test_a_miner_finds_what_it_is_named_after_in_the_batch_and_its_memory(miner: Miner) -> None:
    config = TripletConfig(dim=WIDTH, miner=miner, margin=0.6, memory=MEMORY)
    triplets = chosen_by(miner, 0.6)
    assert len(triplets) > 3
    assert loss_of(remembering(Triplet(encoder(), config))) == pytest.approx(
        by_loops(config, triplets, MANY)
    )


def test_semi_hard_all_is_the_mean_over_semi_hard_triplets_whatever_the_reduction() -> None:
    for active_only in (False, True):
        config = TripletConfig(
            dim=WIDTH, miner="semi-hard-all", margin=0.6, active_only=active_only, memory=MEMORY
        )
        expected = oracle.semi_hard_all(MANY, ALL, "euclidean", True, 0.6, "active", 7)
        assert loss_of(remembering(Triplet(encoder(), config))) == pytest.approx(expected)


@pytest.mark.parametrize("miner", ["random", "distance-weighted"])
def test_drawn_triplets_pull_at_the_batch_and_change_with_the_step(miner: Miner) -> None:
    method = Triplet(encoder(), TripletConfig(dim=WIDTH, miner=miner, margin=5, memory=MEMORY))
    remembering(method)
    x = X.clone().requires_grad_()
    losses = {
        method.loss(OneView(x), torch.tensor(LABELS), StepInfo(step, 10, 0)).item()
        for step in (5, 6, 7, 7)
    }
    assert len(losses) == 3
    loss = method.loss(OneView(x), torch.tensor(LABELS), HALF)
    assert torch.autograd.grad(loss, x)[0].abs().sum() > 0


def test_a_miner_that_finds_nothing_has_loss_0_with_a_gradient_of_0() -> None:
    x = X.clone().requires_grad_()
    none = torch.arange(7)
    for method in (
        Triplet(encoder(), TripletConfig(dim=WIDTH)),
        PairRanking(encoder(), PairsConfig(dim=WIDTH, loss="circle", miner="multi-similarity")),
    ):
        loss = method.double().loss(OneView(x), none, HALF)
        (gradient,) = torch.autograd.grad(loss, x)
        assert loss.item() == 0
        assert (gradient == 0).all()


def test_the_first_miner_gives_way_at_the_switch() -> None:
    config = TripletConfig(dim=WIDTH, miner="batch-all", first="batch-hard", switch=0.3)
    method = Triplet(encoder(), config)
    hard = oracle.batch_hard_triplet(ROWS, LABELS, "euclidean", True, 0.2)
    every = oracle.batch_all(ROWS, LABELS, "euclidean", True, 0.2, "mean")
    assert hard != pytest.approx(every)
    assert [loss_of(method, StepInfo(step, 10, 0)) for step in (0, 2, 3, 9)] == pytest.approx(
        [hard, hard, every, every]
    )
    assert loss_of(Triplet(encoder(), replace(config, first=None)), StepInfo(0, 10, 0)) == (
        pytest.approx(every)
    )


def test_a_memory_is_compared_with_from_its_start_on() -> None:
    mined = TripletConfig(dim=WIDTH, miner="batch-hard", memory=MEMORY)
    triplets = Triplet(encoder(), mined)
    pairs = PairRanking(encoder(), PairsConfig(dim=WIDTH, loss="supcon", memory=MEMORY))
    alone = (
        oracle.batch_hard_triplet(ROWS, LABELS, "euclidean", True, 0.2),
        oracle.supcon(ROWS, LABELS, 0.1),
    )
    behind = (
        oracle.batch_hard_triplet(MANY, ALL, "euclidean", True, 0.2, anchors=7),
        oracle.supcon(MANY, ALL, 0.1, 7),
    )
    methods: tuple[Triplet | PairRanking, ...] = (triplets, pairs)
    for method, before, after in zip(methods, alone, behind, strict=True):
        remembering(method)
        actual = [loss_of(method, StepInfo(step, 10, 0)) for step in (4, 5, 6)]
        assert actual == pytest.approx([before, after, after])


def test_signs_of_triplets_are_their_definition() -> None:
    x = 0.3 * X + torch.eye(WIDTH, dtype=torch.float64)[LABELS]  # some of it is learnt
    rows = x.tolist()
    d = distances(rows, "euclidean", True)
    for loss, margin, flat in (("margin", 0.37, 0.37), ("soft", 0.0, math.log(2))):
        config = TripletConfig(
            dim=WIDTH,
            loss=loss,  # type: ignore[arg-type]
            margin=0.37,
            miner="batch-hard",
        )
        signs = Triplet(encoder(), config).signs(OneView(x), torch.tensor(LABELS), HALF)
        hardest = batch_hard(rows, LABELS, "euclidean", True)
        assert signs["skipped"] == pytest.approx(1 - len(hardest) / 7)
        active = sum(near - far + margin > 0 for _, near, far in hardest) / len(hardest)
        assert 0 < active < 1
        assert signs["active"] == pytest.approx(active)
        mean = oracle.batch_hard_triplet(
            rows, LABELS, "euclidean", True, None if loss == "soft" else margin
        )
        assert signs["relative_loss"] == pytest.approx(mean / flat)
        for name, alike in (("positive", True), ("negative", False)):
            pair_distances = [
                d[i][j]
                for i in range(7)
                for j in range(7)
                if i != j and (LABELS[i] == LABELS[j]) == alike
            ]
            assert signs[name] == pytest.approx(sum(pair_distances) / len(pair_distances))


def test_signs_of_a_batch_without_triplets_say_that_nothing_is_learnt() -> None:
    method = Triplet(encoder(), TripletConfig(dim=WIDTH, margin=0.37))
    signs = method.signs(OneView(X), torch.arange(7), HALF)
    assert (signs["active"], signs["skipped"], signs["relative_loss"]) == (0, 1, 0)
    assert signs["positive"] == 0


def test_signs_of_mined_pairs_count_the_anchors_that_have_any() -> None:
    config = PairsConfig(dim=WIDTH, miner="multi-similarity", epsilon=-0.9)
    sides = multi_similarity_pairs(ROWS, LABELS, -0.9)
    fraction = len({a for side in sides for a, _ in side}) / 7
    assert 0 < fraction < 5 / 7
    signs = PairRanking(encoder(), config).signs(OneView(X), torch.tensor(LABELS), HALF)
    assert (signs["active"], signs["skipped"]) == pytest.approx((fraction, 1 - fraction))
    every = PairRanking(encoder(), PairsConfig(dim=WIDTH))
    signs = every.signs(OneView(X), torch.tensor(LABELS), HALF)
    assert not {"active", "skipped"} & signs.keys()  # without a miner nothing is left out


PAIRS = PairsConfig(
    dim=WIDTH,
    distance="squared",
    normalize=False,
    margin=0.7,
    temperature=0.3,
    contrastive=ContrastiveConfig(
        positive_margin=0.15, negative_margin=4.0, squared=False, reduction="pairs"
    ),
    multi_similarity=MultiSimilarityConfig(alpha=3, beta=20, base=0.4),
    circle=CircleConfig(margin=0.3, gamma=9),
    n_pairs=NPairsConfig(normalize=False, temperature=0.5, regularizer=0.01, degrees=40, weight=3),
)
PAPERS: dict[str, Callable[[list[list[float]], list[int], int | None], float]] = {
    "contrastive": lambda x, y, n: oracle.contrastive(
        x, y, "squared", False, 0.15, 4.0, False, "pairs", n
    ),
    "generalized-lifted": lambda x, y, n: oracle.generalized_lifted(x, y, "squared", False, 0.7, n),
    "multi-similarity": lambda x, y, n: oracle.multi_similarity(x, y, 3, 20, 0.4, None, n),
    "circle": lambda x, y, n: oracle.circle(x, y, 0.3, 9, n),
    "supcon": lambda x, y, n: oracle.supcon(x, y, 0.3, n),
    "nt-xent": lambda x, y, n: oracle.class_nt_xent(x, y, 0.3, n),
    "lifted": lambda x, y, n: oracle.lifted(x, y, "squared", False, 0.7),
    "n-pairs": lambda x, y, n: oracle.npairs(x, y, False, 0.5, 0.01),
    "angular": lambda x, y, n: oracle.angular(x, y, 40),
    "n-pairs-angular": lambda x, y, n: (
        oracle.npairs(x, y, False, 0.5, 0.01) + 3 * oracle.angular_npairs(x, y, 40)
    ),
}


def pairs_of(loss: PairLoss, **more: object) -> PairRanking:
    """The method with those of the settings above that the loss looks at."""
    own = {name: getattr(PAIRS, name) for name in USED_SETTINGS[loss]} | more
    return PairRanking(encoder(), PairsConfig(dim=WIDTH, loss=loss, **own))


ALONE = ("lifted", "n-pairs", "angular", "n-pairs-angular")


@pytest.mark.parametrize("loss", PAPERS)
def test_a_loss_of_pairs_has_the_settings_of_its_section(loss: PairLoss) -> None:
    expected = PAPERS[loss](ROWS, LABELS, None)
    assert expected > 0
    actual = loss_of(pairs_of(loss))
    assert actual == pytest.approx(expected)


@pytest.mark.parametrize("loss", [name for name in PAPERS if name not in ALONE])
def test_a_loss_of_pairs_with_a_memory_has_the_batch_as_its_anchors(loss: PairLoss) -> None:
    method = pairs_of(loss, memory=MEMORY)
    assert loss_of(remembering(method)) == pytest.approx(PAPERS[loss](MANY, ALL, 7))


def test_mined_pairs_are_those_of_the_epsilon_that_was_set() -> None:
    method = pairs_of("multi-similarity", miner="multi-similarity", epsilon=-0.2, memory=MEMORY)
    expected = oracle.multi_similarity(MANY, ALL, 3, 20, 0.4, -0.2, 7)
    assert loss_of(remembering(method)) == pytest.approx(expected)


def test_losses_that_take_mined_pairs_leave_the_others_out() -> None:
    near, far = (sorted(side) for side in multi_similarity_pairs(ROWS, LABELS, -0.2))
    (a, p), (b, n), labels = torch.tensor(near).T, torch.tensor(far).T, torch.tensor(LABELS)
    pairs, distance = Pairs(a, p, b, n), Distance("squared", normalize=False)
    expected = {
        "contrastive": pair_contrastive(
            X,
            labels,
            distance=distance,
            positive_margin=0.15,
            negative_margin=4.0,
            squared=False,
            reduction="pairs",
            pairs=pairs,
        ),
        "generalized-lifted": generalized_lifted(
            X, labels, distance=distance, margin=0.7, pairs=pairs
        ),
        "circle": circle(X, labels, margin=0.3, gamma=9, pairs=pairs),
    }
    for loss, value in expected.items():
        assert value.item() != pytest.approx(PAPERS[loss](ROWS, LABELS, None))
        method = pairs_of(loss, miner="multi-similarity", epsilon=-0.2)  # type: ignore[arg-type]
        assert loss_of(method) == pytest.approx(value.item())


def test_losses_without_pairs_to_choose_refuse_a_miner_and_those_of_tuples_a_memory() -> None:
    for loss, used in USED_SETTINGS.items():
        for name, value in (("miner", "multi-similarity"), ("memory", MEMORY)):
            if name not in used:
                with pytest.raises(UserError, match=f"{name} has no effect with .* {loss}"):
                    pairs_of(loss, **{name: value})


def test_a_loss_of_proxies_has_the_settings_of_its_section() -> None:
    config = ProxiesConfig(
        dim=WIDTH,
        lr=30,
        proxy_anchor=ProxyAnchorConfig(margin=0.15, alpha=11),
        arcface=ArcFaceConfig(margin=0.4, scale=7),
        cosface=CosFaceConfig(margin=0.25, scale=13),
    )
    plain = ProxiesConfig(dim=WIDTH, lr=30)
    for loss in ("proxy-anchor", "arcface", "cosface"):
        section = loss.replace("-", "_")
        own = replace(plain, loss=loss, **{section: getattr(config, section)})
        method = ProxyRanking(encoder(), own, classes=5)
        w = method.proxies.double().tolist()
        expected = {
            "proxy-anchor": oracle.proxy_anchor(ROWS, LABELS, w, 0.15, 11),
            "arcface": oracle.arcface(ROWS, LABELS, w, 0.4, 7),
            "cosface": oracle.cosface(ROWS, LABELS, w, 0.25, 13),
        }[loss]
        assert loss_of(method) == pytest.approx(expected)
        assert method.loss_lr == 30
        assert method.loss_parameters() == [method.proxies]


def test_proxies_start_at_a_length_of_about_1() -> None:
    torch.manual_seed(0)
    method = ProxyRanking(encoder(), ProxiesConfig(dim=WIDTH), classes=4000)
    assert method.proxies.square().sum(1).mean().item() == pytest.approx(1, abs=0.05)


def test_signs_of_proxies_are_mean_cosine_distances() -> None:
    method = ProxyRanking(encoder(), ProxiesConfig(dim=WIDTH), classes=4).double()
    signs = method.signs(OneView(X), torch.tensor(LABELS), HALF)
    d = distances(ROWS, "cosine", True)
    alike = [d[i][j] for i in range(7) for j in range(7) if i != j and LABELS[i] == LABELS[j]]
    assert signs["positive"] == pytest.approx(sum(alike) / len(alike))
