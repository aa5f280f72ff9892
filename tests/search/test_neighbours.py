"""The nearest rows against sorting everything, in both forms, with ties and in any blocks."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from selfsup.core import compiled
from selfsup.core.errors import UserError
from selfsup.search.neighbours import _from_keys, _keys, chunked_search, nearest
from selfsup.search.products import comparable, parse_bytes, products

SAME_FORM = [HealthCheck.function_scoped_fixture]


def whole_numbers(*shape: int, seed: int) -> Tensor:
    """Products of these are exact, and many are equal."""
    g = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, shape, generator=g).float()


def search(queries: Tensor, bank: Tensor, k: int, **more: Any) -> tuple[Tensor, Tensor]:
    blocks = list(nearest(queries, bank, k, **more))
    covered = [i for block in blocks for i in range(block.rows.start, block.rows.stop)]
    assert covered == list(range(len(queries)))
    return torch.cat([b.similarity for b in blocks]), torch.cat([b.indices for b in blocks])


@settings(max_examples=30, deadline=None, suppress_health_check=SAME_FORM)
@given(st.integers(0, 10**6), st.integers(1, 60), st.integers(1, 12), st.integers(1, 70))
def test_similarities_are_the_k_largest_in_order_and_places_have_them(
    form: str, seed: int, n: int, q: int, k: int
) -> None:
    bank, queries = whole_numbers(n, 3, seed=seed), whole_numbers(q, 3, seed=seed + 1)
    similarity, indices = search(queries, bank, k)
    every = queries @ bank.T
    assert torch.equal(similarity, every.sort(dim=1, descending=True).values[:, :k])
    assert torch.equal(every.gather(1, indices), similarity)
    assert all(len(set(row)) == len(row) for row in indices.tolist())


@pytest.mark.parametrize("k", [1, 20, 300, 4999, 9000])
def test_large_banks_give_the_same_in_any_memory(form: str, k: int) -> None:
    bank, queries = whole_numbers(5000, 4, seed=0), whole_numbers(9, 4, seed=1)
    every = (queries @ bank.T).sort(dim=1, descending=True).values[:, :k]
    for memory in (1, 1 << 20, 1 << 30):
        similarity, indices = search(queries, bank, k, memory=memory)
        assert torch.equal(similarity, every)
        assert torch.equal((queries @ bank.T).gather(1, indices), similarity)


def in_order(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Sort every product: the largest first, equal ones by their row."""
    similarity, indices = (queries @ bank.T).sort(dim=1, descending=True, stable=True)
    return similarity[:, :k], indices[:, :k]


@pytest.mark.parametrize("block", [1, 7, 2048, 4999])
def test_a_bank_in_blocks_gives_the_same(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr("selfsup.search.neighbours.BANK_BLOCK", block)
    bank, queries = whole_numbers(5000 if block > 7 else 30, 4, seed=0), whole_numbers(9, 4, seed=1)
    (neighbours,) = chunked_search(queries, bank, 20, 1 << 30)
    similarity, indices = in_order(queries, bank, 20)
    assert torch.equal(neighbours.similarity, similarity)
    assert torch.equal(neighbours.indices, indices)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 200),
    st.integers(1, 12),
    st.integers(1, 60),
    st.sampled_from([1, 3, 16, 1 << 16]),
)
def test_the_forms_of_each_device_give_the_same_neighbours_also_with_ties(
    seed: int, n: int, q: int, k: int, block: int
) -> None:
    """Products of whole numbers are exact, so that nothing but the order of ties could differ."""
    pytest.importorskip("numba")
    from selfsup.search.bounded import bounded_search

    bank, queries, k = whole_numbers(n, 2, seed=seed), whole_numbers(q, 2, seed=seed + 1), min(k, n)
    similarity, indices = in_order(queries, bank, k)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("selfsup.search.neighbours.BANK_BLOCK", block)
        forms = [
            list(chunked_search(queries, bank, k, 1)),
            list(bounded_search(queries, bank, k, 1 << 30)),
        ]
    for blocks in forms:
        assert torch.equal(torch.cat([b.similarity for b in blocks]), similarity)
        assert torch.equal(torch.cat([b.indices for b in blocks]), indices)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 80), st.integers(1, 100))
def test_the_forms_of_each_device_agree_alone_and_when_k_exceeds_the_bank(
    seed: int, n: int, k: int
) -> None:
    bank, results = whole_numbers(n, 2, seed=seed), []
    for available in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compiled, "available", lambda a=available: a)
            results.append(search(bank, bank, k, exclude_self=True))
    assert results[0][1].shape == (n, min(k, n - 1))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=30))
def test_keys_are_in_the_order_of_similarities_and_give_them_back(numbers: list[float]) -> None:
    similarity = torch.tensor([numbers])
    order = similarity.sort(dim=1, descending=True, stable=True).indices
    keys = _keys(similarity, 5).sort(dim=1, descending=True).values
    back, rows = _from_keys(keys)
    assert torch.equal(rows, order + 5)
    assert torch.equal(back, similarity.gather(1, order))


