"""Masks: how many views and patches they hide, in which shapes, from which random numbers."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from selfsup.augment.masks import Grid, block_masks, patch_orders, view_masks
from selfsup.core.seeds import generator

FRACTION = (0.1, 0.5)


def drawn(n: int, grid: Grid, *, masked: float = 0.5, seed: int = 0) -> Tensor:
    g = generator(seed, 3, "masks")
    return view_masks((n, 2), grid, g, masked=masked, fraction=FRACTION)


@given(st.integers(1, 9), st.integers(2, 9), st.integers(2, 9), st.integers(0, 99))
def test_half_of_the_views_are_masked_by_a_tenth_to_half_of_their_patches(
    n: int, rows: int, columns: int, seed: int
) -> None:
    masks = drawn(n, Grid(rows, columns), seed=seed).flatten(0, 1)
    counts = masks.sum(1)
    assert int((counts > 0).sum()) == n
    smallest = max(1, int(0.1 * rows * columns))
    assert all(smallest <= count <= rows * columns // 2 for count in counts[counts > 0].tolist())


@given(st.lists(st.integers(0, 30), min_size=1, max_size=6), st.integers(0, 99))
def test_a_view_has_exactly_the_number_of_masked_patches_that_it_was_to_have(
    counts: list[int], seed: int
) -> None:
    masks = block_masks(torch.tensor(counts), Grid(6, 5), generator(seed, 0, "masks"))
    assert masks.shape == (len(counts), 30)
    assert masks.sum(1).tolist() == counts


def test_the_fraction_of_masked_patches_is_uniform() -> None:
    fractions = drawn(4000, Grid(14, 14)).flatten(0, 1).float().mean(1)
    fractions = fractions[fractions > 0]
    assert fractions.mean().item() == pytest.approx(0.3, abs=0.01)
    assert fractions.std().item() == pytest.approx(0.4 / math.sqrt(12), abs=0.005)
    assert fractions.min().item() == pytest.approx(0.1, abs=0.01)
    assert fractions.max().item() == pytest.approx(0.5, abs=0.01)


def test_masked_patches_lie_in_blocks() -> None:
    masks = drawn(500, Grid(14, 14)).flatten(0, 1)
    masks = masks[masks.any(1)].view(-1, 14, 14)
    inner = masks[:, :, :-1]
    beside = (inner & masks[:, :, 1:]).sum() / inner.sum()
    assert float(beside) > 0.7  # of single patches with the same numbers it would be 0.3


def test_no_place_is_masked_more_than_blocks_of_a_uniform_place_mask_it() -> None:
    often = drawn(4000, Grid(8, 8)).flatten(0, 1).float().mean(0).view(8, 8)
    for turned in (often.flip(0), often.flip(1), often.T):
        torch.testing.assert_close(often, turned, rtol=0, atol=0.02)
    assert often.mean().item() == pytest.approx(0.15, abs=0.01)


@pytest.mark.parametrize(("masked", "views"), [(0.01, 1), (0.25, 5), (1.0, 20)])
def test_the_fraction_of_masked_views_is_exact_and_at_least_one(masked: float, views: int) -> None:
    masks = drawn(10, Grid(4, 4), masked=masked)
    assert int(masks.flatten(0, 1).any(1).sum()) == views


def test_another_seed_or_step_gives_other_masks_and_the_same_one_the_same() -> None:
    assert torch.equal(drawn(8, Grid(4, 4)), drawn(8, Grid(4, 4)))
    assert not torch.equal(drawn(8, Grid(4, 4)), drawn(8, Grid(4, 4), seed=1))


def test_each_image_has_its_own_order_of_all_patches() -> None:
    orders = patch_orders(300, 16, generator(0, 0, "masks"))
    assert torch.equal(orders.sort(1).values, torch.arange(16).expand(300, 16))
    assert len(orders.unique(dim=0)) == 300
    assert orders[:, :4].double().mean().item() == pytest.approx(7.5, abs=0.4)
