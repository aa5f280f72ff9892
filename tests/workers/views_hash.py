"""Prints a hash of what each step sees: positions and finished views, in global order."""

import hashlib
import sys
from pathlib import Path

import torch

from selfsup.augment.apply import apply
from selfsup.config import ViewsConfig
from selfsup.core import distributed
from selfsup.data.loader import read_ahead
from selfsup.data.open import open_source
from selfsup.data.samplers import ShuffleSampler
from selfsup.training.pretrain import local_batches

KORNIA = "{RandomMotionBlur: {kernel_size: 3, angle: 35.0, direction: 0.5}, RandomJPEG: }"


def hashes(folder: Path, start: int, stop: int, workers: int) -> list[str]:
    source = open_source(str(folder))
    views = ViewsConfig(size=16, kornia=KORNIA)
    batches = local_batches(source, ShuffleSampler(len(source), batch=8, seed=0), views, 0)
    found = []
    for batch in read_ahead(batches, range(start, stop), workers=workers):
        (crops,), (draws,) = batch.crops, batch.draws
        local = apply(crops, draws, views)
        fields = [local, local[:, 0, 0, 0, 0], batch.positions]
        seen, corner, positions = distributed.gather_fields(fields)
        assert torch.equal(corner, seen[:, 0, 0, 0, 0])
        digest = hashlib.sha256(positions.numpy().tobytes() + seen.numpy().tobytes()).hexdigest()
        found.append(f"{batch.step} {digest}")
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.start()
    lines = hashes(Path(sys.argv[1]), *map(int, sys.argv[2:5]))
    rank, processes = distributed.world()
    if rank == 0:
        print(f"world {processes}", *lines, sep="\n")
    distributed.finish()
