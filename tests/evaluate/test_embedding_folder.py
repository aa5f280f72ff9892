"""A folder of embeddings: the same bytes on any number of processes and after any kill."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from embedded import embedded_folder, unit
from launch import ROOT, called, environment, run, torchrun
from pictures import folder

from selfsup.config import EmbedConfig, EncoderConfig, ViewsConfig
from selfsup.core.errors import InUseError, UnusableError, UserError
from selfsup.core.writer import born
from selfsup.data.embedding_parts import (
    FORMAT,
    MANIFEST,
    has_images,
    missing_parts,
    part_file,
    read_manifest,
)
from selfsup.data.open import open_source
from selfsup.encoders.encoder import build, export
from selfsup.evaluate.embedding_folder import _publish, embed_folder, parse_share
from selfsup.evaluate.model import embed, open_images, open_model

IMAGES = 40
LAST = "9\udcff.png" if sys.platform == "linux" else "9_.png"
"""A name that is not UTF-8, where files may have one."""


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, and 40 images of which one is broken and one has a name of odd bytes."""
    room = tmp_path_factory.mktemp("embed")
    torch.manual_seed(0)
    encoder = build(EncoderConfig(name="test_resnet", stem="standard"), 24)
    export(encoder, room / "run" / "encoder", ViewsConfig(size=24))
    images = folder(room / "images", classes=4, each=10)
    (images / "class1" / "2.png").write_bytes(b"no image")
    (images / "class3" / "9.png").rename(images / "class3" / LAST)
    return room


def config_of(room: Path, out: Path, **more: Any) -> EmbedConfig:
    """Parts of 16 images in batches of 8: the last part has 8."""
    settings = {"batch": 8, "part": 16, "workers": 0, "max_bad": 0.1, **more}
    return EmbedConfig(model=str(room / "run"), data=str(room / "images"), out=str(out), **settings)


def contents(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(out.iterdir())}


@pytest.fixture(scope="module")
def whole(room: Path) -> Path:
    """The folder, made by one process."""
    embed_folder(config_of(room, room / "whole"))
    return room / "whole"


def test_a_folder_has_parts_a_manifest_and_the_bad_images(whole: Path) -> None:
    names = ["bad_images.csv", MANIFEST, *(f"part-0000{i}.parquet" for i in range(3))]
    assert sorted(contents(whole)) == sorted(names)
    assert "class1/2.png,UnidentifiedImageError" in (whole / "bad_images.csv").read_text()
    manifest = json.loads((whole / MANIFEST).read_text())
    assert (manifest["rows"], manifest["parts"], manifest["rows_a_part"]) == (IMAGES, 3, 16)
    assert manifest["classes"] == [f"class{i}" for i in range(4)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("float16", 1e-3)])
