"""Memory and time of a training step that freezes, adapts or recomputes parts of an encoder.

    python tools/bench/bench_adapt.py

SimCLR and AdamW, for a ViT and a ResNet. Each line is measured in two fresh processes: one for the
peak memory from before the first step, where every large tensor is returned to the system at once,
and one for the time, the median CPU seconds of a step on one thread.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timing import peak

from selfsup.config import EncoderConfig, OptimConfig, SimCLRConfig, TrainConfig, ViewsConfig
from selfsup.core.cli import run as launch


@dataclass(frozen=True, kw_only=True)
class Config:
    """Memory and time of a step that freezes, adapts or recomputes parts of an encoder."""

    encoders: tuple[str, ...] = ("vit_tiny_patch16_224", "resnet18")
    """timm models."""
    size: int = 64
    """Side of the views in pixels."""
    batch: int = 32
    """Images of a step, two views each."""
    steps: int = 3
    """Steps whose time is measured, after a first one."""
    work: str = ""
    """Internal: what one process measures, as JSON."""


RETURN_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
"""For glibc. Otherwise holes in its heap count as memory in use."""
HALF = -1  # blocks: half of those that the encoder has
WAYS: dict[str, dict[str, Any]] = {
    "all layers": {},
    "--freeze, half of the blocks": {"freeze": HALF},
    "--freeze all": {"freeze": "all"},
    "--lora 8": {"lora": 8},
    "--checkpoint-activations": {"checkpoint_activations": True},
}


def main(config: Config) -> None:
    """Measure each way in a fresh process and print a table."""
    if config.work:
        print(json.dumps(_work(json.loads(config.work))))
        return
    print("| encoder | step | trained numbers | peak memory | time |")
    print("| --- | --- | --- | --- | --- |")
    for encoder in config.encoders:
        for name, settings in WAYS.items():
            if "lora" in settings and not encoder.startswith(("vit", "test_vit")):
                continue
            task = {"encoder": encoder, "size": config.size, "batch": config.batch}
            task |= {"steps": config.steps, "settings": settings}
            memory = _run_process(task | {"steps": 1}, RETURN_AT_ONCE)["memory"]
            found = _run_process(task, {})
            figures = f"{found['trained']:,} | {memory:.0f} MB | {found['seconds']:.2f} s"
            print(f"| {encoder} | {name} | {figures} |", flush=True)


def _run_process(task: dict[str, Any], variables: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, __file__, "--work", json.dumps(task)]
    environment = os.environ | variables
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _work(task: dict[str, Any]) -> dict[str, float]:
    """Train some steps and return the memory, the time and the number of trained weights."""
    import numpy as np
    import torch

    from selfsup.core import distributed
    from selfsup.data.samplers import ShuffleSampler
    from selfsup.data.sources import ArraySource
    from selfsup.encoders.encoder import build
    from selfsup.encoders.layers import layer_numbers
    from selfsup.methods.simclr import SimCLR
    from selfsup.training.adapt import adapt
    from selfsup.training.optim import optimizer, schedule
    from selfsup.training.pretrain import local_batches
    from selfsup.training.step import Stepper

    torch.set_num_threads(1)
    batch, size, settings = task["batch"], task["size"], task["settings"]
    encoder = EncoderConfig(name=task["encoder"])
    method = SimCLR(build(encoder, size), SimCLRConfig())
    if settings.get("freeze") == HALF:
        blocks = max(layer_numbers(method.encoder, encoder.name).values()) + 1
        settings = {"freeze": blocks // 2}
    adapt(method, TrainConfig(data="", out="", encoder=encoder, **settings))
    pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    views = ViewsConfig(size=size)
    sampler = ShuffleSampler(batch, batch=batch, seed=0)
    batches = local_batches(ArraySource(pixels, None, []), sampler, views, 0)
    optim = OptimConfig(name="adamw", lr=1e-3)
    step = Stepper(
        distributed.start(),
        method,
        optimizer(method, optim),
        views=views,
        micro_batch=None,
        seed=0,
        total=task["steps"] + 1,
        recomputes="checkpoint_activations" in settings,
    )
    read = [batches[i] for i in range(task["steps"] + 1)]
    before, seconds = resident(), []
    for i, local in enumerate(read):
        schedule(step.optimizer, optim, batch=batch, step=i, total=len(read))
        began = time.process_time()
        step(local)
        seconds.append(time.process_time() - began)
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    seconds = seconds[1:]
    return {"memory": peak() - before, "seconds": statistics.median(seconds), "trained": trained}


def resident() -> float:
    """Memory of this process now, in megabytes (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
