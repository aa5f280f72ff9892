"""Every miner against its definition in loops."""

import math
from collections import Counter
from typing import Literal

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracles import mining as oracle
from torch import Tensor

import selfsup.losses.row_blocks
from selfsup.losses.measures import Distance
from selfsup.losses.relations import Triplets
from selfsup.mining.distances import (
    all_triplets,
    batch_easy_hard,
    batch_hard,
    semi_hard,
    semi_hard_all,
)
from selfsup.mining.multi_similarity import multi_similarity_pairs
from selfsup.mining.sampled import distance_weighted, random_triplets

Kind = Literal["euclidean", "squared", "cosine"]
KINDS: tuple[Kind, ...] = ("euclidean", "squared", "cosine")
DISTANCES = [Distance(kind, unit) for kind in KINDS for unit in (True, False)]


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, list[int], int]:
    n, d = draw(st.integers(1, 9)), draw(st.integers(1, 3))
    labels = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    g = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    x = torch.randn(n, d, generator=g, dtype=torch.float64)
    if draw(st.booleans()):
        x[-1] = x[0]
    return x, labels, draw(st.integers(1, n))


def as_set(triplets: Triplets) -> set[tuple[int, int, int]]:
    a, p, n = (index.tolist() for index in triplets)
    unique = set(zip(a, p, n, strict=True))
    assert len(unique) == len(a)  # none twice
    assert a == sorted(a)
    return unique


@settings(max_examples=60, deadline=None)
@given(batch=batches(), distance=st.sampled_from(DISTANCES), margin=st.sampled_from([0.2, 1.0]))
def test_semi_hard_miners_are_their_definition(
    batch: tuple[Tensor, list[int], int], distance: Distance, margin: float
) -> None:
    x, labels, anchors = batch
    y, loops = torch.tensor(labels), (x.tolist(), labels, distance.kind, distance.normalize)
    if x.shape[1] == 1:  # unit rows of one dimension are at 0 or 2: ties that a rounding decides
        assume(not distance.normalize and distance.kind != "cosine")
    every = semi_hard_all(x, y, distance=distance, margin=margin, anchors=anchors)
    expected = oracle.semi_hard_triplets(*loops, margin, anchors)
    assert as_set(every) == expected
    nearest = semi_hard(x, y, distance=distance, margin=margin, anchors=anchors)
    triplets = as_set(nearest)
    assert triplets <= expected
    by_loops = {(a, p): d for a, p, d in oracle.semi_hard_nearest(*loops, margin, anchors)}
    assert {(a, p) for a, p, _ in triplets} == by_loops.keys()
    distances = oracle.distances(x.tolist(), distance.kind, distance.normalize)
    for a, p, n in triplets:
        assert distances[a][n] == pytest.approx(by_loops[a, p], abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(batch=batches(), distance=st.sampled_from(DISTANCES))
def test_extremes_are_their_definition(
    batch: tuple[Tensor, list[int], int], distance: Distance
) -> None:
    x, labels, anchors = batch
    assume(x.shape[1] > 1)
    y, loops = torch.tensor(labels), (x.tolist(), labels, distance.kind, distance.normalize)
    distances = oracle.distances(x.tolist(), distance.kind, distance.normalize)
    hard = as_set(batch_hard(x, y, distance=distance, anchors=anchors))
    check(hard, oracle.batch_hard(*loops, anchors), distances)
    easy = batch_easy_hard(
        x, y, distance=distance, positive="easiest", negative="semi-hard", anchors=anchors
    )
    expected = [(a, p, n) for a, p, n in oracle.easy_positive(*loops, anchors) if n is not None]
    check(as_set(easy), expected, distances)


def check(
    triplets: set[tuple[int, int, int]],
    expected: list[tuple[int, float, float]],
    distances: list[list[float]],
) -> None:
    """The same anchors, and positives and negatives at the same distances."""
    assert sorted(a for a, _, _ in triplets) == [a for a, _, _ in expected]
    for (a, p, n), (_, near, far) in zip(sorted(triplets), expected, strict=True):
        assert (distances[a][p], distances[a][n]) == pytest.approx((near, far), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(batch=batches(), least=st.sampled_from([1, 2, 32]))
def test_batch_all_lists_every_valid_triplet_once(
    batch: tuple[Tensor, list[int], int], least: int
) -> None:
    _, labels, anchors = batch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selfsup.losses.row_blocks, "BLOCK_SIZE", 1)
        patch.setattr(selfsup.losses.row_blocks, "MIN_ROWS", least)
        triplets = as_set(all_triplets(torch.tensor(labels), anchors=anchors))
    assert triplets == set(oracle.all_triplets(labels, anchors))


@settings(max_examples=60, deadline=None)
@given(batch=batches(), epsilon=st.sampled_from([-0.1, 0.0, 0.1, 3.0]))
def test_multi_similarity_pairs_are_the_papers(
    batch: tuple[Tensor, list[int], int], epsilon: float
) -> None:
    x, labels, anchors = batch
    assume(x.shape[1] > 1)
    pairs = multi_similarity_pairs(x, torch.tensor(labels), epsilon=epsilon, anchors=anchors)
    positives, negatives = oracle.multi_similarity_pairs(x.tolist(), labels, epsilon, anchors)
    assert set(zip(*(i.tolist() for i in pairs[:2]), strict=True)) == positives
    assert set(zip(*(i.tolist() for i in pairs[2:]), strict=True)) == negatives


LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 3])


