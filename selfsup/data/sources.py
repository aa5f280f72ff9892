"""Sources: images and, if they have them, labels, by position.

Every source has `__len__`, `labels`, `classes`, `columns` and `crops(...)`; other code does not
know where images come from.

Shape letters: b images, v views, h, w and c of an image.
"""

import contextlib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from selfsup.augment.boxes import CropSpec
from selfsup.augment.resample import resized_array_crops
from selfsup.core.errors import require
from selfsup.data.cropper import Cropper
from selfsup.data.decode import BadImage, Decoded, Shrink, decode_shrunk, whole

AHEAD = 256  # images that are loaded at once, where a server sends them
CHUNK_IMAGES = 128  # of an array, resized at a time: their floats have to fit in memory
Loaded = np.ndarray | bytes
"""A decoded image [h, w, c], or the bytes of its file."""
Columns = Mapping[str, Sequence[str]]
"""Other facts of each image (camera, group...): a word for each position."""


class Crops(NamedTuple):
    """Cropped and resized images, and those that could not be read."""

    images: tuple[Tensor, ...]
    """uint8 [b, v, c, size, size] for each crop spec."""
    bad: dict[int, str]
    """Position of each unreadable image, and why; the next good one stands in its place."""


class Source(Protocol):
    """Images by position, from 0."""

    labels: Tensor | None
    """int64 [n], -1 for an image without one; None where no image has one."""
    classes: Sequence[str]
    """The name of each label."""
    columns: Columns
    """Other columns, each with n words."""
    in_memory: bool
    """Whether reading is so quick that worker processes would slow it down."""

    def __len__(self) -> int:
        """Number of images."""

    def name(self, position: int) -> str:
        """A name that a person recognises, such as the path."""

    def crops(self, positions: Sequence[int], *specs: CropSpec) -> Crops:
        """Crop each image's boxes from the full resolution and resize them, for each spec."""

    def pixels(self, position: int) -> np.ndarray:
        """The whole image, uint8 [h, w, c].

        Raises:
            BadImage: it cannot be read.
        """

    def stored(self, position: int) -> bytes | None:
        """Bytes of its file; None where there are only pixels.

        Raises:
            BadImage: they cannot be read.
        """


def hash_names(source: Source) -> "hashlib._Hash":
    """Hash the names of all images: a sha256, to which more can be added."""
    digest = hashlib.sha256()
    for position in range(len(source)):
        digest.update(source.name(position).encode("utf-8", "surrogateescape") + b"\0")
    return digest


def sample(source: Source, most: int) -> list[np.ndarray]:
    """Load up to `most` images, evenly spread over the source; broken ones are left out.

    Returns:
        uint8 [h, w, c] each.
    """
    images = []
    for position in np.linspace(0, len(source) - 1, min(most, len(source))).round().astype(int):
        with contextlib.suppress(BadImage):
            images.append(source.pixels(int(position)))
    return images


def why_unreadable(source: Source, position: int) -> str:
    """Say why an image cannot be read; nothing of one that can."""
    try:
        source.pixels(position)
    except BadImage as error:
        return str(error)
    return ""


def why_first(source: Source) -> str:
    """Say why the first image cannot be read: "the first, a.jpg: ..."."""
    why = f"{source.name(0)}: {why_unreadable(source, 0)}" if len(source) else "there is none"
    return f"the first, {why}"


def all_unreadable(source: Source) -> str:
    """Say of images of which none can be read why the first cannot."""
    return f"none of the {len(source)} images can be read; {why_first(source)}"


def check_sides(where: Any, images: np.ndarray) -> None:
    """Refuse images [n, h, w, c] without height or width: compiled loops would leave their memory.

    Raises:
        UserError: they have no pixels.
    """
    require(
        0 not in images.shape[1:],
        f"{where} has images without pixels: their shape is {list(images.shape)}",
    )


