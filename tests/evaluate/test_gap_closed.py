"""The share of a gap that a student closes: worked by hand, resampled in pairs, never over 0."""

import math
import random
from typing import Any

import pytest
import torch
from torch import Tensor

from selfsup.evaluate.intervals import Figure, figure, gap_closed

HOW: dict[str, Any] = {"seed": 0, "resamples": 200}


def row(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_student_in_the_middle_closes_half() -> None:
    teacher, student, baseline = row(0.8, 0.4), row(0.6, 0.4), row(0.5, 0.3)
    gap = gap_closed(teacher, student, baseline, **HOW)
    assert gap.lead.value == pytest.approx(0.2)
    assert gap.gain.value == pytest.approx(0.1)
    assert gap.closed is not None
    assert gap.closed.value == pytest.approx(0.5)
    # a set of the first image twice has 0.1 / 0.3, one of the second twice 0.1 / 0.1
    assert gap.closed.low == pytest.approx(1 / 3)
    assert gap.closed.high == pytest.approx(1.0)


def test_the_ends_of_the_way_are_0_and_1_and_less_and_more_are_possible() -> None:
    teacher, baseline = row(0.9, 0.7, 0.8), row(0.5, 0.3, 0.6)
    closed = {
        name: gap_closed(teacher, student, baseline, **HOW).closed
        for name, student in (
            ("none", baseline),
            ("all", teacher),
            ("beyond", baseline + 1.5 * (teacher - baseline)),
            ("back", baseline - 0.25 * (teacher - baseline)),
        )
    }
    expected = {"none": 0.0, "all": 1.0, "beyond": 1.5, "back": -0.25}
    for name, value in expected.items():
        share = closed[name]
        assert share is not None
        assert (share.value, share.low, share.high) == pytest.approx((value, value, value))


def test_what_is_hard_for_all_three_widens_the_gaps_figures_not_the_share() -> None:
    hard = row(*(i % 2 for i in range(100)))  # half of the images are found by none
    teacher, student, baseline = 0.8 * hard, 0.6 * hard, 0.4 * hard
    alone = figure(student, **HOW)
    gap = gap_closed(teacher, student, baseline, **HOW)
    assert alone.high - alone.low > 0.05
    assert gap.lead.high - gap.lead.low > 0.03
    assert gap.closed is not None
    assert (gap.closed.low, gap.closed.high) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize(
    ("teacher", "baseline"),
    [
        (row(0.4, 0.5), row(0.4, 0.5)),  # equal: 0 / 0
        (row(0.4, 0.5), row(0.5, 0.6)),  # the teacher is worse
        (row(0.9, 0.2), row(0.4, 0.5)),  # better on average, and worse where the second is drawn
        (row(0.4, 0.5 + 1e-3), row(0.4, 0.5)),  # nothing, in the sets of the first image
        (row(0.4 + 1e-9, 0.5 + 1e-9), row(0.4, 0.5)),  # rounding
    ],
)
def test_a_gap_that_may_be_nothing_is_not_divided_by(teacher: Tensor, baseline: Tensor) -> None:
    gap = gap_closed(teacher, row(0.7, 0.7), baseline, **HOW)
    assert gap.closed is None
    assert math.isfinite(gap.lead.low)
    assert gap.gain.value == pytest.approx(0.7 - float(baseline.mean()))


def test_classes_are_resampled_as_a_whole() -> None:
    groups = torch.tensor([4, 4, 4, 9])
    teacher, student = row(0.5, 0.6, 0.7, 1.0), row(0.3, 0.3, 0.3, 1.0)
    baseline = row(0.0, 0.0, 0.0, 0.8)
    gap = gap_closed(teacher, student, baseline, groups, **HOW)
    assert gap.closed is not None
    # (0.9 + 0.2) / (1.8 + 0.2) over all; of the first class twice 0.9 / 1.8; of the second 1
    expected = (0.55, 0.5, 1.0)
    assert (gap.closed.value, gap.closed.low, gap.closed.high) == pytest.approx(expected)


def test_the_interval_is_that_of_quotients_of_means_over_drawn_images() -> None:
    """By loops over floats, with draws of its own: alike but for what chance does to 2,000."""
    draw = random.Random(1)
    baseline = [draw.random() for _ in range(60)]
    teacher = [b + 0.2 + 0.3 * draw.random() for b in baseline]
    student = [b + 0.4 * draw.random() for b in baseline]
    shares = []
    for _ in range(2000):
        rows = [draw.randrange(60) for _ in range(60)]
        gain = math.fsum(student[i] - baseline[i] for i in rows)
        shares.append(gain / math.fsum(teacher[i] - baseline[i] for i in rows))
    shares.sort()
    gap = gap_closed(row(*teacher), row(*student), row(*baseline), seed=0, resamples=2000)
    assert gap.closed is not None
    assert gap.closed.low == pytest.approx(shares[50], abs=0.01)
    assert gap.closed.high == pytest.approx(shares[1950], abs=0.01)


def test_lead_and_gain_are_the_figures_of_paired_differences() -> None:
    draw = torch.Generator().manual_seed(0)
    teacher, student, baseline = torch.rand(3, 40, generator=draw, dtype=torch.float64)
    groups = torch.arange(40) // 4
    gap = gap_closed(teacher, student, baseline, groups, **HOW)
    assert gap.lead == pytest.approx(figure(teacher - baseline, groups, **HOW))
    assert gap.gain == pytest.approx(figure(student - baseline, groups, **HOW))


def test_other_images_and_none_are_errors() -> None:
    with pytest.raises(ValueError, match=r"other images: \(2,\), \(1,\), \(2,\)"):
        gap_closed(row(1, 2), row(1), row(1, 2), **HOW)
    with pytest.raises(ValueError, match="no images"):
        gap_closed(row(), row(), row(), **HOW)


def test_without_resamples_a_share_is_its_own_interval() -> None:
    gap = gap_closed(row(1.0), row(0.5), row(0.0), seed=0, resamples=0)
    assert gap.closed == Figure(0.5, 0.5, 0.5)
