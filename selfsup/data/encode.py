"""Encode an image to the bytes that a pack holds."""

import io
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from selfsup.core.errors import require

Format = Literal["raw", "jpeg"]


class Style(NamedTuple):
    """How images are stored."""

    format: Format
    side: int | None
    """Longest allowed shorter side, in pixels; larger images are shrunk to it."""
    quality: int
    """Of JPEG, 1 to 95."""


class Stored(NamedTuple):
    """An image as it goes into the pack."""

    data: bytes
    shape: tuple[int, int, int]
    """Height, width, channels."""


def encode(image: np.ndarray, style: Style) -> Stored:
    """Shrink an image, uint8 [h, w, c], if its shorter side exceeds the style's, and encode it."""
    height, width, channels = image.shape
    short = min(height, width)
    if style.side is not None and short > style.side:
        height, width = (max(1, round(x * style.side / short)) for x in (height, width))
        x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        x = F.interpolate(x, (height, width), mode="bicubic", antialias=True)
        image = x[0].permute(1, 2, 0).numpy()
    image = np.ascontiguousarray(image)
    if style.format == "raw":
        return Stored(image.tobytes(), (height, width, channels))
    require(channels in (1, 3), f"JPEG has 1 or 3 channels, not {channels}; use --format raw")
    out = io.BytesIO()
    Image.fromarray(image[..., 0] if channels == 1 else image).save(
        out, "JPEG", quality=style.quality
    )
    return Stored(out.getvalue(), (height, width, channels))
