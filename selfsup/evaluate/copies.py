"""Copies: which image of train each test image is, where all test images are in train too.

No test image is left to measure on then, so each is measured without its own copies, as in
leave-one-out. Images form groups of equal content; a test image that was encoded anew joins the
group of the train image that its thumbnail is nearest to.

Shape letters: n images of train, q test images, s side of a thumbnail.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from selfsup.augment.boxes import CenterBoxes, CropSpec
from selfsup.core.numerics import normalize
from selfsup.data.audit import image_digest
from selfsup.data.sources import Source
from selfsup.evaluate.features import Features
from selfsup.evaluate.leaks import LeakCheck
from selfsup.evaluate.votes import Vote, knn_votes

SIDE = 16  # of a thumbnail, in pixels
CHUNK = 1024  # images at a time


class Groups(NamedTuple):
    """Numbers of groups of equal images."""

    train: Tensor
    """int64 [n]."""
    test: Tensor
    """int64 [q], each that of an image of train."""


class Copies:
    """Finds the groups once, for the model and all baselines."""

    def __init__(self, check: LeakCheck) -> None:
        """Take the images that are checked for leaks."""
        self.check = check
        self.groups: Groups | None = None

    def find(self, train: Features, test: Features) -> Groups:
        """The groups of the images that could be read."""
        if self.groups is None:
            of_train, of_test = self.check.sources()
            self.groups = group_copies(
                (of_train, train.positions.tolist()), (of_test, test.positions.tolist())
            )
        return self.groups


Images = tuple[Source, list[int]]
"""A source and the positions of the images that could be read."""


def group_copies(train: Images, test: Images) -> Groups:
    """Group images by content, and each test image with the one of train that it is a copy of."""
    numbers: dict[str, int] = {}
    source, positions = train
    of_train = torch.tensor(
        [numbers.setdefault(image_digest(source, i), len(numbers)) for i in positions]
    )
    of_test = torch.tensor([numbers.get(image_digest(test[0], i), -1) for i in test[1]])
    encoded_anew = (of_test < 0).nonzero()[:, 0]
    if len(encoded_anew):
        bank = _thumbnails(*train)
        queries = _thumbnails(test[0], [test[1][i] for i in encoded_anew.tolist()])
        nearest = torch.cat([(block @ bank.T).argmax(1) for block in queries.split(CHUNK)])
        of_test[encoded_anew] = of_train[nearest]
    return Groups(of_train, of_test)


def _thumbnails(source: Source, positions: list[int]) -> Tensor:
    """Small images without their mean, at length 1. float32 [n, 3 s s]."""
    rows = []
    for start in range(0, len(positions), CHUNK):
        chunk = positions[start : start + CHUNK]
        spec = CropSpec(CenterBoxes(len(chunk), 1.0), SIDE, "bilinear")
        x = source.crops(chunk, spec).images[0][:, 0].flatten(1).float()
        rows.append(normalize(x - x.mean(1, keepdim=True)))
    return torch.cat(rows)


def votes_without_copies(
    bank: Tensor, labels: Tensor, groups: Groups, votes: list[Vote], memory: int
) -> Tensor:
    """Classify each test image by the images of train that it is no copy of. int64 [votes, q].

    Of a group's images in train one is kept; each is classified by all the others.
    """
    order = groups.train.argsort(stable=True)
    numbers, counts = groups.train[order].unique_consecutive(return_counts=True)
    first = order[counts.cumsum(0) - counts]
    among = knn_votes(bank[first.to(bank.device)], labels[first], votes=votes, memory=memory)
    return among[:, torch.searchsorted(numbers, groups.test)]
