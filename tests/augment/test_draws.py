"""Draws of views: reproducible, the same however a batch is cut, and distributed as asked."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from views import tensors

from selfsup.augment.draws import Draws, draw
from selfsup.config import LocalViewsConfig, SecondViewConfig, ViewsConfig

CONFIG = ViewsConfig(
    solarize=0.2,
    strength=0.5,
    area=(0.2, 0.9),
    ratio=(0.5, 2.0),
    quarter_turn=0.3,
    rotate=0.4,
    gain=0.6,
    erase=0.25,
)
N = 5000  # images of two views: 10,000 draws


def drawn(config: ViewsConfig, n: int, *, seed: int = 0, step: int = 0) -> Draws:
    """The draws of views of one size."""
    (only,) = draw(config, n, seed=seed, step=step)
    return only


MANY = drawn(CONFIG, N)


def all_tensors(draws: Draws) -> list[Tensor]:
    return [tensor for field in draws for tensor in tensors(field)]


def same(a: Draws, b: Draws) -> bool:
    return all(torch.equal(x, y) for x, y in zip(all_tensors(a), all_tensors(b), strict=True))


def test_a_step_draws_the_same_when_asked_again() -> None:
    assert same(drawn(CONFIG, 6, seed=3, step=8), drawn(CONFIG, 6, seed=3, step=8))


@pytest.mark.parametrize(("seed", "step"), [(3, 9), (4, 8), (8, 3)])
def test_another_step_or_seed_draws_otherwise(seed: int, step: int) -> None:
    here, there = drawn(CONFIG, 24, seed=3, step=8), drawn(CONFIG, 24, seed=seed, step=step)
    for x, y in zip(all_tensors(here), all_tensors(there), strict=True):
        assert not torch.equal(x, y)


def test_drawing_does_not_touch_the_global_generator() -> None:
    before = torch.get_rng_state()
    drawn(CONFIG, 4)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_parts_of_a_batch_are_cut_from_the_draws_of_the_whole(parts: int) -> None:
    whole, size = drawn(CONFIG, 8, seed=1, step=2), 8 // parts
    cut = [whole.rows(slice(k * size, (k + 1) * size)) for k in range(parts)]
    for fields in zip(all_tensors(whole), *(all_tensors(part) for part in cut), strict=True):
        assert torch.equal(fields[0], torch.cat(fields[1:]))
    boxes = torch.cat([part.boxes.resolve(50, 70) for part in cut])
    assert torch.equal(boxes, whole.boxes.resolve(50, 70))


def test_every_field_has_a_row_for_each_image_and_a_column_for_each_view() -> None:
    draws = drawn(ViewsConfig(views=3), 5)
    assert {field.shape[:2] for field in all_tensors(draws)} == {(5, 3)}
    assert draws.order.shape == (5, 3, 4)


@pytest.mark.parametrize(
    ("name", "probability"),
    [
        ("flip", 0.5),
        ("jitter", 0.8),
        ("grey", 0.2),
        ("blur", 0.5),
        ("solarize", 0.2),
        ("quarters", 0.3),
        ("rotate", 0.4),
        ("erase", 0.25),
    ],
)
def test_a_change_happens_as_often_as_its_probability(name: str, probability: float) -> None:
    chosen = getattr(MANY, name)
    assert chosen.dtype == (torch.int64 if name == "quarters" else torch.bool)
    chosen = chosen > 0
    deviation = math.sqrt(probability * (1 - probability) / (2 * N))
    assert abs(chosen.float().mean().item() - probability) < 4 * deviation


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_probabilities_0_and_1_are_never_and_always(probability: float) -> None:
    config = ViewsConfig(
        flip=probability,
        jitter=probability,
        grey=probability,
        blur=probability,
        solarize=probability,
    )
    draws = drawn(config, 500)
    for chosen in (draws.flip, draws.jitter, draws.grey, draws.blur, draws.solarize):
        assert (chosen == bool(probability)).all()


def farthest_from_uniform(values: Tensor, low: float, high: float) -> float:
    """Kolmogorov's statistic, in units of 1 / sqrt(count): above 2 once in 1,500 samples."""
    fraction = ((values.flatten().double() - low) / (high - low)).sort().values
    assert fraction[0] >= -1e-6
    assert fraction[-1] <= 1 + 1e-6
    even = (torch.arange(len(fraction), dtype=torch.float64) + 0.5) / len(fraction)
    return (fraction - even).abs().max().item() * math.sqrt(len(fraction))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("brightness", 0.6, 1.4),
        ("contrast", 0.6, 1.4),
        ("saturation", 0.6, 1.4),
        ("hue", -0.1, 0.1),
        ("sigma", 0.1, 2.0),
        ("degrees", -30, 30),
        ("gains", 0.7, 1.3),
    ],
)
def test_amounts_are_uniform_over_their_range(name: str, low: float, high: float) -> None:
    assert farthest_from_uniform(getattr(MANY, name), low, high) < 2


