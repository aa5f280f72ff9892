"""Images that tests draw: a disc of each class's colour somewhere on noise."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = (
    (220, 40, 40),
    (40, 200, 60),
    (50, 80, 230),
    (230, 200, 40),
    (200, 60, 200),
    (60, 200, 200),
)


def picture(label: int, seed: int, side: int = 24) -> Image.Image:
    """A disc on noise."""
    draw = np.random.default_rng((label, seed))
    pixels = draw.integers(0, 90, (side, side, 3))
    y, x = np.mgrid[:side, :side]
    middle = draw.uniform(0.3, 0.7, 2) * side
    disc = (y - middle[0]) ** 2 + (x - middle[1]) ** 2 < (side / 4) ** 2
    pixels[disc] = np.clip(np.array(COLOURS[label]) + draw.integers(-25, 25, 3), 0, 255)
    return Image.fromarray(pixels.astype(np.uint8))


def many_classes(file: Path, classes: int = 90, each: int = 4, side: int = 16) -> Path:
    """An .npz of classes that differ in colour, their images in noise; more than a few classes."""
    draw = np.random.default_rng(5)
    colours = draw.integers(60, 200, (classes, 1, 1, 1, 3))
    noise = draw.integers(-55, 55, (classes, each, side, side, 3))
    images = (colours + noise).astype(np.uint8).reshape(-1, side, side, 3)
    np.savez(file, images=images, labels=np.arange(classes).repeat(each))
    return file


def folder(root: Path, classes: int = 4, each: int = 6, side: int = 24) -> Path:
    """root/class0/0.png, ... with `each` images of each class."""
    for label in range(classes):
        (root / f"class{label}").mkdir(parents=True)
        for i in range(each):
            picture(label, i, side).save(root / f"class{label}" / f"{i}.png")
    return root
