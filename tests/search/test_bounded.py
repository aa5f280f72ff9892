"""Search by bfloat16 first loses nothing: bounds hold, and open candidates are rescored."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from selfsup.core import compiled
from selfsup.search.neighbours import nearest
from selfsup.search.products import comparable

if not compiled.available():
    pytest.skip("numba is not installed", allow_module_level=True)

from selfsup.search import bounded
from selfsup.search.selection import ROUNDING, _lowest_open, rescore


@pytest.fixture(autouse=True)
def bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """On any processor, and for any number of rows."""
    monkeypatch.setattr(bounded, "_bfloat16_pays", lambda *_: True)


def draw(kind: str, n: int, q: int, d: int, seed: int) -> tuple[Tensor, Tensor]:
    """Bank and queries."""
    g = torch.Generator().manual_seed(seed)
    bank, queries = torch.randn(n, d, generator=g), torch.randn(q, d, generator=g)
    if kind == "narrow":  # around one direction, as features that have nearly collapsed
        bank, queries = (5 + 0.05 * x for x in (bank, queries))
    elif kind == "heavy":
        bank, queries = (x**7 for x in (bank, queries))
    elif kind == "twins":
        bank = bank[torch.randint(n // 20 + 1, (n,), generator=g)]
    elif kind == "one point":
        bank, queries = torch.ones(n, d), torch.ones(q, d)
    elif kind == "near the queries":
        bank = queries[torch.arange(n) % q] + 1e-3 * bank
    return comparable(queries, bank, "cosine")


KINDS = ["plain", "narrow", "heavy", "twins", "one point", "near the queries"]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(KINDS),
    st.integers(1, 3000),
    st.integers(1, 30),
    st.integers(2, 70),
    st.integers(1, 150),
    st.integers(0, 10**6),
)
def test_the_k_nearest_in_float64_are_found(
    kind: str, n: int, q: int, d: int, k: int, seed: int
) -> None:
    x, z = draw(kind, n, q, d, seed)
    blocks = list(nearest(x, z, k))
    similarity = torch.cat([block.similarity for block in blocks])
    indices = torch.cat([block.indices for block in blocks])
    every = x.double() @ z.double().T
    least = every.sort(dim=1, descending=True).values[:, : min(k, n)]
    torch.testing.assert_close(similarity.double(), least, rtol=0, atol=1e-6)
    torch.testing.assert_close(every.gather(1, indices), similarity.double(), rtol=0, atol=1e-6)
    assert all(len(set(row)) == len(row) for row in indices.tolist())


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(KINDS), st.integers(2, 300), st.integers(0, 10**6))
def test_no_product_is_further_off_than_its_bound(kind: str, d: int, seed: int) -> None:
    x, z = draw(kind, 200, 20, d, seed)
    rounded = bounded._bfloat16(x, z, x.norm(dim=1), float(z.norm(dim=1).max()))
    quick = torch.empty(20 * 200, dtype=torch.int16)
    products = rounded.multiply(rounded.queries, rounded.bank, quick)
    products = products.view(torch.bfloat16).double()
    exact = x.double() @ (z.double() - z.mean(0).double()).T
    slack = rounded.error_bound[:, None].double() / 2 + float(ROUNDING) * products.abs()
    assert ((products - exact).abs() <= slack).all()


def test_most_queries_need_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    x, z = draw("plain", 20_000, 300, 64, 0)
    searched = []
    scan = bounded._candidates

    def watched(precision: bounded.Precision, which: Tensor, k: int) -> tuple[Tensor, Tensor]:
        searched.append((precision.dtype, len(which)))
        return scan(precision, which, k)

    monkeypatch.setattr(bounded, "_candidates", watched)
    list(nearest(x, z, 100))
    assert searched[0] == (torch.int16, 300)
    assert sum(rows for dtype, rows in searched if dtype == torch.float32) <= 3


def test_a_query_has_the_same_values_in_every_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, z = draw("plain", 5000, 40, 64, 1)
    (one,) = nearest(x, z, 60)
    monkeypatch.setattr(bounded, "_bfloat16_pays", lambda *_: False)
    (other,) = nearest(x, z, 60)
    assert torch.equal(one.similarity, other.similarity)
    assert torch.equal(one.indices, other.indices)


def test_exactly_as_many_above_the_threshold_are_not_taken_for_enough() -> None:
    # all of the sample are one near row, which bfloat16 rounds up; a nearer one is rounded down
    n, k = 65_536, 1024
    step = 2.0**-9  # of bfloat16 below 1/2
    middle, little = 251.5 * step, step / 32
    bank = torch.zeros(n, 32)
    bank[:: n // k, 0] = middle + little
    bank[1 :: n // k, 0] = -middle - little  # the mean is 0
    bank[2, 0], bank[2, 1], bank[3, 0] = middle - little, step / 4, -middle + little
    query = torch.zeros(1, 32)
    query[0, :2] = 1
    (block,) = nearest(query, bank, k)
    assert block.indices[0, 0] == 2


@given(st.integers(1, 0x7E00), st.floats(0, 1))
def test_what_is_below_a_bar_cannot_be_above_the_value_it_is_from(
    bits: int, error_bound: float
) -> None:
    def value(of: int) -> float:
        return torch.tensor(of, dtype=torch.int16).view(torch.bfloat16).double().item()

    error_bound *= value(bits)
    bar = int(_lowest_open(np.int16(bits), np.float32(error_bound)))
    if bar < 1:
        return
    least, most = (
        value(bits) * (1 - 2**-8) - error_bound / 2,
        value(bar - 1) * (1 + 2**-8) + error_bound / 2,
    )
    assert most <= least * (1 + 1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_float32_first_gives_what_sums_in_one_order_of_all_rows_give(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(bounded, "_bfloat16_pays", lambda *_: False)
    x, z = draw(kind, 3000, 20, 90, 5)
    if kind == "narrow":  # many within the rounding of a sum
        z = torch.nn.functional.normalize(z[:1] + 1e-7 * torch.randn(z.shape))
    (block,) = nearest(x, z, 40)
    similarity, indices = torch.empty(20, 40), torch.empty(20, 40, dtype=torch.int32)
    every = torch.arange(3000, dtype=torch.int32).expand(20, -1).contiguous()
    bounded._run(rescore, x, z, every, torch.full((20,), 3000), similarity, indices)
    assert torch.equal(block.similarity, similarity)
    assert torch.equal(block.indices, indices.long())


@pytest.mark.parametrize("size", [1e-25, 1e-12, 1e12, 1e20])
def test_rows_of_any_length_are_compared(size: float) -> None:
    g = torch.Generator().manual_seed(2)
    bank, queries = torch.randn(2000, 40, generator=g), torch.randn(9, 40, generator=g)
    (block,) = nearest(queries, bank * size, 30)
    every = queries.double() @ (bank * size).double().T
    least = every.sort(dim=1, descending=True).values[:, :30]
    torch.testing.assert_close(block.similarity.double(), least, rtol=1e-5, atol=0)


@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_threads_finds_the_same(threads: int) -> None:
    x, z = draw("plain", 3000, 200, 64, 4)
    whole = list(nearest(x, z, 20))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        blocks = list(nearest(x, z, 20))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(
        torch.cat([b.similarity for b in blocks]), torch.cat([b.similarity for b in whole])
    )
    assert torch.equal(
        torch.cat([b.indices for b in blocks]), torch.cat([b.indices for b in whole])
    )
