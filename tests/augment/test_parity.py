"""Each change beside kornia's, with the tolerance that the table in augment/README.md gives."""

import math
from dataclasses import replace
from typing import Any

import kornia.enhance as ke
import kornia.geometry.transform as kt
import torch
from kornia.color import rgb_to_grayscale
from kornia.filters import gaussian_blur2d
from torch import Tensor
from views import RAW, YES, close, crops, untouched

from selfsup.augment.apply import apply

GREYS = 3e-4
"""kornia (as Pillow) weighs grey by .299 .587 .114, torchvision and this by .2989 .587 .114."""
FACTORS = torch.tensor([[0.3, 0.6, 0.9], [1.0, 1.3, 1.8]])
X = crops(2, 3, 20)
FLOATS = X.flatten(0, 1).float() / 255


def changed(**draws: Any) -> Tensor:
    config = replace(RAW, rotate=0.5) if "rotate" in draws else RAW
    return apply(X, untouched(2, 3)._replace(**draws), config).flatten(0, 1)


def jittered(**draws: Tensor) -> Tensor:
    return changed(jitter=YES, **draws)


def test_flip() -> None:
    close(changed(flip=YES), kt.hflip(FLOATS), 1e-7)


def test_brightness() -> None:
    expected = ke.adjust_brightness_accumulative(FLOATS, FACTORS.flatten())
    close(jittered(brightness=FACTORS), expected, 1e-6)


def test_contrast() -> None:
    expected = ke.adjust_contrast_with_mean_subtraction(FLOATS, FACTORS.flatten())
    close(jittered(contrast=FACTORS), expected, GREYS)


def test_saturation() -> None:
    expected = ke.adjust_saturation_with_gray_subtraction(FLOATS, FACTORS.flatten())
    close(jittered(saturation=FACTORS), expected, GREYS)


def test_hue_whose_unit_there_is_radians() -> None:
    turns = torch.tensor([[-0.5, -0.2, 0.0], [0.03, 0.2, 0.5]])
    expected = ke.adjust_hue(FLOATS, turns.flatten() * 2 * math.pi)
    close(jittered(hue=turns), expected, 1e-4)


def test_grey() -> None:
    close(changed(grey=YES), rgb_to_grayscale(FLOATS).expand(-1, 3, -1, -1), GREYS)


def test_blur() -> None:
    sigma = torch.tensor([[0.1, 0.4, 0.8], [1.0, 1.5, 2.0]])
    expected = gaussian_blur2d(FLOATS, (3, 3), sigma.flatten()[:, None].expand(-1, 2))
    close(changed(blur=YES, sigma=sigma), expected, 1e-6)


def test_solarize() -> None:
    close(changed(solarize=YES), ke.solarize(FLOATS, 128 / 255), 1e-6)


def test_rotation_which_differs_by_half_a_pixel_of_border() -> None:
    degrees = torch.tensor([[5.0, 10, 15], [-5, -10, -15]])
    options: dict[str, Any] = {"mode": "bilinear", "padding_mode": "zeros", "align_corners": True}
    expected = kt.rotate(FLOATS, degrees.flatten(), **options)
    inner = (slice(None), slice(None), slice(5, 15), slice(5, 15))  # where borders do not reach
    close(changed(rotate=YES, degrees=degrees)[inner], expected[inner], 1e-4)
