"""Writes the gradient of one step, for each method, norm and micro-batch, from rank 0.

Started by torchrun, or called in process for the single-process side.
"""

import sys
import typing
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selfsup import distributed
from selfsup.config import (
    EncoderConfig,
    MemoryConfig,
    PairsConfig,
    ProxiesConfig,
    SimCLRConfig,
    TripletConfig,
    ViewsConfig,
)
from selfsup.config.ranking import Miner, PairLoss
from selfsup.data.samplers import PKSampler, ShuffleSampler
from selfsup.data.sources import ArraySource
from selfsup.encoder import Encoder, build
from selfsup.methods.method import Method
from selfsup.methods.pairs import USED, PairRanking
from selfsup.methods.proxies import ProxyRanking
from selfsup.methods.simclr import SimCLR
from selfsup.methods.triplet import Triplet
from selfsup.pretrain import local_batches
from selfsup.step import Stepper

BATCH = 16
CLASSES = 8
NORMS = {
    "group": "{norm_layer: groupnorm, channels: [32, 32, 32, 32], layers: [1, 1, 1, 1]}",
    "batch": "{stem_type: deep, stem_width: 4, channels: [8, 8, 8, 8], layers: [1, 1, 1, 1]}",
}
MEMORY = MemoryConfig(size=24, start=0.0)
LAYER = SimCLRConfig(hidden=16, dim=8, norm="layer")
METHODS: dict[str, Callable[[Encoder], Method]] = {
    "simclr/batch": lambda e: SimCLR(e, replace(LAYER, norm="batch")),
    "triplet/batch": lambda e: Triplet(e, TripletConfig(dim=8)),
    "simclr/group": lambda e: SimCLR(e, LAYER),
    "simclr dcl/group": lambda e: SimCLR(e, replace(LAYER, loss="dcl")),
    "simclr dclw/group": lambda e: SimCLR(e, replace(LAYER, loss="dclw")),
    "simclr info-nce/group": lambda e: SimCLR(e, replace(LAYER, loss="info-nce", queue=24)),
    "triplet/group": lambda e: Triplet(e, TripletConfig(dim=8)),
    "triplet soft/group": lambda e: Triplet(e, TripletConfig(dim=8, loss="soft")),
    "triplet angular/group": lambda e: Triplet(
        e, TripletConfig(dim=8, loss="angular", miner="batch-all", degrees=5)
    ),
    "triplet memory/group": lambda e: Triplet(e, TripletConfig(dim=8, memory=MEMORY)),
}


def with_miner(miner: Miner) -> Callable[[Encoder], Method]:
    return lambda e: Triplet(e, TripletConfig(dim=8, miner=miner, margin=0.3))


def with_loss(loss: PairLoss) -> Callable[[Encoder], Method]:
    memory = MEMORY if "memory" in USED[loss] else MemoryConfig()
    miner = "multi-similarity" if "miner" in USED[loss] else "all"
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


METHODS |= {f"triplet {m}/group": with_miner(m) for m in typing.get_args(Miner)}
METHODS |= {f"pairs {name}/group": with_loss(name) for name in typing.get_args(PairLoss)}
METHODS |= {f"proxies {n}/group": with_proxies(n) for n in ("proxy-anchor", "arcface", "cosface")}


def gradients(micro_batches: int, names: Iterable[str] = METHODS) -> dict[str, Any]:
    """{"simclr/group": {parameter: gradient}, ...} and the number of processes.

    The gradient is of a step that follows another, so that memories are not empty.
    """
    images = np.random.default_rng(0).integers(0, 256, (64, 20, 20, 3), dtype=np.uint8)
    labels = torch.arange(64) % CLASSES
    source = ArraySource(images, labels, [str(c) for c in range(CLASSES)])
    found: dict[str, Any] = {"world": distributed.world()[1]}
    for name in names:
        accelerator = distributed.start()
        torch.manual_seed(0)
        method = METHODS[name](build(EncoderConfig(args=NORMS[name.split("/")[1]]), 16)).double()
        unlabelled = name.startswith("simclr")
        views = ViewsConfig(size=16, views=2 if unlabelled else 1)
        sampler = (
            ShuffleSampler(64, batch=BATCH, seed=0)
            if unlabelled
            else PKSampler(labels, p=4, k=4, seed=0)
        )
        stepper = Stepper(
            accelerator,
            method,
            torch.optim.SGD(method.parameters(), lr=1e-3),
            views=views,
            micro_batch=BATCH // accelerator.num_processes // micro_batches,
            seed=0,
            total=10,
        )
        batches = local_batches(source, sampler, views, 0)
        first = batches[2]
        stepper(first)
        method.after_step(stepper.embeddings, stepper.labels, stepper.moment(first))
        loss = stepper.gradient(batches[3])
        grads = {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}
        assert len(grads) == len(list(method.parameters())), name
        buffers = {
            n: b.clone()
            for n, b in method.named_buffers()
            if n.split(".")[0] in ("memory", "queue")
        }
        found[name] = {"loss": loss, **grads, **buffers}
        found["world"] = accelerator.num_processes
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    made = {count: gradients(count) for count in (1, 2)}
    if distributed.world()[0] == 0:
        torch.save(made, Path(sys.argv[1]))
    distributed.finish()
