"""A table in a PostgreSQL server: the exact index's answers, upserts, deletes, kills, mistakes."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psycopg
import pytest
import torch
from embedded import embedded_folder, store_first_part, unit
from launch import called, environment
from pictures import folder
from postgres import Server, postgres_server

from selfsup.config import EmbedConfig, EncoderConfig, ViewsConfig
from selfsup.core.errors import InUseError, UserError
from selfsup.encoders.encoder import build, export
from selfsup.evaluate.embedding_folder import embed_folder
from selfsup.report.search import search_page
from selfsup.search import postgres as tables
from selfsup.search.neighbours import nearest
from selfsup.search.open_store import open_store
from selfsup.search.query import search_index
from selfsup.search.stored_rows import StoredRows
from selfsup.search.stored_search import search_store
from selfsup.search.stores import StoredHit, parse_destination, parse_where
from selfsup.search.storing import remove_rows, store_folder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_server() as running:
        yield running


@pytest.fixture
def to(server: Server, request: pytest.FixtureRequest) -> str:
    """A table that is not there yet, in a database of its own."""
    name = re.sub(r"\W+", "_", request.node.name)[-60:]
    return f"{server.make_database(name)}#faces"


def rows_of(to: str, columns: str = "*") -> list[tuple[object, ...]]:
    """Rows of the table, in the order of their names."""
    with psycopg.connect(to.partition("#")[0]) as connection:
        return connection.execute(f"SELECT {columns} FROM faces ORDER BY name".encode()).fetchall()


def scans_of_the_graph(to: str) -> int:
    """How many searches went through it."""
    with psycopg.connect(to.partition("#")[0]) as connection:
        row = connection.execute(
            "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'faces_embedding_idx'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def graphs_of(to: str) -> int:
    """How many indexes for approximate searches the table has."""
    with psycopg.connect(to.partition("#")[0]) as connection:
        statement = "SELECT indexdef FROM pg_indexes WHERE tablename = 'faces'"
        return sum("USING hnsw" in made for (made,) in connection.execute(statement).fetchall())


def parts_of(to: str) -> int:
    with open_store(parse_destination(to)) as store:
        return 0 if store.facts is None else store.facts.parts


def search(
    to: str, queries: np.ndarray, k: int, *where: str, exact: bool = False
) -> list[list[StoredHit]]:
    with open_store(parse_destination(to)) as store:
        assert store.facts is not None
        conditions = parse_where(where, store.facts)
        return store.search(torch.from_numpy(queries), k, conditions, exact=exact)


def names(hits: list[list[StoredHit]]) -> list[list[str]]:
    return [[hit.columns["name"] for hit in of_query] for of_query in hits]


def exact_names(x: np.ndarray, queries: np.ndarray, k: int) -> list[list[str]]:
    (block,) = nearest(torch.from_numpy(queries), torch.from_numpy(x), k)
    return [[f"{i:06d}.jpg" for i in row] for row in block.indices.tolist()]


def test_answers_are_those_of_the_exact_index_and_the_graph_finds_nearly_all(
    to: str, tmp_path: Path
) -> None:
    x, queries = unit(4000, 32), unit(50, 32, seed=1)
    folder = embedded_folder(tmp_path / "e", x * 7, part=1024)  # as the network gives them
    stored = store_folder(folder, to)
    assert (stored.changed, stored.rows, stored.width) == (4000, 4000, 32)
    expected = exact_names(x, queries, 10)
    hits = search(to, queries, 10, exact=True)
    assert names(hits) == expected
    cosines = [[hit.similarity for hit in of_query] for of_query in hits]
    np.testing.assert_allclose(cosines, np.sort(queries @ x.T)[:, :-11:-1], atol=1e-5)
    assert scans_of_the_graph(to) == 0
    approximate = names(search(to, queries, 10))
    assert scans_of_the_graph(to) == 50
    right = sum(len(set(a) & set(b)) for a, b in zip(approximate, expected, strict=True))
    assert right / 500 >= 0.95


def test_a_filter_by_columns_searches_its_rows_only(to: str, tmp_path: Path) -> None:
    x, queries = unit(600, 8), unit(4, 8, seed=1)
    shop = [f"shop {i % 3}" if i % 7 else None for i in range(600)]
    columns: dict[str, list[str | None]] = {
        "shop": shop,
        'odd "name".x': ["'; --"] * 600,
        "per %s cent": ["100%"] * 600,
        "id": [f"own{i}" for i in range(600)],
    }
    store_folder(embedded_folder(tmp_path / "e", x, columns=columns), to)
    chosen = [i for i in range(600) if shop[i] in ("shop 1", "shop 2") and i % 5 == 3]
    expected = [
        [f"{chosen[i]:06d}.jpg" for i in row] for row in np.argsort(-queries @ x[chosen].T)[:, :9]
    ]
    where = ("shop=shop 1", "shop=shop 2", "class=3", 'odd "name".x=\'; --')
    assert names(search(to, queries, 9, *where, exact=True)) == expected
    found = names(search(to, queries, 10**6, *where))
    assert [sorted(row) for row in found] == [[f"{i:06d}.jpg" for i in chosen]] * 4
    assert search(to, queries[:1], 1, "id_=own5")[0][0].columns["name"] == "000005.jpg"
    assert search(to, queries[:1], 1, "shop=nowhere") == [[]]
    for condition, words in {
        "shopp=1": "no column 'shopp' .did you mean 'shop'",
        "class=cat": "the column class has whole numbers, not 'cat'",
        "shop": "a condition is COLUMN=VALUE",
    }.items():
        with pytest.raises(UserError, match=words):
            search(to, queries, 1, condition)


def test_where_the_graph_ends_before_k_rows_the_search_is_exact(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, query = unit(2000, 8), unit(1, 8, seed=1)
    farthest = np.argsort(-query[0] @ x.T)[-5:].tolist()
    shop = ["rare" if i in farthest else "usual" for i in range(2000)]
    store_folder(embedded_folder(tmp_path / "e", x, columns={"shop": shop}), to)
    monkeypatch.setenv("PGOPTIONS", "-c enable_seqscan=off -c hnsw.max_scan_tuples=1")
    hits = names(search(to, query, 5, "shop=rare"))
    assert scans_of_the_graph(to) == 1
    assert hits == [[f"{i:06d}.jpg" for i in farthest]]


def test_storing_again_changes_nothing_and_what_is_different_changes(
    to: str, tmp_path: Path
) -> None:
    x = unit(300, 8)
    folder = embedded_folder(tmp_path / "e", x, bad=[4, 299])
    assert store_folder(folder, to).changed == 298
    before = rows_of(to, "xmin::text, *")
    assert store_folder(folder, to).changed == 0
    assert rows_of(to, "xmin::text, *") == before
    x[7] = -x[7]
    labels = ["new" if i == 9 else f"class{i % 5}" for i in range(300)]
    other = embedded_folder(
        tmp_path / "f", x, labels=labels, bad=[4], columns={"shop": ["here"] * 300}
    )
    again = store_folder(other, to)
    assert (again.changed, again.rows) == (299, 299)  # all have a shop now
    assert ("000009.jpg", "new", "here") in rows_of(to, "name, label, shop")
    assert names(search(to, x[7:8], 1)) == [["000007.jpg"]]
    elsewhere = embedded_folder(tmp_path / "g", x, data="/others")
    assert store_folder(elsewhere, to).rows == 299 + 300


def test_a_table_has_no_graph_until_one_is_asked_for_and_then_one(to: str, tmp_path: Path) -> None:
    x = unit(50, 8)
    folder = embedded_folder(tmp_path / "e", x)
    store_folder(folder, to, ann=False)
    assert graphs_of(to) == 0
    assert names(search(to, x[7:8], 5)) == exact_names(x, x[7:8], 5)
    for _ in range(2):
        store_folder(folder, to)
        assert graphs_of(to) == 1
    store_folder(folder, to, ann=False)
    assert graphs_of(to) == 1


@pytest.mark.parametrize("ann", [True, False])
def test_an_embedding_of_zeros_is_like_nothing(to: str, tmp_path: Path, ann: bool) -> None:
    x = unit(9, 4)
    x[3] = 0
    store_folder(embedded_folder(tmp_path / "e", x), to, ann=ann)
    (hits,) = search(to, x[:1], 9, exact=ann)
    cosines = {hit.columns["name"]: hit.similarity for hit in hits}
    expected = {f"{i:06d}.jpg": float(x[i] @ x[0]) for i in range(9)}
    assert cosines == pytest.approx(expected, abs=1e-6)
    assert list(cosines) == sorted(cosines, key=lambda name: -cosines[name])


def test_columns_of_an_older_folder_are_still_there(to: str, tmp_path: Path) -> None:
    x = unit(6, 4)
    store_folder(embedded_folder(tmp_path / "e", x, columns={"shop": ["here"] * 6}), to)
    store_folder(embedded_folder(tmp_path / "f", x, data="/others"), to)
    ((hit,),) = search(to, x[2:3], 1, "shop=here")
    assert (hit.columns["name"], hit.columns["data"]) == ("000002.jpg", "/images")


def test_of_two_rows_of_one_name_the_last_is_stored(to: str, tmp_path: Path) -> None:
    x = unit(3, 4)
    folder = embedded_folder(tmp_path / "e", x, names=["a", "b", "a"], labels=["x", "y", "z"])
    assert store_folder(folder, to).rows == 2
    assert rows_of(to, "name, label") == [("a", "z"), ("b", "y")]


def test_rows_are_removed_by_name_and_by_a_list(to: str, tmp_path: Path) -> None:
    folder = embedded_folder(tmp_path / "e", unit(9, 4))
    with pytest.raises(UserError, match="is not there: selfsup store makes it"):
        remove_rows(folder, to, ["000001.jpg"])
    store_folder(folder, to)
    with pytest.raises(UserError, match=r"no image 'zebra' of .*; nothing was removed"):
        remove_rows(folder, to, ["000001.jpg", "zebra"])
    assert len(rows_of(to)) == 9
    (tmp_path / "list").write_text("000002.jpg\n000003.jpg\n")
    flags = ("--remove", "000001.jpg", "--remove-list", tmp_path / "list")
    done = called("tools/store.py", folder, "--to", to, *flags)
    assert done.returncode == 0, done.stderr
    assert "3 images were removed; it holds 6" in done.stdout
    (tmp_path / "empty").write_text("")
    done = called("tools/store.py", folder, "--to", to, "--remove-list", tmp_path / "empty")
    assert "has no names; nothing was removed" in done.stderr
    assert [name for (name,) in rows_of(to, "name")][:2] == ["000000.jpg", "000004.jpg"]
    assert (
        "cannot be read"
        in called("tools/store.py", folder, "--to", to, "--remove-list", "no").stderr
    )


def test_a_load_that_is_killed_leaves_whole_parts(to: str, tmp_path: Path) -> None:
    folder = embedded_folder(tmp_path / "e", unit(12_000, 8), part=64)
    command = [sys.executable, "-m", "selfsup", "store", str(folder), "--to", to]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL)
    while process.poll() is None and parts_of(to) < 2:
        time.sleep(0.01)
    process.kill()
    process.wait()
    held = parts_of(to)
    assert 2 <= held < 188
    assert len(rows_of(to, "id")) == 64 * held
    done = called("tools/store.py", folder, "--to", to)
    assert f"{held} of 188 parts were there" in done.stdout, done.stderr
    assert f"{12_000 - 64 * held:,} rows are new or changed, it holds 12,000" in done.stdout
    assert store_folder(folder, to).changed == 0


def test_what_was_cut_off_is_named_and_goes_on_with_its_part(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = unit(1000, 8)
    folder = embedded_folder(tmp_path / "e", x, part=256)
    whole = tables.PostgresTable.put

    def killed(self: tables.PostgresTable, batches: Iterator[StoredRows], parts: int) -> int:
        def first_rows() -> Iterator[StoredRows]:
            yield next(iter(batches))
            raise KeyboardInterrupt

        return whole(self, first_rows() if parts == 3 else batches, parts)

    monkeypatch.setattr(tables.PostgresTable, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        store_folder(folder, to)
    monkeypatch.undo()
    assert len(rows_of(to)) == 512  # whole parts only
    with open_store(parse_destination(to)) as store:
        assert store.facts is not None
        assert "2 of 4 parts are there" in store.facts.missing
    again = store_folder(folder, to)
    assert (again.first, again.changed, again.rows) == (2, 1000 - 512, 1000)
    with open_store(parse_destination(to)) as store:
        assert store.facts is not None
        assert store.facts.missing == ""


def test_after_a_part_of_one_folder_another_is_stored_from_its_beginning(
    to: str, tmp_path: Path
) -> None:
    cut_off = embedded_folder(tmp_path / "e", unit(20, 4), part=8)
    store_first_part(cut_off, to)
    other = embedded_folder(tmp_path / "f", unit(20, 4, seed=1), part=8, data="/others")
    stored = store_folder(other, to)
    assert (stored.first, stored.changed, stored.rows) == (0, 20, 28)


def test_wide_embeddings_are_halves_and_wider_ones_are_refused(to: str, tmp_path: Path) -> None:
    x = unit(40, 2001)
    store_folder(embedded_folder(tmp_path / "e", x), to)
    ((hit, *_),) = search(to, x[3:4], 3)
    assert hit.columns["name"] == "000003.jpg"
    assert abs(hit.similarity - 1) < 1e-3
    assert rows_of(to, "pg_typeof(embedding)::text")[0] == ("halfvec",)
    with pytest.raises(UserError, match="4001 wide, and pgvector's index takes up to 4000"):
        store_folder(embedded_folder(tmp_path / "f", unit(2, 4001)), f"{to}2")


def test_rows_of_another_width_or_model_and_tables_of_others_are_refused(
    to: str, tmp_path: Path
) -> None:
    store_folder(embedded_folder(tmp_path / "e", unit(5, 4)), to)
    with pytest.raises(UserError, match="4 wide, and these are 6 wide: choose another name"):
        store_folder(embedded_folder(tmp_path / "f", unit(5, 6)), to)
    with pytest.raises(UserError, match="another weights"):
        store_folder(embedded_folder(tmp_path / "g", unit(5, 4), weights="v" * 64), to)
    with psycopg.connect(to.partition("#")[0]) as connection:
        connection.execute("CREATE TABLE theirs (price int)")
        connection.execute("COMMENT ON TABLE theirs IS 'prices'")
    theirs = to.replace("#faces", "#theirs")
    with pytest.raises(UserError, match="was not made by this version of selfsup store"):
        store_folder(tmp_path / "e", theirs)
    with pytest.raises(UserError, match="no name of a table or column"):
        store_folder(tmp_path / "e", to.replace("#faces", "#" + "x" * 64))
    assert len(rows_of(to)) == 5


def test_two_cannot_store_in_one_table(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "PATIENCE", 1)
    folder = embedded_folder(tmp_path / "e", unit(5, 4))
    store_folder(folder, to)
    with open_store(parse_destination(to)) as store:
        assert store.facts is not None
        store.begin(store.facts)
        with pytest.raises(InUseError, match="another selfsup store writes"):
            store_folder(folder, to)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, images, and their embeddings."""
    room = tmp_path_factory.mktemp("room")
    torch.manual_seed(0)
    encoder = build(EncoderConfig(name="test_resnet", stem="standard"), 24)
    export(encoder, room / "run" / "encoder", ViewsConfig(size=24))
    folder(room / "images", classes=4, each=8)
    embed_folder(
        EmbedConfig(
            model=str(room / "run"), data=str(room / "images"), out=str(room / "e"), workers=0
        )
    )
    return room


