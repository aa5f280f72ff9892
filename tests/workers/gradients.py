"""Writes what each method does with some steps, for each micro-batch, from rank 0.

Started by torchrun, or called in process for the single-process side.
"""

import sys
import typing
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from selfsup.config import (
    BYOLConfig,
    DINOv2Config,
    DistilConfig,
    EncoderConfig,
    MemoryConfig,
    PairsConfig,
    ProxiesConfig,
    RankingDistilConfig,
    SimCLRConfig,
    SwAVConfig,
    TeacherConfig,
    TripletConfig,
)
from selfsup.config.distillation import DistilLoss
from selfsup.config.finetuning import Miner, PairLoss
from selfsup.core import distributed
from selfsup.doctor.cases import (
    CASES,
    CLASSES,
    FEATURES,
    IMAGES,
    MEMORY,
    ONE,
    ONE_GROUP,
    ONE_SIZE,
    TWO,
    VIT,
    Case,
)
from selfsup.doctor.certificate import Measurement, measure
from selfsup.encoders.encoder import Encoder, build_for
from selfsup.losses.shares import whatever_size
from selfsup.methods.byol import BYOL
from selfsup.methods.dinov2 import DINOv2
from selfsup.methods.distil import Distil, LiveTeacher, StoredFeatures
from selfsup.methods.distilled_ranking import DistilledRanking
from selfsup.methods.method import Method, OneView
from selfsup.methods.pair_ranking import USED_SETTINGS, PairRanking
from selfsup.methods.proxy_ranking import ProxyRanking
from selfsup.methods.simclr import SimCLR
from selfsup.methods.swav import SwAV
from selfsup.methods.triplet_ranking import Triplet

NORMS = {
    "group": ONE_GROUP,
    "vit": VIT,
    "batch": EncoderConfig(
        args="{stem_type: deep, stem_width: 4, channels: [8, 8, 8, 8], layers: [1, 1, 1, 1]}"
    ),
}
LAYER = SimCLRConfig(hidden=16, dim=8, norm="layer")
HEAD: dict[str, Any] = {"hidden": 16, "dim": 8, "norm": "layer", "queue": 24}
STEPS = 5


def byol(norm: str, buffers: str) -> Callable[[Encoder], Method]:
    teacher = TeacherConfig(momentum=0.9, buffers=buffers)  # type: ignore[arg-type]
    config = BYOLConfig(hidden=16, dim=8, norm=norm, teacher=teacher)  # type: ignore[arg-type]
    return lambda e: BYOL(e, config)


def with_miner(miner: Miner) -> Callable[[Encoder], Method]:
    return lambda e: Triplet(e, TripletConfig(dim=8, miner=miner, margin=0.3))


def with_loss(loss: PairLoss) -> Callable[[Encoder], Method]:
    memory = MEMORY if "memory" in USED_SETTINGS[loss] else MemoryConfig()
    miner = "multi-similarity" if "miner" in USED_SETTINGS[loss] else "all"
    return lambda e: PairRanking(
        e,
        PairsConfig(dim=8, loss=loss, memory=memory, miner=miner),  # type: ignore[arg-type]
    )


def with_proxies(loss: str) -> Callable[[Encoder], Method]:
    return lambda e: ProxyRanking(
        e,
        ProxiesConfig(dim=8, loss=loss),  # type: ignore[arg-type]
        classes=CLASSES,
    )


def distil(loss: DistilLoss) -> Callable[[Encoder], Method]:
    return lambda e: Distil(
        e, DistilConfig(loss=loss, head="mlp", **HEAD), StoredFeatures(FEATURES)
    )


def live(encoder: Encoder) -> Method:
    teacher = LiveTeacher(build_for(ONE_GROUP, TWO), TWO, student=TWO, images=IMAGES)
    return Distil(encoder, DistilConfig(loss="relational", **HEAD), teacher)


def ranking_and(
    make: Callable[[Encoder], Method[OneView]], *, seen: bool = False, **settings: Any
) -> Callable[[Encoder], Method]:
    """A ranking method beside a teacher, whose features are stored or of the views seen."""

    def both(encoder: Encoder) -> Method:
        targets: StoredFeatures | LiveTeacher = StoredFeatures(FEATURES)
        if seen:
            targets = LiveTeacher(build_for(ONE_GROUP, ONE), ONE, student=ONE, images=IMAGES)
        return DistilledRanking(make(encoder), RankingDistilConfig(**settings), targets)

    return both


METHODS: dict[str, Case] = {
    **{f"{name}/group": case for name, case in CASES.items() if case.encoder is ONE_GROUP},
    **{f"{name}/vit": case for name, case in CASES.items() if case.encoder is VIT},
    "dinov2 shared/vit": Case(
        lambda e: DINOv2(
            e, DINOv2Config(prototypes=12, frozen=0.0, hidden=16, dim=8, heads="shared")
        ),
        ONE_SIZE,
    ),
    "simclr/batch": Case(lambda e: SimCLR(e, replace(LAYER, norm="batch")), TWO),
    "triplet/batch": Case(lambda e: Triplet(e, TripletConfig(dim=8)), ONE),
    "byol own/batch": Case(byol("batch", "own"), TWO),
    "byol copied/batch": Case(byol("batch", "copied"), TWO),
    "simclr dclw/group": Case(lambda e: SimCLR(e, replace(LAYER, loss="dclw")), TWO),
    "simclr info-nce/group": Case(
        lambda e: SimCLR(e, replace(LAYER, loss="info-nce", queue=24)), TWO
    ),
    "swav resting/group": Case(
        lambda e: SwAV(e, SwAVConfig(prototypes=6, hidden=16, dim=8, norm="layer", frozen=0.5)), TWO
    ),
    "triplet soft/group": Case(lambda e: Triplet(e, TripletConfig(dim=8, loss="soft")), ONE),
    "triplet angular/group": Case(
        lambda e: Triplet(e, TripletConfig(dim=8, loss="angular", miner="batch-all", degrees=5)),
        ONE,
    ),
    **{f"distil {n}/group": Case(distil(n), TWO) for n in typing.get_args(DistilLoss)},
    "distil live/group": Case(live, TWO),
    "proxies+distil/group": Case(ranking_and(with_proxies("arcface"), loss="cosine"), ONE),
    "pairs+distil/group": Case(ranking_and(with_loss("supcon"), weight=0.3), ONE),
    "triplet+distil live/group": Case(ranking_and(with_miner("batch-all"), seen=True), ONE),
    **{f"triplet {m}/group": Case(with_miner(m), ONE) for m in typing.get_args(Miner)},
    **{f"pairs {name}/group": Case(with_loss(name), ONE) for name in typing.get_args(PairLoss)},
    **{f"proxies {n}/group": Case(with_proxies(n), ONE) for n in ("arcface", "cosface")},
}


def gradients(micro_batches: int, names: Iterable[str] = METHODS) -> dict[str, Measurement]:
    """{"simclr/group": what it does, ...}, in float64."""
    found: dict[str, Measurement] = {}
    for name in names:
        made = measure(
            [name],
            micro_batches=micro_batches,
            steps=STEPS,
            lr=1e-3,
            dtype=torch.float64,
            cases=METHODS,
            encoder=NORMS[name.split("/")[1]],
        )
        found |= made
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    made: dict[Any, Any] = {}
    with whatever_size():
        for count in (1, 2):
            found = gradients(count, sys.argv[2:])
            made[count] = {name: tuple(each) for name, each in found.items()}
    made["world"] = distributed.world()[1]
    if distributed.is_main():
        torch.save(made, Path(sys.argv[1]))
    distributed.finish()
