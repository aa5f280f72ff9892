"""Changes that only some pipelines have, images of any channels, and changes of one's own."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor
from torchvision.transforms import InterpolationMode
from views import RAW, YES, close, crops, each, untouched

from selfsup.augment.apply import apply, apply_in_torch
from selfsup.augment.boxes import RandomBoxes
from selfsup.augment.draws import draw
from selfsup.config import ViewsConfig

RARE = replace(RAW, quarter_turn=0.5, rotate=0.5, gain=0.5, erase=0.5)
"""With every chance that the compiled form does not have."""
FIVE = ViewsConfig(
    size=12,
    saturation=0,
    hue=0,
    grey=0,
    gain=0.5,
    blur=0,
    mean=(0.0,) * 5,
    std=(1.0,) * 5,
)


def test_quarter_turns_go_to_the_left() -> None:
    x = crops(2, 2)
    turns = torch.tensor([[0, 1], [2, 3]])
    expected = each(x, lambda view, i, j: tv.rotate(view, 90.0 * turns[i, j].item()))
    close(apply(x, untouched(2, 2)._replace(quarters=turns), RARE), expected, 1e-7)


def test_rotation_is_torchvisions_bilinear_to_1e_4() -> None:
    x, degrees = crops(2, 3, 16), torch.tensor([[-30.0, 10.0, 0.0], [45.0, 3.0, 90.0]])
    draws = untouched(2, 3)._replace(rotate=YES, degrees=degrees)
    expected = each(
        x, lambda view, i, j: tv.rotate(view, degrees[i, j].item(), InterpolationMode.BILINEAR)
    )
    close(apply(x, draws, RARE), expected, 1e-4)


def test_what_is_not_chosen_is_not_rotated() -> None:
    x = crops(1, 2)
    draws = untouched(1, 2)._replace(
        rotate=torch.tensor([[True, False]]), degrees=torch.full((1, 2), 40.0)
    )
    actual = apply(x, draws, RARE)
    close(actual[0, 1], x[0, 1].float() / 255, 1e-7)
    assert actual[0, 0, :, 0, 0].abs().max() == 0  # a corner from outside


def test_an_erased_box_is_the_mean_and_the_rest_as_it_was() -> None:
    x, config = crops(1, 2), ViewsConfig(erase=0.5)
    # a quarter of the area, twice as high as wide, as far down as there is room
    tries = torch.tensor([0.25, 0.5]).expand(1, 2, 10, 2)
    boxes = RandomBoxes(tries, torch.tensor([0.999, 0.0]).expand(1, 2, 2), (0.3, 3.3))
    draws = untouched(1, 2)._replace(erase=torch.tensor([[True, False]]), erased=boxes)
    actual, plain = apply(x, draws, config)[0], apply_in_torch(x, untouched(1, 2), config)[0]
    height, width = round(math.sqrt(0.25 / 0.5) * 12), round(math.sqrt(0.25 * 0.5) * 12)
    assert (actual[0, :, 12 - height :, :width] == 0).all()
    actual[0, :, 12 - height :, :width] = plain[0, :, 12 - height :, :width]
    close(actual, plain, 1e-6)


def test_nothing_is_erased_where_no_proposal_fits() -> None:
    x = crops(1, 1)
    tries = torch.tensor([0.9, 9.0]).expand(1, 1, 10, 2)
    boxes = RandomBoxes(tries, torch.zeros(1, 1, 2), (0.3, 3.3))
    draws = untouched(1, 1)._replace(erase=YES[:1, :1], erased=boxes)
    close(apply(x, draws, RARE), x.float() / 255, 1e-7)


def many_channels(b: int, v: int, channels: int = 5) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (b, v, channels, 12, 12), generator=rng, dtype=torch.uint8)


def test_channels_have_gains_of_their_own_and_contrast_about_their_own_mean() -> None:
    x = many_channels(1, 1)
    one = torch.ones(1, 1)
    gains = torch.tensor([[[0.5, 0.8, 1.0, 1.2, 3.0]]])
    draws = untouched(1, 1, 5)._replace(
        jitter=one.bool(), brightness=1.1 * one, contrast=0.5 * one, gains=gains
    )
    expected = x[0, 0].double() / 255
    for c in range(5):
        bright = (expected[c] * 1.1).clamp(0, 1)
        contrast = (0.5 * bright + 0.5 * bright.mean()).clamp(0, 1)
        expected[c] = (contrast * gains[0, 0, c].item()).clamp(0, 1)
    close(apply(x, draws, FIVE)[0, 0], expected.float(), 1e-6)


def test_images_of_five_channels_get_all_changes_that_have_a_meaning() -> None:
    config = replace(FIVE, quarter_turn=0.5, rotate=0.5, blur=0.5, solarize=0.5, erase=0.5)
    (draws,) = draw(config, 6, seed=0, step=0)
    assert draws.gains.shape == (6, 2, 5)
    actual = apply(many_channels(6, 2), draws, config)
    assert actual.shape == (6, 2, 5, 12, 12)
    assert actual.isfinite().all()
    assert actual.min() >= 0
    assert actual.max() <= 1


class Stripes:
    """Every third row black, from a row of each view's own."""

    def draw(self, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
        return torch.randint(3, shape, generator=generator)

    def apply(self, x: Tensor, drawn: Tensor) -> Tensor:
        rows = torch.arange(x.shape[2]) % 3 == drawn[:, None]
        return x.masked_fill(rows[:, None, :, None], 0)


def test_a_change_of_ones_own_gets_its_own_draws_in_the_order_of_images() -> None:
    config = replace(RAW, size=12, flip=0, blur=0)
    (draws,) = draw(config, 5, seed=0, step=3, changes=[Stripes()])
    x = crops(5, 2)
    actual = apply(x, draws, config, [Stripes()])
    (plain,) = draw(config, 5, seed=0, step=3)
    expected = apply_in_torch(x, plain, config)
    for i in range(5):
        for j in range(2):
            expected[i, j, :, int(draws.custom[0][i, j]) :: 3] = 0
    close(actual, expected, 1e-5)
    assert draws.custom[0].unique().tolist() == [0, 1, 2]


def test_changes_of_ones_own_do_not_move_other_draws_and_have_streams_of_their_own() -> None:
    (with_two,) = draw(ViewsConfig(), 50, seed=0, step=3, changes=[Stripes(), Stripes()])
    (without,) = draw(ViewsConfig(), 50, seed=0, step=3)
    assert torch.equal(with_two.sigma, without.sigma)
    assert not torch.equal(*with_two.custom)


@pytest.mark.parametrize("side", [8, 32])
def test_nothing_waits_for_the_device(side: int) -> None:
    """The meta device has no values: whatever asks for one, or for how many there are, fails."""
    config = ViewsConfig(
        size=side, quarter_turn=0.5, rotate=0.5, gain=0.2, blur=0.5, solarize=0.5, erase=0.5
    )
    (draws,) = draw(config, 40, seed=0, step=0)
    actual = apply_in_torch(
        torch.empty(40, 2, 3, side, side, dtype=torch.uint8, device="meta"), draws, config
    )
    assert actual.shape == (40, 2, 3, side, side)
    assert actual.device.type == "meta"


@pytest.mark.parametrize("make", [apply, apply_in_torch])
def test_views_do_not_depend_on_which_others_are_in_the_batch(make: Callable[..., Tensor]) -> None:
    for config in (
        ViewsConfig(size=40, solarize=0.3),
        ViewsConfig(size=40, rotate=0.1, erase=0.1, quarter_turn=0.1),
        ViewsConfig(size=140, blur=1.0),
    ):
        (draws,) = draw(config, 30, seed=1, step=0)
        x = crops(30, 2, config.size)
        whole = make(x, draws, config)
        parts = [make(x[i : i + 1], draws.rows(slice(i, i + 1)), config) for i in range(30)]
        assert torch.equal(whole, torch.cat(parts))
