"""Decoding: the bytes of a file become an upright image of eight bits, or a reason why not."""

import io
import re
import stat
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".webp",
    ".tif",
    ".tiff",
    ".gif",
    ".ppm",
    ".pgm",
    ".pbm",
)
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "PPM")
LARGEST = 1 << 29
"""Bytes of a file that is read; a photograph has a hundredth."""
MOST_PIXELS = 89_478_485
"""Of an image, as Pillow warns: a gigabyte and more when it is opened."""
FILE_CHANNELS = (1, 3, 4)
"""Grey, RGB, RGBA: what files can be read as."""


# Pillow warns of odd metadata, from many threads; filters for a while are not safe among threads
warnings.filterwarnings("ignore", module="PIL")


ORIENTATION = 0x0112  # EXIF's tag


class BadImage(Exception):
    """An image that cannot be read; the text says why."""


def decode(path: Path, channels: int = 3) -> np.ndarray:
    """Read a file; see `decode_bytes`.

    Raises:
        BadImage: with the reason.
    """
    return decode_bytes(read_bytes(path), channels)


def read_bytes(path: Path) -> bytes:
    """All of a regular file of sensible size.

    Raises:
        BadImage: it is none, or cannot be read.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise BadImage("not a regular file")
        if found.st_size > LARGEST:
            raise BadImage(f"{found.st_size >> 20} MB, more than {LARGEST >> 20}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadImage(f"{type(error).__name__}: {reason}") from None


def decode_bytes(data: bytes, channels: int = 3) -> np.ndarray:
    """A file's bytes as uint8 [h, w, channels], of 1 (grey), 3 (RGB) or 4 (RGBA).

    EXIF upright, alpha over white (but for 4 channels), 16 bits and floats scaled by range. Only
    Pillow's decoders in FORMATS are let near the bytes, whatever the file is called. Of an
    animation, the first frame.

    Raises:
        BadImage: with the reason.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MOST_PIXELS:
                raise BadImage(f"DecompressionBomb: {image.width} x {image.height} pixels")
            pixels = _plain_jpeg(image, data, channels)
            if pixels is None:
                image.load()
                pixels = pillow_pixels(image, channels)
            return pixels
    except BadImage:
        raise
    except Exception as error:  # Pillow's plugins raise almost anything on broken bytes
        first = re.sub(r" ?<_io\.\w+ object at \w+>", "", str(error).split("\n")[0])
        raise BadImage(f"{type(error).__name__}: {first}"[:200]) from None


def _plain_jpeg(image: Image.Image, data: bytes, channels: int) -> np.ndarray | None:
    """Decode a whole JPEG without oddities by libjpeg-turbo; None for everything else.

    It makes the same pixels as Pillow in two thirds of the time, since it copies less.
    """
    if channels != 3 or image.format != "JPEG" or image.mode != "RGB":
        return None
    if image.getexif().get(ORIENTATION, 1) != 1:
        return None
    try:
        pixels: np.ndarray = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
    except ValueError:  # truncated or odd: Pillow decides
        return None
    return pixels


def pillow_pixels(image: Image.Image, channels: int) -> np.ndarray:
    """Any mode of Pillow's as uint8 [h, w, channels], of 1 (grey), 3 (RGB) or 4 (RGBA)."""
    pixels = np.array(_MODES[channels](image))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def upright_rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow's as RGB of eight bits, turned as its EXIF says."""
    image = _upright(image)
    if _has_alpha(image):
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF says, and of eight bits."""
    image = ImageOps.exif_transpose(image) or image
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(to_eight_bits(np.asarray(image)))
    return image


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info


_MODES: dict[int, Any] = {
    1: lambda image: upright_rgb(image).convert("L"),
    3: upright_rgb,
    4: lambda image: _upright(image).convert("RGBA"),
}


def to_eight_bits(values: np.ndarray) -> np.ndarray:
    """Integers by the range of 16 bits; floats by [0, 1] if they lie there, else by their range.

    Raises:
        BadImage: some are not finite.
    """
    if not np.isfinite(values).all():
        raise BadImage("holds values that are not finite")
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind in "iu" and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scale = 255 / (high - low) if high > low else 0.0
    return ((values.astype(np.float64) - low) * scale).round().astype(np.uint8)
