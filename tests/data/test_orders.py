"""Orders of images: kept ones are torch's, and computed ones are permutations that look drawn."""

import pickle
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from selfsup.core.seeds import generator
from selfsup.data import orders
from selfsup.data.orders import Orders, permuted
from selfsup.data.samplers import ShuffleSampler

LARGE = 100_000_000


def whole(n: int, epoch: int = 0, seed: int = 0) -> list[int]:
    places = np.arange(n, dtype=np.uint64)
    order: list[int] = permuted(places, n, generator(seed, epoch, "shuffle")).tolist()
    return order


def looks_drawn(counts: np.ndarray) -> bool:
    return bool(chisquare(counts).pvalue > 1e-4)


@pytest.mark.parametrize("n", [1000, 100_000])
@pytest.mark.parametrize("epoch", [0, 3])
def test_an_order_that_is_kept_is_the_permutation_of_torch(n: int, epoch: int) -> None:
    expected = torch.randperm(n, generator=generator(7, epoch, "shuffle"))
    assert torch.equal(Orders(n, seed=7)(epoch, 0, n), expected)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 3000), st.integers(0, 10**9))
def test_every_image_has_one_place_in_a_computed_order(n: int, seed: int) -> None:
    assert sorted(whole(n, seed=seed)) == list(range(n))


def test_places_alone_have_the_positions_that_they_have_together() -> None:
    together = whole(1000)
    for first, last in ((0, 1), (17, 40), (999, 1000)):
        places = np.arange(first, last, dtype=np.uint64)
        alone = permuted(places, 1000, generator(0, 0, "shuffle"))
        assert alone.tolist() == together[first:last]


def test_all_orders_of_four_come_equally_often() -> None:
    counts = Counter(tuple(whole(4, epoch)) for epoch in range(4800))
    assert looks_drawn(np.array([counts[order] for order in permutations(range(4))]))


def test_a_hundred_million_images_are_spread_over_places_and_epochs_without_a_pattern() -> None:
    first, later = (Orders(LARGE, seed=0)(epoch, 0, 200_000).numpy() for epoch in (0, 1))
    assert len(np.unique(first)) == len(first)
    assert first.dtype == np.int64
    for figure in (first, first[1:] - first[:-1], later - first):
        assert looks_drawn(np.bincount(figure % LARGE * 500 // LARGE, minlength=500))
    assert looks_drawn(np.bincount(first % 997, minlength=997))


def test_a_computed_order_depends_on_seed_epoch_and_stream_alone() -> None:
    torch.manual_seed(99)
    assert Orders(LARGE, seed=1)(2, 5, 9).tolist() == Orders(LARGE, seed=1)(2, 0, 9)[5:].tolist()
    batches = [Orders(LARGE, seed=s)(e, 0, 50).tolist() for s, e in ((1, 2), (1, 3), (2, 2))]
    batches.append(Orders(LARGE, seed=1, stream="other")(2, 0, 50).tolist())
    assert len({tuple(batch) for batch in batches}) == 4


def test_a_computed_order_is_that_of_older_versions() -> None:
    expected = [71940339, 12940517, 13466038]
    assert Orders(LARGE, seed=0)(0, 0, 3).tolist() == expected


def test_an_epoch_of_more_images_than_are_kept_shows_each_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = ShuffleSampler(40, batch=8, seed=0)(0)
    monkeypatch.setattr(orders, "LARGE", 40)
    assert torch.equal(ShuffleSampler(40, batch=8, seed=0)(0), kept)
    monkeypatch.setattr(orders, "LARGE", 39)
    sampler = ShuffleSampler(40, batch=8, seed=0)
    seen = torch.cat([sampler(step) for step in range(5)])
    assert sorted(seen.tolist()) == list(range(40))
    assert not torch.equal(seen[:8], kept)


def test_at_most_two_orders_are_kept_and_readers_are_sent_none() -> None:
    order = Orders(100, seed=0)
    for epoch in (0, 1, 0, 1, 2, 3):
        order(epoch, 0, 10)
    assert list(order._kept) == [2, 3]
    sent = pickle.loads(pickle.dumps(order))
    assert not sent._kept
    assert torch.equal(sent(3, 0, 10), order(3, 0, 10))
