"""Untrained features: the baselines that a figure has to beat.

Shape letters: b images, c channels, s side in pixels.
"""

import torch
from torch import Tensor, nn

LEVELS = 8  # of each colour in a histogram
SIDE = 32  # pixels


class Pixels(nn.Module):
    """Raw pixels as features, at most 32 x 32."""

    def forward(self, images: Tensor) -> Tensor:
        """[b, c, s, s] -> [b, c * min(s, 32)^2]."""
        if images.shape[-1] > SIDE:
            images = nn.functional.interpolate(
                images, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False
            )
        return images.flatten(1)


class Colours(nn.Module):
    """A joint histogram of colours, 8 levels of each of three channels.

    The root of each bin is taken, so that the cosine of two is their Bhattacharyya coefficient.
    """

    def forward(self, images: Tensor) -> Tensor:
        """[b, 3, s, s] in [0, 1] -> [b, 512]."""
        levels = (images * LEVELS).long().clamp(0, LEVELS - 1).flatten(2)  # [b, 3, s * s]
        place = (levels[:, 0] * LEVELS + levels[:, 1]) * LEVELS + levels[:, 2]
        counts = torch.zeros(len(images), LEVELS**3, device=images.device)
        counts.scatter_add_(1, place, torch.ones_like(place, dtype=counts.dtype))
        return (counts / place.shape[1]).sqrt()
