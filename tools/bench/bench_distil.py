"""Time a step of distillation from stored features against a step of SimCLR on the same views.

    python tools/bench/bench_distil.py

`test_resnet` at 32 pixels, batches of 256 random images, one thread. Sides take turns in one
process: each round is `--steps` whole steps (views, network, loss, optimiser) of every side. The
teacher's own time is not part of it: its features, 1,280 wide, lie on disk, of which
`--method.width` directions are learned, or all.
"""

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from timing import machine, paired, ratio

from selfsup.config import DistilConfig, EncoderConfig, SimCLRConfig
from selfsup.config.pipelines import SIMCLR
from selfsup.core.cli import run as launch
from selfsup.core.distributed import start
from selfsup.data.samplers import ShuffleSampler
from selfsup.data.sources import ArraySource
from selfsup.encoders.encoder import Encoder, build
from selfsup.methods.distil import Distil, StoredFeatures
from selfsup.methods.method import Method
from selfsup.methods.simclr import SimCLR
from selfsup.training.pretrain import local_batches
from selfsup.training.step import Stepper

VIEWS = replace(SIMCLR, size=32, blur=0.0)
WIDTH = 1280  # of the teacher: EfficientNet-Lite0


@dataclass(frozen=True, kw_only=True)
class Config:
    """Time a step of distillation against a step of SimCLR."""

    batch: int = 256
    """Images of a step."""
    steps: int = 3
    """Steps of a side in each round."""
    rounds: int = 7
    """Rounds, whose median counts."""
    images: int = 5000
    """Random images, with a stored row of features each."""


def main(config: Config) -> None:
    """Print the median step of each side, and its ratio to SimCLR's."""
    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (config.images, 32, 32, 3), dtype=np.uint8)
    source = ArraySource(images, None, [])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "features.npy"
        np.save(file, draw.standard_normal((config.images, WIDTH)).astype(np.float16))
        stored, every = (StoredFeatures(np.load(file, mmap_mode="r")) for _ in range(2))
        stored.directions = torch.linalg.qr(torch.randn(WIDTH, DistilConfig().width)).Q
        makers: dict[str, Callable[[Encoder], Method]] = {
            "simclr": lambda e: SimCLR(e, SimCLRConfig()),
            "cosine": lambda e: Distil(e, DistilConfig(loss="cosine"), stored),
            "mse": lambda e: Distil(e, DistilConfig(loss="mse"), stored),
            "relational": lambda e: Distil(e, DistilConfig(loss="relational"), stored),
            "queue": lambda e: Distil(e, DistilConfig(loss="queue"), stored),
            "cosine, all": lambda e: Distil(e, DistilConfig(), every),
            "relational, all": lambda e: Distil(e, DistilConfig(loss="relational"), every),
            "queue of 4,096": lambda e: Distil(e, DistilConfig(loss="queue", queue=4096), stored),
            "queue of 4,096, all": lambda e: Distil(
                e, DistilConfig(loss="queue", queue=4096), every
            ),
            "cosine + simclr": lambda e: Distil(e, DistilConfig(simclr=0.2), stored),
        }
        accelerator = start()
        sides = {name: _side(make, source, accelerator, config) for name, make in makers.items()}
        spent = paired(sides, config.rounds)
    print(machine())
    print(f"median step of {config.batch} images, {config.rounds} rounds of {config.steps} steps")
    for name, seconds in spent.items():
        step = statistics.median(seconds) / config.steps
        times = ratio(spent["simclr"], seconds)
        print(
            f"  {name:<18}{1000 * step:6.0f} ms   {times.median:.2f} x simclr "
            f"({times.low:.2f}-{times.high:.2f})"
        )


def _side(
    make: Callable[[Encoder], Method],
    source: ArraySource,
    accelerator: Accelerator,
    config: Config,
) -> Callable[[], float]:
    """Prepare whole steps of a method, which time themselves by the process's CPU time."""
    import time

    torch.manual_seed(0)
    method = make(build(EncoderConfig(name="test_resnet", stem="standard"), 32))
    sampler = ShuffleSampler(config.images, batch=config.batch, seed=0)
    batches = local_batches(source, sampler, VIEWS, 0)
    stepper = Stepper(
        accelerator,
        method,
        torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9),
        views=VIEWS,
        micro_batch=None,
        seed=0,
        total=1000,
    )
    numbers = iter(range(1000))

    def steps() -> float:
        began = time.process_time()
        for _ in range(config.steps):
            batch = batches[next(numbers)]
            stepper(batch)
            method.after_step(stepper.embeddings, stepper.labels, stepper.info(batch))
        return time.process_time() - began

    return steps


if __name__ == "__main__":
    launch(main, Config)
