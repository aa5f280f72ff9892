"""Stand-ins of unreadable images: their own labels, and nothing twice in a batch."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from selfsup.augment.draws import draw
from selfsup.config import ViewsConfig
from selfsup.data.loader import GREY, Batch, Batches
from selfsup.data.open import open_source
from selfsup.data.samplers import PKSampler, Sampler, ShuffleSampler, UnitSampler, WeightedSampler
from selfsup.data.sources import Source

VIEWS = ViewsConfig(size=8)


def images(folder: Path, classes: int, each: int, broken: set[int]) -> Source:
    """Image i is flat, of level 4 * i + 1, in class i // each; some are no images."""
    for i in range(classes * each):
        file = folder / f"class {i // each}" / f"{i:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        if i in broken:
            file.write_bytes(b"broken")
        else:
            Image.new("RGB", (8, 8), (4 * i + 1,) * 3).save(file)
    return open_source(str(folder))


def batches(source: Source, sampler: Sampler, world: tuple[int, int] = (0, 1)) -> Batches:
    return Batches(source, sampler, VIEWS, draw=partial(draw, VIEWS, seed=0), world=world)


def seen(batch: Batch) -> list[int]:
    """Which image each row shows, by its level; GREY rows show none."""
    return (batch.crops[0][:, 0, 0, 0, 0] // 4).tolist()


SAMPLERS: dict[str, Callable[[Any], Sampler]] = {
    "shuffled": lambda source: ShuffleSampler(len(source), batch=8, seed=0),
    "by weight": lambda source: WeightedSampler([20, 20], [3.0, 1.0], batch=8, seed=0),
    "of duplicates": lambda source: UnitSampler(
        ShuffleSampler(20, batch=8, seed=0), [[2 * i, 2 * i + 1] for i in range(20)], seed=0
    ),
    "P x K": lambda source: PKSampler(source.labels, p=4, k=2, seed=0),
}


@pytest.mark.parametrize("kind", SAMPLERS)
@pytest.mark.parametrize("broken", [{5}, {0, 1, 2, 13}, set(range(0, 40, 3))])
def test_each_row_has_the_label_and_the_position_of_the_image_that_it_shows(
    tmp_path: Path, kind: str, broken: set[int]
) -> None:
    source = images(tmp_path, 8, 5, broken)
    replaced = 0
    for step in range(10):
        batch = batches(source, SAMPLERS[kind](source))[step]
        assert batch.labels is not None
        rows = seen(batch)
        assert rows == batch.positions.tolist()
        assert batch.labels.tolist() == [i // 5 for i in rows]
        assert not broken & set(rows)
        replaced += len(broken & set(SAMPLERS[kind](source)(step).tolist()))
        if kind != "P x K":
            assert len(set(rows)) == len(rows)
    assert replaced


def test_a_duplicate_of_an_image_in_the_batch_does_not_stand_in(tmp_path: Path) -> None:
    source = images(tmp_path, 8, 5, set(range(0, 40, 4)))
    sampler = SAMPLERS["of duplicates"](source)
    for step in range(20):
        units = [i // 2 for i in seen(batches(source, sampler)[step])]
        assert len(set(units)) == len(units)


def test_in_ranking_an_image_of_its_class_stands_in(tmp_path: Path) -> None:
    source = images(tmp_path, 8, 5, {0, 1, 2, 3, 13, 21})  # of class 0 only image 4 can be read
    assert source.labels is not None
    sampler = PKSampler(source.labels, p=4, k=2, seed=0)
    for step in range(10):
        batch = batches(source, sampler)[step]
        assert batch.labels is not None
        assert torch.equal(batch.labels, source.labels[sampler(step)])


@pytest.mark.parametrize("kind", SAMPLERS)
def test_stand_ins_are_the_same_on_any_number_of_processes(tmp_path: Path, kind: str) -> None:
    source = images(tmp_path, 8, 5, set(range(0, 40, 3)))
    sampler = SAMPLERS[kind](source)
    for step in range(5):
        whole = batches(source, sampler)[step]
        halves = [batches(source, sampler, (rank, 2))[step] for rank in range(2)]
        assert torch.equal(whole.positions, torch.cat([half.positions for half in halves]))
        assert torch.equal(whole.crops[0], torch.cat([half.crops[0] for half in halves]))


def test_a_row_is_grey_and_has_no_label_where_every_other_image_is_in_the_batch(
    tmp_path: Path,
) -> None:
    source = images(tmp_path, 4, 2, {3})
    sampler = ShuffleSampler(8, batch=8, seed=0)
    batch = batches(source, sampler)[0]
    row = sampler(0).tolist().index(3)
    assert (batch.crops[0][row] == GREY).all()
    assert batch.labels is not None
    assert batch.labels[row] == -1
    assert len(set(seen(batch))) == 8


def test_where_nothing_can_be_read_all_are_named(tmp_path: Path) -> None:
    source = images(tmp_path, 2, 4, set(range(8)))
    batch = batches(source, ShuffleSampler(8, batch=4, seed=0))[0]
    assert sorted(batch.bad) == list(range(8))
    assert np.all(batch.crops[0].numpy() == GREY)
