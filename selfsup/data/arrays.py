"""Images in numpy's files."""

import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from selfsup.core.errors import UserError
from selfsup.data.labels import column_labels, encode_class_numbers, text_of
from selfsup.data.sources import ArraySource, Source, check_sides

BROKEN = (
    *(OSError, ValueError, EOFError, TypeError, KeyError, IndexError, OverflowError, MemoryError),
    *(SyntaxError, RuntimeError, NotImplementedError, tokenize.TokenError, struct.error),
    *(zipfile.BadZipFile, zlib.error),
)
"""What numpy, its parser of headers and zipfile raise for a damaged file."""


def npz(file: Path, *, labels: str, channels: int) -> Source:
    """Read an .npz with `images` and perhaps `labels` and `classes` (names) into memory.

    Other arrays with a number or a word for each image are columns, and may be the labels.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            tables = {name: arrays[name] for name in arrays.files if _is_needed(arrays, name)}
    except BROKEN as error:
        raise UserError(f"cannot read {file}: {error}") from None
    images = check_images(file, tables.get("images"), channels)
    columns = {
        name: [text_of(word) for word in words.tolist()]
        for name, words in tables.items()
        if name not in ("images", "labels", "classes") and words.shape == (len(images),)
    }
    if labels in ("label", "labels"):
        source = _labelled(file, images, tables.get("labels"), tables.get("classes"), channels)
    else:
        encoded = column_labels(file, columns, labels) if labels else (None, [])
        source = ArraySource(images, *encoded, channels=channels)
    source.columns = columns
    return source


def _is_needed(arrays: Any, name: str) -> bool:
    """Whether to read an array: images and labels always, others if they fit a column.

    Columns are recognised by their header, so that nothing is unpickled.
    """
    if name in ("images", "labels", "classes"):
        return True
    if f"{name}.npy" not in arrays.zip.namelist():
        return False
    with arrays.zip.open(f"{name}.npy") as header:
        version = np.lib.format.read_magic(header)
        read = np.lib.format.read_array_header_1_0
        shape, _, kind = (read if version == (1, 0) else np.lib.format.read_array_header_2_0)(
            header
        )
    return len(shape) == 1 and not kind.hasobject


def npy(file: Path, *, labels: str, channels: int) -> Source:
    """Map an .npy of images; labels come from NAME.labels.npy in the same folder, if it exists.

    Images of 16 bits are read, and scaled to 8.
    """
    label_file = file.with_suffix(".labels.npy")
    try:
        images: Any = np.load(file, mmap_mode="r", allow_pickle=False)
        if not isinstance(images, np.ndarray):
            raise ValueError("it holds several arrays, as an .npz does")
        numbers = np.load(label_file, allow_pickle=False) if label_file.exists() else None
    except BROKEN as error:
        raise UserError(f"cannot read {file}: {error}") from None
    if labels not in ("label", ""):
        raise UserError(f"{file} has no column {labels!r}; its labels are in {label_file.name}")
    numbers = numbers if labels else None
    return _labelled(file, check_images(file, images, channels), numbers, None, channels)


def check_images(file: Path | str, images: np.ndarray | None, channels: int) -> np.ndarray:
    """Check type and shape, and scale to eight bits.

    Raises:
        UserError: the images cannot be read as `channels` channels.
    """
    if images is not None and images.ndim == 3:
        images = images[..., None]
    if images is None or images.ndim != 4 or images.dtype not in (np.uint8, np.uint16):
        kind = "none" if images is None else f"{images.dtype} {list(images.shape)}"
        raise UserError(f"{file} must hold images as uint8 or uint16 [n, h, w, c]; it has {kind}")
    fits = (1, 3, 4) if channels == 3 else (channels,)
    if images.shape[-1] not in fits or len(images) == 0:
        expected = "1, 3 or 4 channels" if channels == 3 else f"{channels} channels (--views.mean)"
        raise UserError(f"{file} must hold images of {expected}, not {list(images.shape)}")
    check_sides(file, images)
    if images.dtype == np.uint16:  # by the range of 16 bits, as for files
        images = ((images.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return images


def _labelled(
    file: Path,
    images: np.ndarray,
    labels: np.ndarray | None,
    names: np.ndarray | None,
    channels: int,
) -> ArraySource:
    if labels is None:
        return ArraySource(images, None, [], channels=channels)
    if labels.shape[:1] != (len(images),):
        raise UserError(f"{file} has {len(images)} images but labels of shape {list(labels.shape)}")
    return ArraySource(images, *encode_class_numbers(file, labels, names), channels=channels)
