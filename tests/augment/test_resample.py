"""Crops against Pillow, which crops and resizes one at a time."""

from collections.abc import Callable

import pytest
import torch
from PIL import Image
from torch import Tensor

from selfsup.augment.resample import resized_array_crops
from selfsup.config import Interpolation
from selfsup.core import compiled

Resize = Callable[..., Tensor]


@pytest.fixture
def resized_crops(form: str) -> Resize:
    """Both forms."""
    return resized_array_crops


FILTERS: dict[Interpolation, Image.Resampling] = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
BOXES = torch.tensor(
    [
        [[0, 0, 37, 53], [5, 7, 20, 11], [0, 52, 1, 1], [36, 0, 1, 53]],
        [[12, 40, 25, 13], [0, 0, 2, 2], [3, 3, 16, 16], [30, 1, 7, 50]],
    ]
)
"""The whole, corners, one pixel, a line; in images of 37 x 53."""


def noise(b: int, h: int, w: int, c: int, seed: int = 0) -> Tensor:
    """Full contrast from pixel to pixel, the hardest to resize."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (b, h, w, c), generator=rng, dtype=torch.uint8)


def by_pillow(image: Tensor, box: list[int], size: int, kind: Interpolation) -> Tensor:
    """One crop: [h, w, c] -> [c, size, size].

    In two steps, first sideways: Pillow before 13 always did so, later ones choose the order by
    the shape, which moves values of full contrast by up to 20 levels.
    """
    top, left, h, w = box
    channels = []
    for channel in image.unbind(-1):
        whole = Image.fromarray(channel.numpy())
        cut = whole.crop((left, top, left + w, top + h))
        cut = cut.resize((size, h), FILTERS[kind]).resize((size, size), FILTERS[kind])
        channels.append(torch.tensor(list(cut.tobytes()), dtype=torch.uint8).view(size, size))
    return torch.stack(channels)


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [3, 8, 16, 64])
def test_crops_are_pillows_to_two_levels(
    resized_crops: Resize, kind: Interpolation, channels: int, size: int
) -> None:
    images = noise(2, 37, 53, channels)
    expected = torch.stack(
        [
            torch.stack([by_pillow(image, box, size, kind) for box in boxes])
            for image, boxes in zip(images, BOXES.tolist(), strict=True)
        ]
    )
    actual = resized_crops(images, BOXES, size, kind)
    assert actual.dtype == torch.uint8
    assert actual.shape == (2, 4, channels, size, size)
    difference = (actual.int() - expected.int()).abs().float()
    assert difference.max() <= 2
    assert difference.mean() < 0.1


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_whole_image_at_its_own_size_is_unchanged(
    resized_crops: Resize, kind: Interpolation, channels: int
) -> None:
    images = noise(2, 16, 16, channels)
    boxes = torch.tensor([0, 0, 16, 16]).expand(2, 1, 4)
    assert torch.equal(resized_crops(images, boxes, 16, kind)[:, 0], images.permute(0, 3, 1, 2))


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
def test_a_box_of_the_wanted_size_is_cut_out_exactly(
    resized_crops: Resize, kind: Interpolation
) -> None:
    images = noise(1, 20, 30, 3)
    actual = resized_crops(images, torch.tensor([[[5, 11, 8, 8]]]), 8, kind)
    assert torch.equal(actual[0, 0], images[0, 5:13, 11:19].permute(2, 0, 1))


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
def test_a_flat_image_stays_flat(resized_crops: Resize, kind: Interpolation) -> None:
    images = torch.full((2, 37, 53, 3), 255, dtype=torch.uint8)
    assert (resized_crops(images, BOXES, 16, kind) == 255).all()


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
def test_pixels_outside_the_box_do_not_matter(resized_crops: Resize, kind: Interpolation) -> None:
    images = noise(1, 20, 20, 1)
    other = noise(1, 20, 20, 1, seed=1)
    other[:, 4:10, 6:15] = images[:, 4:10, 6:15]
    box = torch.tensor([[[4, 6, 6, 9]]])
    assert torch.equal(resized_crops(images, box, 7, kind), resized_crops(other, box, 7, kind))


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
def test_a_value_halfway_between_two_levels_goes_up_as_in_pillow(
    resized_crops: Resize, kind: Interpolation
) -> None:
    image = torch.tensor([[[2], [3]], [[2], [3]]], dtype=torch.uint8)
    assert by_pillow(image, [0, 0, 2, 2], 1, kind).item() == 3
    assert resized_crops(image[None], torch.tensor([[[0, 0, 2, 2]]]), 1, kind).item() == 3


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
def test_a_crop_does_not_depend_on_which_others_are_in_the_batch(
    resized_crops: Resize, kind: Interpolation
) -> None:
    images, g = noise(40, 64, 64, 3), torch.Generator().manual_seed(0)
    size = torch.randint(8, 65, (40, 2, 2), generator=g)
    boxes = torch.cat([(torch.rand(40, 2, 2, generator=g) * (65 - size)).long(), size], -1)
    whole = resized_crops(images, boxes, 16, kind)
    parts = [resized_crops(images[i : i + 1], boxes[i : i + 1], 16, kind) for i in range(40)]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize("kind", ["bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("size", [3, 8, 16, 64])
def test_the_form_of_files_and_the_compiled_one_of_arrays_are_two_levels_apart(
    monkeypatch: pytest.MonkeyPatch, kind: Interpolation, channels: int, size: int
) -> None:
    images = noise(2, 37, 53, channels)
    both = []
    for available in (True, False):
        monkeypatch.setattr(compiled, "available", lambda a=available: a)
        both.append(resized_array_crops(images, BOXES, size, kind).int())
    assert (both[0] - both[1]).abs().max() <= 2
