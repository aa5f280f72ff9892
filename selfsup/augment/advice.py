"""Views that may be wrong for these images: measured on a sample of them before a run.

Shape letters: n images, h and w of an image, s side in pixels.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from selfsup.augment.draws import draw
from selfsup.augment.resample import resized_crops
from selfsup.config import ViewsConfig

SIDE = 16
"""Side of the pictures that are compared with mirrored ones, in pixels."""
FEWEST = 32
"""Images that say something about all."""
MIRRORED = 0.85
"""Share of images with a nearer neighbour as they are than mirrored, from which on it is said; of
photographs of things it is about a half, of digits 0.96."""
COPY = 0.95
"""Correlation from which on two pictures, or one and the other mirrored, are near duplicates."""
FILM = 0.5
"""Share of images whose nearest is the next or the last one in order, above which they are frames;
of faces by class it is 0.4, of films 0.5 to 1, of others below 0.1."""
GREY_LEVELS = 2
"""Largest difference of the channels of a grey pixel: JPEG rounds."""
EMPTY = 0.1
"""A crop is empty whose contrast is below this fraction of its image's."""
EMPTY_CROPS = 0.1
"""Share of empty crops from which on it is said."""


def advice(images: Sequence[np.ndarray], views: ViewsConfig, *, seed: int) -> list[str]:
    """Say which changes of these views do not fit a sample of the images, and what would.

    Args:
        images: uint8 [h, w, c] of any sizes.
        views: settings of the run.
        seed: of the run; the crops that are looked at are drawn from it.

    Returns:
        A sentence for each, with its figure and a flag.
    """
    if len(images) < FEWEST:
        return []
    told = [_mirrored(images, views), _grey(images, views), _empty_crops(images, views, seed)]
    return [sentence for sentence in told if sentence]


def _mirrored(images: Sequence[np.ndarray], views: ViewsConfig) -> str:
    if not views.flip:
        return ""
    share = share_unlike_mirrored(images)
    if share < MIRRORED:
        return ""
    return (
        f"left and right differ: {share:.0%} of a sample have a nearer neighbour as they are than "
        "mirrored. Where a mirrored image means something else (text, digits): --views.flip 0"
    )


def share_unlike_mirrored(images: Sequence[np.ndarray]) -> float:
    """Return the share of images that are nearer to another one as they are than mirrored.

    By the correlation of pictures of 16 x 16 pixels; ties count half. 0.5 where left and right are
    alike, and where nothing can be said: a copy of an image, or the next frame of a film, is nearer
    as it is whatever it shows. So one of each group of near duplicates is compared, and neither
    fewer than `FEWEST` of them nor a film say anything.
    """
    small = torch.stack([_small(image) for image in images]).flatten(1)
    mirrored = torch.stack([_small(image[:, ::-1]) for image in images]).flatten(1)
    plain, turned = _correlations(small, small), _correlations(mirrored, small)
    kept = _distinct(torch.maximum(plain, turned))
    if len(kept) < FEWEST:
        return 0.5
    plain, turned = plain[kept][:, kept], turned[kept][:, kept]
    nearest = plain.argmax(1) - torch.arange(len(kept))
    if (nearest.abs() == 1).double().mean() > FILM:
        return 0.5
    as_is, over = plain.amax(1), turned.amax(1)
    nearer = (as_is > over + 1e-6).double() + 0.5 * ((as_is - over).abs() <= 1e-6)
    return float(nearer.mean())


def _distinct(alike: Tensor) -> list[int]:
    """Positions of images of which no earlier one is a near duplicate, [n, n] -> at most n."""
    kept: list[int] = []
    for i, row in enumerate(alike.tolist()):
        if all(row[j] < COPY for j in kept):
            kept.append(i)
    return kept


def _small(image: np.ndarray) -> Tensor:
    """A picture in grey, [s, s]."""
    whole = [[0, 0, *image.shape[:2]]]
    pixels = torch.from_numpy(np.array(image))
    return resized_crops(pixels, whole, SIDE, "bilinear")[0].float().mean(0)


def _correlations(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of each row of `a` with each of `b`, -1 at the same place: [n, n]."""
    a, b = (torch.nn.functional.normalize(x - x.mean(1, keepdim=True)) for x in (a, b))
    return (a @ b.T).fill_diagonal_(-1)


def _grey(images: Sequence[np.ndarray], views: ViewsConfig) -> str:
    amounts = {"saturation": views.saturation, "hue": views.hue, "grey": views.grey}
    flags = " ".join(f"--views.{name} 0" for name, amount in amounts.items() if amount)
    grey = [np.ptp(image.astype(np.int16), axis=2).max() <= GREY_LEVELS for image in images]
    if images[0].shape[2] != 3 or not flags or np.mean(grey) < 1:
        return ""
    return f"all of a sample are grey: changes of colour do nothing to them, {flags} save the time"


def _empty_crops(images: Sequence[np.ndarray], views: ViewsConfig, seed: int) -> str:
    share = share_of_empty_crops(images, views, seed=seed)
    if share < EMPTY_CROPS:
        return ""
    wider = (low for low in (0.2, 0.4, 0.6, 0.8) if low > views.area[0])
    for low in wider:
        changed = replace(views, area=(low, max(low, views.area[1])))
        if share_of_empty_crops(images, changed, seed=seed) < EMPTY_CROPS / 2:
            break
    else:
        return ""
    return (
        f"{share:.0%} of the crops show background alone (a tenth of the contrast of their image, "
        f"or less): the things are small. Larger crops: --views.area {low} {changed.area[1]:g}"
    )


def share_of_empty_crops(images: Sequence[np.ndarray], views: ViewsConfig, *, seed: int) -> float:
    """Return the share of crops with less than a tenth of their image's contrast a pixel.

    Contrast is the mean of absolute differences between neighbours.
    """
    large = views.by_size()[0]
    boxes = draw(large, len(images), seed=seed, step=0)[0].boxes
    empty = []
    for i, image in enumerate(images):
        contrast = _contrast(image)
        for top, left, height, width in boxes.rows(slice(i, i + 1)).resolve(*contrast.shape)[0]:
            crop = contrast[top : top + height, left : left + width]
            empty.append(crop.mean() < EMPTY * contrast.mean())
    return float(np.mean(empty))


def _contrast(image: np.ndarray) -> np.ndarray:
    """Absolute differences to the right and lower neighbour, float [h, w]."""
    grey = image.astype(np.float32).mean(2)
    down, right = (
        np.diff(grey, axis=0, prepend=grey[:1]),
        np.diff(grey, axis=1, prepend=grey[:, :1]),
    )
    contrast: np.ndarray = np.abs(down) + np.abs(right)
    return contrast
