"""Search by bfloat16 first loses nothing: bounds hold, and what they leave open is looked at."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from selfsup import compiled
from selfsup.evaluate.nearest import comparable, nearest

if not compiled.available():
    pytest.skip("numba is not installed", allow_module_level=True)

from selfsup.evaluate import fast
from selfsup.evaluate.selection import ROUNDING


@pytest.fixture(autouse=True)
def halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """On any processor, and for any number of rows."""
    monkeypatch.setattr(fast, "_halves_pay", lambda *_: True)


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
    parts = list(nearest(x, z, k))
    similar = torch.cat([part.similar for part in parts])
    places = torch.cat([part.places for part in parts])
    every = x.double() @ z.double().T
    least = every.sort(dim=1, descending=True).values[:, : min(k, n)]
    torch.testing.assert_close(similar.double(), least, rtol=0, atol=1e-6)
    torch.testing.assert_close(every.gather(1, places), similar.double(), rtol=0, atol=1e-6)
    assert all(len(set(row)) == len(row) for row in places.tolist())


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.sampled_from(KINDS), st.integers(2, 300), st.integers(0, 10**6))
def test_no_product_is_further_off_than_its_bound(kind: str, d: int, seed: int) -> None:
    x, z = draw(kind, 200, 20, d, seed)
    way = fast._halves(x, z, 5)
    quick = torch.empty(20 * 200, dtype=torch.int16)
    found = way.product(way.queries, way.bank, quick).view(torch.bfloat16).double()
    exact = x.double() @ (z.double() - z.mean(0).double()).T
    slack = way.reach[:, None].double() / 2 + float(ROUNDING) * found.abs()
    assert ((found - exact).abs() <= slack).all()


def test_most_queries_need_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    x, z = draw("plain", 20_000, 300, 64, 0)
    asked = []
    scan = fast._candidates

    def watched(way: fast.Way, which: Tensor) -> tuple[Tensor, Tensor]:
        asked.append((way.kind, len(which)))
        return scan(way, which)

    monkeypatch.setattr(fast, "_candidates", watched)
    list(nearest(x, z, 100))
    assert asked[0] == (torch.int16, 300)
    assert sum(rows for kind, rows in asked if kind == torch.float32) <= 3


def test_a_query_has_the_same_values_whichever_way_it_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x, z = draw("plain", 5000, 40, 64, 1)
    (one,) = nearest(x, z, 60)
    monkeypatch.setattr(fast, "_halves_pay", lambda *_: False)
    (other,) = nearest(x, z, 60)
    assert torch.equal(one.similar, other.similar)
    assert torch.equal(one.places, other.places)
