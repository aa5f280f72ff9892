"""Heads: their layers in order, what has a bias, what has a learnt scale."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from small import encoder
from torch import nn

from selfsup.config import (
    BarlowTwinsConfig,
    BYOLConfig,
    DINOConfig,
    DINOv2Config,
    DistilConfig,
    LeJEPAConfig,
    MoCoV2Config,
    MoCoV3Config,
    NNCLRConfig,
    SimCLRConfig,
    SimSiamConfig,
    SupConConfig,
    SwAVConfig,
    TiCoConfig,
    VICRegConfig,
)
from selfsup.config.pretraining import Norm
from selfsup.doctor.cases import CASES, VIT
from selfsup.encoders.encoder import build
from selfsup.methods.barlow_twins import BarlowTwins
from selfsup.methods.byol import BYOL
from selfsup.methods.dino import DINO
from selfsup.methods.dinov2 import DINOv2
from selfsup.methods.distil import Distil, StoredFeatures
from selfsup.methods.heads import mlp
from selfsup.methods.lejepa import LeJEPA
from selfsup.methods.moco import MoCoV2, MoCoV3
from selfsup.methods.nnclr import NNCLR
from selfsup.methods.simclr import SimCLR
from selfsup.methods.simsiam import SimSiam
from selfsup.methods.supcon import SupCon
from selfsup.methods.swav import SwAV
from selfsup.methods.tico import TiCo
from selfsup.methods.vicreg import VICReg


def describe(head: nn.Module) -> str:
    """Layers in words: widths; + bias; batch or layer, with * a learnt scale; the activation."""
    words = []
    for layer in head.children():
        learnt = dict(layer.named_parameters())
        if isinstance(layer, nn.Linear):
            words.append(f"{layer.in_features}-{layer.out_features}{'+' * ('bias' in learnt)}")
        elif isinstance(layer, nn.BatchNorm1d | nn.LayerNorm):
            kind = "batch" if isinstance(layer, nn.BatchNorm1d) else "layer"
            words.append(kind + "*" * ("weight" in learnt))
        else:
            words.append(type(layer).__name__.lower())
    return " ".join(words)


@pytest.mark.parametrize(
    ("norm", "end", "expected"),
    [
        (None, "linear", "4-5+ relu 5-3+"),
        ("batch", "linear", "4-5 batch* relu 5-3+"),
        ("layer", "linear", "4-5 layer* relu 5-3+"),
        ("batch", "norm", "4-5 batch* relu 5-3 batch*"),
        ("layer", "norm", "4-5 layer* relu 5-3 layer*"),
        ("batch", "scaleless", "4-5 batch* relu 5-3 batch"),
        ("layer", "scaleless", "4-5 layer* relu 5-3 layer"),
        ("batch", "unbiased", "4-5 batch* relu 5-3"),
        (None, "unbiased", "4-5+ relu 5-3"),
    ],
)
def test_a_layer_before_a_norm_has_no_bias_and_the_end_is_as_asked(
    norm: Norm | None, end: Literal["linear", "unbiased", "norm", "scaleless"], expected: str
) -> None:
    assert describe(mlp(4, 5, 3, norm=norm, end=end)) == expected


def test_the_activation_is_the_one_that_was_asked_for_between_all_layers() -> None:
    head = mlp(4, 5, 6, 3, norm="batch", activation=nn.GELU)
    assert describe(head) == "4-5 batch* gelu 5-6 batch* gelu 6-3+"


TWO, THREE = "4-6 layer* relu 6-8", "4-6 layer* relu 6-6 layer* relu 6-8"
OWN: dict[str, Any] = {"hidden": 6, "dim": 8, "norm": "layer"}
BARE: dict[str, Any] = {"hidden": 6, "dim": 8}
HEADS: dict[str, tuple[Callable[[], Any], str, str]] = {
    "barlow twins": (lambda: BarlowTwins(encoder(), BarlowTwinsConfig(**OWN)), THREE, ""),
    "vicreg": (lambda: VICReg(encoder(), VICRegConfig(**OWN)), THREE, ""),
    "lejepa": (lambda: LeJEPA(encoder(), LeJEPAConfig(**OWN), large=2), THREE + "+", ""),
    "byol": (lambda: BYOL(encoder(), BYOLConfig(**OWN)), TWO, "8-6 layer* relu 6-8"),
    "swav": (lambda: SwAV(encoder(), SwAVConfig(**OWN)), TWO + "+", ""),
    "tico": (lambda: TiCo(encoder(), TiCoConfig(**OWN)), TWO, ""),
    "simclr": (lambda: SimCLR(encoder(), SimCLRConfig(**OWN)), "4-6 layer* relu 6-8 layer*", ""),
    "moco v2": (lambda: MoCoV2(encoder(), MoCoV2Config(**BARE)), "4-6+ relu 6-8+", ""),
    "supcon": (lambda: SupCon(encoder(), SupConConfig(**BARE)), "4-6+ relu 6-8+", ""),
    "moco v3": (
        lambda: MoCoV3(encoder(), MoCoV3Config(**OWN)),
        "4-6 layer* relu 6-8 layer",
        "8-6 layer* relu 6-8",
    ),
    "dino": (lambda: DINO(encoder(), DINOConfig(**BARE)), "4-6+ gelu 6-6+ gelu 6-8+", ""),
    "dinov2": (
        lambda: DINOv2(build(VIT, 16), DINOv2Config(**BARE)),
        "16-6+ gelu 6-6+ gelu 6-8+",
        "",
    ),
    "nnclr": (
        lambda: NNCLR(encoder(), NNCLRConfig(**OWN)),
        "4-6 layer* relu 6-6 layer* relu 6-8 layer*",
        "8-6 layer* relu 6-8+",
    ),
    "simsiam": (
        lambda: SimSiam(encoder(), SimSiamConfig(**OWN)),
        "4-6 layer* relu 6-6 layer* relu 6-8 layer",
        "8-2 layer* relu 2-8+",
    ),
}


def test_every_method_with_a_projector_has_its_papers_head_here() -> None:
    ranking = {"triplet", "pairs", "proxies"}
    none = {"mae"}  # a decoder
    same = {"dcl", "distil"}  # SimCLR's; distil has a head beside it, see below
    names = {case.split("+")[0].replace("-", " ") for case in CASES}
    missing = names - ranking - none - same - set(HEADS)
    assert not missing, f"{missing}: add the projector of the paper to HEADS"


@pytest.mark.parametrize("name", HEADS)
def test_heads_are_those_of_the_papers(name: str) -> None:
    make, projector, predictor = HEADS[name]
    method = make()
    assert describe(method.projector) == projector
    assert describe(getattr(method, "predictor", nn.Sequential())) == predictor


def test_the_head_of_distil_is_linear_or_has_a_hidden_layer_and_simclr_has_its_own() -> None:
    def distil(**settings: Any) -> Distil:
        return Distil(encoder(), DistilConfig(**OWN, **settings), StoredFeatures(np.zeros((9, 5))))

    assert describe(distil(head="linear").head) == "4-5+"
    assert describe(distil(head="mlp").head) == "4-6 layer* relu 6-5+"
    assert describe(distil(simclr=1.0).projector) == "4-6 layer* relu 6-8 layer*"
    assert not hasattr(distil(), "projector")
