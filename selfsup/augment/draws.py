"""Drawing views: every random choice of a step, for the global batch, from (seed, step).

Shape letters: n images of the global batch, v views.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from selfsup.boxes import RandomBoxes
from selfsup.config import ViewsConfig
from selfsup.seeds import generator

TRIES = 10  # proposals before the fallback, as in torchvision and the Inception paper's code


class Draws(NamedTuple):
    """What is done to each view of each image; all tensors are [n, v] or [n, v, 4].

    Probabilities are already decided: a factor of 1, a shift of 0, False mean untouched.
    """

    boxes: RandomBoxes
    flip: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    """In turns of the colour wheel."""
    jitter: Tensor
    order: Tensor
    """[n, v, 4]: which of brightness, contrast, saturation, hue comes first, second..."""
    grey: Tensor
    blur: Tensor
    sigma: Tensor
    """Width of the blur in pixels."""
    solarize: Tensor

    def rows(self, part: slice) -> "Draws":
        """The draws of some of the images."""
        return Draws(self.boxes.rows(part), *(field[part] for field in self[1:]))

    def to(self, device: torch.device) -> "Draws":
        """The same draws on another device; boxes stay, the reader needs them."""
        return Draws(self.boxes, *(field.to(device, non_blocking=True) for field in self[1:]))


def draw(config: ViewsConfig, n: int, *, seed: int, step: int) -> tuple[Draws, ...]:
    """The draws of step `step` for a global batch of n images, the same on any machine.

    One for each size of views.
    """
    streams = ("views", "views/local")
    return tuple(
        _draw(group, n, generator(seed, step, stream))
        for group, stream in zip(config.by_size(), streams, strict=False)
    )


def _draw(config: ViewsConfig, n: int, g: torch.Generator) -> Draws:
    shape = (n, config.views)
    second = torch.arange(config.views) == 1

    def uniform(low: float, high: float, *more: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, *more, generator=g)

    def chance(probability: float, other: float | None = None) -> Tensor:
        limit = torch.full((config.views,), probability)
        return torch.rand(shape, generator=g) < limit.masked_fill(
            second, probability if other is None else other
        )

    def factor(width: float) -> Tensor:
        width *= config.strength
        return uniform(max(0.0, 1 - width), 1 + width)

    tries = torch.stack(
        [
            uniform(*config.area, TRIES),
            uniform(math.log(config.ratio[0]), math.log(config.ratio[1]), TRIES).exp(),
        ],
        -1,
    )
    return Draws(
        boxes=RandomBoxes(tries, uniform(0, 1, 2), config.ratio),
        flip=chance(config.flip),
        brightness=factor(config.brightness),
        contrast=factor(config.contrast),
        saturation=factor(config.saturation),
        hue=uniform(-config.hue * config.strength, config.hue * config.strength),
        jitter=chance(config.jitter),
        order=torch.rand(*shape, 4, generator=g).argsort(-1),
        grey=chance(config.grey),
        blur=chance(config.blur, config.second.blur),
        sigma=uniform(*config.sigma),
        solarize=chance(config.solarize, config.second.solarize),
    )
