"""A collection in Qdrant, embedded and by URL: exact answers, upserts, deletes, kills."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from embedded import embedded_folder, store_first_part, unit
from launch import run
from qdrant import QdrantServer, qdrant_server
from qdrant_client import QdrantClient, models

from selfsup.core.errors import UserError
from selfsup.search import qdrant as collections
from selfsup.search.open_store import open_store
from selfsup.search.stored_rows import OWN
from selfsup.search.stores import StoredHit, parse_destination, parse_where
from selfsup.search.storing import remove_rows, store_folder

pytestmark = pytest.mark.slow

STORE = (sys.executable, "-m", "selfsup", "store")


@pytest.fixture
def server() -> Iterator[QdrantServer]:
    with qdrant_server() as running:
        yield running


@pytest.fixture(params=["path", "url"])
def to(request: pytest.FixtureRequest, tmp_path: Path, server: QdrantServer) -> str:
    return f"qdrant:{tmp_path / 'db' if request.param == 'path' else server.url}#faces"


def search(to: str, queries: np.ndarray, k: int, *where: str) -> list[list[StoredHit]]:
    with open_store(parse_destination(to)) as store:
        assert store.facts is not None
        return store.search(torch.from_numpy(queries), k, parse_where(where, store.facts))


def names(hits: list[list[StoredHit]]) -> list[list[str]]:
    return [[hit.columns["name"] for hit in of_query] for of_query in hits]


def missing(to: str) -> str:
    with open_store(parse_destination(to)) as store:
        assert store.facts is not None
        return store.facts.missing


def test_answers_are_those_of_the_exact_index_and_of_a_filter_too(to: str, tmp_path: Path) -> None:
    x, queries = unit(300, 8), unit(5, 8, seed=1)
    columns = {"a shop": [f"{i % 3}" if i % 7 else None for i in range(300)]}
    folder = embedded_folder(tmp_path / "e", x * 3, columns=columns, part=128, bad=[3])
    stored = store_folder(folder, to)
    assert (stored.changed, stored.rows) == (299, 299)
    x[3] = 0
    order = np.argsort(-queries @ x.T)[:, :10]
    hits = search(to, queries, 10)
    assert names(hits) == [[f"{i:06d}.jpg" for i in row] for row in order]
    cosines = [[hit.similarity for hit in of_query] for of_query in hits]
    np.testing.assert_allclose(cosines, np.take_along_axis(queries @ x.T, order, 1), atol=1e-5)
    chosen = [i for i in range(300) if i % 7 and i % 3 == 1 and i % 5 in (2, 4)]
    order = np.argsort(-queries @ x[chosen].T)[:, :10]
    where = ("a shop=1", "class=2", "class=4")
    expected = [[f"{chosen[i]:06d}.jpg" for i in row] for row in order]
    assert names(search(to, queries, 10, *where)) == expected


def test_storing_again_replaces_and_rows_are_removed(to: str, tmp_path: Path) -> None:
    x = unit(50, 8)
    store_folder(embedded_folder(tmp_path / "e", x), to)
    before = names(search(to, x[:3], 50))
    x[7] = -x[7]
    folder = embedded_folder(tmp_path / "f", x, labels=["new"] * 50)
    assert store_folder(tmp_path / "e", to).rows == 50
    assert names(search(to, x[:3], 50)) == before
    assert store_folder(folder, to).rows == 50
    ((hit,),) = search(to, x[7:8], 1)
    assert (hit.columns["name"], hit.columns["label"]) == ("000007.jpg", "new")
    with pytest.raises(UserError, match=r"no image 'zebra' of .*; nothing was removed"):
        remove_rows(folder, to, ["000007.jpg", "zebra"])
    assert remove_rows(folder, to, ["000007.jpg", "000001.jpg"]) == 48
    assert search(to, x[7:8], 1)[0][0].columns["name"] != "000007.jpg"


def test_what_was_cut_off_is_named_and_goes_on_with_its_part(
    server: QdrantServer, tmp_path: Path
) -> None:
    to = f"qdrant:{server.url}#faces"
    folder = embedded_folder(tmp_path / "e", unit(900, 8), part=256)
    store_folder(folder, f"{to}2")
    server.left, server.calls = server.calls.index("PUT /collections/faces2/points") + 5, []
    with pytest.raises(UserError, match="faces: "):
        store_folder(folder, to)
    server.left = None
    assert "2 of 4 parts are there" in missing(to)
    again = store_folder(folder, to)
    assert (again.first, again.changed, again.rows) == (2, 900 - 512, 900)
    assert missing(to) == ""


def test_after_a_part_of_one_folder_another_is_stored_from_its_beginning(
    to: str, tmp_path: Path
) -> None:
    cut_off = embedded_folder(tmp_path / "e", unit(20, 4), part=8)
    store_first_part(cut_off, to)
    other = embedded_folder(tmp_path / "f", unit(20, 4, seed=1), part=8, data="/others")
    stored = store_folder(other, to)
    assert (stored.first, stored.changed, stored.rows) == (0, 20, 28)


def test_columns_of_an_older_folder_are_still_there(to: str, tmp_path: Path) -> None:
    x = unit(6, 4)
    store_folder(embedded_folder(tmp_path / "e", x, columns={"shop": ["here"] * 6}), to)
    store_folder(embedded_folder(tmp_path / "f", x, data="/others"), to)
    ((hit,),) = search(to, x[2:3], 1, "shop=here")
    assert (hit.columns["name"], hit.columns["data"]) == ("000002.jpg", "/images")


def test_more_rows_are_removed_than_fit_into_a_request(to: str, tmp_path: Path) -> None:
    folder = embedded_folder(tmp_path / "e", unit(collections.POINTS_A_REQUEST + 40, 4))
    held = store_folder(folder, to).rows
    everything = [f"{i:06d}.jpg" for i in range(held)]
    with pytest.raises(UserError, match=r"no image 'zebra' of .*; nothing was removed"):
        remove_rows(folder, to, [*everything, "zebra"])
    assert remove_rows(folder, to, everything[1:]) == 1


def test_a_server_indexes_the_columns_and_searches_exactly_where_it_is_asked_to(
    server: QdrantServer, tmp_path: Path
) -> None:
    to, x = f"qdrant:{server.url}#faces", unit(5, 4)
    store_folder(embedded_folder(tmp_path / "e", x, columns={"shop": ["here"] * 5}), to)
    asked = list(zip(server.calls, server.bodies, strict=True))
    indexed = [body for call, body in asked if call == "PUT /collections/faces/index"]
    kinds = {body["field_name"]: body["field_schema"] for body in indexed}
    assert kinds == dict.fromkeys([*OWN, "shop"], "keyword") | {"class": "integer"}
    with open_store(parse_destination(to)) as store:
        for exact in (True, False):
            store.search(torch.from_numpy(x[:1]), 1, {}, exact=exact)
            assert server.bodies[-1]["params"]["exact"] is exact


def test_rows_of_another_width_and_collections_of_others_are_refused(
    to: str, tmp_path: Path
) -> None:
    folder = embedded_folder(tmp_path / "e", unit(5, 4))
    store_folder(folder, to)
    with pytest.raises(UserError, match="4 wide, and these are 6 wide"):
        store_folder(embedded_folder(tmp_path / "f", unit(5, 6)), to)
    client = collections.connect(parse_destination(to).place)
    params = models.VectorParams(size=4, distance=models.Distance.COSINE)
    client.create_collection("theirs", params)
    dot = models.VectorParams(size=4, distance=models.Distance.DOT)
    metadata = client.get_collection("faces").config.metadata
    client.create_collection("dot", dot, metadata=metadata)
    client.close()
    with pytest.raises(UserError, match="was not made by this version of selfsup store"):
        store_folder(folder, to.replace("#faces", "#theirs"))
    with pytest.raises(UserError, match="another width or distance"):
        store_folder(folder, to.replace("#faces", "#dot"))


def test_an_old_server_is_told_and_left_as_it_was(server: QdrantServer, tmp_path: Path) -> None:
    server.old = True
    with pytest.raises(UserError, match=r"keeps no metadata: Qdrant 1\.16"):
        store_folder(embedded_folder(tmp_path / "e", unit(5, 4)), f"qdrant:{server.url}#x")
    assert not server.engine.collection_exists("x")


def test_the_key_is_read_from_the_environment_and_never_sent_in_the_clear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = embedded_folder(tmp_path / "e", unit(5, 4))
    with qdrant_server(key="hidden-secret") as server:
        to = f"qdrant:{server.url}#x"
        with pytest.raises(UserError, match=r"no vector database answers .*401"):
            store_folder(folder, to)
        done = run(*STORE, folder, "--to", to, QDRANT_API_KEY="hidden-secret")
        assert done.returncode == 0, done.stderr
        assert "5 rows are new or changed" in done.stdout
        assert "hidden" not in done.stdout + done.stderr
        assert done.stderr == ""
    monkeypatch.setenv("QDRANT_API_KEY", "hidden-secret")
    with pytest.raises(UserError, match=r"would be sent to http://db\.example:6333 unencrypted"):
        store_folder(folder, "qdrant:http://db.example:6333#x")


def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    folder = embedded_folder(tmp_path / "e", unit(5, 4))
    with pytest.raises(UserError, match=r"no vector database answers at http://127\.0\.0\.1:1"):
        store_folder(folder, "qdrant:http://127.0.0.1:1#x")
    client = QdrantClient(path=str(tmp_path / "db"))
    locked = run(*STORE, folder, "--to", f"qdrant:{tmp_path / 'db'}#x")
    client.close()
    assert locked.returncode == 2
    assert "already accessed by another instance" in locked.stderr
