"""Broken and odd image files, made by the tests, each with the verdict that everything must give.

A verdict is "good" or words of the reason why not.
"""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

GOOD = "good"


def photograph(side: int = 24) -> Image.Image:
    """Smooth colours."""
    y, x = np.mgrid[:side, :side] / side
    return Image.fromarray((np.stack([x, y, 1 - x], -1) * 255).astype(np.uint8))


def coded(image: Image.Image, kind: str, **more: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def jpeg(**more: Any) -> bytes:
    return coded(photograph(), "JPEG", **more)


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return jpeg(exif=exif)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_zeros(data: bytes, start: int, count: int = 4) -> bytes:
    """The bytes with some set to 0, where a format has its height."""
    return data[:start] + bytes(count) + data[start + count :]


def bomb(side: int) -> bytes:
    """A PNG whose header promises side x side pixels."""
    return sized_png(side, side)


def sized_png(width: int, height: int) -> bytes:
    """A PNG without pixels, whatever its header says."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rest = png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + rest


def palette(**more: Any) -> bytes:
    return coded(photograph().convert("P"), "PNG", **more)


def animation() -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    return coded(frames[0], "GIF", save_all=True, append_images=frames[1:])


def of(array: Any, kind: str, dtype: Any) -> bytes:
    return coded(Image.fromarray(np.asarray(array, dtype)), kind)


WHOLE = jpeg()
PNG = coded(photograph(), "PNG")
BYTES: dict[str, tuple[bytes, str]] = {
    "plain.jpg": (WHOLE, GOOD),
    "plain.png": (PNG, GOOD),
    "progressive.jpg": (jpeg(progressive=True), GOOD),
    "grey.jpg": (coded(photograph().convert("L"), "JPEG"), GOOD),
    "cmyk.jpg": (coded(photograph().convert("CMYK"), "JPEG"), GOOD),
    "cmyk.tif": (coded(photograph().convert("CMYK"), "TIFF"), GOOD),
    "palette.png": (palette(), GOOD),
    "palette with alpha.png": (palette(transparency=3), GOOD),
    "alpha.png": (coded(photograph().convert("RGBA"), "PNG"), GOOD),
    "grey and alpha.png": (coded(photograph().convert("LA"), "PNG"), GOOD),
    "one bit.png": (coded(photograph().convert("1"), "PNG"), GOOD),
    "16 bits.png": (of([[0, 1000], [40000, 65535]], "PNG", np.uint16), GOOD),
    "float.tif": (of([[0.0, 0.25], [0.5, 1.0]], "TIFF", np.float32), GOOD),
    "not a number.tif": (of([[0.0, np.nan]], "TIFF", np.float32), "not finite"),
    "animated.gif": (animation(), GOOD),
    "lossless.webp": (coded(photograph(), "WEBP", lossless=True), GOOD),
    "plain.bmp": (coded(photograph(), "BMP"), GOOD),
    "plain.ppm": (coded(photograph(), "PPM"), GOOD),
    "one pixel.png": (of([[[1, 2, 3]]], "PNG", np.uint8), GOOD),
    "a line.png": (of(np.zeros((1, 900, 3)), "PNG", np.uint8), GOOD),
    "a png called.jpg": (PNG, GOOD),
    "UPPER.JPG": (WHOLE, GOOD),
    "with a comment after it.jpg": (WHOLE + b"trailing bytes", GOOD),
    **{f"turned {i}.jpg": (turned(i), GOOD) for i in range(1, 9)},
    "turned 77.jpg": (turned(77), GOOD),
    "cut at a tenth.jpg": (WHOLE[: len(WHOLE) // 10], "runcated"),
    "cut in the middle.jpg": (WHOLE[: len(WHOLE) * 3 // 4], "runcated"),
    "cut.png": (PNG[: len(PNG) // 2], "runcated"),
    "no width.png": (sized_png(0, 5), "cannot identify"),
    "no height.png": (sized_png(5, 0), "cannot identify"),
    "no width.ppm": (b"P6 0 4 255\n", "cannot identify"),
    "no height.bmp": (with_zeros(coded(photograph(), "BMP"), 22), "cannot identify"),
    "no height.jpg": (with_zeros(WHOLE, WHOLE.index(b"\xff\xc0") + 5, 2), "cannot identify"),
    "an older suffix.jfif": (WHOLE, GOOD),
    "a short suffix.JPE": (WHOLE, GOOD),
    "a bitmap.dib": (coded(photograph(), "BMP"), GOOD),
    "no bytes.jpg": (b"", "cannot identify"),
    "three bytes.jpg": (b"\xff\xd8\xff", "cannot identify"),
    "a page.jpg": (b"<!DOCTYPE html><html>404</html>", "cannot identify"),
    "a text.png": (b"hello", "cannot identify"),
    "an icon.png": (coded(photograph(), "ICO"), "cannot identify"),
    "a document.jpg": (coded(photograph(), "PDF"), "cannot identify"),
    "a bomb.png": (bomb(60_000), "DecompressionBomb"),
    "a small bomb.png": (bomb(10_000), "DecompressionBomb"),
    "été 日本 \U0001f600.jpg": (WHOLE, GOOD),
    "two\nlines.jpg": (WHOLE, GOOD),
    " spaces .jpg": (WHOLE, GOOD),
    "<script>alert(1)'\".jpg": (WHOLE, GOOD),
}


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _broken_link(path: Path) -> None:
    path.symlink_to("nowhere.jpg")


def _link(path: Path) -> None:
    path.symlink_to("plain.jpg")


def _unreadable(path: Path) -> None:
    path.symlink_to("/proc/self/mem")  # permissions do not stop root; this cannot be read by anyone


def _huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


SPECIAL: dict[str, tuple[Callable[[Path], None], str]] = {
    "a pipe.jpg": (_pipe, "not a regular file"),
    "a broken link.jpg": (_broken_link, "FileNotFoundError"),
    "a link.jpg": (_link, GOOD),
    "unreadable.jpg": (_unreadable, "Error"),
    "a terabyte of nothing.jpg": (_huge, "MB, more than"),
}


def write(folder: Path) -> dict[str, str]:
    """Make all of them; the verdict on each name."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (data, _) in BYTES.items():
        (folder / name).write_bytes(data)
    for name, (make, _) in SPECIAL.items():
        make(folder / name)
    return {name: verdict for name, (_, verdict) in [*BYTES.items(), *SPECIAL.items()]}