def test_equal_similarities_come_by_place(form: str) -> None:
    bank = torch.tensor([[1.0, 0], [0, 1], [1, 0], [1, 0], [0, 1]])
    _, indices = search(torch.tensor([[1.0, 0]]), bank, 5)
    assert indices.tolist() == [[0, 2, 3, 1, 4]]


def test_a_bank_in_the_order_of_its_classes_hides_no_neighbour(form: str) -> None:
    # a threshold from the first rows would be too high for all others
    g = torch.Generator().manual_seed(0)
    centres = torch.randn(10, 8, generator=g)
    bank = torch.cat([centre + 0.1 * torch.randn(700, 8, generator=g) for centre in centres])
    queries = centres + 0.1 * torch.randn(10, 8, generator=g)
    similarity, _ = search(queries, bank, 200)
    every = (queries @ bank.T).sort(dim=1, descending=True).values[:, :200]
    torch.testing.assert_close(similarity, every, rtol=1e-5, atol=1e-5)


def test_a_sample_that_promises_too_much_does_not_lose_neighbours(form: str) -> None:
    # every row of the sample is near the query, all others are far
    bank = torch.zeros(8192, 2)
    bank[:: 8192 // 1024] = torch.tensor([1.0, 0.0])
    similarity, _ = search(torch.tensor([[1.0, 0.0]]), bank, 2000)
    assert similarity.sum() == 1024


@pytest.mark.parametrize("twins", [False, True])
def test_alone_a_row_is_not_its_own_neighbour(form: str, twins: bool) -> None:
    bank = whole_numbers(40, 2 if twins else 40, seed=3) + (0 if twins else 5 * torch.eye(40))
    similarity, indices = search(bank, bank, 7, exclude_self=True)
    assert not (indices == torch.arange(40)[:, None]).any()
    every = (bank @ bank.T).fill_diagonal_(-torch.inf)
    assert torch.equal(similarity, every.sort(dim=1, descending=True).values[:, :7])


def test_k_is_clipped_to_what_there_is(form: str) -> None:
    bank = torch.eye(4)
    assert search(bank, bank, 9)[1].shape == (4, 4)
    assert search(bank, bank, 9, exclude_self=True)[1].shape == (4, 3)


def test_too_small_a_bank_is_an_error(form: str) -> None:
    with pytest.raises(ValueError, match="1 images are too few"):
        list(nearest(torch.ones(1, 2), torch.ones(1, 2), 1, exclude_self=True))


def test_euclidean_ranks_by_distance_wherever_the_rows_lie(form: str) -> None:
    g = torch.Generator().manual_seed(5)
    bank, queries = torch.randn(300, 4, generator=g), torch.randn(20, 4, generator=g)
    for shift in (0.0, 1000.0):
        x, y = comparable(queries + shift, bank + shift, "euclidean")
        _, indices = search(x, y, 5)
        distances = torch.cdist(
            (queries + shift).double(),
            (bank + shift).double(),
            compute_mode="donot_use_mm_for_euclid_dist",
        )
        assert torch.equal(indices, distances.argsort(1)[:, :5])


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e25])
def test_the_scale_of_features_changes_no_neighbour(form: str, metric: Any, scale: float) -> None:
    g = torch.Generator().manual_seed(6)
    bank, queries = torch.randn(300, 4, generator=g), torch.randn(20, 4, generator=g)
    expected = search(*comparable(queries, bank, metric), 5)[1]
    x, y = comparable(queries * scale, bank * scale, metric)
    assert x.isfinite().all()
    assert y.isfinite().all()
    assert torch.equal(search(x, y, 5)[1], expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([2, 3, 8, 65, 128]))
def test_a_product_has_the_same_bits_in_any_block(rows: int, columns: int, width: int) -> None:
    g = torch.Generator().manual_seed(width)
    x, y = torch.randn(200, width, generator=g), torch.randn(300, width, generator=g)
    whole = products(x, y)
    assert torch.equal(products(x[:rows], y[:columns]), whole[:rows, :columns])
    into = torch.zeros(rows, 50)
    products(x[:rows], y[:columns], into[:, 3 : 3 + columns])
    assert torch.equal(into[:, 3 : 3 + columns], whole[:rows, :columns])
    torch.testing.assert_close(whole, x @ y.T)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_features_that_are_no_numbers_are_an_error(metric: Any) -> None:
    broken = torch.eye(3)
    broken[1, 1] = torch.nan
    with pytest.raises(ValueError, match=r"1 of 3 images \(bank\) are not finite"):
        comparable(torch.eye(3), broken, metric)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2GB", 2 << 30), ("500mb", 500 << 20), ("1.5 k", 1536), ("77", 77), ("1TB", 1 << 40)],
)
def test_sizes_are_read_as_people_write_them(text: str, expected: int) -> None:
    assert parse_bytes(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "2 apples", "0"])
def test_other_sizes_are_an_error(text: str) -> None:
    with pytest.raises(UserError, match="--memory must read like 2GB"):
        parse_bytes(text)
