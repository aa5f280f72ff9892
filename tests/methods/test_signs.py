"""Collapse signs of batches whose shape is known."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from selfsup.core.errors import UserError
from selfsup.losses.measures import Distance
from selfsup.methods.signs import (
    COMPARED_IMAGES,
    LARGEST_GAP,
    collapse_signs,
    pair_signs,
    view_signs,
)


def sphere(n: int, d: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_cross_has_every_sign_in_closed_form() -> None:
    # +e and -e of each of 4 axes: spread 1 / sqrt(4) in each dimension, all directions alike.
    signs = collapse_signs(torch.cat([torch.eye(4), -torch.eye(4)]))
    assert signs["std"] == pytest.approx(1, rel=1e-5)
    assert signs["rank"] == pytest.approx(4, rel=1e-5)
    # Of the 28 pairs, 4 are opposite and the rest at right angles.
    assert signs["cosine"] == pytest.approx(-4 / 28, rel=1e-4)


def test_signs_are_their_definition() -> None:
    x = sphere(9, 4) + 0.5
    z = [[value / math.hypot(*row) for value in row] for row in x.tolist()]
    centred = np.array(z) - np.mean(z, axis=0)
    fractions = np.linalg.svd(centred, compute_uv=False)
    fractions = fractions / fractions.sum()
    cosines = [
        sum(p * q for p, q in zip(z[i], z[j], strict=True))
        for i in range(9)
        for j in range(9)
        if i != j
    ]
    signs = collapse_signs(x)
    assert signs["std"] == pytest.approx(np.std(z, axis=0).mean() * 2, rel=1e-6)
    assert signs["rank"] == pytest.approx(
        math.exp(-(fractions * np.log(fractions)).sum()), rel=1e-6
    )
    assert signs["cosine"] == pytest.approx(sum(cosines) / len(cosines), rel=1e-6)


def test_a_random_sphere_is_spread_evenly() -> None:
    signs = collapse_signs(sphere(400, 8))
    assert signs["std"] == pytest.approx(1, abs=0.03)
    assert 7.8 < signs["rank"] <= 8
    assert signs["cosine"] == pytest.approx(0, abs=0.02)


def test_signs_do_not_care_about_the_length_of_rows() -> None:
    x = sphere(6, 4)
    scaled = x * torch.tensor([1.0, 10, 0.1, 3, 7, 100], dtype=torch.float64)[:, None]
    assert collapse_signs(scaled) == pytest.approx(collapse_signs(x))


@pytest.mark.parametrize("row", [[1.0, 2.0, -3.0], [0.0, 0.0, 0.0]])
def test_equal_rows_are_flat(row: list[float]) -> None:
    signs = collapse_signs(torch.tensor([row]).repeat(12, 1))
    assert signs["std"] == pytest.approx(0, abs=1e-6)
    assert all(math.isfinite(value) for value in signs.values())


def test_the_mean_cosine_of_equal_rows_is_1() -> None:
    signs = collapse_signs(torch.tensor([[1.0, 2.0, -3.0]]).repeat(12, 1))
    assert signs["cosine"] == pytest.approx(1, abs=1e-6)


def test_a_line_is_spread_but_has_one_direction() -> None:
    along = torch.tensor([1.0, -1.0, 2.0, -2.0])[:, None] * torch.tensor([[1.0, 0, 0, 0]])
    signs = collapse_signs(along)
    # One dimension of four has spread 1: mean 1 / 4, times sqrt(4).
    assert signs["std"] == pytest.approx(0.5, abs=1e-6)
    assert signs["rank"] == pytest.approx(1, abs=1e-4)


def test_signs_of_bfloat16_under_autocast_are_those_of_float32() -> None:
    x = sphere(8, 4).bfloat16()
    expected = collapse_signs(x.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert collapse_signs(x) == pytest.approx(expected, rel=1e-6)


def test_pair_signs_are_mean_distances_of_one_class_and_of_two() -> None:
    x, labels = sphere(7, 3), [0, 1, 0, 2, 1, 0, 3]
    for distance in (Distance(), Distance("squared", normalize=False), Distance("cosine")):
        distances = distance.matrix(x, x).tolist()
        means = []
        for alike in (True, False):
            pair_distances = [
                distances[i][j]
                for i in range(7)
                for j in range(7)
                if i != j and (labels[i] == labels[j]) == alike
            ]
            means.append(sum(pair_distances) / len(pair_distances))
        signs = pair_signs(x, torch.tensor(labels), distance)
        assert [signs["positive"], signs["negative"]] == pytest.approx(means)


def test_the_gap_is_in_deviations_and_the_nearest_are_counted_by_hand() -> None:
    # On a line: classes 0, 0, 1, 1, 2 at 0, 1, 3, 9, 10, so that of 4 rows with a positive only the
    # first has it nearest: 1 (0 and 3 at 1 and 2: right too), 3 has 1 nearest, 9 has 10.
    x = torch.tensor([[0.0], [1.0], [3.0], [9.0], [10.0]])
    labels = torch.tensor([0, 0, 1, 1, 2])
    line = Distance("euclidean", normalize=False)
    signs = pair_signs(x, labels, line)
    assert signs["nearest"] == pytest.approx(2 / 4)
    same, other = [1.0, 6.0], [3.0, 9, 10, 2, 8, 9, 7, 1]
    deviation = math.sqrt((np.var(same) + np.var(other)) / 2)
    assert signs["gap"] == pytest.approx((np.mean(other) - np.mean(same)) / deviation)
    moved = pair_signs(x * 0.01 + 5, labels, line)  # nearer to each other, as in a collapse
    assert moved["gap"] == pytest.approx(signs["gap"], rel=1e-3)


def test_two_views_of_an_image_are_its_class() -> None:
    first, second = sphere(6, 4), sphere(6, 4) + 0.3 * sphere(6, 4).flip(0)
    signs = view_signs(first, second)
    of_pairs = pair_signs(torch.cat([first, second]), torch.arange(6).repeat(2), Distance("cosine"))
    assert signs == {name: of_pairs[name] for name in ("gap", "nearest")}
    assert view_signs(first, first)["nearest"] == 1
    assert view_signs(first, first.roll(1, 0))["nearest"] == 0


def test_equal_rows_have_no_gap_and_are_nearest_to_nobody() -> None:
    signs = pair_signs(torch.ones(6, 3), torch.tensor([0, 0, 1, 1, 2, 2]), Distance())
    assert (signs["gap"], signs["nearest"]) == (0, 0)


def test_pair_signs_without_a_pair_are_0() -> None:
    x = torch.eye(3)
    assert pair_signs(x, torch.tensor([0, 1, 2]), Distance())["positive"] == 0
    assert pair_signs(x, torch.tensor([0, 0, 0]), Distance())["negative"] == 0


@pytest.mark.parametrize("distance", [Distance(), Distance("cosine"), Distance("squared")])
def test_classes_that_are_points_are_far_apart(distance: Distance) -> None:
    points, labels = torch.eye(3).repeat_interleave(3, 0), torch.arange(3).repeat_interleave(3)
    signs = pair_signs(points, labels, distance)
    assert signs["gap"] == LARGEST_GAP
    assert signs["nearest"] == 1
    mixed = pair_signs(points, torch.arange(3).repeat(3), distance)
    assert mixed["gap"] < 0


def test_a_gap_needs_pairs_of_one_class_and_of_two() -> None:
    assert pair_signs(torch.eye(3), torch.tensor([0, 1, 2]), Distance())["gap"] == 0
    assert pair_signs(torch.eye(3), torch.tensor([0, 0, 0]), Distance())["gap"] == 0


@pytest.mark.parametrize("d", [1, 2, 128])
def test_one_row_has_finite_signs(d: int) -> None:
    signs = collapse_signs(torch.ones(1, d))
    assert signs == pytest.approx({"std": 0, "rank": 1, "cosine": 0})
    pairs = pair_signs(torch.ones(1, d), torch.tensor([0]), Distance())
    assert all(math.isfinite(value) for value in pairs.values())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_rows_that_are_not_finite_are_counted_in_an_error(value: float) -> None:
    x = sphere(6, 4)
    x[2, 1] = x[4, 0] = value
    said = r"2 of 6 embeddings of the batch are not finite"
    with pytest.raises(UserError, match=said):
        collapse_signs(x)
    with pytest.raises(UserError, match=said):
        pair_signs(x, torch.arange(3).repeat(2), Distance())
    with pytest.raises(UserError, match=r"2 of 12 embeddings"):
        view_signs(sphere(6, 4), x)


def test_of_a_large_batch_1024_images_are_compared() -> None:
    first = sphere(COMPARED_IMAGES + 1, 4)
    signs = view_signs(first[:1024], first[:1024])
    moved = torch.cat([first[:1024], -first[1024:]])
    assert view_signs(first, moved) == signs
    nearer = torch.cat([first[:1023], -first[1023:]])
    assert view_signs(first, nearer) != signs
