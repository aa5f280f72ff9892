"""Images in numpy's files."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from selfsup.core.errors import UserError
from selfsup.data.sources import ArraySource, Source
from selfsup.data.tables import named

BROKEN = (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile)


def npz(file: Path, *, channels: int) -> Source:
    """An .npz with `images` and perhaps `labels`, `classes` (names), read into memory.

    Other arrays with a number or a word for each image are columns.
    """
    try:
        with np.load(file, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files if _plain(arrays, name)}
    except BROKEN as error:
        raise UserError(f"cannot read {file}: {error}") from None
    images = checked(file, found.get("images"), channels)
    source = _labelled(file, images, found.get("labels"), found.get("classes"), channels)
    source.columns = {
        name: [str(word) for word in words.tolist()]
        for name, words in found.items()
        if name not in ("images", "labels", "classes") and words.shape == (len(images),)
    }
    return source


def _plain(arrays: Any, name: str) -> bool:
    """Whether an array can be read without a pickle; one that is needed is read in any case."""
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


def npy(file: Path, *, channels: int) -> Source:
    """An .npy of images, mapped and not read; labels from NAME.labels.npy if it lies beside it.

    Of 16 bits it is read, and scaled to 8.
    """
    beside = file.with_suffix(".labels.npy")
    try:
        images: Any = np.load(file, mmap_mode="r", allow_pickle=False)
        if not isinstance(images, np.ndarray):
            raise ValueError("it holds several arrays, as an .npz does")
        labels = np.load(beside, allow_pickle=False) if beside.exists() else None
    except BROKEN as error:
        raise UserError(f"cannot read {file}: {error}") from None
    return _labelled(file, checked(file, images, channels), labels, None, channels)


def checked(file: Path | str, images: np.ndarray | None, channels: int) -> np.ndarray:
    """Images of eight bits and of channels that can be read as `channels`."""
    if images is not None and images.ndim == 3:
        images = images[..., None]
    if images is None or images.ndim != 4 or images.dtype not in (np.uint8, np.uint16):
        told = "none" if images is None else f"{images.dtype} {list(images.shape)}"
        raise UserError(f"{file} must hold images as uint8 or uint16 [n, h, w, c]; it has {told}")
    fits = (1, 3, 4) if channels == 3 else (channels,)
    if images.shape[-1] not in fits or len(images) == 0:
        wanted = "1, 3 or 4 channels" if channels == 3 else f"{channels} channels (--views.mean)"
        raise UserError(f"{file} must hold images of {wanted}, not {list(images.shape)}")
    if images.dtype == np.uint16:  # by the range of 16 bits, as decoded files are
        images = ((images.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    return images


def _labelled(
    file: Path,
    images: np.ndarray,
    labels: np.ndarray | None,
    names: np.ndarray | None,
    channels: int,
) -> Source:
    if labels is None:
        return ArraySource(images, None, [], channels=channels)
    if labels.shape != (len(images),):
        raise UserError(f"{file} has {len(images)} images but labels of shape {list(labels.shape)}")
    return ArraySource(images, *named(file, labels, names), channels=channels)
