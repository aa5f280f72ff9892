"""Methods whose encoder is partly frozen, has LoRA or recomputes activations, and their gradients.

Started by torchrun, or called in process for the single-process side.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from selfsup.config import (
    BYOLConfig,
    EncoderConfig,
    ProxiesConfig,
    SimCLRConfig,
    TrainConfig,
    TripletConfig,
)
from selfsup.core import distributed
from selfsup.doctor.cases import CLASSES, ONE, ONE_GROUP, TWO, Case
from selfsup.doctor.certificate import Measurement, measure
from selfsup.encoders.encoder import Encoder
from selfsup.methods.byol import BYOL
from selfsup.methods.method import Method
from selfsup.methods.proxy_ranking import ProxyRanking
from selfsup.methods.simclr import SimCLR
from selfsup.methods.triplet_ranking import Triplet
from selfsup.training.adapt import adapt
from selfsup.training.step import Stepper

VIT = EncoderConfig(name="test_vit")
RESNET = EncoderConfig(
    args="{stem_type: deep, stem_width: 4, channels: [8, 8, 8, 8], layers: [1, 1, 1, 1]}"
)
CONVNEXT = EncoderConfig(name="test_convnext")
DROPS = "{depth: 2, proj_drop_rate: 0.2, drop_path_rate: 0.3}"
NARROW = SimCLRConfig(hidden=16, dim=8, norm="layer")


def adapted(make: Callable[[Encoder], Method], **settings: Any) -> Callable[[Encoder], Method]:
    """The method after `adapt` with these settings."""

    def changed(encoder: Encoder) -> Method:
        method = make(encoder)
        adapt(method, TrainConfig(data="", out="", **settings))
        return method

    return changed


def byol(encoder: Encoder) -> Method:
    return BYOL(encoder, BYOLConfig(hidden=16, dim=8, norm="layer"))


def triplet(encoder: Encoder) -> Method:
    return Triplet(encoder, TripletConfig(dim=8))


def proxies(encoder: Encoder) -> Method:
    return ProxyRanking(encoder, ProxiesConfig(dim=0), classes=CLASSES)


def simclr(encoder: Encoder) -> Method:
    return SimCLR(encoder, NARROW)


RUNS: dict[str, tuple[Case, EncoderConfig]] = {
    "byol, three blocks frozen": (Case(adapted(byol, freeze=3), TWO), ONE_GROUP),
    "triplet, all frozen": (Case(adapted(triplet, freeze="all"), ONE), ONE_GROUP),
    "proxies, all frozen": (Case(adapted(proxies, freeze="all"), ONE), ONE_GROUP),
    "byol, LoRA": (Case(adapted(byol, lora=4, freeze=2), TWO), VIT),
    "simclr, checkpointing": (Case(adapted(simclr, checkpoint_activations=True), TWO), VIT),
}


def gradients(micro_batches: int) -> dict[str, Measurement]:
    """What each run does in three steps, in float64."""
    measured: dict[str, Measurement] = {}
    for name, (case, encoder) in RUNS.items():
        measured |= measure(
            [name],
            micro_batches=micro_batches,
            steps=3,
            lr=1e-2,
            dtype=torch.float64,
            cases={name: case},
            encoder=encoder,
            stepper=partial(Stepper, recomputes="checkpointing" in name),
        )
    return measured


if __name__ == "__main__":
    torch.set_num_threads(1)
    saved: dict[Any, Any] = {
        count: {name: tuple(each) for name, each in gradients(count).items()} for count in (1, 2)
    }
    saved["world"] = distributed.world()[1]
    if distributed.is_main():
        torch.save(saved, Path(sys.argv[1]))
    distributed.finish()
