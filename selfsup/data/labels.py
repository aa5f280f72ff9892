"""Labels: words or numbers of classes become 0, 1, 2... and their names."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from selfsup.data.sources import Columns
from selfsup.errors import UserError


def column_labels(where: Path, columns: Columns, name: str) -> tuple[Tensor | None, list[str]]:
    """A column as labels; none where some images have no word.

    Raises:
        UserError: there is no such column.
    """
    if name not in columns:
        raise UserError(f"{where} has no column {name!r}; it has {', '.join(columns) or 'none'}")
    words = list(columns[name])
    return encode_labels(words) if all(words) else (None, [])


def encode_labels(words: Sequence[str]) -> tuple[Tensor, list[str]]:
    """Label words as integers in sorted order, and the words."""
    classes, index = np.unique(np.asarray(words, dtype=str), return_inverse=True)
    return torch.from_numpy(index.astype(np.int64)), classes.tolist()


def named(where: Path, labels: np.ndarray, names: np.ndarray | None) -> tuple[Tensor, list[str]]:
    """Labels as 0, 1, 2... and what they are called.

    Raises:
        UserError: a label has no name.
    """
    values, index = np.unique(labels, return_inverse=True)
    if names is not None and names.ndim == 1 and not 0 <= values.min() <= values.max() < len(names):
        raise UserError(f"{where} names {len(names)} classes and has label {values.max()}")
    called = values if names is None or names.ndim != 1 else names[values]
    return torch.from_numpy(index.astype(np.int64)), [str(name) for name in called]
