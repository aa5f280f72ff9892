"""Images given from Python, where settings hold a path."""

import hashlib
from collections.abc import Sequence
from os import PathLike, fspath
from typing import Any

import numpy as np

from selfsup.core.errors import require

SAMPLED = 16
"""Images that tell one list or data set from another."""


class InMemory(str):
    """Images and labels that stand in a Config like a path; as text it says what they are.

    `open_source` makes a source of them, see `python_source` for what they may be.
    """

    images: Any
    labels: Sequence[Any] | None
    __slots__ = ("images", "labels")

    def __new__(cls, images: Any, labels: Sequence[Any] | None = None) -> "InMemory":
        """Hold images, such as a list or a torch Dataset."""
        count = len(images) if hasattr(images, "__len__") else "unknown number of"
        kind = f"{type(images).__name__} {_digest(images, labels)}"
        text = super().__new__(cls, f"{count} images from Python ({kind})")
        text.images, text.labels = images, labels
        return text

    def __deepcopy__(self, memo: Any) -> "InMemory":
        return self  # a Config that is copied goes on with the same images


class Opened(str):
    """A source that is open already and stands in a Config like a path, such as a part of another.

    As text it says what it is; a run goes on only with a source of the same text.
    """

    source: Any
    __slots__ = ("source",)

    def __new__(cls, source: Any, text: str) -> "Opened":
        """Hold a source under this name."""
        named = super().__new__(cls, text)
        named.source = source
        return named

    def __deepcopy__(self, memo: Any) -> "Opened":
        return self


def _digest(images: Any, labels: Sequence[Any] | None) -> str:
    """Hash of some images and all given labels, so that a run does not go on with others."""
    digest = hashlib.blake2b(digest_size=4)
    count = len(images) if hasattr(images, "__len__") and hasattr(images, "__getitem__") else 0
    for position in range(0, count, max(1, count // SAMPLED)):
        try:
            item = images[position]
        except Exception:  # told where images are opened
            continue
        for part in item if isinstance(item, tuple | list) else (item,):
            digest.update(np.asarray(part).tobytes())
    if labels is not None and hasattr(labels, "__iter__"):
        digest.update(repr([str(label) for label in labels]).encode())
    return digest.hexdigest()


def data_settings(name: str, data: Any, labels: Any = None) -> dict[str, Any]:
    """Settings for the images `data`: a path as it is, others as `InMemory`.

    Args:
        name: of the setting, such as "data" or "test".
        data: a path, or images.
        labels: of files the name of a column, else a label for each image.

    Raises:
        UserError: labels do not fit the kind of data.
    """
    if isinstance(data, str | PathLike):
        require(
            labels is None or isinstance(labels, str),
            "labels of files are the name of a column; images in memory take a list of labels",
        )
        path = data if isinstance(data, InMemory) else fspath(data)
        return {name: path} | ({} if labels is None else {"labels": labels})
    return {name: InMemory(data, labels)}