def test_a_search_with_images_has_the_hits_of_the_folder(
    to: str, room: Path, tmp_path: Path
) -> None:
    queries = [room / "images" / "class1" / "1.png", tmp_path / "copy.png"]
    shutil.copy(room / "images" / "class2" / "3.png", queries[1])
    for store in (to, f"qdrant:{tmp_path / 'db'}#x"):
        store_folder(room / "e", store)
        for k in (5, 31, 99):
            of_folder = search_index(room / "e", queries, k=k, threshold=0.9)
            result = search_store(room / "run", queries, store, k=k, threshold=0.9)
            assert result.itself == of_folder.itself == [["class1/1.png"], ["class2/3.png"]]
            assert result.gallery == 32
            for hits, expected in zip(result.hits, of_folder.hits, strict=True):
                assert [hit.name for hit in hits] == [hit.name for hit in expected]
                assert [hit.same for hit in hits] == [hit.same for hit in expected]
                np.testing.assert_allclose(
                    [h.similarity for h in hits], [h.similarity for h in expected], atol=1e-5
                )
            assert search_page(result).count("<img") == search_page(of_folder).count("<img")
        flags = ("--store", store, "--where", "label=class3", "-k", "3", "--page", "")
        done = called("tools/search.py", room / "e", *queries[:1], *flags, "--threshold", "1")
        assert done.returncode == 0, done.stderr
        assert "among 8 images" in done.stdout
        assert done.stdout.count("class3/") == 3
        assert done.stdout.count(".png") == 4


