"""Random views of images in memory, by one call."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup.augment.apply import apply
from selfsup.augment.boxes import Boxes
from selfsup.augment.check import check
from selfsup.augment.draws import Change, draw
from selfsup.augment.resample import resized_array_crops, resized_crops
from selfsup.config import ViewsConfig
from selfsup.config.views import size_for
from selfsup.core.errors import require


def random_views(
    images: Tensor | Sequence[Any],
    config: ViewsConfig | None = None,
    *,
    seed: int,
    step: int = 0,
    changes: Sequence[Change] = (),
) -> tuple[Tensor, ...]:
    """Make random views of a batch of images: crop, colour, normalise, as in training.

    The views follow from (seed, step) and the place of an image in the batch alone.

    Args:
        images: uint8 [b, c, h, w], on any device; or images of any sizes: tensors [c, h, w], arrays
            [h, w, c] or PIL images, of eight bits and as many channels as `config.mean`.
        config: by default SimCLR's views; `selfsup.config.pipelines` has others. Without a size,
            that of the images, at most 96.
        seed: another one makes other views.
        step: likewise, as a training run counts.
        changes: custom augmentations (see augment/README.md).

    Returns:
        For each size of views (one, or two with `config.local`) float32 [b, v, c, size, size].

    Raises:
        UserError: the images or the settings do not fit.

    >>> import torch
    >>> from selfsup.config import ViewsConfig
    >>> images = torch.randint(0, 256, (4, 3, 48, 64), dtype=torch.uint8)
    >>> (views,) = random_views(images, ViewsConfig(size=32), seed=0, step=7)
    >>> views.shape, views.dtype
    (torch.Size([4, 2, 3, 32, 32]), torch.float32)
    >>> (again,) = random_views(list(images), ViewsConfig(size=32), seed=0, step=7)
    >>> bool((again - views).abs().max() < 0.1)
    True
    """
    config = config or ViewsConfig()
    require(len(images) > 0, "there are no images to make views of")
    pixels = _pixels(images, config.channels)
    if not config.size:
        config = replace(config, size=size_for([min(image.shape[:2]) for image in pixels]))
    check(config)
    device = images.device if isinstance(images, Tensor) else torch.device("cpu")
    views = []
    groups = draw(config, len(images), seed=seed, step=step, changes=changes)
    for draws, group in zip(groups, config.by_size(), strict=True):
        crops = _crops(pixels, draws.boxes, group).to(device)
        views.append(apply(crops, draws, group, changes))
    return tuple(views)


def _pixels(images: Tensor | Sequence[Any], channels: int) -> Tensor | list[Tensor]:
    """One uint8 tensor [b, h, w, c], or one [h, w, c] for each image."""
    if isinstance(images, Tensor):
        _check("the batch", images, channels, shape="[b, c, h, w]")
        return images.cpu().permute(0, 2, 3, 1)
    pixels = []
    for i, image in enumerate(images):
        if not isinstance(image, Tensor):
            array = np.array(image)
            image = torch.from_numpy(array[..., None] if array.ndim == 2 else array).movedim(-1, 0)
        _check(f"image {i}", image, channels, shape="[c, h, w]")
        pixels.append(image.cpu().permute(1, 2, 0))
    return pixels


def _check(name: str, x: Tensor, channels: int, *, shape: str) -> None:
    dimensions = shape.count(",") + 1
    require(
        x.dtype == torch.uint8 and x.ndim == dimensions and x.shape[-3] == channels,
        f"{name} is {x.dtype} {list(x.shape)}; views take uint8 {shape} with {channels} channels, "
        "as many as --views.mean has",
    )


def _crops(pixels: Tensor | list[Tensor], boxes: Boxes, config: ViewsConfig) -> Tensor:
    """Crop and resize: uint8 [b, v, c, s, s]."""
    if isinstance(pixels, Tensor):
        all_boxes = boxes.resolve(*pixels.shape[1:3])
        return resized_array_crops(pixels, all_boxes, config.size, config.resampling)
    rows = []
    for i, image in enumerate(pixels):
        resolved = boxes.rows(slice(i, i + 1)).resolve(*image.shape[:2])[0].tolist()
        rows.append(resized_crops(image, resolved, config.size, config.resampling))
    return torch.stack(rows)
