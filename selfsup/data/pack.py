"""Packs: many images in one file that is mapped into memory and read at any position.

    page 0      magic, then a line of JSON: the place of the contents and the length of the file
    page 1...   the images one after the other: raw levels [h, w, c] or JPEG
    a page...   arrays of the index, one after the other, then the contents as JSON

The contents name each array's type, shape and place, so that opening reads them and the labels: the
index of 67 million images (2 TB at 30 kB, 72 bytes each and their names) stays on disk as well.
"""

import math
import mmap
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selfsup.augment.boxes import CropSpec
from selfsup.core.errors import UserError
from selfsup.core.json_files import parse_json
from selfsup.data.decode import BadImage
from selfsup.data.labels import column_labels
from selfsup.data.mixture import Mixture
from selfsup.data.remote import RemoteFile, read_ranges
from selfsup.data.sources import ArraySource, Crops, ImageSource, Source
from selfsup.data.texts import Texts

PAGE = 4096
MAGIC = b"selfsup pack 1\n"
KEYS = {"images", "format", "channels", "uniform", "classes", "columns", "bad", "arrays"}
"""Required in the contents."""


class Pack:
    """An open pack."""

    def __init__(self, file: Path | RemoteFile) -> None:
        """Map the file; of one at a URL only the index is read.

        Raises:
            UserError: it is not a pack, or not whole.
        """
        self.file = file
        try:
            self.bytes = _map(file) if isinstance(file, Path) else file
            head = self.bytes[:PAGE].tobytes()
            if not head.startswith(MAGIC):
                raise UserError(f"{file} is not a pack")
            where = parse_json(head[len(MAGIC) :].split(b"\n")[0])
            start, size, whole = (int(where[key]) for key in ("contents", "bytes", "whole"))
            if whole != len(self.bytes):
                raise UserError(f"{file} has {len(self.bytes)} bytes of {whole}; pack it again")
            self.index = where["index"]
            """sha256 of the index and the contents."""
            self.text = self.bytes[start : start + size].tobytes()
            self.contents = parse_json(self.text)
            if not self.contents.keys() >= KEYS:
                raise UserError(f"the contents of {file} have changed; pack it again")
            self.starts, self.sizes = self.array("starts"), self.array("sizes")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, BadImage) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"cannot read {file}: {error}") from None

    def __reduce__(self) -> tuple[type["Pack"], tuple[Path | RemoteFile]]:
        return Pack, (self.file,)  # a worker process maps the file itself

    def __len__(self) -> int:
        return int(self.contents["images"])

    def array(self, name: str) -> np.ndarray:
        """Map an array of the index, or read it from a URL."""
        kind, shape, start = self.contents["arrays"][name]
        kind = np.dtype(kind)
        size = kind.itemsize * math.prod(shape)
        array: np.ndarray = self.bytes[start : start + size].view(kind).reshape(shape)
        return array

    def texts(self, name: str) -> Texts:
        """Map words of the index."""
        return Texts(self.array(f"{name} text"), self.array(f"{name} ends"))

    def stored(self, i: int) -> np.ndarray:
        """The bytes of image i.

        Raises:
            BadImage: they are no longer at their URL.
        """
        start = int(self.starts[i])
        return self.bytes[start : start + int(self.sizes[i])]

    def stored_many(self, positions: Sequence[int]) -> Sequence[np.ndarray | BadImage]:
        """The bytes of several images, those of a URL all at once."""
        if not isinstance(self.file, RemoteFile):
            return [self.stored(i) for i in positions]
        ranges = [(self.file, int(self.starts[i]), int(self.sizes[i])) for i in positions]
        read = read_ranges(ranges)
        return [x if isinstance(x, BadImage) else np.frombuffer(x, np.uint8) for x in read]


def _map(file: Path) -> np.ndarray:
    with file.open("rb") as opened:
        return np.frombuffer(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)


def packed(path: Path | RemoteFile, *, labels: str, channels: int) -> Source:
    """Open a pack, or a folder of packs in the order of their names."""
    if isinstance(path, Path) and path.is_dir():
        files = sorted(path.glob("*.pack"))
        return Mixture([packed(f, labels=labels, channels=channels) for f in files], None)
    pack = Pack(path)
    stored = int(pack.contents["channels"])
    if channels not in (stored, 3) or (channels == 3 and stored not in (1, 3, 4)):
        raise UserError(f"{path} has images of {stored} channels, not {channels}")
    common: dict[str, Any] = {
        "channels": channels,
        "columns": {name: pack.texts(f"column {name}") for name in pack.contents["columns"]},
    }
    classes: list[str] = pack.contents["classes"]
    numbers: Tensor | None = None
    if not labels:
        classes = []
    elif labels != "label":
        numbers, classes = column_labels(path, common["columns"], labels)
    elif "labels" in pack.contents["arrays"]:
        numbers = torch.from_numpy(np.array(pack.array("labels")))
    if pack.contents["uniform"] and isinstance(path, RemoteFile):
        return RemoteArraySource(pack, numbers, classes, **common)
    if pack.contents["uniform"]:
        reopen = partial(packed, path, labels=labels, channels=channels)
        images, names = pack.array("images"), pack.texts("name")
        return _NamedArraySource(images, numbers, classes, names=names, reopen=reopen, **common)
    load = _Loader(pack, stored, channels)
    if isinstance(path, RemoteFile):
        common["load_many"] = load.many
    return ImageSource(load, pack.texts("name"), numbers, classes, **common)


