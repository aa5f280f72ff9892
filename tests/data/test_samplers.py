"""Samplers: batches are functions of seed and step, and an epoch sees what it promises."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from selfsup.core.errors import UserError
from selfsup.data.samplers import PKSampler, ShuffleSampler, UnitSampler, WeightedSampler


def labels_of(sizes: list[int], seed: int = 0) -> Tensor:
    """Class i has sizes[i] images, at mixed positions; classes are called 0, 10, 20..."""
    labels = torch.tensor([10 * c for c, size in enumerate(sizes) for _ in range(size)])
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


SIZES = st.lists(st.integers(1, 9), min_size=2, max_size=8)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 10**9))
def test_an_epoch_shows_no_image_twice_and_leaves_less_than_a_batch_out(
    n: int, batch: int, seed: int
) -> None:
    batch = min(n, batch)
    sampler = ShuffleSampler(n, batch=batch, seed=seed)
    for epoch in range(2):
        first = epoch * sampler.steps_per_epoch
        seen = [sampler(first + i) for i in range(sampler.steps_per_epoch)]
        assert all(len(positions) == batch for positions in seen)
        everything = torch.cat(seen).tolist()
        assert len(set(everything)) == len(everything) > n - batch
        assert set(everything) <= set(range(n))


def test_over_epochs_all_images_are_seen() -> None:
    sampler = ShuffleSampler(11, batch=4, seed=0)
    seen = {int(i) for step in range(16) for i in sampler(step)}
    assert seen == set(range(11))


def test_epochs_have_different_orders_and_so_have_seeds() -> None:
    sampler = ShuffleSampler(20, batch=20, seed=0)
    assert not torch.equal(sampler(0), sampler(1))
    assert not torch.equal(sampler(0), ShuffleSampler(20, batch=20, seed=1)(0))


def test_shuffled_batches_depend_on_seed_and_step_alone() -> None:
    sampler = ShuffleSampler(10, batch=3, seed=5)
    forward = {step: sampler(step).tolist() for step in range(12)}
    torch.manual_seed(99)  # the global generator has no say
    other = ShuffleSampler(10, batch=3, seed=5)
    assert {step: other(step).tolist() for step in reversed(range(12))} == forward
    assert sampler(7).tolist() == forward[7]


def test_a_batch_larger_than_the_data_is_an_error() -> None:
    with pytest.raises(UserError, match="3 images are fewer than the batch of 4"):
        ShuffleSampler(3, batch=4, seed=0)


def usable(sizes: list[int]) -> int:
    return sum(size > 1 for size in sizes)


@settings(max_examples=25, deadline=None)
@given(SIZES, st.integers(2, 4), st.integers(2, 5), st.integers(0, 1000))
def test_a_batch_has_p_classes_of_k_and_repeats_images_only_of_smaller_classes(
    sizes: list[int], p: int, k: int, seed: int
) -> None:
    sizes = [*sizes, 2, 3, 4, 5]
    labels = labels_of(sizes)
    sampler = PKSampler(labels, p=p, k=k, seed=seed)
    for step in range(sampler.steps_per_epoch + 2):
        groups = sampler(step).view(p, k).tolist()
        classes = []
        for group in groups:
            own = {int(labels[i]) for i in group}
            assert len(own) == 1  # a class's images are adjacent
            classes.append(own.pop())
            assert len(set(group)) == min(k, sizes[classes[-1] // 10])
        assert len(set(classes)) == p


@settings(max_examples=25, deadline=None)
@given(SIZES, st.integers(2, 4), st.integers(2, 5), st.integers(0, 1000))
def test_every_image_of_a_class_of_two_or_more_is_seen_within_an_epoch(
    sizes: list[int], p: int, k: int, seed: int
) -> None:
    sizes = [*sizes, 2, 2, 3, 5]
    labels = labels_of(sizes)
    sampler = PKSampler(labels, p=p, k=k, seed=seed)
    wanted = {i for i, label in enumerate(labels.tolist()) if sizes[label // 10] > 1}
    for epoch in range(2):
        first = epoch * sampler.steps_per_epoch
        seen = torch.cat([sampler(first + i) for i in range(sampler.steps_per_epoch)])
        assert set(seen.tolist()) == wanted


def test_a_large_class_is_seen_whole_beside_classes_smaller_than_k() -> None:
    # 8 + 3 + 3 images in groups of 4: four groups, two batches of two
    for seed in range(10):
        sampler = PKSampler(labels_of([8, 3, 3]), p=2, k=4, seed=seed)
        assert sampler.steps_per_epoch == 2
        assert set(torch.cat([sampler(0), sampler(1)]).tolist()) == set(range(14))


def test_an_epoch_is_no_longer_than_the_groups_need() -> None:
    assert PKSampler(labels_of([4, 4, 4, 4]), p=2, k=2, seed=0).steps_per_epoch == 4
    assert PKSampler(labels_of([20, 2, 2]), p=2, k=2, seed=0).steps_per_epoch == 10


def test_classes_of_one_image_are_left_out_and_listed() -> None:
    labels = labels_of([1, 3, 1, 4])
    sampler = PKSampler(labels, p=2, k=2, seed=0)
    assert sampler.singles == [0, 20]
    seen = torch.cat([sampler(step) for step in range(8)])
    assert set(labels[seen].tolist()) == {10, 30}


def test_class_batches_depend_on_seed_and_step_alone() -> None:
    labels = labels_of([5, 3, 7, 2])
    sampler = PKSampler(labels, p=2, k=3, seed=5)
    steps = range(3 * sampler.steps_per_epoch)
    forward = {step: sampler(step).tolist() for step in steps}
    torch.manual_seed(99)
    other = PKSampler(labels, p=2, k=3, seed=5)
    assert {step: other(step).tolist() for step in reversed(steps)} == forward
    assert sampler(1).tolist() == forward[1]
    different = PKSampler(labels, p=2, k=3, seed=6)
    assert [different(step).tolist() for step in steps] != list(forward.values())


def test_too_few_classes_are_told_with_the_largest_that_fits() -> None:
    with pytest.raises(UserError, match=r"3 of 4 classes .* 5 needs 5; .* --classes 3 --images 2"):
        PKSampler(labels_of([2, 2, 1, 3]), p=5, k=2, seed=0)


@pytest.mark.parametrize(
    ("sizes", "message"), [([6], "all labels are the same"), ([6, 1, 1], "1 of 3 classes")]
)
def test_one_class_to_rank_is_an_error(sizes: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        PKSampler(labels_of(sizes), p=2, k=2, seed=0)


@pytest.mark.parametrize(("p", "k"), [(1, 4), (4, 1)])
def test_a_batch_without_a_pair_or_a_negative_is_an_error(p: int, k: int) -> None:
    with pytest.raises(UserError, match=f"not {p} x {k}"):
        PKSampler(labels_of([4, 4]), p=p, k=k, seed=0)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(20, 90), st.floats(0.2, 5)), min_size=1, max_size=4),
    st.integers(20, 40),
    st.integers(0, 100),
)
def test_each_part_has_its_share_of_batches_to_two_images_and_of_a_run_to_one(
    parts: list[tuple[int, float]], batch: int, seed: int
) -> None:
    sizes, weights = [size for size, _ in parts], [weight for _, weight in parts]
    fractions = torch.tensor(weights) / sum(weights)
    if (batch * fractions < 2.01).any() or (batch * fractions > torch.tensor(sizes) - 2.01).any():
        return
    sampler = WeightedSampler(sizes, weights, batch=batch, seed=seed)
    edges = torch.tensor([0, *sizes]).cumsum(0)
    total = torch.zeros(len(sizes))
    for step in range(5):
        positions = sampler(step)
        assert len(positions.unique()) == batch
        part = torch.bucketize(positions, edges[1:], right=True)
        counts = part.bincount(minlength=len(sizes))
        assert (counts - fractions * batch).abs().max() <= 2.01
        total += counts
    assert (total - fractions * batch * 5).abs().max() <= 1.01


def test_no_image_of_a_part_comes_again_before_it_begins_anew() -> None:
    sampler = WeightedSampler([11, 90], [1, 3], batch=16, seed=0)  # four of the first a batch
    first = [sampler(step) for step in range(40)]
    turns = [torch.cat(first[i : i + 2]) for i in range(0, 40, 2)]
    turns = [turn[turn < 11] for turn in turns]
    assert all(len(turn) == len(turn.unique()) == 8 for turn in turns)
    assert set(torch.cat(turns).tolist()) == set(range(11))


def test_weighted_batches_depend_on_seed_and_step_alone() -> None:
    sampler = WeightedSampler([6, 50], [1, 2], batch=8, seed=2)
    later = WeightedSampler([6, 50], [1, 2], batch=8, seed=2)(7)
    assert torch.equal(torch.stack([sampler(step) for step in range(8)])[7], later)
    assert not torch.equal(later, WeightedSampler([6, 50], [1, 2], batch=8, seed=3)(7))


def test_a_share_of_less_than_an_image_is_an_error() -> None:
    with pytest.raises(UserError, match=r"5 images with a fraction of 0\.0099 are less than two"):
        WeightedSampler([5, 9], [1, 100], batch=64, seed=0)


@pytest.mark.parametrize("size", [0, 1, 5])
def test_a_part_smaller_than_its_share_is_an_error(size: int) -> None:
    with pytest.raises(UserError, match=f"{size} images are too few for 4 in a batch of 8"):
        WeightedSampler([size, 90], [1, 1], batch=8, seed=0)


def test_a_unit_shows_one_of_its_images_each_epoch_and_each_in_time() -> None:
    units = [[0, 4, 5], [1], [2], [3]]
    sampler = UnitSampler(ShuffleSampler(4, batch=2, seed=0), units, seed=0)
    assert sampler.steps_per_epoch == 2
    seen = [set(torch.cat([sampler(2 * e), sampler(2 * e + 1)]).tolist()) for e in range(40)]
    assert all(len(positions & {0, 4, 5}) == 1 for positions in seen)
    assert all({1, 2, 3} <= positions for positions in seen)
    assert set.union(*seen) == set(range(6))
