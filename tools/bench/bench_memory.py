"""Peak memory and gradient of a step whose batch does not fit, in micro-batches.

    python tools/bench/bench_memory.py

SimCLR with a ResNet-18 and 96-pixel images: a batch of 256 at once, and one of 4,096 in
micro-batches of 256, each in a fresh process. Then the gradient of both, with an encoder so small
that 4,096 images fit at once.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from timing import peak

from selfsup.config import EncoderConfig, SimCLRConfig, ViewsConfig
from selfsup.core.cli import run as launch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Config:
    """Peak memory and gradient of a step in micro-batches."""

    encoder: str = "resnet18"
    """A timm model, for the memory."""
    size: int = 96
    """Side of its views in pixels."""
    small: int = 256
    """The batch that fits, and the size of micro-batches."""
    large: int = 4096
    """The batch that does not."""
    work: str = ""
    """Internal: what one process measures, as JSON."""


NO_BATCH_STATISTICS = EncoderConfig(
    args="{norm_layer: groupnorm1, channels: [16, 16, 16, 16], layers: [1, 1, 1, 1]}"
)


def main(config: Config) -> None:
    """Measure each in a fresh process and print."""
    if config.work:
        print(json.dumps(_work(json.loads(config.work))))
        return
    encoder = {"encoder": config.encoder, "size": config.size}
    for batch, micro in ((config.small, None), (config.large, config.small)):
        result = _run_process({**encoder, "batch": batch, "micro": micro})
        how = "at once" if micro is None else f"in micro-batches of {micro}"
        memory = f"peak {result['peak']:.0f} MB, {result['before']:.0f} before the step"
        print(f"{config.encoder}, batch {batch} {how}: {memory}, {result['seconds']:.1f} s")
    task = {"batch": config.large, "micro": config.small, "size": 16, "both": True}
    result = _run_process(task)
    print(
        f"small encoder, batch {config.large}: largest difference of any gradient "
        f"{result['difference']:.1e} of {result['largest']:.1e} (float64)"
    )


def _run_process(task: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--work", json.dumps(task)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _work(task: dict[str, Any]) -> dict[str, Any]:
    if not task.get("both"):
        return _gradient(task)[1]
    at_once, split = (_gradient(task | {"micro": micro})[0] for micro in (None, task["micro"]))
    differences = [float((a - b).abs().max()) for a, b in zip(at_once, split, strict=True)]
    return {"difference": max(differences), "largest": max(float(a.abs().max()) for a in at_once)}


def _gradient(task: dict[str, Any]) -> "tuple[list[Tensor], dict[str, float]]":
    """Compute the gradient of one step, with its time and the peak memory of the process."""
    import numpy as np
    import torch

    from selfsup.core import distributed
    from selfsup.data.samplers import ShuffleSampler
    from selfsup.data.sources import ArraySource
    from selfsup.encoders.encoder import build
    from selfsup.methods.simclr import SimCLR
    from selfsup.training.pretrain import local_batches
    from selfsup.training.step import Stepper

    batch, size = task["batch"], task["size"]
    coarse = np.random.default_rng(0).integers(0, 256, (batch, 4, 4, 3), dtype=np.uint8)
    source = ArraySource(coarse.repeat(size // 4, 1).repeat(size // 4, 2), None, [])
    torch.manual_seed(0)
    encoder, head = NO_BATCH_STATISTICS, SimCLRConfig(norm="layer")
    if "encoder" in task:
        encoder, head = EncoderConfig(name=task["encoder"]), replace(head, norm="batch")
    method = SimCLR(build(encoder, size), head)
    views = ViewsConfig(size=size)
    step = Stepper(
        distributed.start(),
        method if "encoder" in task else method.double(),
        torch.optim.SGD(method.parameters(), lr=0.1),
        views=views,
        micro_batch=task["micro"],
        seed=0,
        total=10,
    )
    read = local_batches(source, ShuffleSampler(batch, batch=batch, seed=0), views, 0)[0]
    before, began = peak(), time.monotonic()
    step.gradient(read)
    spent = time.monotonic() - began
    gradients = [p.grad.clone() for p in method.parameters() if p.grad is not None]
    return gradients, {"peak": peak(), "before": before, "seconds": spent}


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
