"""Random views by one call, and the examples at the door of this room and of the data room."""

import doctest
import importlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from views import close, crops

from selfsup.augment import random_views
from selfsup.augment.apply import apply
from selfsup.augment.boxes import CropSpec
from selfsup.augment.draws import draw
from selfsup.config import LocalViewsConfig, ViewsConfig
from selfsup.core.errors import UserError
from selfsup.data.sources import ArraySource

CONFIG = ViewsConfig(size=12, local=LocalViewsConfig(views=3, size=8))


def test_views_are_those_that_training_makes() -> None:
    images = crops(5, 1, 40)[:, 0]
    large, small = random_views(images, CONFIG, seed=2, step=9)
    assert large.shape == (5, 2, 3, 12, 12)
    assert small.shape == (5, 3, 3, 8, 8)
    source = ArraySource(images.permute(0, 2, 3, 1).numpy(), None, [])
    for views, draws, group in zip(
        (large, small), draw(CONFIG, 5, seed=2, step=9), CONFIG.by_size(), strict=True
    ):
        spec = CropSpec(draws.boxes, group.size, group.resampling)
        assert torch.equal(views, apply(source.crops(range(5), spec).images[0], draws, group))


def test_images_of_any_kind_and_size_have_views() -> None:
    image = crops(1, 1, 30)[0, 0]
    array = image.permute(1, 2, 0).numpy()
    kinds: list[list[Any]] = [[image] * 2, [array] * 2, [Image.fromarray(array)] * 2]
    expected = random_views(kinds[0], CONFIG, seed=0)
    for kind in kinds[1:]:
        for a, b in zip(random_views(kind, CONFIG, seed=0), expected, strict=True):
            assert torch.equal(a, b)
    mixed = random_views([image, np.zeros((9, 50, 3), np.uint8)], CONFIG, seed=0)
    close(mixed[0][0], expected[0][0], 1e-6)


def test_grey_images_have_one_channel() -> None:
    config = replace(CONFIG, mean=(0.5,), std=(0.5,), saturation=0, hue=0, grey=0)
    (large, _) = random_views(
        [Image.new("L", (20, 20)), np.zeros((9, 9))[:, :].astype("u1")], config, seed=0
    )
    assert large.shape == (2, 2, 1, 12, 12)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 8, 8), r"the batch is torch.float32 \[2, 3, 8, 8\]; views take uint8"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), r"uint8 \[b, c, h, w\] with 3 channels"),
        ([np.zeros((8, 8), np.uint8)], r"image 0 is torch.uint8 \[1, 8, 8\]"),
        ([], "there are no images"),
    ],
)
def test_images_that_do_not_fit_are_one_sentence(images: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        random_views(images, CONFIG, seed=0)


@pytest.mark.parametrize("room", ["augment", "data"])
def test_the_example_of_a_room_is_true(room: str) -> None:
    results = doctest.testmod(importlib.import_module(f"selfsup.{room}"))
    assert results.attempted > 0
    assert results.failed == 0
