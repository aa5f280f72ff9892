"""What is said of views that do not fit the images."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits, load_sample_images

from selfsup.augment.advice import advice, share_of_empty_crops, share_unlike_mirrored
from selfsup.config.pipelines import FINETUNE, SIMCLR

VIEWS = replace(SIMCLR, size=32)
COLOURS = np.array([3, 5, 7]) / 7


def digits(n: int = 100) -> list[np.ndarray]:
    images = load_digits().images[:n] / 16 * 255
    return [(np.repeat(x[..., None], 3, 2) * COLOURS).astype(np.uint8) for x in images]


def photographs(n: int = 60) -> list[np.ndarray]:
    """Places of two photographs, each as it is or mirrored."""
    rng = np.random.default_rng(0)
    images = load_sample_images().images
    out = []
    for i in range(n):
        top, left = rng.integers(0, 300), rng.integers(0, 500)
        crop = images[i % 2][top : top + 100, left : left + 100]
        out.append(crop[:, ::-1] if rng.random() < 0.5 else crop)
    return out


def small_things(n: int = 50) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    out = []
    for i in range(n):
        image = Image.new("RGB", (80, 80), (200, 180, 60))
        x, y = rng.integers(5, 65, 2).tolist()
        ImageDraw.Draw(image).ellipse((x, y, x + 9, y + 9), fill=(10, i * 4, 90))
        out.append(np.asarray(image))
    return out


def test_digits_differ_from_mirrored_ones_and_photographs_do_not() -> None:
    assert share_unlike_mirrored(digits()) > 0.9
    assert 0.3 < share_unlike_mirrored(photographs()) < 0.7
    (said,) = advice(digits(), replace(VIEWS, area=(0.5, 1.0)), seed=0)
    assert "left and right differ" in said
    assert said.endswith("--views.flip 0")
    assert not advice(digits(), replace(VIEWS, area=(0.5, 1.0), flip=0.0), seed=0)
    assert not advice(photographs(), VIEWS, seed=0)


def test_symmetric_pictures_are_as_near_mirrored() -> None:
    one = np.random.default_rng(0).integers(0, 256, (40, 20, 20, 3), dtype=np.uint8)
    both = [np.concatenate([x, x[:, ::-1]], 1) for x in one]
    assert share_unlike_mirrored(both) == 0.5


def test_changes_of_colour_are_named_where_all_images_are_grey() -> None:
    grey = [np.repeat(x[..., :1], 3, 2) for x in photographs()]
    (said,) = advice(grey, VIEWS, seed=0)
    assert said.endswith("--views.saturation 0 --views.hue 0 --views.grey 0 save the time")
    without_grey = [s for s in advice(grey, replace(FINETUNE, size=32), seed=0) if "grey" in s]
    assert "--views.grey" not in without_grey[0]
    assert not advice(grey[:-1] + photographs()[:1], VIEWS, seed=0)  # one has colours


def test_small_things_are_missed_by_small_crops() -> None:
    images = small_things()
    share = share_of_empty_crops(images, VIEWS, seed=0)
    assert share > 0.2
    said = [s for s in advice(images, replace(VIEWS, flip=0.0), seed=0) if "crops" in s]
    assert f"{share:.0%} of the crops show background alone" in said[0]
    low = float(said[0].split()[-2])
    assert share_of_empty_crops(images, replace(VIEWS, area=(low, 1.0)), seed=0) < 0.05
    assert share_of_empty_crops(photographs(), VIEWS, seed=0) < 0.05


@pytest.mark.parametrize("n", [0, 5])
def test_a_few_images_say_nothing(n: int) -> None:
    assert advice(digits()[:n], VIEWS, seed=0) == []
