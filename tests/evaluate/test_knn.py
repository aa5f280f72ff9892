"""Weighted k-NN against the definition, one query and one neighbour at a time."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.evaluation import knn_votes as oracle_votes
from torch import Tensor

from selfsup.core.numerics import normalize
from selfsup.evaluate.votes import PROTOCOLS, Vote, few_shot, knn_predict, knn_votes
from selfsup.search.neighbours import nearest
from selfsup.search.products import products


def votes_by_definition(
    bank: Tensor, labels: Tensor, query: Tensor, k: int, temperature: float, skip: int = -1
) -> dict[int, float]:
    """The sum of exp(cosine / T) that each class gets from the k nearest rows, but for `skip`."""
    near = []
    for i, row in enumerate(bank.double()):
        if i != skip:
            q = query.double()
            near.append((float(row @ q) / (float(row.norm()) * float(q.norm())), int(labels[i])))
    near.sort(reverse=True)
    votes: dict[int, float] = {}
    for cosine, label in near[:k]:
        votes[label] = votes.get(label, 0.0) + math.exp(cosine / temperature)
    return votes


def data(seed: int, n: int, classes: int = 3) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    scale = torch.rand(n, 1, generator=g) * 5 + 0.1  # lengths must not matter
    return torch.randn(n, 6, generator=g) * scale, torch.randint(classes, (n,), generator=g)


def at(degrees: float) -> list[float]:
    return [math.cos(math.radians(degrees)), math.sin(math.radians(degrees))]


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(2, 15), st.integers(1, 20), st.sampled_from([0.07, 0.1, 1.0])
)
def test_queries_get_the_class_with_the_largest_sum_of_weights(
    seed: int, n: int, k: int, temperature: float
) -> None:
    bank, labels = data(seed, n)
    queries, _ = data(seed + 1, 5)
    predictions = knn_predict(bank, labels, queries, k=k, temperature=temperature)
    for query, label in zip(queries, predictions.tolist(), strict=True):
        votes = votes_by_definition(bank, labels, query, k, temperature)
        assert votes[label] == pytest.approx(max(votes.values()), rel=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 12), st.integers(1, 20), st.sampled_from([0.1, 1.0]))
def test_without_queries_each_row_is_classified_by_all_the_others(
    seed: int, n: int, k: int, temperature: float
) -> None:
    bank, labels = data(seed, n)
    predictions = knn_predict(bank, labels, k=k, temperature=temperature)
    for i in range(n):
        votes = votes_by_definition(bank, labels, bank[i], k, temperature, skip=i)
        assert votes[int(predictions[i])] == pytest.approx(max(votes.values()), rel=1e-4)


def test_a_near_neighbour_outweighs_two_far_ones_only_when_the_temperature_is_low() -> None:
    bank = torch.tensor([at(5), at(50), at(52)])
    labels = torch.tensor([0, 1, 1])
    query = torch.tensor([at(0)])
    assert knn_predict(bank, labels, query, k=3, temperature=0.1).tolist() == [0]
    assert knn_predict(bank, labels, query, k=3, temperature=10.0).tolist() == [1]


def test_only_k_neighbours_vote() -> None:
    bank = torch.tensor([at(5), at(20), at(20)])
    labels = torch.tensor([0, 1, 1])
    query = torch.tensor([at(0)])
    predictions = [int(knn_predict(bank, labels, query, k=k, temperature=1.0)) for k in (1, 2, 3)]
    assert predictions == [0, 0, 1]


def test_the_direction_of_a_feature_counts_and_not_its_length() -> None:
    bank = torch.tensor([[0.01, 0.0], [60.0, 80.0]])
    predictions = knn_predict(
        bank, torch.tensor([4, 9]), torch.tensor([[9.0, 1.0]]), k=1, temperature=1
    )
    assert predictions.tolist() == [4]


def test_k_larger_than_the_bank_is_the_whole_bank() -> None:
    bank, labels = data(3, 9)
    queries, _ = data(4, 6)
    whole = knn_predict(bank, labels, queries, k=9, temperature=0.1)
    assert torch.equal(knn_predict(bank, labels, queries, k=200, temperature=0.1), whole)
    others = knn_predict(bank, labels, k=8, temperature=0.1)
    assert torch.equal(knn_predict(bank, labels, k=200, temperature=0.1), others)


def test_a_row_does_not_vote_for_itself() -> None:
    # each row is nearest to one of the other class, and to itself if it were let
    bank = torch.tensor([at(0), at(1), at(90), at(91)])
    predictions = knn_predict(bank, torch.tensor([0, 1, 0, 1]), k=1, temperature=0.1)
    assert predictions.tolist() == [1, 0, 1, 0]


def test_equal_rows_are_neighbours_of_each_other() -> None:
    bank = torch.tensor([at(0), at(0), at(90), at(90)])
    assert knn_predict(bank, torch.tensor([5, 7, 8, 8]), k=1, temperature=0.1).tolist() == [
        7,
        5,
        8,
        8,
    ]


@pytest.mark.parametrize("labels", [[3, 8], [8, 3]])
def test_of_classes_with_equal_sums_the_smaller_label_wins(labels: list[int]) -> None:
    bank = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    query = torch.tensor([[1.0, 0.0]])
    assert knn_predict(bank, torch.tensor(labels), query, k=2, temperature=0.1).tolist() == [3]


def test_predictions_are_labels_of_the_bank_whatever_their_values() -> None:
    # float32 cannot tell 2**24 from 2**24 + 1
    bank = torch.tensor([at(0), at(40), at(80)])
    labels = torch.tensor([2**24 + 1, 2**24, -5])
    predictions = knn_predict(
        bank, labels, torch.tensor([at(2), at(41), at(79)]), k=1, temperature=0.1
    )
    assert predictions.dtype == torch.int64
    assert torch.equal(predictions, labels)


def test_a_bank_of_one_class_gives_that_class() -> None:
    bank, _ = data(5, 7)
    ones = torch.full((7,), 6)
    assert torch.equal(knn_predict(bank, ones, k=3, temperature=0.1), ones)


def test_a_low_temperature_does_not_overflow() -> None:
    # exp(1 / 0.001) is infinite in float32
    bank = torch.tensor([at(0), at(10), at(10)])
    predictions = knn_predict(
        bank, torch.tensor([0, 1, 1]), torch.tensor([at(0.5)]), k=3, temperature=1e-3
    )
    assert predictions.tolist() == [0]


@pytest.mark.parametrize("memory", [1, 3000, 1 << 20])
def test_the_memory_does_not_matter(form: str, memory: int) -> None:
    bank, labels = data(6, 20)
    for queries in (None, data(7, 11)[0]):
        whole = knn_predict(bank, labels, queries, k=5, temperature=0.1)
        predictions = knn_predict(bank, labels, queries, k=5, temperature=0.1, memory=memory)
        assert torch.equal(predictions, whole)


@pytest.mark.parametrize("k", [1, 5, 19])
def test_a_part_of_the_bank_is_classified_as_in_the_whole(form: str, k: int) -> None:
    bank, labels = data(6, 20)
    bank[[3, 8, 15]] = bank[4].clone()  # rows that tie for the last place
    whole = knn_predict(bank, labels, k=k, temperature=0.1)
    for rows in (slice(0, 7), slice(7, 20), slice(19, 20), slice(5, 5)):
        part = knn_predict(bank, labels, k=k, temperature=0.1, rows=rows)
        assert torch.equal(part, whole[rows])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_vote_is_as_defined_also_where_rows_share_the_last_place(data: Any) -> None:
    seed, n, k = (data.draw(st.integers(*r)) for r in ((0, 10**6), (1, 25), (1, 30)))
    alone = data.draw(st.booleans()) and n > 1
    g = torch.Generator().manual_seed(seed)
    bank = torch.randint(-1, 2, (n, 2), generator=g).float()
    labels = torch.randint(4, (n,), generator=g) + 2**25
    queries = bank if alone else torch.randint(-1, 2, (9, 2), generator=g).float()
    votes = [Vote(k, 0.1), Vote(1, 1.0), Vote(k + 3, 0.07)]
    predictions = knn_votes(bank, labels, None if alone else queries, votes=votes)
    similar = products(normalize(queries), normalize(bank)).tolist()
    for vote, of_vote in zip(votes, predictions, strict=True):
        for i, predicted in enumerate(of_vote.tolist()):
            met = [j for j in range(n) if not (alone and i == j)]
            theirs = oracle_votes(
                [similar[i][j] for j in met], [int(labels[j]) for j in met], *vote
            )
            assert theirs.get(predicted, 0.0) == pytest.approx(max(theirs.values()), rel=1e-5)


def test_rows_that_share_the_last_place_share_its_vote() -> None:
    # one place for two rows of class 1 and one of class 0, all as near
    bank, query = torch.tensor([[1.0, 0.0]] * 3), torch.tensor([[1.0, 0.0]])
    for labels in ([0, 1, 1], [1, 0, 1], [1, 1, 0]):
        assert knn_predict(bank, torch.tensor(labels), query, k=1, temperature=0.1).tolist() == [1]


@pytest.mark.parametrize(("name", "count"), [("lightly", 1), ("moco", 1), ("dino", 4)])
def test_protocols_have_their_projects_votes(name: str, count: int) -> None:
    assert len(PROTOCOLS[name]) == count
    expected = {"lightly": (200, 0.1), "moco": (200, 0.1), "dino": (10, 0.07)}
    assert PROTOCOLS[name][0] == expected[name]


def test_few_shots_take_that_many_of_each_class_anew_each_time() -> None:
    bank = torch.tensor([at(degrees) for degrees in range(40)])
    labels = torch.arange(40) // 20
    queries = torch.tensor([at(0), at(39)])
    options: dict[str, Any] = {"draws": 6, "vote": Vote(1, 0.1), "seed": 0}
    predictions = few_shot(bank, labels, queries, shots=1, **options)
    assert predictions.tolist() == [[0, 1]] * 6
    between = torch.tensor([at(19.4)])
    drawn = few_shot(bank, labels, between, shots=1, **options)[:, 0].tolist()
    assert set(drawn) == {0, 1}  # which images are drawn decides
    assert few_shot(bank, labels, between, shots=1, **options)[:, 0].tolist() == drawn
    assert few_shot(bank, labels, between, shots=20, **options).tolist() == [[0]] * 6
    little = few_shot(bank, labels, between, shots=1, memory=1, **options)[:, 0].tolist()
    assert little == drawn
    with pytest.raises(ValueError, match="21 shots: class 0 has 20 images"):
        few_shot(bank, labels, queries, shots=21, **options)


def test_the_order_of_the_bank_does_not_matter() -> None:
    bank, labels = data(8, 20)
    queries, _ = data(9, 11)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    predictions = knn_predict(bank[order], labels[order], queries, k=5, temperature=0.1)
    assert torch.equal(predictions, knn_predict(bank, labels, queries, k=5, temperature=0.1))


@pytest.mark.parametrize(("n", "queries"), [(0, torch.ones(1, 2)), (1, None), (0, None)])
def test_a_bank_without_neighbours_is_an_error(n: int, queries: Tensor | None) -> None:
    with pytest.raises(ValueError, match="too few"):
        knn_predict(
            torch.ones(n, 2), torch.zeros(n, dtype=torch.int64), queries, k=1, temperature=1
        )


def test_few_shots_search_within_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[int] = []

    def watched(*args: Any, memory: int, **more: Any) -> Any:
        given.append(memory)
        return nearest(*args, memory=memory, **more)

    monkeypatch.setattr("selfsup.evaluate.votes.nearest", watched)
    bank, labels = data(1, 12)
    vote = Vote(1, 0.1)
    few_shot(bank, labels, bank, shots=1, draws=2, vote=vote, seed=0, memory=12345)
    assert given == [12345, 12345]


@pytest.mark.parametrize("seed", range(6))
def test_the_order_of_the_bank_changes_no_vote(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    n, d, c = [(30, 2, 3), (200, 3, 5), (300, 6, 4)][seed % 3]
    bank = torch.randint(-2, 3, (n, d), generator=g).float()  # many equal cosines
    labels = torch.randint(0, c, (n,), generator=g)
    queries = torch.randint(-2, 3, (100, d), generator=g).float()
    votes = [Vote(k, t) for k in (1, 2, 3, 5, 20, 50) for t in (0.07, 0.1, 1.0)]
    expected = knn_votes(bank, labels, queries, votes=votes)
    among = knn_votes(bank, labels, votes=votes)
    for _ in range(3):
        order = torch.randperm(n, generator=g)
        again = knn_votes(bank[order], labels[order], queries, votes=votes)
        assert torch.equal(again, expected)
        assert torch.equal(knn_votes(bank[order], labels[order], votes=votes), among[:, order])


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_the_scale_of_features_changes_no_vote(scale: float) -> None:
    g = torch.Generator().manual_seed(0)
    bank, queries = torch.randn(40, 5, generator=g), torch.randn(20, 5, generator=g)
    labels = torch.arange(40) % 3
    votes = [Vote(5, 0.1)]
    expected = knn_votes(bank, labels, queries, votes=votes)
    assert torch.equal(knn_votes(bank * scale, labels, queries * scale, votes=votes), expected)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16, torch.uint16, torch.float32])
def test_labels_of_a_vote_may_be_of_any_type(kind: torch.dtype) -> None:
    bank, labels = torch.eye(3), torch.tensor([7, 8, 9])
    assert knn_predict(bank, labels.to(kind), bank, k=1, temperature=0.1).tolist() == [7, 8, 9]