@pytest.mark.slow
def test_random_triplets_are_uniform_over_what_is_valid() -> None:
    g = torch.Generator().manual_seed(0)
    drawn: Counter[tuple[int, int, int]] = Counter()
    rounds = 3000
    for _ in range(rounds):
        triplets = as_set(random_triplets(LABELS, generator=g))
        assert {a for a, _, _ in triplets} == {0, 1, 2, 4, 5}  # each once
        drawn.update(triplets)
    valid = Counter(a for a, _, _ in oracle.all_triplets(LABELS.tolist()))
    assert drawn.keys() == set(oracle.all_triplets(LABELS.tolist()))
    for (a, _, _), count in drawn.items():
        fraction = 1 / valid[a]
        assert abs(count / rounds - fraction) < 5 * math.sqrt(fraction * (1 - fraction) / rounds)


@pytest.mark.slow
def test_distance_weighted_negatives_are_met_by_the_papers_weights() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(7, 4, generator=g, dtype=torch.float64)
    x[1] = x[0] + 0.05 * x[1]  # nearer than the cutoff
    weights = oracle.distance_weights(x.tolist(), LABELS.tolist(), 0.5)
    drawn: Counter[tuple[int, int]] = Counter()
    rounds, asked = 3000, Counter(a for a, _ in positive_pairs())
    for _ in range(rounds):
        a, p, n = distance_weighted(x, LABELS, generator=g)
        assert list(zip(a.tolist(), p.tolist(), strict=True)) == positive_pairs()
        drawn.update(zip(a.tolist(), n.tolist(), strict=True))
    for i, times in asked.items():
        for j, fraction in enumerate(weights[i]):
            error = math.sqrt(fraction * (1 - fraction) / (rounds * times))
            assert abs(drawn[i, j] / (rounds * times) - fraction) <= 5 * error


def positive_pairs() -> list[tuple[int, int]]:
    labels = LABELS.tolist()
    return [(i, j) for i in range(7) for j in range(7) if i != j and labels[i] == labels[j]]


def test_an_anchor_whose_negatives_are_all_far_draws_among_them_all() -> None:
    x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [-1.0, 0.0], [-1.0, 0.1]])
    a, _, n = distance_weighted(
        x.repeat(9, 1), torch.tensor([0, 0, 1, 1]).repeat(9), generator=torch.Generator()
    )
    assert ((a % 4 < 2) != (n % 4 < 2)).all()
    assert len(n.unique()) > 20


def test_draws_are_a_function_of_the_generator_alone() -> None:
    x = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    seeds = [torch.Generator().manual_seed(s) for s in (1, 1, 2)]
    drawn = [random_triplets(LABELS, generator=g) for g in seeds]
    seeds = [torch.Generator().manual_seed(s) for s in (1, 1, 2)]
    weighted = [distance_weighted(x, LABELS, generator=g) for g in seeds]
    for first, again, other in (drawn, weighted):
        assert all(torch.equal(i, j) for i, j in zip(first, again, strict=True))
        assert not torch.equal(first[2], other[2])


@pytest.mark.parametrize("labels", [[0], [0, 0, 0], [0, 1, 2]])
def test_a_batch_without_triplets_gives_none(labels: list[int]) -> None:
    y, x, d = torch.tensor(labels), torch.eye(3)[: len(labels)], Distance()
    g = torch.Generator()
    for triplets in (
        batch_hard(x, y, distance=d),
        semi_hard(x, y, distance=d, margin=1),
        semi_hard_all(x, y, distance=d, margin=1),
        all_triplets(y),
        random_triplets(y, generator=g),
        distance_weighted(x, y, generator=g),
        multi_similarity_pairs(x, y, epsilon=0.1)[:3],
    ):
        assert [index.tolist() for index in triplets] == [[], [], []]


def test_equal_rows_in_float32_are_no_semi_hard_negatives() -> None:
    x = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    x = torch.cat([x, x, x])  # each row twice more: in its class, and in another
    y = torch.cat([torch.arange(40), torch.arange(40), torch.arange(40) + 100])
    a, p, n = semi_hard(x, y, distance=Distance(), margin=9.0)
    assert (p % 40 == a % 40).all()  # the positive is at 0
    assert (n % 40 != a % 40).all()  # and so is its equal of another class, which is not farther
    none = semi_hard(x, y, distance=Distance(), margin=1e-4)
    assert len(none[0]) == 0