def test_rows_are_the_features_names_and_labels_of_the_images(
    room: Path, tmp_path: Path, dtype: Any, tolerance: float
) -> None:
    config = config_of(room, tmp_path / "out", dtype=dtype)
    embed_folder(config)
    model = open_model(config)
    source = open_images(model, config.data, "", config)
    expected = embed(model, source, config)
    table = parquet.read_table([part_file(tmp_path / "out", i) for i in range(3)])
    rows = table.to_pylist()
    good = [i for i, row in enumerate(rows) if row["bad"] is None]
    assert good == expected.positions.tolist()
    x = np.array([rows[i]["embedding"] for i in good], np.float32)
    np.testing.assert_allclose(x, expected.x.numpy(), rtol=tolerance, atol=tolerance)
    assert [row["label"] for row in rows] == [f"class{i // 10}" for i in range(IMAGES)]
    assert [row["class"] for row in rows] == [i // 10 for i in range(IMAGES)]
    assert rows[0]["name"] == "class0/0.png"
    assert rows[-1]["name"] == f"class3/{LAST}".encode("utf-8", "backslashreplace").decode()
    (bad,) = [row for row in rows if row["bad"]]
    assert (bad["name"], bad["embedding"], bad["sha256"]) == ("class1/2.png", None, None)
    import hashlib

    stored = source.stored(0)
    assert stored is not None
    assert rows[0]["sha256"] == hashlib.sha256(stored).hexdigest()


@pytest.mark.parametrize("shares", [("1/2", "2/2"), ("3/3", "1/3", "2/3"), ("5/7", "", "1/2")])
def test_shares_in_any_order_make_the_same_bytes(
    room: Path, whole: Path, tmp_path: Path, shares: tuple[str, ...]
) -> None:
    made = [embed_folder(config_of(room, tmp_path / "out", share=share)) for share in shares]
    assert contents(tmp_path / "out") == contents(whole)
    assert sum(done.made for done in made) == IMAGES  # nothing is made twice
    assert made[-1].missing == 0


def test_processes_of_a_share_have_its_parts_alone(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    made: dict[tuple[str, int], list[int]] = {}
    for share in ("2/2", "1/2"):
        for rank in (0, 1):
            monkeypatch.setenv("RANK", str(rank))
            before = set(contents(tmp_path / "out")) if made else set()
            embed_folder(config_of(room, tmp_path / "out", share=share, part=8, max_bad=0.2))
            new = set(contents(tmp_path / "out")) - before
            made[share, rank] = sorted(int(name[5:10]) for name in new if "part-" in name)
    assert made == {("2/2", 0): [2], ("2/2", 1): [3], ("1/2", 0): [0, 4], ("1/2", 1): [1]}


@pytest.mark.parametrize(("part", "rows"), [(3, 8), (8, 8), (20, 24)])
def test_a_part_has_whole_batches_and_no_fewer_images_than_were_asked_for(
    room: Path, tmp_path: Path, part: int, rows: int
) -> None:
    embed_folder(config_of(room, tmp_path / "out", part=part))
    assert read_manifest(tmp_path / "out").rows_a_part == rows
    assert parquet.read_metadata(part_file(tmp_path / "out", 0)).num_rows == rows


def test_what_another_process_was_quicker_to_publish_stays(tmp_path: Path) -> None:
    for text in ("first", "second"):
        _publish(tmp_path / "out" / MANIFEST, text)
    assert (tmp_path / "out" / MANIFEST).read_text() == "first"
    assert [p.name for p in tmp_path.rglob("*")] == ["out", MANIFEST]


@pytest.mark.parametrize("kind", ["a file system without", "a system without"])
def test_a_manifest_is_published_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links")

    if kind == "a system without":
        monkeypatch.delattr(os, "link")
    else:
        monkeypatch.setattr(os, "link", refused)
    _publish(tmp_path / "out" / MANIFEST, "text")
    assert (tmp_path / "out" / MANIFEST).read_text() == "text"
    assert [p.name for p in tmp_path.rglob("*")] == ["out", MANIFEST]


def test_a_part_that_is_there_is_not_made_again(room: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    embed_folder(config_of(room, out))
    times = {file.name: file.stat().st_mtime_ns for file in out.iterdir()}
    part_file(out, 1).unlink()
    done = embed_folder(config_of(room, out))
    assert done.made == 16
    assert contents(out) == contents(whole)
    for i in (0, 2):
        name = part_file(out, i).name
        assert (out / name).stat().st_mtime_ns == times[name]


@pytest.mark.slow
def test_processes_of_a_launcher_share_the_parts_without_a_process_group(
    room: Path, whole: Path, tmp_path: Path
) -> None:
    flags = flags_of(config_of(room, tmp_path / "out"))
    done = run(*torchrun(2), ROOT / "tools" / "embed.py", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "process 2 of 2:" in done.stdout
    assert contents(tmp_path / "out") == contents(whole)


def flags_of(config: EmbedConfig) -> list[str]:
    names = ("model", "data", "out", "batch", "part", "workers", "max_bad", "share")
    pairs = [(f"--{name.replace('_', '-')}", str(getattr(config, name))) for name in names]
    return [word for pair in pairs if pair[1] for word in pair]


SLOWED = """
import sys, time
import selfsup.evaluate.embedding_folder as module
from selfsup.config import EmbedConfig
embed_chunks = module.embed_chunks
def slow(*args, **more):
    for chunk in embed_chunks(*args, **more):
        yield chunk
        time.sleep(0.1)
module.embed_chunks = slow
import selfsup.evaluate.embedding_part as part
flush = part.flush
def slow_flush(file):
    time.sleep(0.3)  # the unfinished file lies there for a while
    flush(file)
part.flush = slow_flush
module.embed_folder(EmbedConfig(**eval(sys.argv[1])))
"""


@pytest.mark.slow
@pytest.mark.parametrize("until", ["part-00000.parquet", ".part-00001.parquet.part"])
def test_a_killed_process_leaves_nothing_wrong(
    room: Path, whole: Path, tmp_path: Path, until: str
) -> None:
    out = tmp_path / "out"
    settings = {
        name: getattr(config_of(room, out), name)
        for name in ("model", "data", "out", "batch", "part", "workers", "max_bad")
    }
    process = subprocess.Popen(
        [sys.executable, "-c", SLOWED, repr(settings)], env=environment(), cwd=ROOT
    )
    end = time.monotonic() + 60
    while not (out / until).exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    with pytest.raises(UserError, match=r"has \d of 3 parts"):
        open_source(str(out))
    embed_folder(config_of(room, out))
    assert contents(out) == contents(whole)


def test_what_one_that_was_killed_has_left_beside_a_whole_part_is_removed(
    room: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    embed_folder(config_of(room, out))
    (out / ".part-00000.writer.json").write_text('{"host": "h", "pid": 1, "born": "1"}')
    embed_folder(config_of(room, out))
    assert contents(out) == contents(whole)


def test_a_part_has_one_writer(room: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    embed_folder(config_of(room, out, share="1/2"))
    start = {"host": socket.gethostname(), "pid": os.getppid(), "born": born(os.getppid())}
    (out / ".part-00001.writer.json").write_text(json.dumps({**start, "start": "now"}))
    with pytest.raises(InUseError, match=f"in use by process {os.getppid()}"):
        embed_folder(config_of(room, out))
    assert embed_folder(config_of(room, out, share="1/2")).made == 0  # its own are there


def other_model(room: Path, tmp_path: Path) -> dict[str, Any]:
    torch.manual_seed(1)
    encoder = build(EncoderConfig(name="test_resnet", stem="standard"), 24)
    export(encoder, tmp_path / "other" / "encoder", ViewsConfig(size=24))
    return {"model": str(tmp_path / "other")}


def other_images(room: Path, tmp_path: Path) -> dict[str, Any]:
    return {"data": str(folder(tmp_path / "images", classes=4, each=9))}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_model, r"has embeddings of .*run \(sha256 \w+\), and .*other is another model"),
        (other_images, "has embeddings of other images: 40 images -> 36"),
        (lambda room, path: {"size": 32}, "begun with --size 24, not 32: give --size 24 or choose"),
        (lambda room, path: {"dtype": "float16"}, "begun with --dtype float32, not float16"),
        (lambda room, path: {"batch": 4}, "begun with --batch 8, not 4"),
        (lambda room, path: {"part": 8}, "begun with --part 16, not 8"),
        (lambda room, path: {"labels": ""}, "begun with --labels label, not"),
        (lambda room, path: {"share": "0/2"}, "--share is a number of several"),
        (lambda room, path: {"part": 0}, "--part must be above 0"),
    ],
)
def test_what_does_not_fit_the_folder_is_one_sentence(
    room: Path, whole: Path, tmp_path: Path, change: Any, words: str
) -> None:
    before = contents(whole)
    with pytest.raises(UserError, match=words):
        embed_folder(replace(config_of(room, whole), **change(room, tmp_path)))
    assert contents(whole) == before


@pytest.mark.parametrize("text", ["2", "3/2", "0/1", "a/b", "1/2/3", "-1/2", "1/0"])
def test_a_share_is_a_number_of_several(text: str) -> None:
    with pytest.raises(UserError, match="such as 2/8"):
        parse_share(text)


def test_too_many_unreadable_images_stop_and_are_named(room: Path, tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match=r"1 of 40 .* \(2\.5%\), .*--max-bad 1\.0%: class1/2"):
        embed_folder(config_of(room, tmp_path / "out", max_bad=0.01))
    assert (tmp_path / "out" / MANIFEST).exists()  # a higher limit goes on
    assert list(embed_folder(config_of(room, tmp_path / "out", max_bad=0.025)).bad) == [
        "class1/2.png"
    ]


def test_an_unreadable_image_is_found_in_any_group_of_rows(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfsup.evaluate.embedding_part.ROWS_A_GROUP", 8)
    done = embed_folder(config_of(room, tmp_path / "out"))
    groups = parquet.read_metadata(part_file(tmp_path / "out", 0)).num_row_groups
    assert (groups, list(done.bad)) == (2, ["class1/2.png"])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:300]), "cannot be read"),
        (lambda file: file.write_bytes(b""), "cannot be read"),
        (lambda file: file.write_bytes(part_file(file.parent, 2).read_bytes()), "8 rows, not 16"),
    ],
)
def test_a_damaged_part_is_named(room: Path, tmp_path: Path, damage: Any, words: str) -> None:
    out = tmp_path / "out"
    embed_folder(config_of(room, out))
    damage(part_file(out, 1))
    with pytest.raises(UserError, match=f"part-00001.parquet .*{words}.*remove it") as error:
        open_source(str(out))
    assert "\n" not in str(error.value)


