"""Labels of any type as int64: the one form in which losses, miners and evaluations use them.

Shape letter: m rows.
"""

import torch
from torch import Tensor

INTEGERS = (
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.bool),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
)


def class_labels(labels: Tensor) -> Tensor:
    """Convert the labels of rows to int64. [m] -> [m].

    Indexing with uint8 or bool selects by mask, other small types cannot index or be sorted, and
    labels of two types do not compare.

    Args:
        labels: integers of any type, booleans, or floats that are whole numbers.

    Raises:
        ValueError: they have more than one dimension, or a label is no whole number.

    Example:
        >>> class_labels(torch.tensor([2, 0, 1], dtype=torch.uint8))
        tensor([2, 0, 1])
    """
    if labels.ndim != 1:
        raise ValueError(
            f"labels have shape {list(labels.shape)}; one number for each row is needed"
        )
    if labels.dtype in INTEGERS:
        return labels.long()
    if not labels.is_floating_point():
        raise ValueError(f"labels are {labels.dtype}; whole numbers are needed")
    broken = labels[~(labels == labels.floor()) | labels.isinf()]
    if len(broken):
        raise ValueError(
            f"{len(broken)} of {len(labels)} labels are no whole numbers, the first {broken[0]:g}"
        )
    return labels.long()
