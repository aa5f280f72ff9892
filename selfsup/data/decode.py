"""Decoding: a file becomes an upright RGB image of eight bits, or a reason why not."""

import stat
import warnings
from pathlib import Path

import numpy as np
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


class BadImage(Exception):
    """An image that cannot be read; the text says why."""


def decode(path: Path) -> Image.Image:
    """Read a file as RGB: EXIF upright, alpha over white, 16 bits and floats scaled by range.

    Only Pillow's decoders in FORMATS are let near the bytes, whatever the file is called. Of an
    animation, the first frame.

    Raises:
        BadImage: with the reason.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise BadImage("not a regular file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata; a bomb is an error of its own
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                image.load()
                return upright_rgb(image)
    except BadImage:
        raise
    except Exception as error:  # Pillow's plugins raise almost anything on broken bytes
        first = str(error).split("\n")[0].replace(str(path), path.name)
        raise BadImage(f"{type(error).__name__}: {first}"[:200]) from None


def upright_rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow's as RGB of eight bits, turned as its EXIF says."""
    image = ImageOps.exif_transpose(image) or image
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(_to_eight_bits(np.asarray(image)))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _to_eight_bits(values: np.ndarray) -> np.ndarray:
    """Integers by the range of 16 bits; floats by [0, 1] if they lie there, else by their range."""
    if not np.isfinite(values).all():
        raise BadImage("holds values that are not finite")
    low, high = float(values.min()), float(values.max())
    if values.dtype.kind in "iu" and low >= 0 and high <= 65535:
        low, high = 0.0, 65535.0
    elif low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    scale = 255 / (high - low) if high > low else 0.0
    return ((values.astype(np.float64) - low) * scale).round().astype(np.uint8)
