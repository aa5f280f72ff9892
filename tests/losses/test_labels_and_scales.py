"""Labels of every type, and rows whose squares leave float32, in every loss and miner."""

from collections.abc import Callable

import pytest
import torch
from losses.cases import CASES
from torch import Tensor

from selfsup.core.labels import INTEGERS, class_labels
from selfsup.core.numerics import normalize, scale_to_one
from selfsup.losses.contrastive import dcl, info_nce, nt_xent
from selfsup.losses.covariance import barlow_twins
from selfsup.losses.measures import Distance
from selfsup.losses.proxies import arcface
from selfsup.losses.regression import cosine_regression
from selfsup.mining.distances import (
    all_triplets,
    batch_easy_hard,
    batch_hard,
    semi_hard,
    semi_hard_all,
)
from selfsup.mining.multi_similarity import multi_similarity_pairs
from selfsup.mining.sampled import distance_weighted, random_triplets

pytestmark = pytest.mark.slow

LABELS = torch.tensor([3, 1, 2, 1, 3, 2, 1])  # none is 0: a mask of them would be all true
TYPES = [*INTEGERS, torch.float32, torch.float64, torch.float16, torch.bfloat16]
UNIT, RAW = Distance(), Distance(normalize=False)
EXTREME = [1e-30, 1e-20, 1e20, 1e25]


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


Miner = Callable[[Tensor, Tensor, Distance], tuple[Tensor, ...]]
MINERS: dict[str, Miner] = {
    "batch hard": lambda x, y, d: batch_hard(x, y, distance=d),
    "easy positive": lambda x, y, d: batch_easy_hard(
        x, y, distance=d, positive="easiest", negative="semi-hard"
    ),
    "semi-hard": lambda x, y, d: semi_hard(x, y, distance=d, margin=float("inf")),
    "semi-hard all": lambda x, y, d: semi_hard_all(x, y, distance=d, margin=float("inf")),
    "all": lambda x, y, d: all_triplets(y),
    "random": lambda x, y, d: random_triplets(y, generator=seeded()),
    "distance weighted": lambda x, y, d: distance_weighted(x, y, generator=seeded()),
    "multi-similarity": lambda x, y, d: multi_similarity_pairs(x, y, epsilon=0.1),
}


def labels_of(kind: torch.dtype) -> Tensor:
    return (LABELS > 1).to(kind) if kind == torch.bool else LABELS.to(kind)


@pytest.mark.parametrize("kind", TYPES)
def test_labels_of_every_type_give_every_losss_value(kind: torch.dtype) -> None:
    x, labels = normal(7, 3, 0), labels_of(kind)
    for name, case in CASES.items():
        expected = case.ours(x, labels.long(), None)
        torch.testing.assert_close(case.ours(x, labels, None), expected, msg=f"{name}: {{}}".format)


@pytest.mark.parametrize("kind", TYPES)
def test_labels_of_every_type_give_every_miners_choice(kind: torch.dtype) -> None:
    x, labels = normal(7, 3, 0), labels_of(kind)
    for name, miner in MINERS.items():
        for ours, expected in zip(
            miner(x, labels, UNIT), miner(x, labels.long(), UNIT), strict=True
        ):
            assert torch.equal(ours, expected), name


