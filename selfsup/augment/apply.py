"""Applying draws: from cropped pixels to what the network sees, on the device, with no randomness.

Colours are kornia's where it agrees with torchvision's functions (tests compare them op by op).

Shape letters: b images, v views, s side in pixels.
"""

import math
from collections.abc import Callable

import torch
from kornia.color import rgb_to_grayscale
from kornia.enhance import (
    adjust_brightness_accumulative,
    adjust_contrast_with_mean_subtraction,
    adjust_hue,
    adjust_saturation_with_gray_subtraction,
)
from kornia.filters import gaussian_blur2d
from torch import Tensor

from selfsup.augment.draws import Draws
from selfsup.config import ViewsConfig


def apply(crops: Tensor, draws: Draws, config: ViewsConfig) -> Tensor:
    """Flip, colour, grey, blur, solarize and normalise each view by its own draws.

    Args:
        crops: uint8 [b, v, 3, s, s], as the reader cut them.
        draws: of these b images.
        config: for the mean and deviation of channels.

    Returns:
        float32 [b, v, 3, s, s] on the device of `crops`.
    """
    b, v = crops.shape[:2]
    draws = draws.to(crops.device)
    crops = crops.flatten(0, 1)
    flip = draws.flip.flatten()[:, None, None, None]
    x = torch.where(flip, crops.flip(-1), crops).float().div_(255)  # [bv, 3, s, s]
    for change in (_jitter, _grey, _blur, _solarize):
        change(x, draws)
    return standardize(x, config.mean, config.std).view(b, v, *x.shape[1:])


def standardize(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Subtract each channel's mean and divide by its deviation. [..., 3, s, s] in [0, 1]."""
    shift, scale = (
        torch.tensor(c, device=x.device, dtype=x.dtype)[:, None, None] for c in (mean, std)
    )
    return (x - shift) / scale


def _jitter(x: Tensor, draws: Draws) -> None:
    """Four colour changes, in place, each image in its own order."""
    changes: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
        lambda x, i: adjust_brightness_accumulative(x, draws.brightness.flatten()[i]),
        lambda x, i: adjust_contrast_with_mean_subtraction(x, draws.contrast.flatten()[i]),
        lambda x, i: adjust_saturation_with_gray_subtraction(x, draws.saturation.flatten()[i]),
        lambda x, i: adjust_hue(x, draws.hue.flatten()[i] * (2 * math.pi)),
    )
    order = draws.order.flatten(0, 1)  # [bv, 4]
    chosen = draws.jitter.flatten()
    for turn in range(4):
        for which, change in enumerate(changes):
            i = (chosen & (order[:, turn] == which)).nonzero()[:, 0]
            if len(i):
                x[i] = change(x[i], i)


def _grey(x: Tensor, draws: Draws) -> None:
    """The chosen images without colour, in place."""
    i = draws.grey.flatten().nonzero()[:, 0]
    x[i] = rgb_to_grayscale(x[i]).expand(-1, 3, -1, -1)


def _blur(x: Tensor, draws: Draws) -> None:
    """Gaussian blur of the chosen images, in place; the kernel is a tenth of the side, made odd."""
    i = draws.blur.flatten().nonzero()[:, 0]
    if len(i):
        side = max(3, x.shape[-1] // 10 | 1)
        sigma = draws.sigma.flatten()[i, None].expand(-1, 2)
        x[i] = gaussian_blur2d(x[i], (side, side), sigma, border_type="reflect")


def _solarize(x: Tensor, draws: Draws) -> None:
    """Values from 128 of 255 up inverted in the chosen images, in place."""
    i = draws.solarize.flatten().nonzero()[:, 0]
    x[i] = torch.where(x[i] >= 128 / 255, 1 - x[i], x[i])
