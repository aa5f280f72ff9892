"""Decode a file's bytes to an upright image of eight bits, or raise the reason why not."""

import errno
import io
import re
import stat
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from selfsup.core.disk import AGAIN
from selfsup.core.errors import NoRoomError

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".jif", ".pjpeg", ".pjp"),
    *(".png", ".apng", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
LARGEST = 1 << 29
"""Most bytes of a file that is read; a photograph has a hundredth."""
MOST_PIXELS = 89_478_485
"""Most pixels of an image, the limit of which Pillow warns: more takes gigabytes."""
LONGEST_SIDE = 65_535
"""Pixels of a side: what JPEG can count to. A longer one is a damaged number."""
STRIP_PIXELS = 1 << 22
"""Pixels that are converted at a time: a conversion holds several copies, some in float64."""
READ_WAITS = (0.1, 1.0)
"""Seconds between three tries to read a file of a server that has a bad moment."""
FILE_CHANNELS = (1, 3, 4)
"""Grey, RGB, RGBA: what files can be read as."""


# Pillow warns of odd metadata, from many threads; temporary filters are not safe among threads
warnings.filterwarnings("ignore", module="PIL")


ORIENTATION = 0x0112  # EXIF's tag


class BadImage(Exception):
    """An image that cannot be read; the text is the reason."""


def decode(path: Path, channels: int = 3) -> np.ndarray:
    """Read a file; see `decode_bytes`.

    Raises:
        BadImage: with the reason.
    """
    return decode_bytes(read_bytes(path), channels)


def read_bytes(path: Path) -> bytes:
    """Read all of a regular file of sensible size; what may pass is tried three times.

    Raises:
        BadImage: it is not a regular file, too large, or cannot be read.
        NoRoomError: no file can be opened, whatever is in it.
    """
    for wait in (*READ_WAITS, None):
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise BadImage("not a regular file")
            if status.st_size > LARGEST:
                raise BadImage(f"{status.st_size >> 20} MB, more than {LARGEST >> 20}")
            return path.read_bytes()
        except (OSError, ValueError) as error:
            code = getattr(error, "errno", None)
            if code in AGAIN and wait is not None:
                time.sleep(wait)
                continue
            if code in (errno.EMFILE, errno.ENFILE):
                raise NoRoomError(
                    f"{path} cannot be opened: {getattr(error, 'strerror', error)}. Allow more "
                    "with `ulimit -n 4096`, or give fewer --workers"
                ) from None
            reason = getattr(error, "strerror", None) or str(error)
            raise BadImage(f"{type(error).__name__}: {reason}") from None
    raise AssertionError("the last try returns or raises")


Shrink = Callable[[int, int], int]
"""Says by which factor an image of some height and width may be decoded smaller: 1, 2, 4 or 8."""


def whole(height: int, width: int) -> int:
    """Decode as many pixels as there are."""
    return 1


class Decoded(NamedTuple):
    """A decoded image, perhaps smaller than it is."""

    pixels: np.ndarray
    """uint8 [h, w, channels]."""
    sides: tuple[int, int]
    """Its full height and width, upright."""


def decode_bytes(data: bytes, channels: int = 3) -> np.ndarray:
    """Decode a file's bytes to uint8 [h, w, channels], of 1 (grey), 3 (RGB) or 4 (RGBA).

    EXIF upright, alpha over white (but for 4 channels), 16 bits and floats scaled by range. Only
    Pillow's decoders in FORMATS see the bytes, whatever the file is called. Of an animation, the
    first frame.

    Raises:
        BadImage: with the reason.
    """
    return decode_shrunk(data, channels, whole).pixels


def decode_shrunk(data: bytes, channels: int, shrink: Shrink) -> Decoded:
    """Decode as `decode_bytes` does, a JPEG perhaps smaller.

    An upright JPEG in colour is decoded from fewer coefficients of each 8 x 8 block: at a factor of
    4, of 2 x 2. Its sides are divided by the factor and rounded up. Others are decoded whole.

    Raises:
        BadImage: with the reason.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS or max(image.size) > LONGEST_SIDE:
                raise BadImage(f"DecompressionBomb: {image.width} x {image.height} pixels")
            pixels = _plain_jpeg(image, data, channels, shrink)
            if pixels is not None:
                return Decoded(pixels, (image.height, image.width))
            image.load()
            pixels = pillow_pixels(image, channels)
            return Decoded(pixels, (pixels.shape[0], pixels.shape[1]))
    except BadImage:
        raise
    except Exception as error:  # Pillow's plugins raise almost anything on broken bytes
        first = re.sub(r" ?<_io\.\w+ object at \w+>", "", str(error).split("\n")[0])
        raise BadImage(f"{type(error).__name__}: {first}"[:200]) from None


def _plain_jpeg(
    image: Image.Image, data: bytes, channels: int, shrink: Shrink
) -> np.ndarray | None:
    """Decode a whole JPEG without oddities by libjpeg-turbo; None for everything else.

    It makes the same pixels as Pillow in two thirds of the time, since it copies less.
    """
    if channels != 3 or image.format != "JPEG" or image.mode != "RGB":
        return None
    if image.getexif().get(ORIENTATION, 1) != 1:
        return None
    factor = shrink(image.height, image.width)
    sides = {"min_height": -(-image.height // factor), "min_width": -(-image.width // factor)}
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True, **sides)
    except ValueError:  # truncated or odd: Pillow decides
        return None
    return pixels


def pillow_pixels(image: Image.Image, channels: int) -> np.ndarray:
    """Convert any of Pillow's modes to uint8 [h, w, channels], of 1 (grey), 3 or 4 (RGBA)."""
    if image.width * image.height > STRIP_PIXELS:
        return _in_strips(image, channels)
    pixels = np.array(_MODES[channels](image))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _in_strips(image: Image.Image, channels: int) -> np.ndarray:
    """Convert a large image a few rows at a time: the same pixels in a third of the memory."""
    orientation = image.getexif().get(ORIENTATION, 1)
    width, height = image.size
    rows = max(1, STRIP_PIXELS // width)
    strips = [(top, min(top + rows, height)) for top in range(0, height, rows)]
    scale = _Levels(image.crop((0, a, width, b)) for a, b in strips) if _deep(image) else None
    pixels = np.empty((height, width, channels), np.uint8)
    for top, bottom in strips:
        strip = image.crop((0, top, width, bottom))
        strip.info = {k: v for k, v in image.info.items() if k == "transparency"}  # not EXIF
        if scale is not None:
            strip = Image.fromarray(scale(np.asarray(strip)))
        part = np.asarray(_MODES[channels](strip))
        pixels[top:bottom] = part[..., None] if part.ndim == 2 else part
    if orientation in _TURNS:
        pixels = np.ascontiguousarray(_TURNS[orientation](pixels))
    return pixels


def upright_rgb(image: Image.Image) -> Image.Image:
    """Convert any of Pillow's modes to RGB of eight bits, rotated upright by its EXIF tag."""
    image = _upright(image)
    if _has_alpha(image):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """Rotate by the EXIF tag, and scale to eight bits."""
    image = ImageOps.exif_transpose(image) or image
    if _deep(image):
        image = Image.fromarray(to_eight_bits(np.asarray(image)))
    return image


def _deep(image: Image.Image) -> bool:
    """Whether it has more than eight bits."""
    return image.mode == "F" or image.mode.startswith("I")


_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}
"""What turns an image [h, w, c] upright, by its EXIF orientation."""


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


_MODES: dict[int, Any] = {
    1: lambda image: upright_rgb(image).convert("L"),
    3: upright_rgb,
    4: lambda image: _upright(image).convert("RGBA"),
}


def to_eight_bits(values: np.ndarray) -> np.ndarray:
    """Scale integers by the range of 16 bits; floats by [0, 1] if they lie there, else by theirs.

    Raises:
        BadImage: some are not finite.
    """
    return _Levels([values])(values)


class _Levels:
    """The scale of `to_eight_bits`, of an image that comes in strips."""

    def __init__(self, strips: Iterable[Any]) -> None:
        """Find the range of all strips.

        Raises:
            BadImage: some values are not finite.
        """
        low, high, whole = np.inf, -np.inf, True
        for strip in strips:
            values = np.asarray(strip)
            whole &= values.dtype.kind in "iu"
            if not (values.dtype.kind in "iu" or np.isfinite(values).all()):
                raise BadImage("holds values that are not finite")
            low, high = min(low, float(values.min())), max(high, float(values.max()))
        if whole and low >= 0 and high <= 65535:
            low, high = 0.0, 65535.0
        elif low >= 0 and high <= 1:
            low, high = 0.0, 1.0
        self.low = low
        self.scale = 255 / (high - low) if high > low else 0.0

    def __call__(self, values: np.ndarray) -> np.ndarray:
        scaled = (values.astype(np.float64) - self.low) * self.scale
        return scaled.round().astype(np.uint8)