class ArraySource:
    """Images that lie in memory or in a mapped file, all of one size."""

    in_memory = True

    def __init__(
        self,
        images: np.ndarray,
        labels: Tensor | None,
        classes: Sequence[str],
        *,
        channels: int = 3,
        columns: Columns | None = None,
    ) -> None:
        """Take uint8 images [n, h, w, c]: grey becomes RGB, and alpha is dropped."""
        check_sides("the array", images)
        self.images = images
        self.labels = labels
        self.classes = classes
        self.channels = channels
        self.columns = columns or {}

    def __len__(self) -> int:
        return len(self.images)

    def name(self, position: int) -> str:
        """The position, since there is no file name."""
        return f"image {position}"

    def pixels(self, position: int) -> np.ndarray:
        """The image with as many channels as the source has."""
        image = self.images[position, :, :, : self.channels]
        return np.array(np.broadcast_to(image, (*image.shape[:2], self.channels)))

    def stored(self, position: int) -> None:
        """There is no file."""

    def crops(self, positions: Sequence[int], *specs: CropSpec) -> Crops:
        """Crop in chunks, since the floats of thousands of images would take gigabytes."""
        place = np.asarray(positions)
        height, width = self.images.shape[1:3]
        boxes = [spec.boxes.resolve(height, width) for spec in specs]
        if all(_is_identity(box, s, height, width) for box, s in zip(boxes, specs, strict=True)):
            images = torch.from_numpy(self.images[place])[..., : self.channels]
            view = images.permute(0, 3, 1, 2)[:, None].expand(-1, -1, self.channels, -1, -1)
            return Crops((view,) * len(specs), {})
        rows = []
        for start in range(0, len(place), CHUNK_IMAGES):
            chunk = slice(start, start + CHUNK_IMAGES)
            images = torch.from_numpy(self.images[place[chunk]])[..., : self.channels]
            rows.append(
                [
                    resized_array_crops(images, box[chunk], spec.size, spec.interpolation)
                    for box, spec in zip(boxes, specs, strict=True)
                ]
            )
        crops = (torch.cat(chunks) for chunks in zip(*rows, strict=True))
        return Crops(tuple(x.expand(-1, -1, self.channels, -1, -1) for x in crops), {})


def _is_identity(boxes: Tensor, spec: CropSpec, height: int, width: int) -> bool:
    """Whether nothing is cropped or resized: evaluation at the size of the images."""
    same = spec.size == height == width and boxes.shape[1] == 1
    return same and bool((boxes == torch.tensor([0, 0, height, width])).all())


class ImageSource:
    """Images that are loaded one at a time."""

    in_memory = False

    def __init__(
        self,
        load: Callable[[int], Loaded],
        names: Sequence[str],
        labels: Tensor | None,
        classes: Sequence[str],
        *,
        channels: int = 3,
        columns: Columns | None = None,
        load_many: Callable[[Sequence[int]], Sequence[Loaded | BadImage]] | None = None,
    ) -> None:
        """Read images by `load(position)`.

        It returns uint8 [h, w, channels] or the bytes of a file, or raises BadImage. `load_many`
        does so for several at once, where that is quicker, and returns what `load` would raise.
        """
        self.load = load
        self.load_many = load_many
        self.names = names
        self.labels = labels
        self.classes = classes
        self.channels = channels
        self.columns = columns or {}

    def __len__(self) -> int:
        return len(self.names)

    def name(self, position: int) -> str:
        """The path, or another name."""
        return self.names[position]

    def pixels(self, position: int) -> np.ndarray:
        """Load and decode the image."""
        return self._decoded(self.load(position), whole).pixels

    def _decoded(self, loaded: Loaded, shrink: Shrink) -> Decoded:
        if isinstance(loaded, bytes):
            return decode_shrunk(loaded, self.channels, shrink)
        if loaded.size == 0:
            raise BadImage(f"it has no pixels: its shape is {list(loaded.shape)}")
        return Decoded(loaded, (loaded.shape[0], loaded.shape[1]))

    def stored(self, position: int) -> bytes | None:
        """Bytes of the file, where `load` returns bytes."""
        loaded = self.load(position)
        return loaded if isinstance(loaded, bytes) else None

    def crops(self, positions: Sequence[int], *specs: CropSpec) -> Crops:
        """Decode each image once and crop all its boxes."""
        bad: dict[int, str] = {}
        rows = []
        croppers = [Cropper(spec) for spec in specs]
        ready: dict[int, Loaded | BadImage] = {}
        for i, position in enumerate(positions):
            if self.load_many is not None and i % AHEAD == 0:
                chunk = [int(p) for p in positions[i : i + AHEAD]]
                ready = dict(zip(chunk, self.load_many(chunk), strict=True))

            def shrink(height: int, width: int, i: int = i) -> int:
                return min(cropper.shrink(i, height, width) for cropper in croppers)

            image = self._good(int(position), bad, ready, shrink)
            rows.append([cropper.crop(i, image) for cropper in croppers])
        return Crops(tuple(map(torch.stack, zip(*rows, strict=True))), bad)

    def _good(
        self,
        position: int,
        bad: dict[int, str],
        ready: Mapping[int, Loaded | BadImage],
        shrink: Shrink,
    ) -> Decoded:
        """The image at `position`, or the next one by position that can be read."""
        for offset in range(min(len(self), 1000)):
            candidate = (position + offset) % len(self)
            if candidate in bad:
                continue
            try:
                if isinstance(loaded := ready.get(candidate), BadImage):
                    raise loaded
                loaded = self.load(candidate) if loaded is None else loaded
                return self._decoded(loaded, shrink)
            except BadImage as error:
                bad[candidate] = str(error)
        # so many bad images stop the run, where they are counted
        return Decoded(np.zeros((8, 8, self.channels), np.uint8), (8, 8))
