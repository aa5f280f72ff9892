"""Samplers: positions of the images of a step's global batch, from seed and step alone."""

import heapq
from collections.abc import Sequence
from itertools import cycle, pairwise
from typing import Protocol

import torch
from torch import Tensor

from selfsup.core.errors import UserError
from selfsup.core.seeds import generator
from selfsup.core.words import counted
from selfsup.data.orders import Orders


class Sampler(Protocol):
    """Chooses the images of a step's global batch."""

    steps_per_epoch: int

    def __call__(self, step: int) -> Tensor:
        """Return the positions [n] of the global batch of `step`."""


class ShuffleSampler:
    """Every image once an epoch, in a new order each time; the last partial batch is dropped.

    Which images are dropped changes with the order, so that over epochs all are seen equally often.

    >>> sampler = ShuffleSampler(10, batch=4, seed=0)
    >>> sampler.steps_per_epoch, sorted(torch.cat([sampler(0), sampler(1)]).tolist())
    (2, [0, 1, 3, 4, 5, 6, 7, 9])
    """

    def __init__(self, n: int, *, batch: int, seed: int) -> None:
        """Batches of `batch` of n images.

        Raises:
            UserError: there are fewer images than the batch holds.
        """
        if n < batch:
            images = counted(n, "image is", "images are")
            raise UserError(f"{images} fewer than the batch of {batch}; lower --batch")
        self.orders = Orders(n, seed=seed)
        self.batch = batch
        self.steps_per_epoch = n // batch

    def __call__(self, step: int) -> Tensor:
        """Positions [batch] of the global batch of `step`."""
        epoch, turn = divmod(step, self.steps_per_epoch)
        return self.orders(epoch, turn * self.batch, (turn + 1) * self.batch)


