"""The folder of an index against a dictionary, and writings that are cut short."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from selfsup.core.errors import UserError
from selfsup.search import engines
from selfsup.search.index import COLUMNS, Index, Rows, add, empty, read, remove, write

NAMES = st.lists(st.sampled_from(["a", "b", "c", "d", "e"]), max_size=6)


def rows_of(names: list[str], data: str = "images") -> Rows:
    rows: Rows = {column: [""] * len(names) for column in COLUMNS}
    return {**rows, "name": list(names), "data": [data] * len(names)}


def vectors(names: list[str], turn: int) -> np.ndarray:
    """A row for each name, different each turn."""
    angles = np.array([ord(name) + 0.1 * turn + 0.01 * i for i, name in enumerate(names)])
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32).reshape(-1, 2)


def nothing(index: Index) -> None:
    """No engine."""


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), NAMES), min_size=1, max_size=6))
def test_adding_and_removing_are_those_of_a_dictionary(steps: list[tuple[bool, list[str]]]) -> None:
    index = empty(Path("x"), "m", "w", 8)
    expected: dict[str, list[float]] = {}
    for turn, (adds, names) in enumerate(steps):
        if adds and names:
            made = vectors(names, turn)
            index = add(index, made, rows_of(names))
            expected |= dict(zip(names, made.tolist(), strict=True))
        elif not adds and set(names) <= expected.keys():
            index = remove(index, names)
            expected = {k: v for k, v in expected.items() if k not in names}
    embeddings = dict(zip(index.rows["name"], index.embeddings.tolist(), strict=True))
    assert len(embeddings) == len(index) == len(expected)
    assert embeddings == expected


def test_images_of_one_name_in_two_places_are_two() -> None:
    index = add(empty(Path("x"), "m", "w", 8), vectors(["a"], 0), rows_of(["a"], "one"))
    assert len(add(index, vectors(["a"], 1), rows_of(["a"], "two"))) == 2


def test_what_is_written_is_read_and_older_writings_are_gone(tmp_path: Path) -> None:
    for turn in range(3):
        names = ["a", "b"][: turn + 1] if turn < 2 else ["c"]
        begun = empty(tmp_path, "m", "w", 8) if turn == 0 else read(tmp_path)
        write(add(begun, vectors(names, turn), rows_of(names)), nothing)
    stored = read(tmp_path)
    assert stored.rows["name"] == ["a", "b", "c"]
    assert (stored.model, stored.weights, stored.size, stored.engine) == ("m", "w", 8, "exact")
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        "embeddings-3.npy",
        "images-3.parquet",
        "index.json",
    ]


def test_a_writing_that_is_cut_short_leaves_the_old_index(tmp_path: Path) -> None:
    write(add(empty(tmp_path, "m", "w", 8), vectors(["a"], 0), rows_of(["a"])), nothing)

    def killed(index: Index) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(add(read(tmp_path), vectors(["b"], 1), rows_of(["b"])), killed)
    stored = read(tmp_path)
    assert stored.rows["name"] == ["a"]
    assert np.array_equal(stored.embeddings, vectors(["a"], 0))
    write(add(stored, vectors(["c"], 1), rows_of(["c"])), nothing)
    assert read(tmp_path).rows["name"] == ["a", "c"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": 2}, "is not whole: 2 images, 1 embeddings and 1 names"),
        ({"format": 99}, "written by a newer selfsup"),
        ({"writing": 7}, "is no index: embeddings-7.npy is missing"),
        ({"size": None}, "cannot be read"),
    ],
)
def test_an_index_that_is_not_whole_is_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    write(add(empty(tmp_path, "m", "w", 8), vectors(["a"], 0), rows_of(["a"])), nothing)
    file = tmp_path / "index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=words):
        read(tmp_path)


def test_names_that_are_not_there_remove_nothing() -> None:
    index = add(empty(Path("x"), "m", "w", 8), vectors(["a"], 0), rows_of(["a"]))
    with pytest.raises(UserError, match="has no image 'b'; nothing was removed"):
        remove(index, ["a", "b"])
    assert len(index) == 1


def test_a_search_of_nothing_and_of_a_database_that_nobody_named_is_refused(tmp_path: Path) -> None:
    index = empty(tmp_path, "m", "w", 8)
    with pytest.raises(UserError, match="holds no images"):
        engines.search(index, torch.eye(2), 3)
    index = replace(
        add(index, vectors(["a"], 0), rows_of(["a"])), engine="qdrant", where="http://evil:1#x"
    )
    with pytest.raises(UserError, match="give --qdrant"):
        engines.search(index, torch.eye(2), 3)


def test_a_collection_of_somebody_else_is_not_deleted(tmp_path: Path) -> None:
    qdrant_client = pytest.importorskip("qdrant_client")
    client = qdrant_client.QdrantClient(path=str(tmp_path / "db"))
    params = qdrant_client.models.VectorParams(size=2, distance="Cosine")
    client.create_collection("theirs", params)
    point = qdrant_client.models.PointStruct(id=1, vector=[1.0, 0.0], payload={"price": 3})
    client.upsert("theirs", [point])
    client.close()
    index = add(empty(tmp_path / "i", "m", "w", 8), vectors(["a"], 0), rows_of(["a"]))
    index = replace(index, engine="qdrant", where=f"{tmp_path / 'db'}#theirs")
    with pytest.raises(UserError, match="holds what is not an index of selfsup"):
        engines.build(index)