def test_copies_of_a_query_are_left_out_and_the_threshold_is_that_of_the_gallery(
    to: str, room: Path, tmp_path: Path
) -> None:
    run, images = tmp_path / "run", tmp_path / "images"
    shutil.copytree(room / "run", run)
    shutil.copytree(room / "images", images)
    query = images / "class1" / "1.png"
    for i in range(4):
        shutil.copy(query, images / "class0" / f"copy{i}.png")
    thresholds = {"1": 0.0, "20": 0.1, "50": 0.999, "100": 1.0}  # it has 36 images
    (run / "verify.json").write_text(json.dumps({"details": {"thresholds": thresholds}}))
    embed_folder(  # at another size than the model's own
        EmbedConfig(model=str(run), data=str(images), out=str(tmp_path / "e"), size=32, workers=0)
    )
    of_folder = search_index(tmp_path / "e", [query], k=3)
    for store in (to, f"qdrant:{tmp_path / 'db'}#x"):
        store_folder(tmp_path / "e", store)
        result = search_store(run, [query], store, k=3)
        assert result.threshold == of_folder.threshold == 0.999
        assert [sorted(names) for names in result.itself] == [
            [*(f"class0/copy{i}.png" for i in range(4)), "class1/1.png"]
        ]
        ((*hits,),) = result.hits
        assert [hit.name for hit in hits] == [hit.name for hit in of_folder.hits[0]]
        np.testing.assert_allclose(
            [hit.similarity for hit in hits],
            [hit.similarity for hit in of_folder.hits[0]],
            atol=1e-5,
        )
        exactly = search_store(run, [query], store, k=3, threshold=hits[1].similarity)
        assert [hit.same for hit in exactly.hits[0]] == [True, False, False]


