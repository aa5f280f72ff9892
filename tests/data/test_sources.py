"""Sources: what crops hold, and what stands in for an image that cannot be read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from selfsup.augment.boxes import CenterBoxes, CropSpec, RandomBoxes
from selfsup.augment.draws import draw
from selfsup.config import Interpolation, ViewsConfig
from selfsup.data.labels import encode_labels
from selfsup.data.sources import ArraySource, ImageSource
from selfsup.data.tables import file_source


def grey_files(folder: Path, levels: list[int | None]) -> ImageSource:
    """Flat images of those levels; None is a broken file."""
    paths = [f"{i}.png" for i in range(len(levels))]
    for path, level in zip(paths, levels, strict=True):
        if level is None:
            (folder / path).write_bytes(b"broken")
        else:
            Image.new("L", (8, 8), level).save(folder / path)
    return file_source(folder, paths, None, [])


def levels_of(images: Tensor) -> list[int]:
    return [int(x) for x in images[:, 0, 0, 0, 0]]


def noise(n: int, h: int, w: int, c: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, h, w, c), dtype=np.uint8)


def boxes(n: int, size: int) -> RandomBoxes:
    (draws,) = draw(ViewsConfig(size=size), n, seed=0, step=0)
    return draws.boxes


def test_the_next_good_image_stands_in_for_a_bad_one_which_is_named(tmp_path: Path) -> None:
    source = grey_files(tmp_path, [0, None, None, 30, 40])
    crops = source.crops([0, 1, 4, 2], CropSpec(CenterBoxes(4, 1.0), 8, "bilinear"))
    assert levels_of(crops.images[0]) == [0, 30, 40, 30]
    assert sorted(crops.bad) == [1, 2]
    assert all(": " in reason for reason in crops.bad.values())


def test_after_the_last_image_comes_the_first(tmp_path: Path) -> None:
    source = grey_files(tmp_path, [None, 10, None])
    crops = source.crops([2], CropSpec(CenterBoxes(1, 1.0), 8, "bilinear"))
    assert levels_of(crops.images[0]) == [10]
    assert sorted(crops.bad) == [0, 2]


def test_a_bad_image_that_nobody_asked_for_is_not_named(tmp_path: Path) -> None:
    source = grey_files(tmp_path, [0, None, 20])
    assert source.crops([0, 2], CropSpec(CenterBoxes(2, 1.0), 8, "bilinear")).bad == {}


def test_where_all_are_bad_all_are_named(tmp_path: Path) -> None:
    source = grey_files(tmp_path, [None, None, None])
    crops = source.crops([1, 0], CropSpec(CenterBoxes(2, 1.0), 8, "bilinear"))
    assert sorted(crops.bad) == [0, 1, 2]
    assert crops.images[0].shape == (2, 1, 3, 8, 8)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("h", "w", "size"), [(40, 40, 16), (30, 47, 24), (12, 20, 32)])
def test_files_and_arrays_of_the_same_pixels_give_the_same_crops(
    tmp_path: Path, h: int, w: int, size: int, interpolation: Interpolation
) -> None:
    pixels = noise(4, h, w)
    paths = [f"{i}.png" for i in range(4)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(tmp_path / path)
    files = file_source(tmp_path, paths, None, [])
    arrays = ArraySource(pixels, None, [])
    for box in (boxes(3, size), CenterBoxes(3, 0.875)):
        specs = CropSpec(box, size, interpolation), CropSpec(box, 2 * size, interpolation)
        read = [source.crops([2, 0, 3], *specs).images for source in (files, arrays)]
        for a, b, spec in zip(*read, specs, strict=True):
            assert a.dtype == b.dtype == torch.uint8
            assert a.shape == b.shape
            assert a.shape[-1] == spec.size
            assert int((a.int() - b.int()).abs().max()) <= 2


def test_a_view_of_the_whole_image_at_its_own_size_is_the_image(tmp_path: Path) -> None:
    pixels = noise(2, 9, 9)
    (actual,) = (
        ArraySource(pixels, None, [])
        .crops([1, 0], CropSpec(CenterBoxes(2, 1.0), 9, "bicubic"))
        .images
    )
    assert np.array_equal(actual[:, 0].permute(0, 2, 3, 1).numpy(), pixels[[1, 0]])


def test_grey_arrays_become_three_equal_channels() -> None:
    pixels = noise(3, 12, 12, 1)
    (actual,) = (
        ArraySource(pixels, None, []).crops([0, 1, 2], CropSpec(boxes(3, 8), 8, "bicubic")).images
    )
    (colour,) = (
        ArraySource(pixels.repeat(3, -1), None, [])
        .crops([0, 1, 2], CropSpec(boxes(3, 8), 8, "bicubic"))
        .images
    )
    assert actual.shape == (3, 2, 3, 8, 8)
    assert torch.equal(actual, colour)
    assert torch.equal(actual[:, :, 0], actual[:, :, 2])


def test_arrays_are_read_in_chunks_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    source, spec = ArraySource(noise(7, 12, 12), None, []), CropSpec(boxes(7, 8), 8, "bicubic")
    (whole,) = source.crops(range(7), spec).images
    monkeypatch.setattr("selfsup.data.sources.CHUNK_IMAGES", 3)
    (chunked,) = source.crops(range(7), spec).images
    assert torch.equal(chunked, whole)


def test_alpha_of_arrays_is_dropped() -> None:
    pixels = noise(2, 8, 8, 4)
    box = CenterBoxes(2, 1.0)
    (actual,) = ArraySource(pixels, None, []).crops([0, 1], CropSpec(box, 8, "bicubic")).images
    (three,) = (
        ArraySource(pixels[..., :3], None, []).crops([0, 1], CropSpec(box, 8, "bicubic")).images
    )
    assert torch.equal(actual, three)


def test_label_words_are_numbered_in_sorted_order() -> None:
    labels, classes = encode_labels(["dog", "Ant", "dog", "bee"])
    assert classes == ["Ant", "bee", "dog"]
    assert labels.tolist() == [2, 0, 2, 1]
    assert labels.dtype == torch.int64


def test_sources_say_what_an_image_is_called(tmp_path: Path) -> None:
    assert grey_files(tmp_path, [0, 1]).name(1) == "1.png"
    assert ArraySource(noise(2, 4, 4), None, []).name(1) == "image 1"
