"""Destinations, and files of FAISS and Lance: read back by their libraries, with exact answers."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from embedded import embedded_folder, unit
from launch import called, run

from selfsup.core.errors import UserError
from selfsup.data.embedding_parts import part_file, read_manifest
from selfsup.search.open_store import open_store
from selfsup.search.stored_rows import (
    StoreFacts,
    facts_from,
    facts_of,
    read_rows,
    require_same,
    row_id,
)
from selfsup.search.stores import parse_destination, parse_where
from selfsup.search.storing import store_folder

needs_lance = pytest.mark.skipif(find_spec("lance") is None, reason="pylance is not installed")


def stored(folder: Path, to: str) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "selfsup", "store", folder, "--to", to)


@pytest.mark.parametrize(
    ("text", "place", "name"),
    [
        ("postgresql://db/search#faces", "postgresql://db/search", "faces"),
        ("postgresql://me@db/search", "postgresql://me@db/search", "selfsup"),
        ("qdrant:folder/db#x", "folder/db", "x"),
        ("qdrant:http://localhost:6333#x", "http://localhost:6333", "x"),
        ("faiss:a/b", "a/b", ""),
        ("lance:a#b", "a#b", ""),
    ],
)
def test_a_destination_is_a_kind_a_place_and_a_name(text: str, place: str, name: str) -> None:
    destination = parse_destination(text)
    assert (destination.place, destination.name) == (place, name)


@pytest.mark.parametrize(
    "text", ["", "faces", "mysql://db/x", "faiss:", "qdrant:#x", "postgresql:db"]
)
def test_what_is_no_destination_is_told_with_the_forms(text: str) -> None:
    with pytest.raises(UserError, match=r"give postgresql://HOST/DATABASE#TABLE"):
        parse_destination(text)


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:hidden@db/search#faces",
        "postgresql://me:hid/hidden@db/search",
        "postgresql://db/search?user=me&password=hidden",
        "postgresql://db/search?sslpassword=hidden#faces",
        "qdrant:https://me:hidden@db:6333#x",
        "qdrant:https://hidden@db:6333#x",
        "qdrant:https://db:6333?api_key=hidden#x",
    ],
)
def test_a_password_in_a_url_is_refused_and_never_printed(tmp_path: Path, text: str) -> None:
    folder = embedded_folder(tmp_path / "e", unit(3, 4))
    search = called("tools/search.py", folder, "q.png", "--store", text)
    store = called("tools/store.py", folder, "--to", text)
    for done in (search, store):
        assert done.returncode == 2
        assert "has a password in it" in done.stderr
        assert "hidden" not in done.stdout + done.stderr


def test_ids_are_those_of_data_split_and_name(tmp_path: Path) -> None:
    manifest = read_manifest(embedded_folder(tmp_path / "e", unit(3, 4)))
    other = read_manifest(embedded_folder(tmp_path / "f", unit(3, 4, seed=1), data="/others"))
    ids = [rows.ids for rows in read_rows(tmp_path / "e", manifest, 0)]
    assert ids == [[row_id(manifest, f"{i:06d}.jpg") for i in range(3)]]
    assert str(row_id(manifest, "a")) == "ff4ef0de-b0fb-5fcb-a1b8-05b951c5c0e3"  # never another
    assert row_id(manifest, "a") != row_id(other, "a")
    assert row_id(manifest, "a") != row_id(replace(manifest, split="train"), "a")


@pytest.fixture
def facts(tmp_path: Path) -> StoreFacts:
    folder = embedded_folder(tmp_path / "e", unit(3, 4))
    return facts_of(folder, read_manifest(folder))


def test_a_store_is_whole_only_when_it_was_finished(facts: StoreFacts) -> None:
    assert "0 of 1 part is there" in facts.missing
    assert "1 of 1 part is there, and no index perhaps" in replace(facts, parts=1).missing
    assert replace(facts, parts=1, whole=True).missing == ""


@pytest.mark.parametrize(
    ("field", "other"), [("weights", "v" * 64), ("network", "X"), ("size", 64), ("view", ["x"])]
)
def test_what_rows_were_made_by_has_to_be_the_same(
    facts: StoreFacts, field: str, other: Any
) -> None:
    moved: dict[str, Any] = {"model": "elsewhere", "folder": "f", "columns": ["name"]}
    require_same("here", facts, replace(facts, **moved))
    with pytest.raises(UserError, match=f"of elsewhere with another {field} .*: choose another"):
        require_same("here", facts, replace(facts, **moved, **{field: other}))


def test_facts_of_other_versions_are_refused(facts: StoreFacts) -> None:
    record = json.loads(json.dumps(facts.to_json()))
    assert facts_from(record | {"more": 1}, "here") == facts
    less = {name: value for name, value in record.items() if name != "whole"}
    for other in ({}, less, record | {"selfsup": 2}):
        with pytest.raises(UserError, match="here is there and was not made by this version"):
            facts_from(other, "here")


def test_folders_that_differ_in_anything_have_other_digests(
    facts: StoreFacts, tmp_path: Path
) -> None:
    manifest = read_manifest(tmp_path / "e")
    assert facts_of(tmp_path / "e", manifest).folder == facts.folder
    changed: dict[str, Any]
    for changed in ({"weights": "v" * 64}, {"rows_a_part": 128}, {"images": {"n": 3}}):
        assert facts_of(tmp_path / "e", replace(manifest, **changed)).folder != facts.folder


def test_a_number_that_no_class_has_is_refused(facts: StoreFacts) -> None:
    assert parse_where(["class=-1", "class=999999999"], facts) == {"class": [-1, 999_999_999]}
    for value in ("4294967296", "1.5", "", "1 "):
        with pytest.raises(UserError, match="the column class has whole numbers"):
            parse_where([f"class={value}"], facts)


@pytest.mark.parametrize(
    ("to", "client", "extra"),
    [
        ("postgresql://db/x", "psycopg", "postgres"),
        ("qdrant:db#x", "qdrant_client", "qdrant"),
        ("faiss:out", "faiss", "faiss"),
        ("lance:out", "lance", "lance"),
    ],
)
def test_a_missing_client_is_told_with_its_extra(
    to: str, client: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = embedded_folder(tmp_path / "e", unit(3, 4))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, client, None)
    monkeypatch.delitem(sys.modules, "selfsup.search.postgres", raising=False)
    with pytest.raises(UserError, match=rf"pip install 'selfsup\[{extra}\]'"):
        store_folder(folder, to)
    assert [p.name for p in tmp_path.iterdir()] == ["e"]


def test_a_table_s_own_split_stands_for_the_folder_s(tmp_path: Path) -> None:
    columns: dict[str, list[str | None]] = {"split": ["a", "b", None], "data": ["x", "y", "z"]}
    folder = embedded_folder(tmp_path / "e", unit(3, 4), columns=columns)
    (rows,) = read_rows(folder, read_manifest(folder), 0)
    assert rows.columns["split"] == ["a", "b", None]
    assert rows.columns["data"] == ["/images"] * 3
    assert rows.columns["data_"] == ["x", "y", "z"]


def test_a_faiss_index_has_the_exact_answers(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    x, queries = unit(700, 16), unit(5, 16, seed=1)
    columns = {"shop": [None, "here"] * 350}
    folder = embedded_folder(tmp_path / "e", (x * 3).astype(np.float16), columns=columns, bad=[2])
    done = called("tools/store.py", folder, "--to", f"faiss:{tmp_path / 'out'}")
    assert "700 images, 16 wide; 699 rows" in done.stdout, done.stderr
    index = faiss.read_index(str(tmp_path / "out" / "embeddings.faiss"))
    cosines, numbers = index.search(queries, 8)
    rows = pyarrow.parquet.read_table(tmp_path / "out" / "rows.parquet")
    rounded = (x * 3).astype(np.float16).astype(np.float32)
    rounded /= np.linalg.norm(rounded, axis=1, keepdims=True)
    rounded[2] = 0
    order = np.argsort(-queries @ rounded.T)[:, :8]
    names = np.array(rows["name"].to_pylist())
    assert names[numbers].tolist() == [[f"{i:06d}.jpg" for i in row] for row in order]
    np.testing.assert_allclose(
        cosines, np.take_along_axis(queries @ rounded.T, order, 1), atol=1e-6
    )
    assert rows["shop"].to_pylist()[:3] == [None, "here", "here"]
    assert json.loads(rows.schema.metadata[b"selfsup"])["width"] == 16


READ_LANCE = """
import json, sys, lance
data = lance.dataset(sys.argv[1])
search = {"column": "embedding", "q": json.loads(sys.argv[2]), "k": 8, "metric": "cosine"}
tables = data.to_table(), data.to_table(nearest=search)
print(json.dumps([table.to_pydict() for table in tables]))
"""
"""In a process of its own: once Lance is imported, it warns of every fork."""


@pytest.mark.slow
@needs_lance
def test_a_lance_data_set_has_the_rows_and_the_exact_answers(tmp_path: Path) -> None:
    x, query = unit(700, 16), unit(1, 16, seed=1)[0]
    out = tmp_path / "out.lance"
    done = stored(embedded_folder(tmp_path / "e", x * 2), f"lance:{out}")
    assert done.returncode == 0, done.stderr
    read = run(sys.executable, "-c", READ_LANCE, out, json.dumps(query.tolist()))
    table, nearest = json.loads(read.stdout)
    assert table["name"] == [f"{i:06d}.jpg" for i in range(700)]
    assert table["class"][:6] == [0, 1, 2, 3, 4, 0]
    np.testing.assert_allclose(np.array(table["embedding"]), x, atol=1e-6)
    assert nearest["name"] == [f"{i:06d}.jpg" for i in np.argsort(-x @ query)[:8]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["faiss", pytest.param("lance", marks=needs_lance)])
def test_files_are_whole_or_not_there_and_replace_nothing(tmp_path: Path, kind: str) -> None:
    folder = embedded_folder(tmp_path / "e", unit(700, 16), part=256)
    whole = part_file(folder, 2).read_bytes()
    part_file(folder, 2).write_bytes(whole[:-9])
    to = f"{kind}:{tmp_path / 'out'}"
    assert "part-00002.parquet cannot be read" in stored(folder, to).stderr
    assert [p.name for p in tmp_path.iterdir()] == ["e"]
    part_file(folder, 2).write_bytes(whole)
    (tmp_path / "out").mkdir()
    (tmp_path / ".out.part").mkdir()  # of one that was killed
    (tmp_path / ".out.part" / "half").touch()
    assert "it holds 700" in stored(folder, to).stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e", "out"]
    assert not (tmp_path / "out" / "half").exists()
    assert "is there already: remove it" in stored(folder, to).stderr
    with pytest.raises(UserError, match="only databases"), open_store(parse_destination(to)):
        pass
    unmade = stored(folder, f"{kind}:/proc/z")
    assert unmade.returncode == 2
    sentence = "cannot write /proc/z: No such file or directory. Choose a place that can be written"
    assert " ".join(unmade.stderr.split()).endswith(f"error: {sentence}")
    part_file(folder, 1).unlink()
    with pytest.raises(UserError, match="has 2 of 3 parts"):
        store_folder(folder, f"{to}2")