def test_proposals_of_crops_are_uniform_in_area_and_in_the_logarithm_of_the_ratio() -> None:
    area, ratio = MANY.boxes.tries.unbind(-1)
    assert area.shape == (N, 2, 10)
    assert farthest_from_uniform(area, 0.2, 0.9) < 2
    assert farthest_from_uniform(ratio.log(), -math.log(2), math.log(2)) < 2
    assert farthest_from_uniform(MANY.boxes.place, 0, 1) < 2
    assert MANY.boxes.place.max() < 1
    assert MANY.boxes.limits == (0.5, 2.0)


def test_erased_parts_are_uniform_in_area_and_in_the_logarithm_of_the_ratio() -> None:
    area, ratio = MANY.erased.tries.unbind(-1)
    assert farthest_from_uniform(area, 0.02, 0.33) < 2
    assert farthest_from_uniform(ratio.log(), math.log(0.3), math.log(3.3)) < 2
    assert farthest_from_uniform(MANY.erased.place, 0, 1) < 2


def test_quarter_turns_are_by_90_180_or_270_degrees_alike() -> None:
    counts = MANY.quarters.flatten().bincount(minlength=4)
    assert len(counts) == 4
    fraction = counts[1:].double() / counts[1:].sum()
    assert (fraction - 1 / 3).abs().max() < 4 * math.sqrt(2 / 9 / counts[1:].sum().item())


def test_a_factor_is_never_negative_however_strong_the_jitter() -> None:
    draws = drawn(ViewsConfig(strength=1.5), N)
    for factor in (draws.brightness, draws.contrast, draws.saturation):
        assert farthest_from_uniform(factor, 0.0, 2.2) < 2


def test_the_order_of_colour_changes_is_any_of_24_alike() -> None:
    order = MANY.order.flatten(0, 1)
    assert (order.sort(-1).values == torch.arange(4)).all()
    code = order @ torch.tensor([64, 16, 4, 1])
    counts = code.flatten().bincount().double()
    counts = counts[counts > 0]
    expected = 2 * N / 24
    assert len(counts) == 24
    # Chi-square of 23 degrees of freedom: above 60 once in 25,000 samples.
    assert ((counts - expected) ** 2 / expected).sum() < 60


def test_views_and_kinds_of_change_are_drawn_independently() -> None:
    columns = [field.double() for field in all_tensors(MANY)[1:]]
    wide = torch.cat([field.flatten(1) for field in columns if field is not columns[7]], 1)
    order = columns[7]  # its four entries depend on each other: one of them stands for all
    wide = torch.cat([wide, order[..., 0]], 1)
    correlation = torch.corrcoef(wide.T) - torch.eye(wide.shape[1])
    assert correlation.abs().max() < 5 / math.sqrt(N)


def test_the_second_view_has_chances_of_its_own_and_the_others_are_as_the_first() -> None:
    second = SecondViewConfig(blur=0.1, solarize=0.2)
    draws = drawn(ViewsConfig(views=3, blur=1.0, solarize=0.0, second=second), N)
    blurred, solarized = draws.blur.double().mean(0), draws.solarize.double().mean(0)
    assert blurred[[0, 2]].tolist() == [1, 1]
    assert solarized[[0, 2]].tolist() == [0, 0]
    assert abs(blurred[1] - 0.1) < 4 * math.sqrt(0.1 * 0.9 / N)
    assert abs(solarized[1] - 0.2) < 4 * math.sqrt(0.2 * 0.8 / N)


def test_a_second_view_like_the_first_changes_no_draw() -> None:
    second = SecondViewConfig(blur=CONFIG.blur, solarize=CONFIG.solarize)
    assert same(drawn(CONFIG, 20), drawn(replace(CONFIG, second=second), 20))


def test_local_views_are_drawn_beside_the_large_ones_and_do_not_change_them() -> None:
    local = LocalViewsConfig(views=4, size=32, area=(0.05, 0.15), blur=0.0)
    large, small = draw(replace(CONFIG, local=local), N, seed=0, step=0)
    assert same(large, MANY)
    assert {field.shape[:2] for field in all_tensors(small)} == {(N, 4)}
    assert farthest_from_uniform(small.boxes.tries[..., 0], 0.05, 0.15) < 2
    assert not small.blur.any()
    assert not small.solarize.any()
    assert abs(small.jitter.double().mean() - 0.8) < 4 * math.sqrt(0.16 / (4 * N))
    assert not torch.equal(small.flip[:, :2], large.flip)


def test_local_views_are_half_as_large_unless_said() -> None:
    assert ViewsConfig(size=96).sizes == (96,)
    assert ViewsConfig(size=96, local=LocalViewsConfig(views=2)).sizes == (96, 48)
    assert ViewsConfig(size=96, local=LocalViewsConfig(views=2, size=40)).sizes == (96, 40)