def test_a_search_of_half_a_table_or_of_another_model_is_refused(
    to: str, room: Path, tmp_path: Path
) -> None:
    query = str(room / "images" / "class1" / "1.png")
    with pytest.raises(UserError, match="is not there: selfsup store makes it"):
        search_store(room / "run", [query], to)
    store_folder(embedded_folder(tmp_path / "e", unit(9, 8)), to)
    with pytest.raises(UserError, match=r"has embeddings of model, and .* has other weights"):
        search_store(room / "run", [query], to)
    with open_store(parse_destination(to)) as store:
        assert store.facts is not None
        store.begin(replace(store.facts, folder="another", parts=0, of=3, whole=False))
    with pytest.raises(UserError, match="is not whole: 0 of 3 parts are there"):
        search_store(room / "run", [query], to)
    done = called("tools/search.py", room / "e", query, "--where", "label=x")
    assert "--where is for --store" in done.stderr


def test_a_server_without_pgvector_is_told(server: Server, to: str, tmp_path: Path) -> None:
    folder = embedded_folder(tmp_path / "e", unit(5, 4))
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("CREATE ROLE guest LOGIN")
    with pytest.raises(UserError, match=r"has no pgvector .permission denied.*CREATE EXTENSION"):
        store_folder(folder, to.replace("tester@", "guest@"))
    with psycopg.connect(to.partition("#")[0]) as connection:
        connection.execute("CREATE EXTENSION vector")
        connection.execute("UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'")
    with pytest.raises(UserError, match=r"pgvector 0.7.4, and 0.8 or newer is needed"):
        store_folder(folder, to)


def _count_after_stop(server: Server, to: str) -> None:
    with open_store(parse_destination(to)) as store:
        server.stop()
        store.count({})


def test_a_server_that_stops_or_is_not_there_is_told(to: str, tmp_path: Path) -> None:
    folder = embedded_folder(tmp_path / "e", unit(600, 4))
    with postgres_server() as other:
        there = other.make_database("x")
        store_folder(folder, there)
        with pytest.raises(UserError, match=r"terminat|closed|lost"):
            _count_after_stop(other, there)
        with pytest.raises(UserError, match=r"no PostgreSQL answers at .*No such file"):
            store_folder(folder, there)
        other.start()
        assert store_folder(folder, there).changed == 0
    done = called("tools/store.py", folder, "--to", "postgresql://127.0.0.1:1/x")
    assert done.returncode == 2
    assert "no PostgreSQL answers" in done.stderr
    with pytest.raises(UserError, match="does not exist"):
        store_folder(folder, re.sub("@/[^?]*", "@/nowhere", to))
