"""Four processes train four steps, once at a stretch and once resumed after two.

Prints whether the weights are bit-identical, with and without the throw-away backward passes.
"""

import numpy as np
import torch

from selfsup.config import EncoderConfig, SimCLRConfig, ViewsConfig
from selfsup.core import distributed
from selfsup.data.samplers import ShuffleSampler
from selfsup.data.sources import ArraySource
from selfsup.encoders.encoder import build
from selfsup.methods.simclr import SimCLR
from selfsup.training.pretrain import local_batches
from selfsup.training.step import Stepper

VIEWS = ViewsConfig(size=16)


def train(method: SimCLR, start: int, stop: int, *, settled: bool) -> None:
    source = ArraySource(
        np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8), None, []
    )
    batches = local_batches(source, ShuffleSampler(64, batch=16, seed=0), VIEWS, 0)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    stepper = Stepper(
        distributed.start(), method, optimizer, views=VIEWS, micro_batch=None, seed=0, total=stop
    )
    if settled:
        stepper.warm_up_buckets(batches[start])
    for step in range(start, stop):
        stepper(batches[step])


def fresh() -> SimCLR:
    torch.manual_seed(0)
    channels = "{channels: [32, 64, 128, 256], layers: [1, 1, 1, 1]}"
    return SimCLR(build(EncoderConfig(args=channels), 16), SimCLRConfig())


def identical(*, settled: bool) -> bool:
    whole, first, second = fresh(), fresh(), fresh()
    train(whole, 0, 4, settled=settled)
    train(first, 0, 2, settled=settled)
    second.load_state_dict(first.state_dict())
    train(second, 2, 4, settled=settled)
    pairs = zip(whole.parameters(), second.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.start()
    settled, raw = identical(settled=True), identical(settled=False)
    rank, processes = distributed.world()
    if rank == 0:
        print(f"processes {processes} settled {settled} raw {raw}")
    distributed.finish()
