"""Retrieval figures against their definitions, with loops, and an example done by hand."""

import math
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from selfsup.evaluate.retrieval import RECALLS, Retrieval, retrieval

Kind = Literal["cosine", "euclidean"]


def similarity(a: Tensor, b: Tensor, kind: Kind) -> float:
    a, b = a.double(), b.double()
    if kind == "euclidean":
        return -float((a - b).norm())
    return float(a @ b) / (float(a.norm()) * float(b.norm()))


def figures_by_definition(
    features: Tensor, labels: list[int], kind: Kind
) -> tuple[dict[int, list[float]], list[float], list[float], int]:
    """Recall at each k, R-precision and MAP@R of queries with a match, and how many have none."""
    recall: dict[int, list[float]] = {k: [] for k in RECALLS}
    r_precision, map_at_r, left_out = [], [], 0
    for i in range(len(labels)):
        others = [j for j in range(len(labels)) if j != i]
        others.sort(key=lambda j: -similarity(features[i], features[j], kind))
        relevant = [labels[j] == labels[i] for j in others]
        r = sum(relevant)
        if r == 0:
            left_out += 1
            continue
        for k in RECALLS:
            recall[k].append(float(any(relevant[:k])))
        r_precision.append(sum(relevant[:r]) / r)
        map_at_r.append(
            sum(sum(relevant[:k]) / k * relevant[k - 1] for k in range(1, r + 1)) / r,
        )
    return recall, r_precision, map_at_r, left_out


def same(found: Retrieval, other: Retrieval) -> bool:
    return (
        all(torch.equal(found.recall[k], other.recall[k]) for k in RECALLS)
        and torch.allclose(found.r_precision, other.r_precision)
        and torch.allclose(found.map_at_r, other.map_at_r)
        and found.left_out == other.left_out
    )


def line(*places: float) -> Tensor:
    """Points on a line, for the euclidean distance."""
    return torch.tensor(places)[:, None]


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.integers(0, 4), min_size=2, max_size=16),
    st.sampled_from(["cosine", "euclidean"]),
)
def test_every_figure_of_every_query_is_as_defined(
    seed: int, labels: list[int], kind: Kind
) -> None:
    if len(set(labels)) == len(labels):
        labels = [*labels, labels[0]]
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(len(labels), 5, generator=g)
    found = retrieval(features, torch.tensor(labels), distance=kind)
    recall, r_precision, map_at_r, left_out = figures_by_definition(features, labels, kind)
    for k in RECALLS:
        assert found.recall[k].float().tolist() == recall[k]
    assert found.r_precision.tolist() == pytest.approx(r_precision)
    assert found.map_at_r.tolist() == pytest.approx(map_at_r)
    assert found.left_out == left_out


def test_recall_is_given_at_1_2_4_and_8() -> None:
    # the one match of the first image is its 3rd nearest; far away, so that it is not a query's
    found = retrieval(line(0, 1, 2, 3, 30), torch.tensor([0, 1, 2, 0, 3]), distance="euclidean")
    first = {k: bool(hit[0]) for k, hit in found.recall.items()}
    assert first == {1: False, 2: False, 4: True, 8: True}


def test_five_images_on_a_line_give_what_a_person_works_out() -> None:
    # A at 0, 1 and 10; B at 3 and 4.4
    features, labels = line(0, 1, 10, 3, 4.4), torch.tensor([0, 0, 0, 1, 1])
    found = retrieval(features, labels, distance="euclidean")
    # neighbours of 0: A B B A; of 1: A B B A; of 10: B B A A; of 3: B A A A; of 4.4: B A A A
    assert found.recall[1].tolist() == [True, True, False, True, True]
    assert found.recall[2].tolist() == [True, True, False, True, True]
    assert found.recall[4].tolist() == [True, True, True, True, True]
    assert found.r_precision.tolist() == [0.5, 0.5, 0.0, 1.0, 1.0]
    assert found.map_at_r.tolist() == [0.5, 0.5, 0.0, 1.0, 1.0]
    assert found.left_out == 0


