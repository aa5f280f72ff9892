"""Helpers of tests of views: crops, draws that change nothing, torchvision on each view."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from selfsup.augment.boxes import RandomBoxes
from selfsup.augment.draws import Draws
from selfsup.config import ViewsConfig

RAW = ViewsConfig(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""Values stay in [0, 1], to compare."""


YES = torch.ones(2, 3, dtype=torch.bool)


def untouched(b: int, v: int, channels: int = 3) -> Draws:
    """Draws that change nothing."""
    no, one = torch.zeros(b, v, dtype=torch.bool), torch.ones(b, v)
    return Draws(
        boxes=RandomBoxes(torch.ones(b, v, 10, 2), torch.zeros(b, v, 2), (0.75, 4 / 3)),
        flip=no,
        brightness=one,
        contrast=one,
        saturation=one,
        hue=torch.zeros(b, v),
        jitter=no,
        order=torch.arange(4).expand(b, v, 4),
        grey=no,
        blur=no,
        sigma=one,
        solarize=no,
        quarters=torch.zeros(b, v, dtype=torch.int64),
        rotate=no,
        degrees=torch.zeros(b, v),
        gains=torch.ones(b, v, channels),
        erase=no,
        erased=RandomBoxes(torch.full((b, v, 10, 2), 0.25), torch.zeros(b, v, 2), (0.25, 0.25)),
        custom=(),
        kornia=(),
    )


def tensors(field: Any) -> list[Tensor]:
    """Of a field of draws."""
    if isinstance(field, RandomBoxes):
        return [field.tries, field.place]
    return list(field) if isinstance(field, tuple) else [field]


def crops(b: int, v: int, side: int = 12, seed: int = 0) -> Tensor:
    """Random colours, with rows of grey, black and white, where hue has no meaning."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (b, v, 3, side, side), generator=rng, dtype=torch.uint8)
    x[..., 0, :], x[..., 1, :], x[..., 2, :] = 0, 255, 77
    return x


def each(x: Tensor, change: Callable[[Tensor, int, int], Tensor]) -> Tensor:
    """torchvision's function on each view, as floats."""
    b, v = x.shape[:2]
    floats = x.float() / 255
    return torch.stack(
        [torch.stack([change(floats[i, j], i, j) for j in range(v)]) for i in range(b)]
    )


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)
