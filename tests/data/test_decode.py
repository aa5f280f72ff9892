"""Decoding: what comes in many forms comes out as upright RGB, or as a reason."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from odd_files import png_chunk
from PIL import Image

from selfsup.data import decode as decode_module
from selfsup.data.decode import BadImage, decode


def corners() -> Image.Image:
    """16 x 24 in four flat quarters: red, green / blue, white."""
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :12] = (255, 0, 0)
    pixels[:8, 12:] = (0, 255, 0)
    pixels[8:, :12] = (0, 0, 255)
    pixels[8:, 12:] = (255, 255, 255)
    return Image.fromarray(pixels)


def pixels_of(path: Path) -> np.ndarray:
    actual = decode(path)
    assert actual.dtype == np.uint8
    assert actual.shape[2] == 3
    return actual


def jpeg_bytes() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "JPEG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("kind", "suffix", "off"),
    [
        ("JPEG", ".jpg", 30),
        ("PNG", ".png", 0),
        ("WEBP", ".webp", 30),
        ("BMP", ".bmp", 0),
        ("GIF", ".gif", 0),
        ("TIFF", ".tif", 0),
        ("PPM", ".ppm", 0),
    ],
)
def test_every_format_gives_the_pixels_that_were_written(
    tmp_path: Path, kind: str, suffix: str, off: int
) -> None:
    path = tmp_path / f"x{suffix}"
    corners().save(path, kind)
    actual = pixels_of(path).astype(int)
    expected = np.asarray(corners()).astype(int)
    assert actual.shape == (16, 24, 3)
    middles = (slice(4, 16, 8), slice(6, 24, 12))  # away from edges, where lossy formats ring
    assert abs(actual[middles] - expected[middles]).max() <= off
    if off == 0:
        assert np.array_equal(actual, expected)


def test_a_grey_pgm_gives_three_equal_channels(tmp_path: Path) -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    Image.fromarray(grey).save(tmp_path / "x.pgm")
    actual = pixels_of(tmp_path / "x.pgm")
    assert all(np.array_equal(actual[..., c], grey) for c in range(3))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright_whatever_their_exif_orientation(
    tmp_path: Path, orientation: int, suffix: str
) -> None:
    # how a camera held so would have stored the upright picture (the EXIF standard's table)
    upright = np.asarray(corners())
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x{suffix}"
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif, quality=100)
    actual = pixels_of(path).astype(int)
    assert actual.shape == upright.shape
    middles = (slice(4, 16, 8), slice(6, 24, 12))
    assert abs(actual[middles] - upright[middles].astype(int)).max() <= 40


def test_a_png_of_16_bits_keeps_white_white_and_middle_grey_in_the_middle(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    assert pixels_of(tmp_path / "x.png")[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_dark_png_of_16_bits_stays_dark(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 2570]], np.uint16)).save(tmp_path / "x.png")
    assert pixels_of(tmp_path / "x.png")[0, :, 0].tolist() == [0, 10]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.2, 0.6, 1.0], [0, 51, 153, 255]),
        ([0.2, 0.2, 0.6, 0.6], [51, 51, 153, 153]),  # in [0, 1]: not stretched
        ([-1.0, 0.0, 1.0, 4.0], [0, 51, 102, 255]),  # outside: by its own range
        ([7.0, 7.0, 7.0, 7.0], [0, 0, 0, 0]),
    ],
)
def test_a_float_tiff_is_scaled_by_one_or_by_its_range(
    tmp_path: Path, values: list[float], expected: list[int]
) -> None:
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "x.tif")
    assert pixels_of(tmp_path / "x.tif")[0, :, 2].tolist() == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_float_tiff_with_values_that_are_not_finite_is_bad(tmp_path: Path, value: float) -> None:
    Image.fromarray(np.array([[0.5, value]], np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(BadImage, match="not finite"):
        decode(tmp_path / "x.tif")


@pytest.mark.parametrize(("mode", "see_through"), [("RGBA", (200, 0, 100, 0)), ("LA", (9, 0))])
def test_what_is_transparent_is_white(
    tmp_path: Path, mode: str, see_through: tuple[int, ...]
) -> None:
    Image.new(mode, (4, 4), see_through).save(tmp_path / "x.png")
    assert (pixels_of(tmp_path / "x.png") == 255).all()


def test_what_is_half_transparent_is_half_way_to_white(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (201, 1, 101, 128)).save(tmp_path / "x.png")
    expected = [round((128 * c + 127 * 255) / 255) for c in (201, 1, 101)]
    assert abs(pixels_of(tmp_path / "x.png")[0, 0].astype(int) - expected).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".gif"])
def test_a_palette_with_a_transparent_entry_is_white_there(tmp_path: Path, suffix: str) -> None:
    image = Image.new("P", (4, 2), 1)
    image.putpalette([255, 0, 0, 0, 0, 255, 0, 255, 0])
    image.paste(0, (0, 0, 2, 2))
    image.save(tmp_path / f"x{suffix}", transparency=0)
    actual = pixels_of(tmp_path / f"x{suffix}")
    assert actual[0, 0].tolist() == [255, 255, 255]
    assert actual[0, 3].tolist() == [0, 0, 255]


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "x.tif")
    assert pixels_of(tmp_path / "x.tif")[0, 0].tolist() == [255, 0, 0]


def test_one_bit_becomes_black_and_white(tmp_path: Path) -> None:
    image = Image.new("1", (8, 8), 0)
    image.putpixel((3, 0), 1)
    image.save(tmp_path / "x.png")
    actual = pixels_of(tmp_path / "x.png")
    assert actual[0, 3].tolist() == [255, 255, 255]
    assert actual.sum() == 3 * 255


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert pixels_of(tmp_path / "x.gif")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.9])
def test_a_jpeg_that_was_cut_short_is_bad(tmp_path: Path, fraction: float) -> None:
    whole = jpeg_bytes()
    path = tmp_path / "cut.jpg"
    path.write_bytes(whole[: int(len(whole) * fraction)])
    with pytest.raises(BadImage, match=r"\w+: \w+"):
        decode(path)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>404</html>", b"\xff\xd8\xff"])
def test_what_is_no_image_is_bad_without_the_place_of_its_bytes(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "page.jpg"
    path.write_bytes(content)
    with pytest.raises(BadImage, match="cannot identify image file") as caught:
        decode(path)
    assert "0x" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_pipe_is_bad_and_nobody_waits_for_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.jpg")
    with pytest.raises(BadImage, match="not a regular file"):
        decode(tmp_path / "x.jpg")


def test_a_folder_with_the_name_of_an_image_is_bad(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").mkdir()
    with pytest.raises(BadImage, match="not a regular file"):
        decode(tmp_path / "x.jpg")


def test_a_missing_file_is_bad(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match="FileNotFoundError"):
        decode(tmp_path / "x.jpg")


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_header_that_promises_too_many_pixels_is_bad(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    (tmp_path / "x.png").write_bytes(bomb)
    with pytest.raises(BadImage, match="DecompressionBomb"):
        decode(tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PCX", "PDF", "EPS"])
def test_other_formats_of_pillow_are_refused_whatever_the_file_is_called(
    tmp_path: Path, kind: str
) -> None:
    corners().save(tmp_path / "x.png", kind)
    with pytest.raises(BadImage, match="cannot identify"):
        decode(tmp_path / "x.png")


def test_a_png_may_be_called_jpg(tmp_path: Path) -> None:
    corners().save(tmp_path / "x.jpg", "PNG")
    assert np.array_equal(pixels_of(tmp_path / "x.jpg"), np.asarray(corners()))


def deep(dtype: str) -> Image.Image:
    values = np.random.default_rng(1).integers(0, 60000, (31, 17))
    return Image.fromarray(values.astype(dtype))


LARGE = {
    "RGB": lambda: Image.effect_noise((17, 31), 90).convert("RGB"),
    "RGBA": lambda: Image.merge("RGBA", [Image.effect_noise((17, 31), 90)] * 4),
    "LA": lambda: Image.merge("LA", [Image.effect_noise((17, 31), 90)] * 2),
    "P": lambda: Image.effect_noise((17, 31), 90).convert("P"),
    "1": lambda: Image.effect_noise((17, 31), 90).convert("1"),
    "CMYK": lambda: Image.merge("CMYK", [Image.effect_noise((17, 31), 90)] * 4),
    "I;16": lambda: deep("uint16"),
    "I": lambda: deep("int32"),
    "F": lambda: deep("float32"),
}


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", LARGE)
def test_large_images_are_converted_in_strips_to_the_same_pixels(
    mode: str, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = LARGE[mode]()
    if mode == "P":
        image.info["transparency"] = 3
    exif = Image.Exif()
    for orientation in range(1, 9):
        exif[0x0112] = orientation
        image.info["exif"] = exif.tobytes()
        monkeypatch.setattr(decode_module, "STRIP_PIXELS", 1 << 22)
        whole = decode_module.pillow_pixels(image.copy(), channels)
        monkeypatch.setattr(decode_module, "STRIP_PIXELS", 80)  # strips of four rows
        strips = decode_module.pillow_pixels(image.copy(), channels)
        assert strips.dtype == np.uint8
        assert np.array_equal(strips, whole), orientation


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "colour", "size"), [(8, 6, 4), (16, 0, 2), (8, 4, 2), (16, 2, 6), (8, 2, 3)]
)
def test_files_within_the_pixel_limit_take_less_than_a_gigabyte(
    depth: int, colour: int, size: int
) -> None:
    side = 9400
    packer = zlib.compressobj(9)
    row = bytes(side * size + 1)
    body = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, depth, colour, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", body), png_chunk(b"IEND", b"")]
    code = (
        "import resource, sys; from selfsup.data.decode import decode_bytes\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "decode_bytes(sys.stdin.buffer.read())\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=b"\x89PNG\r\n\x1a\n" + b"".join(chunks),
        capture_output=True,
        check=True,
    )
    assert int(done.stdout) < 1000, "MB"
