"""Settings of SimCLR, signs of prototypes, beginnings."""

import math
from typing import Any

import pytest
import torch
from oracles import losses as ranking
from small import HALF, encoder, normal
from torch import Tensor

from selfsup.config import (
    BYOLConfig,
    DINOConfig,
    LeJEPAConfig,
    SimCLRConfig,
    SwAVConfig,
    TeacherConfig,
)
from selfsup.core.errors import UserError
from selfsup.core.numerics import normalize
from selfsup.core.seeds import StepInfo
from selfsup.losses.contrastive import nt_xent
from selfsup.methods.byol import BYOL
from selfsup.methods.dino import DINO, BottleneckRows
from selfsup.methods.lejepa import LeJEPA
from selfsup.methods.method import AllViews, TwoViews
from selfsup.methods.signs import collapse_signs, view_signs
from selfsup.methods.simclr import SimCLR
from selfsup.methods.swav import SwAV

A, B, C, D = (normal(6, 4, seed=seed) for seed in range(4))
ROWS = tuple(x.tolist() for x in (A, B, C, D))


def simclr(**settings: Any) -> SimCLR:
    return SimCLR(encoder(), SimCLRConfig(hidden=4, dim=4, temperature=0.3, **settings)).double()


def test_each_loss_of_simclr_has_its_settings() -> None:
    a, b, *_ = ROWS
    expected = {
        "nt-xent": ranking.nt_xent(a, b, 0.3),
        "dcl": ranking.dcl(a, b, 0.3),
        "dclw": ranking.dclw(a, b, 0.3, 0.7),
        "info-nce": ranking.info_nce(a, b, 0.3),
    }
    for loss, value in expected.items():
        method = simclr(loss=loss, sigma=0.7)
        assert method.loss(TwoViews(A, B), None, HALF).item() == pytest.approx(value), loss


def test_simclr_with_a_queue_holds_second_views_and_counts_them() -> None:
    a, b, *_ = ROWS
    method = simclr(loss="info-nce", queue=9)
    assert method.negatives(16) == 9
    assert simclr(loss="info-nce").negatives(16) == 15
    method.after_step(TwoViews(C, D), None, HALF)
    value = method.loss(TwoViews(A, B), None, HALF).item()
    assert value == pytest.approx(ranking.info_nce(a, b, 0.3, ROWS[3]))


def test_products_in_bfloat16_are_asked_for_by_their_setting() -> None:
    a, b = normal(40, 8, seed=1).float(), normal(40, 8, seed=2).float()
    method = SimCLR(encoder(), SimCLRConfig(temperature=0.3, products="bfloat16"))
    value = method.loss(TwoViews(a, b), None, HALF)
    assert torch.equal(value, nt_xent(a, b, temperature=0.3, products=torch.bfloat16))
    assert not torch.equal(value, nt_xent(a, b, temperature=0.3))


def in_effect(scores: Tensor) -> float:
    """exp of the entropy of the mean of the rows' softmax."""
    mean = [sum(column) / len(scores) for column in zip(*scores.softmax(1).tolist(), strict=True)]
    return math.exp(-sum(p * math.log(p) for p in mean))


def test_prototypes_in_use_are_counted_as_the_loss_sees_them() -> None:
    z, t = normal(6, 3, 4, seed=5), normal(6, 2, 4, seed=6)
    swav = SwAV(encoder(), SwAVConfig(prototypes=5, hidden=4, dim=4, temperature=0.3)).double()
    signs = swav.signs(AllViews(z), None, HALF)
    scores = normalize(z[:, 0]) @ swav.prototypes.detach().T
    assert signs["prototypes"] == pytest.approx(in_effect(scores / 0.3))
    dino = DINO(
        encoder(), DINOConfig(prototypes=5, hidden=4, dim=4, teacher_temperature=0.2, warmup=0)
    ).double()
    dino.centre.copy_(normal(5, seed=7))
    dino.teacher_prototypes.copy_(normal(5, 4, seed=8))
    signs = dino.signs(BottleneckRows(z, t), None, HALF)
    scores = normalize(t[:, 0]) @ normalize(dino.teacher_prototypes).T - dino.centre
    assert signs["prototypes"] == pytest.approx(in_effect(scores / 0.2))


def test_signs_of_many_views_are_those_of_the_first() -> None:
    z = normal(6, 3, 4, seed=5)
    method = LeJEPA(encoder(), LeJEPAConfig(hidden=4, dim=4), large=2)
    signs = method.signs(AllViews(z), None, HALF)
    assert signs == collapse_signs(z[:, 0]) | view_signs(z[:, 0], z[:, 1])


def test_without_a_warm_up_dinos_teacher_has_its_temperature_at_once() -> None:
    method = DINO(encoder(), DINOConfig(prototypes=5, hidden=4, dim=4, warmup=0))
    assert method.temperature(StepInfo(0, 10, 0)) == pytest.approx(0.07)


def test_swavs_prototypes_start_at_length_1_and_dinos_at_a_deviation_of_002() -> None:
    swav = SwAV(encoder(), SwAVConfig(prototypes=50, hidden=4, dim=4))
    assert torch.allclose(swav.prototypes.norm(dim=1), torch.ones(50))
    dino = DINO(encoder(), DINOConfig(prototypes=500, hidden=4, dim=4))
    assert dino.prototypes.std().item() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("name", ["temperature", "teacher_temperature", "teacher_start"])
def test_each_temperature_of_dino_is_refused_at_0(name: str) -> None:
    with pytest.raises(UserError, match=f"--method.{name.replace('_', '-')} must be above 0"):
        DINO(encoder(), DINOConfig(**{name: 0.0}))  # type: ignore[arg-type]


def test_a_weight_of_0_and_a_final_momentum_above_1_are_refused() -> None:
    with pytest.raises(UserError, match=r"--method.weight must be between 0 and 1"):
        LeJEPA(encoder(), LeJEPAConfig(weight=0), large=2)
    with pytest.raises(UserError, match=r"--method.teacher.final must be from 0 to 1, not 1.5"):
        BYOL(encoder(), BYOLConfig(teacher=TeacherConfig(final=1.5)))
