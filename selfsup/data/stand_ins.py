"""Stand-ins: which images take the places of those in a batch that cannot be read.

A stand-in brings its own label, and it is no image that the batch has already: there it would be a
negative of itself. Like a batch it follows from the step alone, on any number of processes.

    a batch of images 4, 7, 2, 9 and the images 1, 8, 3, 5, 0, 6 of the steps after it:
    1 and 0 may stand in for 4, 8 and 6 for 7, 3 for 2, 5 for 9, so that no two rows choose the same
"""

from collections.abc import Iterator

from torch import Tensor

from selfsup.data.samplers import PKSampler, Sampler, UnitSampler

LOOK_AHEAD = 64
"""Most steps whose images are candidates."""


def stand_ins(
    sampler: Sampler, step: int, row: int, batch: Tensor, labels: Tensor | None
) -> Iterator[int]:
    """Yield positions that may stand in for the image in `row` of a global batch, best first.

    In batches of P classes x K images they are of the same class, if need be images that the batch
    has: images of one label are not negatives of each other.

    Args:
        sampler: of the batch.
        step: of the batch.
        row: in the global batch.
        batch: positions [n] of the global batch.
        labels: of all images.
    """
    if isinstance(sampler, PKSampler) and labels is not None:
        yield from _of_same_class(row, batch, labels)
    units = sampler
    if isinstance(sampler, UnitSampler):
        units = sampler.sampler
        yield from sampler.unit(step, row)  # its own duplicates are not in the batch
    taken = set(units(step).tolist())
    others: dict[int, int] = {}
    """One image of each unit (group of duplicates, or image) that is not in the batch."""
    for later in range(step + 1, step + 1 + min(LOOK_AHEAD, 2 * sampler.steps_per_epoch)):
        for unit, position in zip(units(later).tolist(), sampler(later).tolist(), strict=True):
            if unit not in taken:
                others.setdefault(unit, position)
    yield from list(others.values())[row :: len(batch)]


def _of_same_class(row: int, batch: Tensor, labels: Tensor) -> Iterator[int]:
    """Images of the row's class: those outside of the batch, divided among its rows, then all."""
    members = (labels == labels[batch[row]]).nonzero()[:, 0].tolist()
    rows = (labels[batch] == labels[batch[row]]).nonzero()[:, 0].tolist()
    inside = set(batch.tolist())
    outside = [i for i in members if i not in inside]
    turn = rows.index(row)
    yield from outside[turn :: len(rows)]
    yield from outside
    yield from members
