"""Held-out classes: a part of the classes of labelled images that training does not see.

They stand for classes that nobody has trained on yet, which is what a search is used for. Images of
classes that are trained on would be found by heart, and say little.
"""

import math

import torch
from torch import Tensor

from selfsup.config import ValidationConfig
from selfsup.core.errors import require
from selfsup.core.seeds import generator
from selfsup.data.sources import Source
from selfsup.data.subset import Subset

FRACTION = 0.1
"""Of the classes, where none is given."""
LEAST = 8
"""Classes below which figures would be chance."""
ENOUGH = math.ceil(LEAST / FRACTION)
"""Classes from which on some are held out, where nothing is given."""


def searchable(labels: Tensor) -> Tensor:
    """Return the classes with two images or more, ascending, of labels [n]."""
    classes, counts = labels.unique(return_counts=True)
    repeated: Tensor = classes[counts > 1]
    return repeated


def fraction_held_out(labels: Tensor, config: ValidationConfig) -> float:
    """Return the fraction of the classes to hold out: the given one, or a tenth of 80 and more.

    Args:
        labels: of all images, [n].
        config: has the given fraction, and other images to validate on.

    Raises:
        UserError: it is no fraction, leaves too few classes, or there are such other images.
    """
    given, n = config.held_out, len(searchable(labels))
    if given is None:
        return FRACTION if n >= ENOUGH and not config.data else 0.0
    require(0 <= given < 1, f"--probe.held-out must be from 0 to below 1, not {given:g}")
    require(
        not (given and config.data),
        f"--probe.held-out {given:g} and --probe.data {config.data} are two sets to validate on. "
        "Give one of them",
    )
    count = round(given * n)
    require(
        given == 0 or (count >= LEAST and n - count > 1),
        f"--probe.held-out {given:g} of {n} classes with two images or more holds {count} out and "
        f"trains on {n - count}; {LEAST} to validate on and 2 to train on are needed. Give another "
        "fraction, or images to validate on with --probe.data",
    )
    return given


def held_out_classes(labels: Tensor, *, fraction: float, seed: int) -> Tensor:
    """Draw the classes to hold out, ascending, from those with two images or more.

    They are a function of the labels and the seed, the same on every process and after a restart.

    >>> held_out_classes(torch.arange(100).repeat(2), fraction=0.05, seed=0)
    tensor([29, 36, 47, 91, 97])
    """
    classes = searchable(labels)
    order = torch.randperm(len(classes), generator=generator(seed, 0, "held-out classes"))
    return classes[order[: round(fraction * len(classes))]].sort().values


def hold_out(source: Source, *, fraction: float, seed: int) -> tuple[Source, Source | None]:
    """Divide images that all have labels into those to train on and those of held-out classes.

    Both number their classes from 0. Where nothing is held out, the first is the source itself.
    """
    assert source.labels is not None
    held = held_out_classes(source.labels, fraction=fraction, seed=seed)
    if len(held) == 0:
        return source, None
    trained = torch.ones(len(source.classes), dtype=torch.bool)
    trained[held] = False
    return _of_classes(source, trained.nonzero()[:, 0]), _of_classes(source, held)


def _of_classes(source: Source, classes: Tensor) -> Source:
    """Select the images of some classes, given in ascending order, and number these from 0."""
    assert source.labels is not None
    chosen = Subset(source, torch.isin(source.labels, classes).nonzero()[:, 0].tolist())
    assert chosen.labels is not None
    chosen.labels = torch.searchsorted(classes, chosen.labels)
    chosen.classes = [source.classes[label] for label in classes.tolist()]
    return chosen
