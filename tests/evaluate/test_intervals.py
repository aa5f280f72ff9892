"""The bootstrap against what is known of a coin."""

import math

import pytest
import torch

from selfsup.evaluate.intervals import Figure, figure


def test_the_value_is_the_mean_and_lies_in_its_interval() -> None:
    values = torch.tensor([0.0, 1.0, 1.0, 0.25])
    interval = figure(values, seed=0, resamples=50)
    assert interval.value == 0.5625
    assert interval.low <= interval.value <= interval.high


def test_the_interval_holds_the_true_rate_of_a_coin_about_95_times_in_100() -> None:
    g = torch.Generator().manual_seed(0)
    inside = 0
    for trial in range(200):
        coin = (torch.rand(100, generator=g) < 0.3).float()
        interval = figure(coin, seed=trial, resamples=200)
        inside += interval.low <= 0.3 <= interval.high
    assert 175 <= inside <= 199  # 190 expected, deviation 3; the percentile kind is a little narrow


def test_the_width_is_that_of_a_normal_distribution_for_many_values() -> None:
    coin = torch.arange(400) % 2
    interval = figure(coin, seed=1, resamples=2000)
    expected = 2 * 1.96 * 0.5 / math.sqrt(400)
    assert interval.high - interval.low == pytest.approx(expected, rel=0.1)
    assert interval.high - 0.5 == pytest.approx(0.5 - interval.low, rel=0.2)


def test_the_same_seed_gives_the_same_interval_and_another_gives_another() -> None:
    values = torch.rand(30, generator=torch.Generator().manual_seed(0))
    assert figure(values, seed=3, resamples=50) == figure(values, seed=3, resamples=50)
    assert figure(values, seed=3, resamples=50) != figure(values, seed=4, resamples=50)


def test_values_that_are_all_the_same_give_an_interval_of_no_width() -> None:
    assert figure(torch.full((9,), 0.75), seed=0, resamples=20) == Figure(0.75, 0.75, 0.75)


def test_truth_values_are_averaged_as_zeros_and_ones() -> None:
    assert figure(torch.tensor([True, False, True, True]), seed=0, resamples=5).value == 0.75


def test_without_resampling_the_interval_is_the_mean() -> None:
    assert figure(torch.tensor([0.0, 1.0]), seed=0, resamples=0) == Figure(0.5, 0.5, 0.5)


def test_no_values_are_an_error() -> None:
    with pytest.raises(ValueError, match="no images"):
        figure(torch.zeros(0), seed=0, resamples=10)


def test_a_figure_reads_as_in_a_table() -> None:
    assert str(Figure(0.9123, 0.897, 0.9264)) == "0.912 [0.897, 0.926]"