class _NamedArraySource(ArraySource):
    """An array whose images have names."""

    def __init__(
        self, *args: Any, names: Sequence[str], reopen: Callable[[], Source], **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.names = names
        self.reopen = reopen

    def __reduce__(self) -> tuple[Callable[[], Source], tuple[()]]:
        return self.reopen, ()  # a worker process maps the file itself

    def name(self, position: int) -> str:
        """Its name when it was packed."""
        return self.names[position]


class RemoteArraySource(ArraySource):
    """Raw images of one size in a pack at a URL: a batch of them is read, then it is an array."""

    in_memory = False

    def __init__(self, pack: Pack, labels: Any, classes: Sequence[str], **options: Any) -> None:
        """Read nothing but what the pack knows of its images."""
        shape = pack.contents["arrays"]["images"][1]
        super().__init__(np.empty((0, *shape[1:]), np.uint8), labels, classes, **options)
        self.pack = pack
        self.shape = tuple(shape[1:])
        self.names = pack.texts("name")

    def __len__(self) -> int:
        return len(self.pack)

    def name(self, position: int) -> str:
        """Its name when it was packed."""
        return self.names[position]

    def pixels(self, position: int) -> np.ndarray:
        """Read the image."""
        return self._array(self.pack.stored(position)[None]).pixels(0)

    def crops(self, positions: Sequence[int], *specs: CropSpec) -> Crops:
        """Read all images at once; for one that is gone the next by position stands in."""
        bad: dict[int, str] = {}
        rows: list[np.ndarray] = []
        read = self.pack.stored_many([int(p) for p in positions])
        for position, data in zip(positions, read, strict=True):
            if isinstance(data, BadImage):
                data = self._next(int(position), data, bad)
            rows.append(data)
        crops = self._array(np.stack(rows)).crops(range(len(rows)), *specs)
        return Crops(crops.images, bad)

    def _next(self, position: int, reason: BadImage, bad: dict[int, str]) -> np.ndarray:
        """The next image by position that can be read."""
        bad[position] = str(reason)
        for offset in range(1, min(len(self), 1000)):
            candidate = (position + offset) % len(self)
            try:
                if candidate not in bad:
                    return self.pack.stored(candidate)
            except BadImage as error:
                bad[candidate] = str(error)
        return np.zeros(math.prod(self.shape), np.uint8)

    def _array(self, rows: np.ndarray) -> ArraySource:
        return ArraySource(rows.reshape(-1, *self.shape), None, [], channels=self.channels)


class _Loader:
    """One image of a pack."""

    def __init__(self, pack: Pack, stored: int, channels: int) -> None:
        self.pack, self.stored, self.channels = pack, stored, channels
        self.jpeg = pack.contents["format"] == "jpeg"
        self.shapes = pack.array("shapes")

    def __reduce__(self) -> tuple[type["_Loader"], tuple[Pack, int, int]]:
        return _Loader, (self.pack, self.stored, self.channels)

    def __call__(self, position: int) -> np.ndarray | bytes:
        return self._image(position, self.pack.stored(position))

    def many(self, positions: Sequence[int]) -> Sequence[np.ndarray | bytes | BadImage]:
        """Load several images at once; of one that cannot be read the reason."""
        loaded: list[np.ndarray | bytes | BadImage] = []
        for position, data in zip(positions, self.pack.stored_many(positions), strict=True):
            try:
                loaded.append(data if isinstance(data, BadImage) else self._image(position, data))
            except BadImage as error:
                loaded.append(error)
        return loaded

    def _image(self, position: int, data: np.ndarray) -> np.ndarray | bytes:
        if self.jpeg:
            return data.tobytes()
        height, width = self.shapes[position].tolist()
        if height * width * self.stored != len(data) or len(data) == 0:
            raise BadImage("the pack's index does not match its size")
        image = data.reshape(height, width, self.stored)[..., : self.channels]
        return np.array(np.broadcast_to(image, (height, width, self.channels)))
