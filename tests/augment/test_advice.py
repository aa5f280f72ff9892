"""What is said of views that do not fit the images."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
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


def words(n: int = 100) -> list[np.ndarray]:
    """Printed words, which mirrored are none."""
    rng = np.random.default_rng(0)
    known = ["house", "tree", "apple", "river", "stone", "light", "table", "green", "music"]
    out = []
    for _ in range(n):
        image = Image.new("RGB", (96, 32), tuple(rng.integers(200, 256, 3).tolist()))
        left, top, side = rng.integers((0, 0, 16), (12, 8, 26)).tolist()
        font = ImageFont.load_default(side)
        ImageDraw.Draw(image).text(
            (left, top), known[rng.integers(9)], fill=(20, 30, 60), font=font
        )
        out.append(np.asarray(image))
    return out


def encoded(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def film(scenes: int, step: int, side: int = 120) -> list[np.ndarray]:
    """Frames of a camera that moves over a photograph, in order, with noise."""
    rng = np.random.default_rng(scenes)
    out = []
    for scene in range(scenes):
        photograph = load_sample_images().images[scene % 2]
        top, left = rng.integers(0, 420 - side), rng.integers(0, 630 - side)
        for _ in range(120 // scenes):
            left = (left + step) % (630 - side)
            frame = photograph[top : top + side, left : left + side].astype(int)
            out.append((frame + rng.integers(-4, 5, frame.shape)).clip(0, 255).astype(np.uint8))
    return out


def fixed_camera() -> list[np.ndarray]:
    """One place, where something small moves."""
    rng = np.random.default_rng(0)
    out = []
    for _ in range(60):
        image = Image.fromarray(load_sample_images().images[0][100:260, 200:360])
        x, y = rng.integers(0, 130, 2).tolist()
        ImageDraw.Draw(image).rectangle((x, y, x + 20, y + 20), fill=(200, x, y))
        out.append(np.asarray(image))
    return out


def shapes(n: int = 100) -> list[np.ndarray]:
    """Discs, bars and triangles in the middle: symmetric, and many of them nearly equal."""
    rng = np.random.default_rng(0)
    out = []
    for i in range(n):
        image = Image.new("RGB", (64, 64), tuple(rng.integers(150, 256, 3).tolist()))
        r, pen = int(rng.integers(8, 30)), ImageDraw.Draw(image)
        fill = tuple(rng.integers(0, 120, 3).tolist())
        box = (32 - r, 32 - r // 2, 32 + r, 32 + r // 2)
        corners = [(32, 32 - r), (32 - r, 32 + r), (32 + r, 32 + r)]
        match i % 3:
            case 0:
                pen.ellipse(box, fill=fill)
            case 1:
                pen.rectangle(box, fill=fill)
            case _:
                pen.polygon(corners, fill=fill)
        out.append(np.asarray(image))
    return out


def with_copies(images: list[np.ndarray], quality: int, *, mirrored: bool) -> list[np.ndarray]:
    """Each image, and behind it what another program saved of it."""
    pairs = [(x, encoded(x[:, ::-1] if mirrored else x, quality)) for x in images]
    return [x for pair in pairs for x in pair]


ALIKE = {
    "photographs": photographs(100),
    "exact duplicates": [x for x in photographs(60) for _ in range(2)],
    "four copies of each": [x for x in photographs(40) for _ in range(4)],
    "re-encoded": with_copies(photographs(60), 60, mirrored=False),
    "mirrored and re-encoded": with_copies(photographs(60), 60, mirrored=True),
    "one image": photographs(1) * 60,
    "a film": film(1, 2),
    "a film of four scenes": film(4, 2),
    "a film of twelve scenes": film(12, 4),
    "a fixed camera": fixed_camera(),
    "symmetric shapes": shapes(),
    "symmetric shapes twice": shapes(60) * 2,
}
TURNED_IS_OTHER = {
    "words": words(),
    "words, re-encoded": with_copies(words(60), 80, mirrored=False),
    "words, twice": words(80) * 2,
    "digits": digits(),
    "digits, re-encoded": with_copies(digits(80), 80, mirrored=False),
}


def told_of_mirroring(images: list[np.ndarray]) -> bool:
    said = advice(images, replace(VIEWS, area=(0.9, 1.0)), seed=0)
    return any("left and right differ" in sentence for sentence in said)


@pytest.mark.parametrize("name", ALIKE)
def test_images_that_may_be_mirrored_are_let_be_whatever_copies_there_are(name: str) -> None:
    assert not told_of_mirroring(ALIKE[name])


@pytest.mark.parametrize("name", TURNED_IS_OTHER)
def test_text_is_told_not_to_be_mirrored_whatever_copies_there_are(name: str) -> None:
    assert told_of_mirroring(TURNED_IS_OTHER[name])


def test_a_few_distinct_images_say_nothing_however_many_copies_there_are() -> None:
    assert share_unlike_mirrored(words(20) * 5) == 0.5


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
