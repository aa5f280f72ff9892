"""Writes the gradient of one step, for each method, norm and micro-batch, from rank 0.

Started by torchrun, or called in process for the single-process side.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from selfsup import distributed
from selfsup.config import EncoderConfig, SimCLRConfig, TripletConfig, ViewsConfig
from selfsup.data.loader import Sampler
from selfsup.data.samplers import PKSampler, ShuffleSampler
from selfsup.data.sources import ArraySource
from selfsup.encoder import build
from selfsup.methods.method import Method
from selfsup.methods.simclr import SimCLR
from selfsup.methods.triplet import Triplet
from selfsup.pretrain import local_batches
from selfsup.step import Stepper

BATCH = 16
NORMS = {
    "group": "{norm_layer: groupnorm, channels: [32, 32, 32, 32], layers: [1, 1, 1, 1]}",
    "batch": "{stem_type: deep, stem_width: 4, channels: [8, 8, 8, 8], layers: [1, 1, 1, 1]}",
}


def method_of(name: str, norm: str) -> tuple[Method, ViewsConfig]:
    torch.manual_seed(0)
    encoder = build(EncoderConfig(args=NORMS[norm]), 16)
    views = ViewsConfig(size=16, views=2 if name == "simclr" else 1)
    if name == "triplet":
        return Triplet(encoder, TripletConfig(dim=8)).double(), views
    kind = SimCLRConfig(hidden=16, dim=8, norm="layer" if norm == "group" else "batch")
    return SimCLR(encoder, kind).double(), views


def gradients(micro_batches: int) -> dict[str, Any]:
    """{"simclr/group": {parameter: gradient}, ...} and the number of processes."""
    images = np.random.default_rng(0).integers(0, 256, (64, 20, 20, 3), dtype=np.uint8)
    source = ArraySource(images, torch.arange(64) % 8, [str(c) for c in range(8)])
    assert source.labels is not None
    samplers: dict[str, Sampler] = {
        "simclr": ShuffleSampler(64, batch=BATCH, seed=0),
        "triplet": PKSampler(source.labels, p=4, k=4, seed=0),
    }
    found: dict[str, Any] = {"world": distributed.world()[1]}
    for name, sampler in samplers.items():
        for norm in NORMS:
            accelerator = distributed.start()
            method, views = method_of(name, norm)
            stepper = Stepper(
                accelerator,
                method,
                torch.optim.SGD(method.parameters(), lr=0.1),
                views=views,
                micro_batch=BATCH // accelerator.num_processes // micro_batches,
                seed=0,
                total=10,
            )
            loss = stepper.gradient(local_batches(source, sampler, views, 0)[3])
            grads = {n: p.grad.clone() for n, p in method.named_parameters() if p.grad is not None}
            found[f"{name}/{norm}"] = {"loss": loss, **grads}
            found["world"] = accelerator.num_processes
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    made = {count: gradients(count) for count in (1, 2)}
    if distributed.world()[0] == 0:
        torch.save(made, Path(sys.argv[1]))
    distributed.finish()
