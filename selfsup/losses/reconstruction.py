"""Losses of pixels: what a decoder makes of hidden patches.

Shape letters: n images, m masked patches of one, q values of a patch (pixels x channels).
"""

import torch
from torch import Tensor

from selfsup.core.numerics import at_least_float32, full_precision

EPSILON = 1e-6
"""Added to the variance of a patch, as in MAE's code."""


def masked_pixels(predictions: Tensor, pixels: Tensor) -> Tensor:
    """MAE: squared error of the normalised pixels of masked patches, one number an image.

    The mean over masked patches and their values of (prediction - (pixel - mean) /
    sqrt(variance + 1e-6))^2, with mean and variance (n - 1) of the patch's own values. The loss is
    the mean over images. It is left to the caller: an image's error depends on no other image, so
    that processes need to share this one number and none of the pixels.

    Source: He et al. 2022, https://arxiv.org/abs/2111.06377, section 3.

    Args:
        predictions: [n, m, q].
        pixels: [n, m, q] of the same patches; they get no gradient.

    Returns:
        [n], at least 0. A prediction of zeros, each patch's mean, has 1 - 1 / q, and 0 in a patch
        of one colour.

    Raises:
        ValueError: predictions and pixels differ in shape.

    Example:
        >>> patch = torch.tensor([[[1.0, 3.0]]])  # normalised: -0.7071 and 0.7071
        >>> masked_pixels(torch.zeros(1, 1, 2), patch).round(decimals=3).tolist()
        [0.5]
    """
    if predictions.shape != pixels.shape:
        shapes = f"{tuple(predictions.shape)} and pixels {tuple(pixels.shape)}"
        raise ValueError(f"predictions {shapes} differ")
    with full_precision(predictions):
        x = at_least_float32(pixels.detach())
        variance, mean = torch.var_mean(x, dim=2, keepdim=True)
        target = (x - mean) / (variance + EPSILON).sqrt()
        return (at_least_float32(predictions) - target).square().mean((1, 2))