def test_a_folder_of_a_newer_version_is_told_so(tmp_path: Path) -> None:
    file = embedded_folder(tmp_path / "e", unit(3, 4)) / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": FORMAT + 1}))
    with pytest.raises(UserError, match="was written by a newer selfsup: pip install -U selfsup"):
        open_source(str(tmp_path / "e"))


@pytest.mark.parametrize(
    ("data", "there"),
    [("/gone/images", False), (".", True), ("s3://bucket/a.pack", True), ("user/birds", True)],
)
def test_images_are_there_unless_their_folder_is_gone(
    tmp_path: Path, data: str, there: bool
) -> None:
    where = str(tmp_path) if data == "." else data
    assert has_images(str(embedded_folder(tmp_path / "e", unit(3, 4), data=where))) is there


def test_a_missing_pyarrow_is_said_before_the_model_is_opened(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    config = replace(config_of(room, tmp_path / "out"), model="no such model")
    with pytest.raises(UserError, match=r"needs pyarrow: pip install 'selfsup\[data\]'"):
        embed_folder(config)


def test_embeddings_that_do_not_fit_float16_are_refused(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("selfsup.evaluate.features.ROUNDING", -1.0)
    with pytest.raises(UserError, match="do not fit float16: give --dtype float32"):
        embed_folder(config_of(room, tmp_path / "out", dtype="float16"))
    assert not list((tmp_path / "out").glob("*part-*"))


def test_columns_of_a_table_are_columns_of_the_parts(room: Path, tmp_path: Path) -> None:
    lines = [f"class0/{i}.png,c{i % 2},n{i},train" for i in range(10)]
    table = room / "images" / "table.csv"
    table.write_text("\n".join(["path,camera,name,split", *lines]) + "\n")
    embed_folder(replace(config_of(room, tmp_path / "out"), data=str(table)))
    table.unlink()
    rows = parquet.read_table(part_file(tmp_path / "out", 0)).to_pylist()
    assert [row["camera"] for row in rows] == [f"c{i % 2}" for i in range(10)]
    assert [row["name_"] for row in rows] == [f"n{i}" for i in range(10)]
    source = open_source(str(tmp_path / "out"), split="train")
    assert list(source.columns["camera"]) == [f"c{i % 2}" for i in range(10)]
    assert source.labels is None
    assert open_source(str(tmp_path / "out"), labels="camera").classes == ["c0", "c1"]
    with pytest.raises(UserError, match=r"no column 'lens'. Columns: camera, name, split"):
        open_source(str(tmp_path / "out"), labels="lens")
    with pytest.raises(UserError, match="no rows with split 'test'; it has train"):
        open_source(str(tmp_path / "out"), split="test")


def test_the_command_says_what_there_is(room: Path, tmp_path: Path) -> None:
    flags = flags_of(config_of(room, tmp_path / "out", share="1/2", part=10))
    done = called("tools/embed.py", *flags)
    assert done.returncode == 0, done.stderr
    assert "1 image cannot be read, such as class1/2.png: UnidentifiedImage" in done.stdout
    assert "2 of 3 parts are there, of 40 images at 24 pixels; 24 were embedded now" in done.stdout
    assert "other shares make the 1 other" in done.stdout
    assert "--part 10 -> 16: whole passes of 8 images" in done.stdout
    with pytest.raises(UserError, match="again, or with its other --share, makes the others"):
        open_source(str(tmp_path / "out"))
    assert read_manifest(tmp_path / "out").data == str(room / "images")
    assert missing_parts(tmp_path / "out", read_manifest(tmp_path / "out")) == [1]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images() -> None:
    few, many = (
        json.loads(
            run(
                *(sys.executable, ROOT / "tools" / "bench" / "bench_embed.py"),
                *("--work", str(rows), "--part", "16384"),
            ).stdout.splitlines()[-1]
        )
        for rows in (20_000, 160_000)
    )
    assert many["disk"] > 7.5 * few["disk"]
    assert many["peak"] - many["before"] < few["peak"] - few["before"] + 40  # megabytes
