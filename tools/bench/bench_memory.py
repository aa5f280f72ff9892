"""Peak memory and gradient of a step whose batch does not fit, in micro-batches.

    python tools/bench/bench_memory.py

SimCLR with a ResNet-18 and 96-pixel images: a batch of 256 at once, and one of 4,096 in
micro-batches of 256, each in a process of its own. Then, with an encoder so small that 4,096 images
fit at once, the gradient of both ways.
"""

import json
import resource
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

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
    """What one process measures; for this tool's own use."""


NO_BATCH_STATISTICS = EncoderConfig(
    args="{norm_layer: groupnorm1, channels: [16, 16, 16, 16], layers: [1, 1, 1, 1]}"
)


def main(config: Config) -> None:
    """Measure each in a process of its own and print."""
    if config.work:
        print(json.dumps(_work(json.loads(config.work))))
        return
    named = {"encoder": config.encoder, "size": config.size}
    for batch, micro in ((config.small, None), (config.large, config.small)):
        found = _child({**named, "batch": batch, "micro": micro})
        how = "at once" if micro is None else f"in micro-batches of {micro}"
        told = f"peak {found['peak']:.0f} MB, {found['before']:.0f} before the step"
        print(f"{config.encoder}, batch {batch} {how}: {told}, {found['seconds']:.1f} s")
    found = _child({"batch": config.large, "micro": config.small, "size": 16, "both": True})
    print(
        f"small encoder, batch {config.large}: largest difference of any gradient "
        f"{found['difference']:.1e} of {found['largest']:.1e} (float64)"
    )


def _child(asked: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--work", json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _work(asked: dict[str, Any]) -> dict[str, Any]:
    if asked.get("both"):
        one, other = (_gradient(asked | {"micro": micro})[0] for micro in (None, asked["micro"]))
        apart = max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))
        return {"difference": apart, "largest": max(float(a.abs().max()) for a in one)}
    return _gradient(asked)[1]


def _gradient(asked: dict[str, Any]) -> "tuple[list[Tensor], dict[str, float]]":
    """One step's gradient, and the most memory that the process has had."""
    import numpy as np
    import torch

    from selfsup.core import distributed
    from selfsup.data.samplers import ShuffleSampler
    from selfsup.data.sources import ArraySource
    from selfsup.encoders.encoder import build
    from selfsup.methods.simclr import SimCLR
    from selfsup.training.pretrain import local_batches
    from selfsup.training.step import Stepper

    batch, size = asked["batch"], asked["size"]
    coarse = np.random.default_rng(0).integers(0, 256, (batch, 4, 4, 3), dtype=np.uint8)
    source = ArraySource(coarse.repeat(size // 4, 1).repeat(size // 4, 2), None, [])
    torch.manual_seed(0)
    encoder, head = NO_BATCH_STATISTICS, SimCLRConfig(norm="layer")
    if "encoder" in asked:
        encoder, head = EncoderConfig(name=asked["encoder"]), replace(head, norm="batch")
    method = SimCLR(build(encoder, size), head)
    views = ViewsConfig(size=size)
    step = Stepper(
        distributed.start(),
        method if "encoder" in asked else method.double(),
        torch.optim.SGD(method.parameters(), lr=0.1),
        views=views,
        micro_batch=asked["micro"],
        seed=0,
        total=10,
    )
    read = local_batches(source, ShuffleSampler(batch, batch=batch, seed=0), views, 0)[0]
    before, began = _peak(), time.monotonic()
    step.gradient(read)
    spent = time.monotonic() - began
    gradients = [p.grad.clone() for p in method.parameters() if p.grad is not None]
    return gradients, {"peak": _peak(), "before": before, "seconds": spent}


def _peak() -> float:
    """The most memory that this process has had, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
