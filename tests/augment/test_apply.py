"""Changes of views against torchvision's functions, one by one and in order."""

import copy
import math
from itertools import permutations

import pytest
import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor
from views import RAW, YES, close, crops, each, tensors, untouched

from selfsup.augment.apply import apply, apply_in_torch, standardize
from selfsup.augment.draws import Draws, draw
from selfsup.config import ViewsConfig
from selfsup.core import compiled


@pytest.fixture(autouse=True, params=["numba", "torch"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs on both forms; what numba has no form of takes torch's anyway."""
    monkeypatch.setattr(compiled, "available", lambda: request.param == "numba")
    return str(request.param)


FACTORS = torch.tensor([[0.0, 0.2, 0.7], [1.0, 1.3, 1.8]])
SHIFTS = torch.tensor([[-0.5, -0.2, 0.0], [0.03, 0.2, 0.5]])


def test_untouched_crops_are_scaled_to_1_and_nothing_else() -> None:
    x = crops(2, 3)
    actual = apply(x, untouched(2, 3), RAW)
    assert actual.dtype == torch.float32
    close(actual, x.float() / 255, 1e-7)


def test_jitter_by_factors_1_and_shift_0_changes_nothing() -> None:
    x = crops(2, 3)
    close(apply(x, untouched(2, 3)._replace(jitter=YES), RAW), x.float() / 255, 1e-5)


def test_a_flip_is_from_left_to_right_and_only_where_drawn() -> None:
    x = crops(2, 3)
    flip = torch.tensor([[True, False, True], [False, False, True]])
    expected = each(x, lambda view, i, j: tv.horizontal_flip(view) if flip[i, j] else view)
    close(apply(x, untouched(2, 3)._replace(flip=flip), RAW), expected, 1e-7)


def test_brightness_is_torchvisions_to_1e_5() -> None:
    x, draws = crops(2, 3), untouched(2, 3)._replace(jitter=YES, brightness=FACTORS)
    expected = each(x, lambda view, i, j: tv.adjust_brightness(view, FACTORS[i, j].item()))
    close(apply(x, draws, RAW), expected, 1e-5)


def test_contrast_is_torchvisions_to_1e_5() -> None:
    x, draws = crops(2, 3), untouched(2, 3)._replace(jitter=YES, contrast=FACTORS)
    expected = each(x, lambda view, i, j: tv.adjust_contrast(view, FACTORS[i, j].item()))
    close(apply(x, draws, RAW), expected, 1e-5)


def test_saturation_is_torchvisions_to_1e_5() -> None:
    x, draws = crops(2, 3), untouched(2, 3)._replace(jitter=YES, saturation=FACTORS)
    expected = each(x, lambda view, i, j: tv.adjust_saturation(view, FACTORS[i, j].item()))
    close(apply(x, draws, RAW), expected, 1e-5)


def test_hue_is_torchvisions_to_1e_5() -> None:
    x, draws = crops(2, 3), untouched(2, 3)._replace(jitter=YES, hue=SHIFTS)
    expected = each(x, lambda view, i, j: tv.adjust_hue(view, SHIFTS[i, j].item()))
    close(apply(x, draws, RAW), expected, 1e-5)


def test_grey_is_torchvisions_in_three_equal_channels() -> None:
    x = crops(2, 3)
    actual = apply(x, untouched(2, 3)._replace(grey=YES), RAW)
    expected = each(x, lambda view, i, j: tv.rgb_to_grayscale(view, num_output_channels=3))
    close(actual, expected, 1e-5)
    assert torch.equal(actual[:, :, 0], actual[:, :, 1])
    assert torch.equal(actual[:, :, 0], actual[:, :, 2])


@pytest.mark.parametrize(("side", "kernel"), [(12, 3), (32, 3), (40, 5), (54, 5), (96, 9)])
def test_blur_is_torchvisions_with_a_kernel_of_a_tenth_of_the_side_made_odd(
    side: int, kernel: int
) -> None:
    sigma = torch.tensor([[0.1, 0.8, 2.0]])
    x, draws = crops(1, 3, side), untouched(1, 3)._replace(blur=YES[:1], sigma=sigma)
    expected = each(
        x, lambda view, i, j: tv.gaussian_blur(view, [kernel] * 2, [sigma[i, j].item()] * 2)
    )
    close(apply(x, draws, RAW), expected, 1e-5)


def test_solarize_inverts_values_from_128_up_only() -> None:
    values = torch.arange(256, dtype=torch.uint8).reshape(16, 16)
    x = values.expand(1, 1, 3, 16, 16)
    draws = untouched(1, 1)._replace(solarize=YES[:1, :1])
    expected = torch.where(values < 128, values.float(), 255 - values.float()) / 255
    close(apply(x, draws, RAW)[0, 0], expected.expand(3, 16, 16), 1e-6)
    close(apply(x, draws, RAW), each(x, lambda view, i, j: tv.solarize(view, 128 / 255)), 1e-6)


def test_channels_are_standardized_by_their_own_mean_and_deviation() -> None:
    x, config = crops(2, 3), ViewsConfig(mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 1.5))
    expected = each(x, lambda view, i, j: tv.normalize(view, [0.1, 0.5, 0.9], [0.2, 0.3, 1.5]))
    close(apply(x, untouched(2, 3), config), expected, 1e-5)
    close(standardize(x / 255, *config.normalization), expected, 1e-5)


def jittered(view: Tensor, order: tuple[int, ...], draws: Draws, i: int, j: int) -> Tensor:
    """torchvision's four functions in that order."""
    for which in order:
        if which == 0:
            view = tv.adjust_brightness(view, draws.brightness[i, j].item())
        elif which == 1:
            view = tv.adjust_contrast(view, draws.contrast[i, j].item())
        elif which == 2:
            view = tv.adjust_saturation(view, draws.saturation[i, j].item())
        else:
            view = tv.adjust_hue(view, draws.hue[i, j].item())
    return view


def test_jitter_is_torchvisions_functions_in_the_drawn_order_for_all_24_orders() -> None:
    orders = list(permutations(range(4)))
    fixed = crops(1, 1).expand(24, 1, 3, 12, 12)
    one = torch.ones(24, 1)
    draws = untouched(24, 1)._replace(
        jitter=one.bool(),
        brightness=1.4 * one,
        contrast=0.6 * one,
        saturation=1.6 * one,
        hue=0.1 * one,
        order=torch.tensor(orders)[:, None],
    )
    actual = apply(fixed, draws, RAW)
    close(actual, each(fixed, lambda view, i, j: jittered(view, orders[i], draws, i, j)), 2e-5)
    # Orders matter: brightness first and last differ by far more than the tolerance.
    assert (actual[0] - actual[-1]).abs().max() > 0.05


def test_changes_come_in_the_order_of_simclr_and_byol() -> None:
    x, side = crops(2, 3, 40), 40
    config = ViewsConfig(size=side, views=3, flip=1, jitter=1, grey=0.5, blur=1, solarize=1)
    grey = torch.tensor([[True, False, False], [False, True, False]])
    draws = draw(config, 2, seed=0, step=0)[0]._replace(grey=grey)

    def by_torchvision(view: Tensor, i: int, j: int) -> Tensor:
        view = tv.horizontal_flip(view)
        view = jittered(view, tuple(draws.order[i, j].tolist()), draws, i, j)
        if draws.grey[i, j]:
            view = tv.rgb_to_grayscale(view, num_output_channels=3)
        view = tv.gaussian_blur(view, [5, 5], [draws.sigma[i, j].item()] * 2)
        view = tv.solarize(view, 128 / 255)
        view = tv.normalize(view, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        return view

    difference = (apply(x, draws, ViewsConfig()) - each(x, by_torchvision)).abs()
    # a value beside 128 may fall on the other side, where solarizing jumps by 1 / 255 / std
    assert difference.max() < 2e-2
    assert difference.mean() < 1e-5


def test_each_view_is_changed_by_its_own_draws() -> None:
    config = ViewsConfig(size=12, solarize=0.5)
    x, (draws,) = crops(6, 2), draw(config, 6, seed=0, step=0)
    batch = apply(x, draws, config)
    for i in range(6):
        alone = apply(x[i : i + 1], draws.rows(slice(i, i + 1)), config)
        close(batch[i : i + 1], alone, 1e-6)
    assert (batch[0] - batch[1]).abs().max() > 0.1


def test_applying_twice_gives_the_same_and_leaves_crops_and_draws_as_they_were() -> None:
    config = ViewsConfig(size=12)
    x, (draws,) = crops(4, 2), draw(config, 4, seed=0, step=0)
    before = x.clone(), copy.deepcopy(draws)
    assert torch.equal(apply(x, draws, config), apply(x, draws, config))
    assert torch.equal(x, before[0])
    for field, old in zip(draws, before[1], strict=True):
        for tensor, before_tensor in zip(tensors(field), tensors(old), strict=True):
            assert torch.equal(tensor, before_tensor)


@pytest.mark.slow
def test_colours_compiled_for_a_gpu_are_the_others_for_any_number_of_views() -> None:
    config = ViewsConfig(size=12)
    torch._dynamo.reset()
    before, made = torch._dynamo.utils.counters["frames"]["ok"], []
    for count in (4, 7, 12, 20, 33):
        x, (draws,) = crops(count, 2), draw(config, count, seed=0, step=0)
        fused = apply_in_torch(x, draws, config, fused=True)
        close(fused, apply_in_torch(x, draws, config), 1e-5)
        made.append(torch._dynamo.utils.counters["frames"]["ok"])
    assert made[0] > before  # it was compiled
    assert made[-1] <= before + 8  # but not for each number of views


def test_results_are_finite_and_within_0_and_1_before_standardizing() -> None:
    config = ViewsConfig(size=12, strength=1.2, jitter=1, grey=0.5, blur=0.5, solarize=0.5)
    x = crops(12, 2)
    x[0], x[1] = 0, 255
    (draws,) = draw(config, 12, seed=0, step=0)
    result = apply(x, draws, ViewsConfig(mean=RAW.mean, std=RAW.std))
    assert result.isfinite().all()
    assert result.min() >= -1e-6
    assert result.max() <= 1 + 1e-6
    assert math.isclose(result.max().item(), 1, abs_tol=0.2)
