"""Drawing views: every random choice of a step, for the global batch, from (seed, step).

Shape letters: n images of the global batch, v views, c channels.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from selfsup.augment.boxes import RandomBoxes
from selfsup.augment.kornia_steps import kornia_steps
from selfsup.config import ViewsConfig
from selfsup.core.seeds import generator

TRIES = 10  # proposals before the fallback, as in torchvision and the Inception paper's code


class Change(Protocol):
    """A custom augmentation: random draws for each view, and what they do to it."""

    def draw(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Draw anything random, [n, v, ...] for `shape` (n, v), from this generator alone."""

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Change float images [k, c, s, s] in [0, 1] by their draws [k, ...], on one device."""


class Draws(NamedTuple):
    """What is done to each view of each image; all tensors are [n, v, ...].

    Probabilities are already decided: a factor of 1, a shift of 0 and False leave a view unchanged.
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
    quarters: Tensor
    """Turns by 90 degrees to the left, 0 to 3."""
    rotate: Tensor
    degrees: Tensor
    """To the left."""
    gains: Tensor
    """[n, v, c]: factor of each channel."""
    erase: Tensor
    erased: RandomBoxes
    """The rectangle that is erased."""
    custom: tuple[Tensor, ...]
    """Draws of custom augmentations."""
    kornia: tuple[Tensor, ...]
    """For each class of `--views.kornia` the seed of its parameters; -1 where it is not applied."""

    def rows(self, which: slice | Tensor) -> "Draws":
        """Select images: a slice of them, or those at positions [k]."""
        return self._map(lambda tensor: tensor[which])

    def flat(self) -> "Draws":
        """List all views as images of one view: [n * v, 1, ...]."""
        return self._map(lambda tensor: tensor.flatten(0, 1)[:, None])

    def _map(self, function: Callable[[Tensor], Tensor]) -> "Draws":
        """Call `function` on every tensor."""

        def map_field(field: Any) -> Any:
            if isinstance(field, RandomBoxes):
                return field._replace(tries=function(field.tries), place=function(field.place))
            if isinstance(field, tuple):
                return tuple(map(function, field))
            return function(field)

        return Draws(*map(map_field, self))


def draw(
    config: ViewsConfig, n: int, *, seed: int, step: int, changes: Sequence[Change] = ()
) -> tuple[Draws, ...]:
    """Draw every random number of a step's augmentations, for a global batch of n images.

    A function of seed and step alone, on the CPU: the same on any machine and any number of
    processes.

    Args:
        config: settings of the views.
        n: images of the global batch.
        seed: of the run.
        step: steps done before this one.
        changes: custom augmentations.

    Returns:
        One `Draws` for each size of views, with tensors [n, views of that size, ...]: with two
        views of 224 pixels and six of 96, [n, 2, ...] and [n, 6, ...]. `changes` and kornia's
        classes draw from streams of their own: adding one leaves all other draws as they were.
    """
    streams = ("views", "views/local")
    groups = []
    for group, stream in zip(config.by_size(), streams, strict=False):
        draws = _draw(group, n, generator(seed, step, stream))
        shape = n, group.views
        custom = tuple(
            change.draw(shape, generator(seed, step, f"{stream}/{i}"))
            for i, change in enumerate(changes)
        )
        kornia = _kornia_seeds(config, shape, generator(seed, step, f"{stream}/kornia"))
        groups.append(draws._replace(custom=custom, kornia=kornia))
    return tuple(groups)


def _draw(config: ViewsConfig, n: int, g: torch.Generator) -> Draws:
    shape = (n, config.views)
    second = torch.arange(config.views) == 1

    def uniform(low: float, high: float, *more: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, *more, generator=g)

    def bernoulli(p: float, p_of_second: float | None = None) -> Tensor:
        limit = torch.full((config.views,), p)
        return torch.rand(shape, generator=g) < limit.masked_fill(
            second, p if p_of_second is None else p_of_second
        )

    def factor(width: float, *more: int) -> Tensor:
        width *= config.strength
        return uniform(max(0.0, 1 - width), 1 + width, *more)

    def boxes(
        area: tuple[float, float], ratio: tuple[float, float], tries: int = TRIES
    ) -> RandomBoxes:
        fractions = uniform(*area, tries)
        ratios = uniform(math.log(ratio[0]), math.log(ratio[1]), tries).exp()
        return RandomBoxes(torch.stack([fractions, ratios], -1), uniform(0, 1, 2), ratio)

    return Draws(
        boxes=boxes(config.area, config.ratio),
        flip=bernoulli(config.flip),
        brightness=factor(config.brightness),
        contrast=factor(config.contrast),
        saturation=factor(config.saturation),
        hue=uniform(-config.hue * config.strength, config.hue * config.strength),
        jitter=bernoulli(config.jitter),
        order=torch.rand(*shape, 4, generator=g).argsort(-1),
        grey=bernoulli(config.grey),
        blur=bernoulli(config.blur, config.second.blur),
        sigma=uniform(*config.sigma),
        solarize=bernoulli(config.solarize, config.second.solarize),
        quarters=bernoulli(config.quarter_turn) * torch.randint(1, 4, shape, generator=g),
        rotate=bernoulli(config.rotate),
        degrees=uniform(-config.degrees, config.degrees),
        gains=factor(config.gain, config.channels),
        erase=bernoulli(config.erase),
        erased=boxes(config.erase_area, config.erase_ratio, TRIES if config.erase else 1),
        custom=(),
        kornia=(),
    )


def _kornia_seeds(
    config: ViewsConfig, shape: tuple[int, int], g: torch.Generator
) -> tuple[Tensor, ...]:
    """A seed of 62 bits for each view that a class changes; a further class moves no other's."""
    drawn = []
    for each in kornia_steps(config.kornia):
        applied = torch.rand(shape, generator=g) < each.p
        seeds = torch.randint(1 << 62, shape, generator=g)
        drawn.append(torch.where(applied, seeds, -1))
    return tuple(drawn)
