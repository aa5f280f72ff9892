"""The loader: neither processes, workers nor restarts change what a step sees."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from launch import environment
from pictures import folder
from PIL import Image
from torch import Tensor
from views import tensors

from selfsup.augment.boxes import CropSpec
from selfsup.augment.draws import draw
from selfsup.config import LocalViewsConfig, ViewsConfig
from selfsup.data.loader import Batch, Batches, default_workers, read_ahead
from selfsup.data.samplers import ShuffleSampler
from selfsup.data.sources import ArraySource, Source
from selfsup.data.tables import file_source

VIEWS = ViewsConfig(size=8)
MANY = ViewsConfig(size=8, local=LocalViewsConfig(views=3, size=4))
N, BATCH = 20, 8


def arrays() -> ArraySource:
    pixels = np.random.default_rng(0).integers(0, 256, (N, 10, 10, 3), dtype=np.uint8)
    return ArraySource(pixels, torch.arange(N) * 3, [str(i) for i in range(60)])


def batches(source: Source, world: tuple[int, int] = (0, 1), views: ViewsConfig = VIEWS) -> Batches:
    sampler = ShuffleSampler(len(source), batch=BATCH, seed=0)
    return Batches(source, sampler, views, draw=partial(draw, views, seed=0), world=world)


def everything(batch: Batch) -> list[Tensor]:
    """All that a batch holds."""
    assert batch.labels is not None
    actual = [batch.positions, *batch.crops, batch.labels]
    for draws in batch.draws:
        actual += [tensor for field in draws for tensor in tensors(field)]
    return actual


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("views", [VIEWS, MANY])
@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("step", [0, 3])
def test_slices_joined_in_the_order_of_ranks_are_the_global_batch(
    processes: int, step: int, views: ViewsConfig
) -> None:
    whole = everything(batches(arrays(), views=views)[step])
    slices = [
        everything(batches(arrays(), (rank, processes), views)[step]) for rank in range(processes)
    ]
    joined = [torch.cat(blocks) for blocks in zip(*slices, strict=True)]
    assert len(slices[0][0]) == BATCH // processes
    assert equal(joined, whole)


def test_crops_are_of_the_images_that_the_positions_name() -> None:
    source = arrays()
    batch = batches(source, (1, 2))[2]
    (draws,), (seen,) = batch.draws, batch.crops
    (crops,) = source.crops(batch.positions.tolist(), CropSpec(draws.boxes, 8, "bicubic")).images
    assert torch.equal(seen, crops)
    assert batch.labels is not None
    assert torch.equal(batch.labels, batch.positions * 3)
    assert seen.shape == (BATCH // 2, 2, 3, 8, 8)


def test_views_of_two_sizes_are_read_at_their_sizes() -> None:
    batch = batches(arrays(), views=MANY)[0]
    assert [tuple(crops.shape[1:]) for crops in batch.crops] == [(2, 3, 8, 8), (3, 3, 4, 4)]


def test_workers_do_not_change_batches() -> None:
    alone = list(read_ahead(batches(arrays()), range(4), workers=0))
    helped = list(read_ahead(batches(arrays()), range(4), workers=2))
    assert [b.step for b in alone] == [b.step for b in helped] == [0, 1, 2, 3]
    for a, b in zip(alone, helped, strict=True):
        assert equal(everything(a), everything(b))


def test_starting_at_a_later_step_gives_the_same_batches() -> None:
    whole = list(read_ahead(batches(arrays()), range(6), workers=0))
    later = list(read_ahead(batches(arrays()), range(3, 6), workers=0))
    assert [b.step for b in later] == [3, 4, 5]
    for a, b in zip(whole[3:], later, strict=True):
        assert equal(everything(a), everything(b))


def test_unreadable_images_come_with_their_batch(tmp_path: Path) -> None:
    paths = [f"{i}.png" for i in range(BATCH)]
    for path in paths:
        Image.new("RGB", (9, 9)).save(tmp_path / path)
    (tmp_path / paths[3]).write_bytes(b"broken")
    source = file_source(tmp_path, paths, None, [])
    (batch,) = read_ahead(batches(source), [0], workers=0)
    assert list(batch.bad) == [3]
    assert batch.labels is None
    assert sorted(batch.positions.tolist()) == list(range(BATCH))


@pytest.mark.parametrize(
    ("in_memory", "gpu", "cores", "local", "workers"),
    [
        (True, False, 16, 1, 0),
        (False, False, 16, 1, 2),
        (True, True, 16, 1, 12),
        (False, True, 8, 1, 7),
        (False, True, 64, 8, 7),
        (True, True, 2, 1, 2),
        (True, True, 8, 8, 2),
    ],
)
def test_readers_share_the_cores_where_a_gpu_trains(
    in_memory: bool,
    gpu: bool,
    cores: int,
    local: int,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(cores), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(local))
    assert default_workers(in_memory=in_memory, gpu=gpu) == workers


def test_what_goes_to_a_gpu_is_pinned_and_the_rest_is_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pinned = []

    def pin(x: Tensor) -> Tensor:
        pinned.append(x)
        return x.clone()

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    (batch,) = read_ahead(batches(arrays()), [0], workers=0)
    copy = batch.pin_memory()
    assert len(pinned) == len(batch.crops) + (batch.labels is not None)
    for x, y in zip(batch.crops, copy.crops, strict=True):
        assert torch.equal(x, y)
    assert copy.draws is batch.draws
    assert copy.positions is batch.positions


HELD = """
import sys
from functools import partial
from selfsup.augment.draws import draw
from selfsup.config import ViewsConfig
from selfsup.data.loader import Batches, read_ahead
from selfsup.data.open import open_source
from selfsup.data.samplers import ShuffleSampler

source, views = open_source(sys.argv[1]), ViewsConfig(size=8)
sampler = ShuffleSampler(len(source), batch=4, seed=0)
drawn = partial(draw, views, seed=0)
held = read_ahead(Batches(source, sampler, views, draw=drawn, world=(0, 1)), range(9), workers=2)
next(held)
print("read", flush=True)
if sys.argv[2] == "raise":
    raise ValueError
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["end", "raise"])
def test_a_process_ends_although_something_holds_its_readers(tmp_path: Path, how: str) -> None:
    script, images = tmp_path / "held.py", folder(tmp_path / "images")
    script.write_text(HELD)
    done = subprocess.run(
        [sys.executable, script, images, how],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert "read" in done.stdout, done.stderr
    assert done.returncode == (1 if how == "raise" else 0)
