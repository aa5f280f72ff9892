"""Batches: of their step, read by as many workers as it takes, each amount by its own setting."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from selfsup.augment.boxes import CenterBoxes, CropSpec
from selfsup.augment.draws import draw
from selfsup.config import LocalViewsConfig, SecondViewConfig, ViewsConfig
from selfsup.data.decode import BadImage
from selfsup.data.loader import Batches, read_ahead
from selfsup.data.samplers import ShuffleSampler
from selfsup.data.sources import ArraySource, ImageSource

N = 5000


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("brightness", 0.95, 1.05),
        ("contrast", 0.9, 1.1),
        ("saturation", 0.85, 1.15),
        ("hue", -0.2, 0.2),
        ("sigma", 1.0, 3.0),
    ],
)
def test_each_amount_has_the_setting_of_its_name(name: str, low: float, high: float) -> None:
    config = ViewsConfig(
        strength=0.5, brightness=0.1, contrast=0.2, saturation=0.3, hue=0.4, sigma=(1.0, 3.0)
    )
    (draws,) = draw(config, N, seed=0, step=0)
    values = getattr(draws, name)
    assert values.min().item() == pytest.approx(low, abs=0.002 * (high - low) + 1e-6)
    assert values.max().item() == pytest.approx(high, abs=0.002 * (high - low) + 1e-6)


def test_a_chance_of_0_for_the_second_view_is_one() -> None:
    (draws,) = draw(ViewsConfig(blur=1.0, second=SecondViewConfig(blur=0.0)), 50, seed=0, step=0)
    assert draws.blur.all(0).tolist() == [True, False]
    assert not draws.blur[:, 1].any()


def test_local_views_are_alike_and_drawn_from_random_numbers_of_their_own() -> None:
    second = SecondViewConfig(blur=1.0, solarize=1.0)
    local = LocalViewsConfig(views=2, size=32, blur=0.0)
    config = ViewsConfig(size=96, second=second, local=local)
    large, small = draw(config, 50, seed=0, step=0)
    assert not small.blur.any()
    assert not small.solarize.any()
    assert not torch.equal(small.flip, large.flip)
    assert not torch.equal(small.boxes.place, large.boxes.place)
    assert config.sizes == (96, 32)
    assert replace(config, local=LocalViewsConfig()).sizes == (96,)


def arrays() -> ArraySource:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 10, 10, 3), dtype=np.uint8)
    return ArraySource(pixels, None, [])


def test_a_batch_is_that_of_its_step() -> None:
    views, sampler = ViewsConfig(size=8), ShuffleSampler(20, batch=8, seed=0)
    batches = Batches(arrays(), sampler, views, draw=partial(draw, views, seed=0), world=(0, 1))
    for step in (0, 1, 5):
        batch = batches[step]
        assert torch.equal(batch.positions, sampler(step))
        (expected,) = draw(views, 8, seed=0, step=step)
        assert torch.equal(batch.draws[0].hue, expected.hue)
        assert torch.equal(batch.draws[0].boxes.place, expected.boxes.place)


@pytest.mark.parametrize(("in_memory", "expected"), [(True, 0), (False, 2)])
def test_sources_in_memory_are_read_without_workers(
    in_memory: bool, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def loader(*args: Any, num_workers: int, **more: Any) -> Iterator[Any]:
        asked.append(num_workers)
        batches: list[Any] = []
        return (batch for batch in batches)

    monkeypatch.setattr("selfsup.data.loader.DataLoader", loader)
    source = arrays()
    source.in_memory = in_memory
    views = ViewsConfig(size=8)
    made = Batches(source, ShuffleSampler(20, batch=8, seed=0), views, draw=draw, world=(0, 1))
    read_ahead(made, [0], workers=None)
    assert asked == [expected]


def test_an_unreadable_image_is_tried_once_in_a_batch() -> None:
    tried: list[int] = []

    def load(position: int) -> np.ndarray:
        tried.append(position)
        if position == 0:
            raise BadImage("broken")
        return np.zeros((8, 8, 3), np.uint8)

    source = ImageSource(load, ["a", "b"], None, [])
    source.crops([0, 0, 0], CropSpec(CenterBoxes(3, 1.0), 8, "bilinear"))
    assert tried.count(0) == 1
