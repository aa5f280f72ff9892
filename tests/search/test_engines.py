"""Approximate engines: never a row twice, always k, and exact rows where they fall short."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from selfsup.core.errors import UserError
from selfsup.search import engines
from selfsup.search.index import COLUMNS, Engine, Index, add, empty, read, write

pytestmark = pytest.mark.slow


def unit(n: int, d: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(n, d))
    rows: np.ndarray = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return rows


ROWS = {
    "equal rows": np.repeat(unit(1, 16, 0), 900, axis=0),
    "five heaps of equal rows": np.repeat(unit(5, 16, 1), 200, axis=0),
    "rows and their opposites": np.concatenate([unit(200, 8, 2), -unit(200, 8, 2)]),
    "random rows": unit(500, 16, 3),
}


def index_of(folder: Path, rows: np.ndarray, engine: Engine, where: str = "") -> Index:
    pytest.importorskip({"usearch": "usearch", "qdrant": "qdrant_client"}[engine])
    columns = {c: [f"{c}{i}" for i in range(len(rows))] for c in COLUMNS}
    index = add(empty(folder, "m", "w", 8), rows, columns)
    write(replace(index, engine=engine, where=where), engines.build)
    return read(folder)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("k", [1, 150, 10**6])
@pytest.mark.parametrize("queries", [1, 3])
def test_usearch_gives_k_different_rows(tmp_path: Path, name: str, k: int, queries: int) -> None:
    rows = ROWS[name]
    index = index_of(tmp_path, rows, "usearch")
    hits = engines.search(index, torch.from_numpy(rows[:queries]), k)
    wanted = min(k, len(rows))
    assert hits.indices.shape == hits.similarity.shape == (queries, wanted)
    for found, cosines, query in zip(hits.indices, hits.similarity, rows, strict=False):
        assert len(set(found.tolist())) == wanted
        np.testing.assert_allclose(cosines, rows[found] @ query, atol=1e-5)
        assert (cosines.diff() <= 0).all()


@pytest.mark.parametrize("engine", ["usearch", "qdrant"])
@pytest.mark.parametrize(
    "cut", [lambda r: r[:1], lambda r: r[:-1] + r[:1], lambda r: [], lambda r: [9999] * len(r)]
)
def test_a_query_with_fewer_rows_than_k_is_searched_exactly(
    tmp_path: Path, engine: Engine, cut: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = unit(30, 4, 0)
    index = index_of(tmp_path, rows, engine, f"{tmp_path / 'db'}#x")
    name = f"_search_{engine}"
    whole = getattr(engines, name)

    def short(*args: object) -> list[list[int]]:
        first, second = whole(*args)
        return [cut(first), second]  # type: ignore[operator]

    queries = torch.from_numpy(rows[:2])
    database = f"{tmp_path / 'db'}#x"
    expected = engines.search(replace(index, engine="exact"), queries, 7)
    monkeypatch.setattr(engines, name, short)
    hits = engines.search(index, queries, 7, database=database)
    assert torch.equal(hits.indices, expected.indices)
    torch.testing.assert_close(hits.similarity, expected.similarity)


def test_a_collection_of_another_index_is_refused(tmp_path: Path) -> None:
    where = f"{tmp_path / 'db'}#x"
    index_of(tmp_path / "small", unit(5, 4, 0), "qdrant", where)
    large = add(
        empty(tmp_path, "m", "w", 8), unit(9, 4, 1), {c: list("abcdefghi") for c in COLUMNS}
    )
    with pytest.raises(UserError, match="holds 5 images and the index 9"):
        engines.search(replace(large, engine="qdrant"), torch.eye(4), 3, database=where)
    with pytest.raises(UserError, match="has no collection y"):
        engines.search(
            replace(large, engine="qdrant"), torch.eye(4), 3, database=f"{tmp_path / 'db'}#y"
        )
