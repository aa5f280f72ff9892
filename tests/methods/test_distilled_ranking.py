"""Distillation beside a ranking loss: the sum of both, and nothing else of the ranking changes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from oracles import distillation as distilled
from oracles import losses as ranked
from small import HALF, WIDTH, encoder, normal
from torch import Tensor

from selfsup.config import PairsConfig, ProxiesConfig, RankingDistilConfig, TripletConfig
from selfsup.core.errors import UserError
from selfsup.doctor.cases import CASES, FEATURES
from selfsup.doctor.certificate import FIRST, prepare
from selfsup.methods.distil import StoredFeatures
from selfsup.methods.distilled_ranking import DistilledRanking, RankedAndDistilled
from selfsup.methods.method import Method, OneView
from selfsup.methods.pair_ranking import PairRanking
from selfsup.methods.proxy_ranking import ProxyRanking
from selfsup.methods.triplet_ranking import Triplet

TEACHER = 5  # width
Z, STUDENT = normal(8, WIDTH, seed=1), normal(8, TEACHER, seed=2)
TARGET = normal(8, TEACHER, seed=3)
LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1])
Rows = list[list[float]]
Make = Callable[[], Method[OneView]]


def triplet() -> Triplet:
    return Triplet(encoder(), TripletConfig(dim=0, miner="batch-all", margin=0.7))


def pairs() -> PairRanking:
    return PairRanking(encoder(), PairsConfig(dim=0, loss="supcon", temperature=0.2))


def proxies() -> ProxyRanking:
    method = ProxyRanking(encoder(), ProxiesConfig(dim=0, loss="arcface"), classes=3)
    method.proxies.data = normal(3, WIDTH, seed=4)
    return method


ORACLES: dict[str, tuple[Make, Callable[[Rows, list[int]], float]]] = {
    "triplet": (triplet, lambda z, y: ranked.batch_all(z, y, "euclidean", True, 0.7, "mean")),
    "pairs": (pairs, lambda z, y: ranked.supcon(z, y, 0.2)),
    "proxies": (
        proxies,
        lambda z, y: ranked.arcface(z, y, normal(3, WIDTH, seed=4).tolist(), 0.5, 64.0),
    ),
}


def beside(ranking: Method[OneView], **settings: Any) -> DistilledRanking:
    rows = normal(20, TEACHER, seed=5).numpy()
    return DistilledRanking(ranking, RankingDistilConfig(**settings), StoredFeatures(rows)).double()


def embedded(student: Tensor) -> RankedAndDistilled:
    return RankedAndDistilled(Z, student, TARGET)


@pytest.mark.parametrize("kind", ORACLES)
def test_the_loss_is_the_ranking_loss_and_the_weighted_one_of_similarities(kind: str) -> None:
    make, by_loops = ORACLES[kind]
    method = beside(make(), weight=0.3, temperature=0.4, teacher_temperature=0.2)
    z = Z.tolist()
    expected = by_loops(z, LABELS.tolist())
    expected += 0.3 * distilled.relational(z, TARGET.tolist(), 0.4, 0.2)
    assert method.loss(embedded(Z), LABELS, HALF).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ORACLES)
def test_the_loss_is_the_ranking_loss_and_the_weighted_cosine(kind: str) -> None:
    make, by_loops = ORACLES[kind]
    method = beside(make(), weight=2.5, loss="cosine")
    expected = by_loops(Z.tolist(), LABELS.tolist())
    expected += 2.5 * distilled.feature_cosine(STUDENT.tolist(), TARGET.tolist())
    assert method.loss(embedded(STUDENT), LABELS, HALF).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", ORACLES)
def test_signs_are_those_of_the_ranking_and_the_loss_of_distillation(kind: str) -> None:
    ranking = ORACLES[kind][0]().double()
    signs = beside(ranking, weight=7.0).signs(embedded(Z), LABELS, HALF)
    relational = distilled.relational(Z.tolist(), TARGET.tolist(), 0.1, 0.05)
    assert signs.pop("distil") == pytest.approx(relational)
    assert signs == ranking.signs(OneView(Z), LABELS, HALF)


def test_what_a_ranking_method_says_of_itself_is_said_of_both() -> None:
    ranking = ProxyRanking(encoder(), ProxiesConfig(dim=0, lr=7.0), classes=3)
    method = beside(ranking)
    assert method.loss_lr == 7.0
    assert [id(p) for p in method.loss_parameters()] == [id(ranking.proxies)]
    assert method.encoder is method.exported is ranking.encoder
    hard = triplet()
    assert beside(hard).remedies(HALF) == hard.remedies(HALF) != method.remedies(HALF)


def test_the_encoder_is_stored_once() -> None:
    names = [name for name in beside(triplet()).state_dict() if "layer.weight" in name]
    assert names == ["ranking.encoder.model.layer.weight"]


def test_similarities_need_no_layer_and_the_cosine_has_one_into_the_teachers_width() -> None:
    assert not list(beside(triplet()).head.parameters())
    shapes = [tuple(p.shape) for p in beside(triplet(), loss="cosine").head.parameters()]
    assert shapes == [(TEACHER, WIDTH), (TEACHER,)]


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_each_image_of_a_ranking_step_has_its_own_row_of_the_teacher(micro_batches: int) -> None:
    case = CASES["triplet+distil"]
    step, batches = prepare(case, dtype=torch.float64, micro_batches=micro_batches)
    batch = batches[FIRST]
    step.gradient(batch)
    assert isinstance(step.embeddings, RankedAndDistilled)
    torch.testing.assert_close(step.embeddings.target, torch.from_numpy(FEATURES)[batch.positions])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": 0}, "--distil.weight must be above 0, not 0"),
        ({"weight": -0.5}, "--distil.weight must be above 0, not -0.5"),
        ({"temperature": 0}, "--distil.temperature must be above 0, not 0"),
        ({"teacher_temperature": -1}, "--distil.teacher-temperature must be above 0, not -1"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_the_name_of_their_flag(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        beside(triplet(), **settings)
