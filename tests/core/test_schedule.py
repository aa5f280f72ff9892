"""Schedules against their closed forms."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup.core.schedule import cosine, warmup_cosine


def test_a_cosine_has_its_start_and_end_and_is_halfway_in_the_middle() -> None:
    values = [cosine(step, 100, start=0.996, end=1.0) for step in (0, 50, 100)]
    assert values == pytest.approx([0.996, 0.998, 1.0], abs=1e-12)


@pytest.mark.parametrize("step", [100, 101, 5000])
def test_a_cosine_stays_at_its_end(step: int) -> None:
    assert cosine(step, 100, start=2.0, end=0.5) == pytest.approx(0.5)


@settings(max_examples=25, deadline=None)
@given(step=st.integers(0, 40), start=st.floats(-2, 2), end=st.floats(-2, 2))
def test_a_cosine_is_half_a_wave(step: int, start: float, end: float) -> None:
    # sin^2 of a quarter turn: the same wave, written another way.
    fraction = math.sin(math.pi * step / 80) ** 2
    assert cosine(step, 40, start=start, end=end) == pytest.approx(
        start + (end - start) * fraction, abs=1e-9
    )


def test_the_first_step_already_learns_and_the_warm_up_is_a_line_to_the_peak() -> None:
    values = [warmup_cosine(step, 100, warmup=4, peak=2.0) for step in range(5)]
    assert values == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])


@settings(max_examples=25, deadline=None)
@given(warmup=st.integers(0, 9), past=st.integers(0, 20), final=st.floats(0, 0.5))
def test_after_the_warm_up_a_cosine_falls_to_the_final_value(
    warmup: int, past: int, final: float
) -> None:
    value = warmup_cosine(warmup + past, warmup + 20, warmup=warmup, peak=3.0, final=final)
    fraction = math.cos(math.pi * past / 40) ** 2
    assert value == pytest.approx(final + (3.0 - final) * fraction, abs=1e-9)


def test_no_step_is_above_the_peak_or_below_the_neighbours_it_lies_between() -> None:
    values = [warmup_cosine(step, 50, warmup=10, peak=1.0) for step in range(51)]
    assert values[:10] == sorted(values[:10])
    assert values[10:] == sorted(values[10:], reverse=True)
    assert max(values) == 1.0
    assert values[-1] == pytest.approx(0, abs=1e-12)


def test_a_run_may_be_all_warm_up() -> None:
    values = [warmup_cosine(step, 5, warmup=5, peak=1.0) for step in range(5)]
    assert values == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_the_end_of_a_run_that_is_all_warm_up_is_its_peak() -> None:
    assert warmup_cosine(5, 5, warmup=5, peak=1.0) == 1.0
