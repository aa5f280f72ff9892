"""Pretraining methods: each setting arrives in its paper's formula."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import losses as ranking
from oracles import selfsupervised as oracle
from small import HALF, encoder, normal
from torch import Tensor

from selfsup.config import (
    BarlowTwinsConfig,
    BYOLConfig,
    DINOConfig,
    LeJEPAConfig,
    MoCoV2Config,
    MoCoV3Config,
    NNCLRConfig,
    SimCLRConfig,
    SimSiamConfig,
    SupConConfig,
    SwAVConfig,
    TeacherConfig,
    TiCoConfig,
    VICRegConfig,
)
from selfsup.core.errors import UserError
from selfsup.core.numerics import normalize
from selfsup.core.seeds import StepInfo
from selfsup.methods.barlow_twins import BarlowTwins
from selfsup.methods.byol import BYOL
from selfsup.methods.dino import DINO, BottleneckRows
from selfsup.methods.lejepa import LeJEPA
from selfsup.methods.method import AllViews, Method, Predictions, TwoViews
from selfsup.methods.moco import MoCoV2, MoCoV3
from selfsup.methods.nnclr import NNCLR
from selfsup.methods.simclr import SimCLR
from selfsup.methods.simsiam import SimSiam
from selfsup.methods.supcon import SupCon
from selfsup.methods.swav import SwAV
from selfsup.methods.tico import TiCo
from selfsup.methods.vicreg import VICReg

Rows = list[list[float]]


def rows(x: Tensor) -> Rows:
    return [list(map(float, row)) for row in x]


def views(z: Tensor) -> list[Rows]:
    return [rows(z[:, view]) for view in range(z.shape[1])]


def loss_of(method: Method, embeddings: Any, info: StepInfo = HALF, labels: Any = None) -> float:
    return method.double().loss(embeddings, labels, info).item()


A, B, C, D = (normal(6, 4, seed=seed) for seed in range(4))
FOUR = Predictions(A, B, C, D)
ROWS = tuple(map(rows, FOUR))


def test_byol_sums_both_directions() -> None:
    value = loss_of(BYOL(encoder(), BYOLConfig(hidden=4, dim=4)), FOUR)
    a, b, c, d = ROWS
    assert value == pytest.approx(oracle.cosine_regression(a, d) + oracle.cosine_regression(b, c))


def test_simsiam_is_the_mean_of_both_directions() -> None:
    value = loss_of(SimSiam(encoder(), SimSiamConfig(hidden=4, dim=4)), FOUR)
    a, b, c, d = ROWS
    assert value == pytest.approx((oracle.negative_cosine(a, d) + oracle.negative_cosine(b, c)) / 2)


def test_moco_v3_is_its_algorithm() -> None:
    value = loss_of(MoCoV3(encoder(), MoCoV3Config(hidden=4, dim=4, temperature=0.3)), FOUR)
    a, b, c, d = ROWS
    assert value == pytest.approx(oracle.moco_v3(a, b, c, d, 0.3))


def test_moco_v2_tells_queries_from_the_queue_in_order_of_age() -> None:
    method = MoCoV2(encoder(), MoCoV2Config(hidden=4, dim=4, queue=8, temperature=0.3)).double()
    pair = TwoViews(A, B)
    first = ranking.info_nce(rows(A), rows(B), 0.3)
    assert loss_of(method, pair) == pytest.approx(first)  # no queue yet: the batch's own keys
    method.after_step(pair, None, HALF)
    assert loss_of(method, pair) == pytest.approx(ranking.info_nce(rows(A), rows(B), 0.3, rows(B)))
    method.after_step(TwoViews(A, C), None, HALF)
    queued = [*rows(B)[-2:], *rows(C)]  # eight of twelve keys: the oldest are gone
    assert loss_of(method, pair) == pytest.approx(ranking.info_nce(rows(A), rows(B), 0.3, queued))


def test_nnclr_takes_neighbours_from_the_queue_of_first_views() -> None:
    method = NNCLR(encoder(), NNCLRConfig(hidden=4, dim=4, queue=16, temperature=0.3)).double()
    a, b, c, d = ROWS
    alone = (oracle.contrast(c, b, 0.3) + oracle.contrast(d, a, 0.3)) / 2
    assert loss_of(method, FOUR) == pytest.approx(alone)
    method.after_step(Predictions(A, B, D, C), None, HALF)
    assert loss_of(method, FOUR) == pytest.approx(oracle.nnclr(a, b, c, d, d, 0.3))


def test_barlow_twins_and_vicreg_have_their_weights() -> None:
    a, b, *_ = ROWS
    barlow = BarlowTwinsConfig(hidden=4, dim=4, off_diagonal=0.3, scale=0.7)
    assert loss_of(BarlowTwins(encoder(), barlow), TwoViews(A, B)) == pytest.approx(
        oracle.barlow_twins(a, b, 0.3, 0.7)
    )
    config = VICRegConfig(hidden=4, dim=4, invariance=2.0, variance=3.0, covariance=0.5)
    assert loss_of(VICReg(encoder(), config), TwoViews(A, B)) == pytest.approx(
        oracle.vicreg(a, b, 2.0, 3.0, 0.5)
    )


def test_simclr_with_dcl_leaves_the_positive_out() -> None:
    config = SimCLRConfig(hidden=4, dim=4, loss="dcl", temperature=0.3)
    value = loss_of(SimCLR(encoder(), config), TwoViews(A, B))
    assert value == pytest.approx(ranking.dcl(rows(A), rows(B), 0.3))


def test_supcon_takes_both_views_of_a_class_as_positives() -> None:
    labels = torch.tensor([0, 1, 0, 2, 1, 0])
    method = SupCon(encoder(), SupConConfig(hidden=4, dim=4, temperature=0.3))
    value = loss_of(method, TwoViews(A, B), labels=labels)
    expected = ranking.supcon(rows(A) + rows(B), labels.tolist() * 2, 0.3)
    assert value == pytest.approx(expected)
    with pytest.raises(UserError, match="SupCon needs labels"):
        method.loss(TwoViews(A, B), None, HALF)


def test_swav_uses_its_queue_from_its_start_on_and_keeps_prototypes_at_length_1() -> None:
    config = SwAVConfig(
        prototypes=5, hidden=4, dim=4, temperature=0.3, epsilon=0.2, rounds=2, queue=9, start=0.5
    )
    method = SwAV(encoder(), config).double()
    z, old = normal(6, 3, 4, seed=5), normal(6, 3, 4, seed=6)
    with torch.no_grad():
        method.prototypes.mul_(3)
    method.after_step(AllViews(old), None, HALF)
    layer = method.prototypes.detach()
    assert torch.allclose(layer.norm(dim=1), torch.ones(5, dtype=torch.float64))
    alone = oracle.swav(views(z), rows(layer), 0.3, 0.2, 2)
    assert loss_of(method, AllViews(z), StepInfo(4, 10, 0)) == pytest.approx(alone)
    late = loss_of(method, AllViews(z), HALF)
    assert late != pytest.approx(alone)
    codes: list[Rows] = []  # the oracle has one queue for both code views: each by itself
    for view in (0, 1):
        scores = [normalize(x) @ layer.T for x in (z[:, view], old[:, view])]
        codes.append(oracle.sinkhorn(rows(torch.cat(scores)), 0.2, 2)[:6])
    logits = [rows(normalize(z[:, view]) @ layer.T) for view in range(3)]
    pairs = [(t, s) for t in (0, 1) for s in range(3) if s != t]
    expected = [oracle.soft_cross_entropy(codes[t], logits[s], 0.3) for t, s in pairs]
    assert late == pytest.approx(sum(expected) / len(pairs))


def test_prototypes_rest_in_the_first_share_of_a_run() -> None:
    swav = SwAV(encoder(), SwAVConfig(prototypes=5, hidden=4, dim=4, frozen=0.2))
    dino = DINO(encoder(), DINOConfig(prototypes=5, hidden=4, dim=4, frozen=0.2))
    for method in (swav, dino):
        assert method.frozen_parameters(StepInfo(1, 10, 0)) == [method.prototypes]
        assert method.frozen_parameters(StepInfo(2, 10, 0)) == []


def test_dino_centres_sharpens_and_follows() -> None:
    config = DINOConfig(
        prototypes=5,
        hidden=4,
        dim=4,
        temperature=0.3,
        teacher_start=0.1,
        teacher_temperature=0.2,
        warmup=0.5,
        centre=0.7,
        teacher=TeacherConfig(momentum=0.9, final=0.9),
    )
    method = DINO(encoder(), config).double()
    assert [method.temperature(StepInfo(step, 20, 0)) for step in (0, 5, 10, 20)] == pytest.approx(
        [0.1, 0.15, 0.2, 0.2]
    )
    students, teachers = normal(6, 4, 4, seed=5), normal(6, 2, 4, seed=6)
    method.centre.copy_(normal(5, seed=7))
    method.teacher_prototypes.copy_(normal(5, 4, seed=8))

    def scores(x: Tensor, layer: Tensor) -> list[Rows]:
        return [rows(normalize(x[:, v]) @ normalize(layer).T) for v in range(x.shape[1])]

    taught = scores(teachers, method.teacher_prototypes)
    learnt = scores(students, method.prototypes.detach())
    centre = method.centre.tolist()
    value = loss_of(method, BottleneckRows(students, teachers), StepInfo(5, 20, 0))
    assert value == pytest.approx(oracle.dino(learnt, taught, centre, 0.3, 0.15))
    layer = method.teacher_prototypes.clone()
    method.after_step(BottleneckRows(students, teachers), None, HALF)
    assert method.centre.tolist() == pytest.approx(oracle.dino_centre(centre, taught, 0.7))
    assert torch.allclose(method.teacher_prototypes, 0.9 * layer + 0.1 * method.prototypes)


def test_lejepa_draws_directions_of_its_step_and_centres_on_the_large_views() -> None:
    config = LeJEPAConfig(slices=7, hidden=4, dim=4, weight=0.2)
    method = LeJEPA(encoder(), config, large=2)
    z = normal(6, 3, 4, seed=5)
    g = StepInfo(5, 10, 3).generator("slices")
    directions = torch.randn(7, 4, generator=g, dtype=torch.float64)
    expected = oracle.lejepa(views(z), rows(directions), 2, 0.2)
    assert loss_of(method, AllViews(z), StepInfo(5, 10, 3)) == pytest.approx(expected)
    assert loss_of(method, AllViews(z), StepInfo(6, 10, 3)) != pytest.approx(expected)


def test_tico_carries_its_second_moment_on() -> None:
    method = TiCo(encoder(), TiCoConfig(hidden=4, dim=4, beta=0.8, rho=5.0)).double()
    covariance: Rows = [[0.0] * 4 for _ in range(4)]
    for one, other in ((A, B), (C, D)):
        value, moved = oracle.tico(rows(one), rows(other), covariance, 0.8, 5.0)
        assert loss_of(method, TwoViews(one, other)) == pytest.approx(value)
        method.after_step(TwoViews(one, other), None, HALF)
        assert torch.allclose(method.second_moment, torch.tensor(moved).double())
        covariance = moved


def test_simsiams_predictor_keeps_its_rate_and_dinos_prototypes_decay() -> None:
    simsiam = SimSiam(encoder(), SimSiamConfig(hidden=6, dim=8))
    assert simsiam.constant_lr_parameters() == list(simsiam.predictor.parameters())
    assert BYOL(encoder(), BYOLConfig()).constant_lr_parameters() == []
    assert DINO(encoder(), DINOConfig()).loss_decays
    assert not SwAV(encoder(), SwAVConfig()).loss_decays


WRONG: dict[str, tuple[Callable[[], Method], str]] = {
    "byol momentum": (
        lambda: BYOL(encoder(), BYOLConfig(teacher=TeacherConfig(momentum=1.5))),
        "--method.teacher.momentum must be from 0 to 1, not 1.5",
    ),
    "moco temperature": (
        lambda: MoCoV2(encoder(), MoCoV2Config(temperature=0)),
        "--method.temperature must be above 0",
    ),
    "moco v3 temperature": (
        lambda: MoCoV3(encoder(), MoCoV3Config(temperature=-1)),
        "--method.temperature must be above 0",
    ),
    "moco queue": (
        lambda: MoCoV2(encoder(), MoCoV2Config(queue=0)),
        "--method.queue must be above 0",
    ),
    "nnclr queue": (
        lambda: NNCLR(encoder(), NNCLRConfig(queue=0)),
        "--method.queue must be above 0",
    ),
    "nnclr temperature": (
        lambda: NNCLR(encoder(), NNCLRConfig(temperature=0)),
        "--method.temperature must be above 0",
    ),
    "byol width": (
        lambda: BYOL(encoder(), BYOLConfig(dim=0)),
        "--method.hidden and --method.dim must be above 0",
    ),
    "dino prototypes": (
        lambda: DINO(encoder(), DINOConfig(prototypes=0)),
        "--method.prototypes must be above 0",
    ),
    "dino centre": (
        lambda: DINO(encoder(), DINOConfig(centre=3)),
        "--method.centre must be from 0 to 1",
    ),
    "tico beta": (
        lambda: TiCo(encoder(), TiCoConfig(beta=1.5)),
        "--method.beta must be from 0 to 1",
    ),
    "swav frozen": (
        lambda: SwAV(encoder(), SwAVConfig(frozen=-0.5)),
        "--method.frozen must be from 0 to 1",
    ),
    "swav epsilon": (
        lambda: SwAV(encoder(), SwAVConfig(epsilon=0)),
        "--method.epsilon must be above 0",
    ),
    "dino teacher": (
        lambda: DINO(encoder(), DINOConfig(teacher_temperature=0)),
        "--method.teacher-temperature must be above 0",
    ),
    "lejepa weight": (
        lambda: LeJEPA(encoder(), LeJEPAConfig(weight=1), large=2),
        "--method.weight must be between 0 and 1",
    ),
    "lejepa slices": (
        lambda: LeJEPA(encoder(), LeJEPAConfig(slices=0), large=2),
        "--method.slices must be above 0",
    ),
    "supcon temperature": (
        lambda: SupCon(encoder(), SupConConfig(temperature=0)),
        "--method.temperature must be above 0",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_settings_that_make_no_sense_are_refused_by_name(name: str) -> None:
    make, message = WRONG[name]
    with pytest.raises(UserError, match=message):
        make()