def test_map_at_r_counts_an_early_match_more_than_a_late_one() -> None:
    early = retrieval(line(0, 1, 2, 9), torch.tensor([0, 0, 1, 0]), distance="euclidean")
    late = retrieval(line(0, 2, 1, 9), torch.tensor([0, 0, 1, 0]), distance="euclidean")
    assert early.r_precision[0] == late.r_precision[0] == 0.5
    assert early.map_at_r[0].item() == pytest.approx(1 / 2)  # (1/1) / 2
    assert late.map_at_r[0].item() == pytest.approx(1 / 4)  # (1/2) / 2


def test_queries_without_a_match_are_left_out_and_counted_but_stay_neighbours() -> None:
    # the lonely image at 1 is nearest to both others
    found = retrieval(line(0, 1, 2.5, 50), torch.tensor([7, 3, 7, 4]), distance="euclidean")
    assert found.left_out == 2
    assert found.recall[1].tolist() == [False, False]
    assert found.recall[2].tolist() == [True, True]


@pytest.mark.parametrize("kind", ["cosine", "euclidean"])
def test_a_query_is_never_its_own_neighbour_also_among_equal_images(kind: Kind) -> None:
    # each image has a twin of the other class: what is nearest is always wrong
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = retrieval(features, torch.tensor([0, 1, 0, 1]), distance=kind)
    assert not found.recall[1].any()
    assert found.r_precision.tolist() == [0.0, 0.0, 0.0, 0.0]


def test_a_twin_of_the_same_class_is_found() -> None:
    features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = retrieval(features, torch.tensor([0, 0, 1, 1]))
    assert found.map_at_r.tolist() == [1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("chunk", [1, 4, 7])
def test_the_chunk_size_does_not_matter(chunk: int) -> None:
    g = torch.Generator().manual_seed(2)
    features, labels = torch.randn(21, 4, generator=g), torch.randint(5, (21,), generator=g)
    assert same(retrieval(features, labels, chunk=chunk), retrieval(features, labels))


def test_cosine_ranks_like_euclidean_on_unit_vectors() -> None:
    g = torch.Generator().manual_seed(3)
    features, labels = torch.randn(20, 4, generator=g), torch.randint(4, (20,), generator=g)
    unit = features / features.norm(dim=1, keepdim=True)
    assert same(retrieval(features, labels), retrieval(unit, labels, distance="euclidean"))


def test_cosine_and_euclidean_differ_where_lengths_differ() -> None:
    features = torch.tensor([[1.0, 0.0], [10.0, 0.0], [0.9, 0.5], [9.0, 5.0]])
    labels = torch.tensor([0, 0, 1, 1])
    assert retrieval(features, labels).recall[1].tolist() == [True] * 4
    assert retrieval(features, labels, distance="euclidean").recall[1].tolist() == [False] * 4


def test_labels_are_compared_as_integers() -> None:
    # float32 cannot tell these two
    labels = torch.tensor([2**24, 2**24 + 1, 2**24, 2**24 + 1])
    found = retrieval(line(0, 0.1, 5, 5.1), labels, distance="euclidean")
    assert not found.recall[1].any()
    assert found.left_out == 0


def test_no_two_images_of_a_class_are_an_error() -> None:
    with pytest.raises(ValueError, match="none of the 3"):
        retrieval(torch.eye(3), torch.tensor([0, 1, 2]))


def test_random_features_have_the_r_precision_of_chance() -> None:
    g = torch.Generator().manual_seed(4)
    features, labels = torch.randn(40, 3, generator=g), torch.arange(40) % 2
    chance = 19 / 39
    found = float(retrieval(features, labels).r_precision.mean())
    assert math.isclose(found, chance, abs_tol=0.1)