def test_as_many_rows_as_classes_do_not_turn_small_labels_into_a_mask() -> None:
    x, w = normal(6, 16, 0), normal(6, 16, 1)
    labels = torch.tensor([5, 4, 3, 2, 1, 1])
    expected = arcface(x, labels, w, margin=0.5, scale=64)
    for kind in (torch.uint8, torch.int16, torch.float32):
        assert torch.equal(arcface(x, labels.to(kind), w, margin=0.5, scale=64), expected)


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        (torch.tensor([0.0, 1.5, 2.0]), "1 of 3 labels are no whole numbers, the first 1.5"),
        (torch.tensor([0.0, float("nan"), 2.0]), "1 of 3 labels are no whole numbers"),
        (torch.tensor([0.0, float("inf"), 2.0]), "1 of 3 labels are no whole numbers"),
        (torch.eye(3), r"labels have shape \[3, 3\]"),
        (torch.zeros(3, 1, dtype=torch.int64), r"labels have shape \[3, 1\]"),
        (torch.zeros(3, dtype=torch.complex64), "labels are torch.complex64"),
    ],
)
def test_labels_that_are_no_numbers_of_classes_are_refused(labels: Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        class_labels(labels)
    with pytest.raises(ValueError, match=sentence):
        arcface(normal(3, 2, 0), labels, normal(3, 2, 1), margin=0.5, scale=8)
    with pytest.raises(ValueError, match=sentence):
        batch_hard(normal(3, 2, 0), labels, distance=UNIT)


SCALED = [name for name in CASES if "False" not in name.split(" True")[0] and "raw" not in name]
VIEWS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nt-xent": lambda a, b: nt_xent(a, b, temperature=0.3),
    "info-nce": lambda a, b: info_nce(a, b, temperature=0.3),
    "dcl": lambda a, b: dcl(a, b, temperature=0.3),
    "byol": cosine_regression,
    "barlow twins": lambda a, b: barlow_twins(a, b, off_diagonal=0.1, eps=0.0),
}


@pytest.mark.parametrize("scale", EXTREME)
def test_a_loss_of_directions_does_not_depend_on_the_length_of_rows(scale: float) -> None:
    x, labels = normal(7, 3, 1), LABELS
    for name in SCALED:
        expected = CASES[name].ours(x, labels, None)
        y = (x * scale).requires_grad_()
        loss = CASES[name].ours(y, labels, None)
        torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4, msg=f"{name}: {{}}".format)
        assert torch.autograd.grad(loss, y)[0].isfinite().all(), name


@pytest.mark.parametrize("scale", EXTREME)
@pytest.mark.parametrize("name", VIEWS)
def test_a_loss_of_two_views_does_not_depend_on_the_length_of_rows(name: str, scale: float) -> None:
    a, b = normal(6, 4, 1), normal(6, 4, 2)
    both = [(x * scale).requires_grad_() for x in (a, b)]
    loss = VIEWS[name](*both)
    torch.testing.assert_close(loss, VIEWS[name](a, b), atol=1e-4, rtol=1e-4)
    for gradient in torch.autograd.grad(loss, both, allow_unused=True):
        assert gradient is None or gradient.isfinite().all()


@pytest.mark.parametrize("scale", EXTREME)
@pytest.mark.parametrize("name", MINERS)
def test_a_miner_chooses_the_same_at_any_scale(name: str, scale: float) -> None:
    x = normal(7, 3, 3)
    for distance in (UNIT, RAW):
        for ours, expected in zip(
            MINERS[name](x * scale, LABELS, distance),
            MINERS[name](x, LABELS, distance),
            strict=True,
        ):
            assert torch.equal(ours, expected)


@pytest.mark.parametrize("scale", EXTREME)
def test_distances_of_long_and_short_rows_are_those_of_float64(scale: float) -> None:
    x, y = normal(5, 3, 4) * scale, normal(5, 3, 5) * scale
    expected = (x.double() - y.double()).norm(dim=1)
    torch.testing.assert_close(RAW.rowwise(x, y).double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(RAW.matrix(x, y).diagonal().double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(normalize(x), normalize(x.double()).float(), rtol=1e-5, atol=0)


def test_scaling_to_one_rounds_nothing() -> None:
    x = normal(4, 3, 6) * 1e20
    z = scale_to_one(x)
    assert 0.5 <= float(z.abs().max()) < 1
    assert ((x / z).log2() % 1 == 0).all()
    assert torch.equal(scale_to_one(torch.zeros(2, 3)), torch.zeros(2, 3))
