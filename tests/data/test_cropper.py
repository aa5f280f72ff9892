"""JPEGs that are decoded smaller than they are, where their crops allow it."""

import numpy as np
import pytest
import torch
from odd_files import coded
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor

from selfsup.augment.boxes import CenterBoxes, CropSpec, RandomBoxes
from selfsup.augment.draws import draw
from selfsup.config import ViewsConfig
from selfsup.data.cropper import Cropper
from selfsup.data.decode import decode_shrunk
from selfsup.data.sources import ImageSource

CHINA = Image.fromarray(load_sample_images().images[0])  # 640 x 427
TURNED = Image.Exif()
TURNED[0x0112] = 6


def large(width: int, height: int) -> Image.Image:
    return CHINA.resize((width, height), Image.Resampling.BICUBIC)


def views(data: bytes, size: int, *, draft: bool, images: int = 8) -> Tensor:
    source = ImageSource(lambda position: data, [str(i) for i in range(images)], None, [])
    (drawn,) = draw(ViewsConfig(size=size), images, seed=0, step=0)
    return source.crops(range(images), CropSpec(drawn.boxes, size, "bicubic", draft)).images[0]


@pytest.mark.parametrize(
    ("image", "size"), [(CHINA, 24), (large(2400, 1603), 96), (large(1205, 1800), 96)]
)
def test_views_of_a_smaller_image_are_those_of_the_image_to_a_few_levels(
    image: Image.Image, size: int
) -> None:
    data = coded(image, "JPEG", quality=90)
    whole, smaller = (views(data, size, draft=draft).float() for draft in (False, True))
    difference = (whole - smaller).abs().mean((2, 3, 4))
    assert 0 < difference.mean() < 5
    assert difference.max() < 10


def test_the_same_part_is_seen() -> None:
    ramp = np.linspace(0, 255, 1603)[None, :, None].repeat(1201, 0).repeat(3, 2)
    data = coded(Image.fromarray(ramp.astype(np.uint8)), "JPEG", quality=95)
    whole, smaller = (views(data, 64, draft=draft).float() for draft in (False, True))
    pixel = 255 / 1603 * 8  # levels that one pixel of the smallest image stands for
    assert (whole - smaller).abs().mean((2, 3, 4)).max() < pixel


@pytest.mark.parametrize(
    "data",
    [
        coded(large(420, 300), "JPEG"),
        coded(large(1600, 1200), "PNG"),
        coded(large(1600, 1200).convert("L"), "JPEG"),
        coded(large(1600, 1200), "JPEG", exif=TURNED),
    ],
    ids=["small", "png", "grey", "rotated"],
)
def test_what_cannot_be_decoded_smaller_is_read_whole(data: bytes) -> None:
    assert torch.equal(views(data, 96, draft=True), views(data, 96, draft=False))


@pytest.mark.parametrize(
    ("side", "size", "factor"),
    [(191, 48, 1), (192, 48, 2), (384, 48, 4), (767, 48, 4), (999, 9, 8)],
)
def test_a_crop_stays_twice_as_large_as_its_view(side: int, size: int, factor: int) -> None:
    cropper = Cropper(CropSpec(CenterBoxes(1, 1.0), size, "bicubic", draft=True))
    assert cropper.shrink(0, side, side + 50) == factor
    assert Cropper(CropSpec(CenterBoxes(1, 1.0), size, "bicubic")).shrink(0, side, side) == 1


def test_the_smallest_crop_of_an_image_decides() -> None:
    whole, quarter = [[1.0, 1.0]] * 10, [[1 / 16, 1.0]] * 10  # fractions of the area
    boxes = RandomBoxes(torch.tensor([[whole, quarter]]), torch.zeros(1, 2, 2), (1.0, 1.0))
    cropper = Cropper(CropSpec(boxes, 48, "bicubic", draft=True))
    assert cropper.shrink(0, 800, 800) == 2  # for the second, of 200 pixels


def test_the_largest_view_decides() -> None:
    data = coded(large(1600, 1200), "JPEG")
    source = ImageSource(lambda position: data, ["a"], None, [])
    boxes = CenterBoxes(1, 1.0)
    large_view = CropSpec(boxes, 800, "bicubic", draft=True)
    both = source.crops([0], large_view, CropSpec(boxes, 20, "bicubic", draft=True))
    alone = source.crops([0], CropSpec(boxes, 800, "bicubic"), CropSpec(boxes, 20, "bicubic"))
    assert all(map(torch.equal, both.images, alone.images))


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_sides_are_divided_and_rounded_up(factor: int) -> None:
    data = coded(large(1203, 801), "JPEG")
    pixels, sides = decode_shrunk(data, 3, lambda height, width: factor)
    assert sides == (801, 1203)
    assert pixels.shape == (-(-801 // factor), -(-1203 // factor), 3)