class WeightedSampler:
    """Batches in which each source has a fixed fraction, whatever its size.

    Sources are shuffled separately and restart only at batch boundaries, so that no image comes
    twice in a batch; the few images that a restart drops are different ones each time.

    Counts follow from the step alone. Of the first t images that a run sees, those up to source k
    are round(t * W_k), with W_k the sum of the first k fractions. With fractions 3/4 and 1/4 and a
    batch of 6, W is 0.75 and 1:

        after step 1    round(6 * 0.75) = 4 of the first source, 6 - 4 = 2 of the second
        after step 2    round(12 * 0.75) = 9 and 3: step 2 has 5 and 1
    """

    def __init__(
        self, sizes: Sequence[int], weights: Sequence[float], *, batch: int, seed: int
    ) -> None:
        """Draw batches of `batch` from sources of these sizes, which lie one after the other.

        Raises:
            UserError: a source has fewer than two images of a batch, or not enough for its
                fraction.
        """
        total = sum(weights)
        self.steps_per_pass = []
        for size, weight in zip(sizes, weights, strict=True):
            images = batch * weight / total
            if images < 2:  # rounding both ends may take two
                raise UserError(
                    f"{size} images with a fraction of {weight / total:.4f} are less than two in "
                    f"a batch of {batch}; raise their weight or --batch"
                )
            self.steps_per_pass.append(int((size - 2) // images))
            if self.steps_per_pass[-1] < 1:
                raise UserError(
                    f"{size} images are too few for {images:.0f} in a batch of {batch}; lower "
                    "their weight or --batch"
                )
        self.sizes = sizes
        self.edges = [sum(weights[: k + 1]) / total for k in range(len(weights))]
        self.orders = [
            Orders(size, seed=seed, stream=f"shuffle/{k}") for k, size in enumerate(sizes)
        ]
        self.batch = batch
        self.steps_per_epoch = max(1, sum(sizes) // batch)

    def __call__(self, step: int) -> Tensor:
        """Positions [batch] of the global batch of `step`."""
        positions, start = [], 0
        for k, (size, steps) in enumerate(zip(self.sizes, self.steps_per_pass, strict=True)):
            epoch = step // steps
            began, before, after = (
                self._counts(s * self.batch)[k] for s in (epoch * steps, step, step + 1)
            )
            positions.append(start + self.orders[k](epoch, before - began, after - began))
            start += size
        return torch.cat(positions)

    def _counts(self, images: int) -> list[int]:
        """Count the images of each source among the first `images`."""
        edges = [0, *(round(images * edge) for edge in self.edges)]
        return [high - low for low, high in pairwise(edges)]


class UnitSampler:
    """One image of each group of duplicates, chosen anew each epoch.

    So duplicates never are in one batch. A unit is such a group, or a single image.
    """

    def __init__(
        self,
        sampler: ShuffleSampler | WeightedSampler,
        units: Sequence[Sequence[int]],
        *,
        seed: int,
    ) -> None:
        """Sample positions in `units` by `sampler`; each unit lists positions of images."""
        self.sampler = sampler
        self.steps_per_epoch = sampler.steps_per_epoch
        self.sizes = torch.tensor([len(unit) for unit in units])
        self.starts = self.sizes.cumsum(0) - self.sizes
        self.members = torch.tensor([i for unit in units for i in unit])
        self.seed = seed
        self._epoch = (-1, torch.zeros(0))

    def __call__(self, step: int) -> Tensor:
        """Positions [batch] of the global batch of `step`."""
        chosen = self.sampler(step)
        epoch = step // self.steps_per_epoch
        if self._epoch[0] != epoch:  # only a cache: any epoch can be drawn again
            g = generator(self.seed, epoch, "units")
            self._epoch = (epoch, torch.rand(len(self.sizes), generator=g))
        place = self._epoch[1][chosen]
        return self.members[self.starts[chosen] + (place * self.sizes[chosen]).long()]

    def unit(self, step: int, row: int) -> list[int]:
        """Positions of all images of the unit in a row of the batch of `step`."""
        chosen = int(self.sampler(step)[row])
        start = int(self.starts[chosen])
        positions: list[int] = self.members[start : start + int(self.sizes[chosen])].tolist()
        return positions


class PKSampler:
    """Batches of P classes x K images, for losses that compare within a batch.

    An epoch splits each class's images, in a new order, into groups of K. A batch takes P different
    classes, those with the most groups left; when fewer than P have any left, more groups are made.
    So within `steps_per_epoch` steps every image of a class with two or more is seen. A group
    repeats an image only where the class has fewer than K. Classes with one image cannot be
    anchors: they are left out and listed in `singles`.

    >>> labels = torch.tensor([0, 0, 1, 1, 1, 2, 2, 3])
    >>> sampler = PKSampler(labels, p=2, k=2, seed=0)
    >>> labels[sampler(0)].view(2, 2).unique(dim=1).shape, sampler.singles
    (torch.Size([2, 1]), [3])
    """

    def __init__(self, labels: Tensor, *, p: int, k: int, seed: int) -> None:
        """Draw batches of images with `labels` [n].

        Raises:
            UserError: too few classes have two images.
        """
        if p < 2 or k < 2:
            raise UserError(f"a batch needs 2 classes x 2 images or more, not {p} x {k}")
        members: dict[int, list[int]] = {}
        for position, label in enumerate(labels.tolist()):
            members.setdefault(label, []).append(position)
        self.singles = sorted(label for label, images in members.items() if len(images) < 2)
        self.members = [members[label] for label in sorted(members) if len(members[label]) > 1]
        if len(self.members) < p:
            raise UserError(_too_few(self.members, len(members), p, k))
        self.p, self.k, self.seed = p, k, seed
        groups = [-(-len(images) // k) for images in self.members]
        self.steps_per_epoch = max(max(groups), -(-sum(groups) // p))
        self._epoch: tuple[int, list[list[int]]] = (-1, [])

    def __call__(self, step: int) -> Tensor:
        """Positions [p * k] of the global batch of `step`; each class's K are adjacent."""
        epoch, turn = divmod(step, self.steps_per_epoch)
        if self._epoch[0] != epoch:  # only a cache: any epoch can be planned again
            self._epoch = (epoch, self._plan(epoch))
        return torch.tensor(self._epoch[1][turn])

    def _plan(self, epoch: int) -> list[list[int]]:
        """Plan the batches of one epoch, in random order."""
        g = generator(self.seed, epoch, "pk")
        left = [_groups(images, self.k, g) for images in self.members]
        ties = torch.randperm(len(left), generator=g).tolist()
        heap = [(-len(groups), ties[c], c) for c, groups in enumerate(left)]
        heapq.heapify(heap)
        batches = []
        for _ in range(self.steps_per_epoch):
            chosen = [heapq.heappop(heap)[2] for _ in range(self.p)]
            batch: list[int] = []
            for c in chosen:
                if not left[c]:
                    left[c] = _groups(self.members[c], self.k, g)[:1]
                batch += left[c].pop()
                tie = int(torch.randint(2**31, (), generator=g))
                heapq.heappush(heap, (-len(left[c]), tie, c))
            batches.append(batch)
        order = torch.randperm(len(batches), generator=g).tolist()
        return [batches[i] for i in order]


def batch_shape(labels: Tensor, p: int = 0, k: int = 0) -> tuple[int, int]:
    """Choose P and K of a batch of about 64 images where they are 0.

    P is 16, or the number of classes with two images if that is lower; K is 64 / P, at most the
    images of the largest class.

    Args:
        labels: of all images, [n].
        p: classes of a batch, if given.
        k: images of each, if given.
    """
    _, sizes = labels[labels >= 0].unique(return_counts=True)  # -1: without a label
    p = p or max(2, min(16, int((sizes > 1).sum())))
    return p, k or max(2, min(64 // p, int(sizes.max())))


def _groups(images: Sequence[int], k: int, g: torch.Generator) -> list[list[int]]:
    """Shuffle images into groups of k; the first images fill up the last group."""
    shuffled = [images[i] for i in torch.randperm(len(images), generator=g).tolist()]
    groups = [shuffled[start : start + k] for start in range(0, len(shuffled), k)]
    fill = cycle(shuffled)
    while len(groups[-1]) < k:
        groups[-1].append(next(fill))
    return groups


def _too_few(members: Sequence[Sequence[int]], classes: int, p: int, k: int) -> str:
    if classes < 2:
        return "all labels are the same: ranking needs 2 classes or more"
    if len(members) < 2:
        return f"{len(members)} of {classes} classes have 2 images or more; ranking needs 2 such"
    return (
        f"{len(members)} of {classes} classes have 2 images or more, --classes {p} needs {p}; "
        f"the largest that fits is --classes {len(members)} --images {k}"
    )
