"""Images that a Python program holds: a torch data set, a list of images, or one array of all."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset

from selfsup.core.errors import UserError, require
from selfsup.data.arrays import check_images
from selfsup.data.decode import FILE_CHANNELS, BadImage, pillow_pixels
from selfsup.data.labels import encode_class_numbers
from selfsup.data.loader import can_be_sent
from selfsup.data.sources import ArraySource, ImageSource, Source

Labels = Sequence[Any] | np.ndarray | Tensor


def python_source(data: Any, labels: Labels | None = None, channels: int = 3) -> Source:
    """Make a source of images in memory or of a torch data set.

    Items are read by position, so that a run resumes exactly. A data set is read by worker
    processes if it can be sent to them (where processes are not forked it has to be picklable), and
    in process otherwise; lists and arrays are read in process.

    Args:
        data: a map-style `torch.utils.data.Dataset` or a sequence, whose items are images or
            (image, label); or one array [n, h, w, c] or tensor [n, c, h, w] of all. An image is a
            PIL image, an array [h, w] or [h, w, c] or a tensor [c, h, w], as uint8 or as floats in
            [0, 1]; sizes may differ.
        labels: a number or a word for each image, instead of those of the items. Without them a
            data set of pairs that has no `targets` is read once for its labels.
        channels: of the images; 3 reads grey as RGB and drops alpha.

    Raises:
        UserError: nothing is there, or it cannot be read by position, or an image or the labels do
            not fit.

    >>> import numpy as np
    >>> source = python_source([np.zeros((8, 8, 3), np.uint8)] * 2, labels=["cat", "dog"])
    >>> len(source), source.classes, source.labels.tolist()
    (2, ['cat', 'dog'], [0, 1])
    """
    if isinstance(data, np.ndarray | Tensor):
        return _of_array(data, labels, channels)
    require(
        not isinstance(data, IterableDataset)
        and hasattr(data, "__len__")
        and hasattr(data, "__getitem__"),
        f"{_kind(data)} cannot be read by position, so that a run could not resume: give a list or "
        "a data set with __len__ and __getitem__",
    )
    n = len(data)
    require(n > 0, "there are no images: the list or data set is empty")
    load = _Items(data, channels)
    in_memory = isinstance(data, Sequence)
    for position in range(n) if in_memory else (0,):
        _check(load, position)
    if not in_memory:
        require(
            np.array_equal(load(0), load(0)),
            "image 0 differs when it is read twice: take random changes out of the data set, since "
            "views make their own",
        )
    if labels is None:
        labels = _labels_of_items(data)
    names = [f"image {i}" for i in range(n)]
    source = ImageSource(load, names, *_encoded(data, labels, n), channels=channels)
    source.in_memory = in_memory or not can_be_sent(data)
    return source


def _kind(data: Any) -> str:
    return f"a {type(data).__name__}"


def _of_array(data: np.ndarray | Tensor, labels: Labels | None, channels: int) -> Source:
    """All images in one array, of one size."""
    if isinstance(data, Tensor):
        array = data.detach().cpu()
        images = (array.permute(0, 2, 3, 1) if array.ndim == 4 else array).numpy()
    else:
        images = data
    if images.dtype.kind == "f" and images.size:
        try:
            images = np.stack([_eight_bits(image) for image in images])
        except BadImage as error:
            raise UserError(f"the array cannot be used: {error}") from None
    images = check_images("the array", images, channels)
    return ArraySource(images, *_encoded(data, labels, len(images)), channels=channels)


class _Items:
    """One image of a data set or a list; a class and no closure, so that it can be pickled."""

    def __init__(self, data: Any, channels: int) -> None:
        self.data, self.channels = data, channels

    def __call__(self, position: int) -> np.ndarray:
        try:
            return image_pixels(_image_of(self.data[position]), self.channels)
        except BadImage:
            raise
        except Exception as error:  # whatever a data set of others raises
            raise BadImage(f"{type(error).__name__}: {error}".split("\n")[0]) from None


def _check(load: _Items, position: int) -> None:
    try:
        load(position)
    except BadImage as error:
        raise UserError(f"image {position} cannot be used: {error}") from None


def _image_of(item: Any) -> Any:
    return item[0] if isinstance(item, tuple | list) else item


def image_pixels(image: Any, channels: int) -> np.ndarray:
    """An image of any kind as uint8 [h, w, channels].

    Raises:
        BadImage: its type, shape or values do not fit.
    """
    if isinstance(image, Image.Image):
        if channels not in FILE_CHANNELS:
            raise BadImage(f"a PIL image has 1, 3 or 4 channels, not {channels} (--views.mean)")
        if 0 in image.size:
            raise BadImage(f"it has no pixels: its size is {image.width} x {image.height}")
        return pillow_pixels(image, channels)
    if isinstance(image, Tensor):
        image = image.detach().cpu().numpy()
        image = image.transpose(1, 2, 0) if image.ndim == 3 else image
    if not isinstance(image, np.ndarray):
        raise BadImage(f"it is {_kind(image)}, not a PIL image, an array or a tensor")
    pixels = image[..., None] if image.ndim == 2 else image
    possible = (1, 3, 4) if channels == 3 else (channels,)
    if pixels.ndim != 3 or pixels.shape[2] not in possible or pixels.size == 0:
        raise BadImage(
            f"its shape is {list(image.shape)}; expected height, width and "
            f"{' or '.join(map(str, possible))} channels (of a tensor the channels come first)"
        )
    pixels = _eight_bits(pixels)[..., :channels]
    return np.array(np.broadcast_to(pixels, (*pixels.shape[:2], channels)))


def _eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Levels as they are; floats by [0, 1]."""
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind != "f":
        raise BadImage(f"its type is {pixels.dtype}; expected uint8, or floats in [0, 1]")
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= 0 and high <= 1):  # also of values that are not numbers
        raise BadImage(
            f"its values go from {low:.3g} to {high:.3g}; floats have to lie in [0, 1], so take a "
            "normalisation out of the data set"
        )
    return (pixels * 255).round().astype(np.uint8)


def _labels_of_items(data: Any) -> Labels | None:
    """The labels that a data set lists, or those of its pairs; None where items are images."""
    first = data[0]
    if not (isinstance(first, tuple | list) and len(first) > 1):
        return None
    targets = getattr(data, "targets", None)
    changed = getattr(data, "target_transform", None) is not None  # then items have other labels
    if targets is not None and len(targets) == len(data) and not changed:
        listed: Labels = targets
        return listed
    return [_label_of_item(data, i) for i in range(len(data))]


def _label_of_item(data: Any, position: int) -> Any:
    try:
        return data[position][1]
    except Exception as error:  # whatever a data set of others raises
        first = f"{type(error).__name__}: {error}".split("\n")[0]
        raise UserError(
            f"item {position} cannot be read for its label ({first}); give labels=[...] beside it"
        ) from None


def _encoded(data: Any, labels: Labels | None, n: int) -> tuple[Tensor | None, Sequence[str]]:
    """Labels as 0, 1, 2..., and the name of each."""
    if labels is None:
        return None, []
    if not isinstance(labels, Iterable) or isinstance(labels, str | bytes):
        raise UserError(f"labels have to be one for each image, not {labels!r} for all")
    labels = labels if hasattr(labels, "__len__") else list(labels)
    require(len(labels) == n, f"there are {n} images and {len(labels)} labels")
    words = not isinstance(labels, Tensor) and any(isinstance(x, str | bytes) for x in labels)
    return encode_class_numbers(
        "the data set", labels, None if words else getattr(data, "classes", None)
    )
