"""Crop boxes against torchvision's algorithm in loops, fed with the same random numbers."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup.augment.boxes import CenterBoxes, RandomBoxes

LIMITS = (3 / 4, 4 / 3)
SIZES = [(1, 1), (3, 200), (200, 3), (2, 2), (7, 5), (97, 64), (1, 9), (480, 640)]


def proposals(n: int, v: int, seed: int, area: tuple[float, float] = (0.08, 1.0)) -> RandomBoxes:
    """Uniform areas, ratios uniform in the logarithm, uniform places."""
    u = torch.rand(n, v, 10, 2, generator=torch.Generator().manual_seed(seed))
    low, high = math.log(LIMITS[0]), math.log(LIMITS[1])
    areas, ratios = (
        area[0] + (area[1] - area[0]) * u[..., 0],
        (low + (high - low) * u[..., 1]).exp(),
    )
    place = torch.rand(n, v, 2, generator=torch.Generator().manual_seed(seed + 1000))
    return RandomBoxes(torch.stack([areas, ratios], -1), place, LIMITS)


def by_torchvision(
    tries: list[list[float]], place: list[float], height: int, width: int
) -> list[int]:
    """RandomResizedCrop.get_params, its random numbers given."""
    for fraction, ratio in tries:
        target = height * width * fraction
        w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
        if 0 < w <= width and 0 < h <= height:
            # randint(0, room + 1) of a uniform number
            top, left = int(place[0] * (height - h + 1)), int(place[1] * (width - w + 1))
            return [top, left, h, w]
    if width / height < LIMITS[0]:
        w, h = width, round(width / LIMITS[0])
    elif width / height > LIMITS[1]:
        w, h = round(height * LIMITS[1]), height
    else:
        w, h = width, height
    return [(height - h) // 2, (width - w) // 2, h, w]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_random_boxes_are_torchvisions_of_the_same_random_numbers(height: int, width: int) -> None:
    boxes = proposals(12, 2, seed=height)
    expected = [
        [
            by_torchvision(boxes.tries[i, j].tolist(), boxes.place[i, j].tolist(), height, width)
            for j in range(2)
        ]
        for i in range(12)
    ]
    actual = boxes.resolve(height, width)
    assert actual.dtype == torch.int64
    assert actual.tolist() == expected


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 300), width=st.integers(1, 300), seed=st.integers(0, 99))
def test_random_boxes_are_inside_the_image_and_not_empty(
    height: int, width: int, seed: int
) -> None:
    top, left, h, w = proposals(20, 1, seed).resolve(height, width).unbind(-1)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (h >= 1).all()
    assert (w >= 1).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_the_last_place_before_1_is_still_inside(height: int, width: int) -> None:
    last = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))
    boxes = proposals(20, 1, seed=3)
    boxes = boxes._replace(place=last.expand_as(boxes.place))
    top, left, h, w = boxes.resolve(height, width).unbind(-1)
    assert (top + h <= height).all()
    assert (left + w <= width).all()


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(100, 300, [0, 83, 100, 133]), (300, 75, [100, 0, 100, 75]), (90, 100, [0, 0, 90, 100])],
)
def test_where_no_proposal_fits_the_largest_centred_crop_is_taken(
    height: int, width: int, box: list[int]
) -> None:
    # Four times the area of the image never fits.
    tries = torch.tensor([4.0, 1.0]).expand(2, 3, 10, 2)
    boxes = RandomBoxes(tries, torch.full((2, 3, 2), 0.9), LIMITS)
    assert boxes.resolve(height, width).tolist() == [[box] * 3] * 2


def test_the_first_proposal_that_fits_wins() -> None:
    tries = torch.tensor([[4.0, 1.0], [0.25, 1.0]] + [[0.01, 1.0]] * 8).expand(1, 1, 10, 2)
    boxes = RandomBoxes(tries, torch.tensor([[[0.0, 0.5]]]), LIMITS)
    assert boxes.resolve(20, 20).tolist() == [[[0, 5, 10, 10]]]


def test_a_ratio_is_width_over_height() -> None:
    tries = torch.tensor([0.5, 2.0]).expand(1, 1, 10, 2)
    boxes = RandomBoxes(tries, torch.zeros(1, 1, 2), (0.5, 2.0))
    assert boxes.resolve(10, 10).tolist() == [[[0, 0, 5, 10]]]


def test_random_boxes_reach_every_corner_alike() -> None:
    top, left, h, w = proposals(2000, 1, 0, (0.25, 0.25)).resolve(100, 100).unbind(-1)
    for start, length in [(top, h), (left, w)]:
        fraction = start / (100 - length)
        assert fraction.min() == 0
        assert fraction.max() == 1
        # Uniform on [0, 1]: mean 1/2 with deviation 1 / sqrt(12 * 2000).
        assert fraction.mean().item() == pytest.approx(0.5, abs=4 / math.sqrt(24_000))


def test_a_row_of_boxes_has_the_boxes_of_its_image() -> None:
    boxes = proposals(4, 2, seed=5)
    whole = boxes.resolve(50, 40)
    for i in range(4):
        assert torch.equal(boxes.rows(slice(i, i + 1)).resolve(50, 40), whole[i : i + 1])
    assert torch.equal(boxes.rows(slice(1, 3)).resolve(50, 40), whole[1:3])


@pytest.mark.parametrize("fraction", [0.1, 0.875, 1.0])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_centre_box_is_a_centred_square_of_its_share(
    height: int, width: int, fraction: float
) -> None:
    boxes = CenterBoxes(3, fraction).resolve(height, width)
    assert boxes.dtype == torch.int64
    assert boxes.shape == (3, 1, 4)
    assert (boxes == boxes[0]).all()
    top, left, h, w = boxes[0, 0].tolist()
    assert h == w >= 1
    assert h == 1 or abs(h - fraction * min(height, width)) <= 0.5
    # Equal room on both sides, to the pixel that cannot be halved.
    assert 0 <= (height - h) - 2 * top <= 1
    assert 0 <= (width - w) - 2 * left <= 1


def test_the_centre_box_of_share_1_is_the_whole_of_a_square_image() -> None:
    assert CenterBoxes(1, 1.0).resolve(33, 33).tolist() == [[[0, 0, 33, 33]]]


def test_a_row_of_centre_boxes_is_one_of_them() -> None:
    boxes = CenterBoxes(4, 0.875)
    assert torch.equal(boxes.rows(slice(2, 3)).resolve(32, 48), boxes.resolve(32, 48)[2:3])


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 900), st.integers(1, 900), st.integers(0, 10**6))
def test_the_boxes_of_one_image_are_those_that_it_has_in_a_batch(h: int, w: int, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    area, ratio = torch.rand(3, 4, 10, generator=g), torch.rand(3, 4, 10, generator=g) * 4 + 0.1
    tries = torch.stack([area * 1.2 + 1e-4, ratio], -1)
    boxes = RandomBoxes(tries, torch.rand(3, 4, 2, generator=g), (0.5, 2.0))
    alone = [boxes.rows(slice(i, i + 1)).resolve(h, w) for i in range(3)]
    assert torch.equal(torch.cat(alone), boxes.resolve(h, w))
