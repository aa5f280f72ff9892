"""Packs and tar shards at a URL: the same images as from the disk, whatever the server does."""

import io
import json
import os
import pickle
import shutil
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import folder, picture
from servers import KEYS, FileServer, forget_s3, s3_serving, serving

from selfsup.augment.boxes import CenterBoxes, CropSpec
from selfsup.config import CacheConfig, ViewsConfig
from selfsup.core.errors import UnusableError, UserError
from selfsup.data import open_remote, remote, remote_systems
from selfsup.data.encode import Style
from selfsup.data.fingerprint import fingerprint
from selfsup.data.loader import read_ahead
from selfsup.data.open import open_source
from selfsup.data.pack_writer import write_pack
from selfsup.data.samplers import ShuffleSampler
from selfsup.data.sources import ArraySource, Source
from selfsup.training.pretrain import local_batches

IMAGES = 24
KINDS = ("jpeg.pack", "raw.pack", "one-size.pack", "x.tar", "tars", "packs")


def tar(file: Path, labels: range) -> None:
    """A shard of webdataset samples: image, class and caption of each."""
    file.parent.mkdir(exist_ok=True)
    with tarfile.open(file, "w") as out:
        for label in labels:
            for i in range(6):
                image = io.BytesIO()
                picture(label, i, 20 + i).save(image, "PNG")
                members = {"png": image.getvalue(), "cls": f"class{label}".encode()}
                members["json"] = json.dumps({"camera": f"c{i}"}).encode()
                for kind, data in members.items():
                    info = tarfile.TarInfo(f"class{label}-{i}.{kind}")
                    info.size = len(data)
                    out.addfile(info, io.BytesIO(data))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same images in all forms."""
    root = tmp_path_factory.mktemp("stored")
    same = open_source(str(folder(root / "in" / "same", classes=4, each=6)))
    for label in range(4):
        for i in range(6):
            file = root / "in" / "mixed" / f"class{label}" / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(label, i, 20 + i).save(file)
    mixed = open_source(str(root / "in" / "mixed"))
    out = root / "out"
    write_pack(mixed, out / "jpeg.pack", Style("jpeg", None, 90))
    write_pack(mixed, out / "raw.pack", Style("raw", None, 90))
    write_pack(same, out / "one-size.pack", Style("raw", None, 90))
    tar(out / "x.tar", range(4))
    for i in range(2):
        tar(out / "tars" / f"{i}.tar", range(2 * i, 2 * i + 2))
    (out / "packs").mkdir()
    for name in ("jpeg.pack", "raw.pack"):
        shutil.copy(out / name, out / "packs")
    shutil.rmtree(root / "in")
    return out


@pytest.fixture
def server(stored: Path) -> Iterator[FileServer]:
    with serving(stored) as started:
        yield started


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "WAITS", (0.01,) * 7)
    monkeypatch.setattr(remote_systems, "OPENING_WAITS", (0.01,) * 3)
    monkeypatch.setattr(remote, "OPENING_WAITS", (0.01,) * 3)


def views_of(source: Source, workers: int, steps: int = 6) -> list[torch.Tensor]:
    sampler = ShuffleSampler(len(source), batch=8, seed=0)
    batches = local_batches(source, sampler, ViewsConfig(size=8), 0)
    return [batch.crops[0] for batch in read_ahead(batches, range(steps), workers=workers)]


def assert_same(ours: Source, local: Source) -> None:
    """The same names, labels, columns, pixels, bytes and crops."""
    assert len(ours) == len(local)
    assert ours.labels is not None
    assert local.labels is not None
    assert torch.equal(ours.labels, local.labels)
    assert ours.classes == local.classes
    assert fingerprint(ours) == fingerprint(local)
    assert {k: list(v) for k, v in ours.columns.items()} == {
        k: list(v) for k, v in local.columns.items()
    }
    for i in range(len(local)):
        assert np.array_equal(ours.pixels(i), local.pixels(i))
        assert ours.stored(i) == local.stored(i)
    for size in (12, 24):  # also the size of the images, where arrays are not resized
        boxes = CenterBoxes(len(local), 1.0)
        specs = [CropSpec(boxes, size, "bicubic"), CropSpec(boxes, 8, "bilinear")]
        crops, expected = (s.crops(range(len(local)), *specs) for s in (ours, local))
        assert crops.bad == expected.bad == {}
        assert all(map(torch.equal, crops.images, expected.images))


@pytest.mark.parametrize("kind", KINDS)
def test_images_at_a_url_are_those_on_the_disk(
    kind: str, server: FileServer, stored: Path, tmp_path: Path
) -> None:
    local = open_source(str(stored / kind))
    assert_same(open_source(f"{server.url}/{kind}"), local)
    cache = CacheConfig(dir=str(tmp_path / "cache"), gb=0.05)
    assert_same(open_source(f"{server.url}/{kind}", cache=cache), local)
    server.faults.requests.clear()
    open_remote._listed.clear()  # as in another process
    again = open_source(f"{server.url}/{kind}", cache=cache)
    assert_same(pickle.loads(pickle.dumps(again)), local)
    listed = (f"/{kind} ", f"/{kind}/ ")
    probes = [r for r in server.faults.requests if not r.endswith("bytes=0-1023")]
    assert [r for r in probes if not r.startswith(listed)] == []  # all came from the cache


@pytest.fixture(scope="module")
def bucket(stored: Path) -> Iterator[str]:
    """A bucket of an S3 server with the same files."""
    boto3 = pytest.importorskip("boto3")
    with s3_serving() as address, pytest.MonkeyPatch.context() as patch:
        for key, value in {**KEYS, "AWS_ENDPOINT_URL": address}.items():
            patch.setenv(key, value)
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="images")
        for file in stored.rglob("*.*"):
            client.upload_file(str(file), "images", f"all/{file.relative_to(stored)}")
        yield "s3://images/all"


@pytest.mark.parametrize("kind", KINDS)
def test_images_in_s3_are_those_on_the_disk(kind: str, bucket: str, stored: Path) -> None:
    assert_same(open_source(f"{bucket}/{kind}"), open_source(str(stored / kind)))


@pytest.mark.parametrize("name", ["images/all/none.pack", "no-such-bucket/x.pack"])
def test_what_is_not_in_s3_is_told_in_a_sentence(name: str, bucket: str) -> None:
    with pytest.raises(UserError, match=rf"^s3://{name} does not exist on its server$"):
        open_source(f"s3://{name}")


def test_s3_without_credentials_is_told_in_a_sentence(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in KEYS:
        monkeypatch.delenv(key)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    forget_s3()
    with pytest.raises(UserError, match=r"may not be read .*give credentials by the environment"):
        open_source(f"{bucket}/jpeg.pack")
    forget_s3()


def test_any_file_system_of_fsspec_serves(stored: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for name in ("one-size.pack", "x.tar"):
        memory.pipe(f"/images/{name}", (stored / name).read_bytes())
        local = open_source(str(stored / name))
        assert_same(open_source(f"memory://images/{name}"), local)
        assert_same(open_source(f"file://{stored}/{name}"), local)
    memory.rm("/images", recursive=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["raw.pack", "one-size.pack", "tars"])
def test_reader_processes_read_a_url_as_the_main_one_reads_the_disk(
    kind: str, bucket: str, server: FileServer, stored: Path
) -> None:
    local = views_of(open_source(str(stored / kind)), 0)
    for url in (server.url, bucket):
        source = open_source(f"{url}/{kind}")
        source.pixels(0)  # a connection is open when the readers are forked
        for workers in (2, 0):
            assert all(map(torch.equal, views_of(source, workers), local))


@pytest.mark.parametrize("kind", ["jpeg.pack", "one-size.pack", "x.tar"])
@pytest.mark.parametrize("dropped", [0.3, 0.6])
def test_a_server_that_drops_connections_at_random_changes_no_image(
    kind: str, dropped: float, server: FileServer, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "WAITS", (0.001,) * 40)
    local = open_source(str(stored / kind))
    source = open_source(f"{server.url}/{kind}")
    server.faults.dropped = dropped
    assert all(map(torch.equal, views_of(source, 0), views_of(local, 0)))
    ranges = server.faults.requests
    assert len(ranges) > len(set(ranges))


def test_a_busy_server_is_asked_again(server: FileServer, stored: Path) -> None:
    source = open_source(f"{server.url}/jpeg.pack")
    server.faults.busy = 5
    assert source.stored(3) == open_source(str(stored / "jpeg.pack")).stored(3)
    server.faults.busy = 3
    assert len(open_source(f"{server.url}/jpeg.pack")) == IMAGES


@pytest.mark.parametrize("kind", ["jpeg.pack", "one-size.pack", "tars"])
def test_a_connection_that_breaks_each_time_is_told_after_eight_tries(
    kind: str, server: FileServer
) -> None:
    source = open_source(f"{server.url}/{kind}")
    server.faults.dropped = 1.0
    server.faults.requests.clear()
    with pytest.raises(UnusableError, match=r"^http://127.* cannot be read after 8 tries \("):
        source.crops([0, 1], CropSpec(CenterBoxes(2, 1.0), 8, "bilinear"))
    assert len(server.faults.requests) >= 8


def test_a_server_that_is_not_there_is_told_in_a_sentence() -> None:
    with pytest.raises(UserError, match=r"^http://127.0.0.1:9/x.pack cannot be read after 4 tries"):
        open_source("http://127.0.0.1:9/x.pack")


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("jpeg.pack", 404, "does not exist on its server$"),
        ("x.tar", 410, "does not exist on its server$"),
        ("jpeg.pack", 403, r"may not be read \(403.*give credentials by the environment"),
        ("x.tar", 401, r"may not be read \(401"),
        ("jpeg.pack", 500, "cannot be read after 4 tries"),
    ],
)
def test_a_status_of_the_server_is_one_sentence(
    name: str, status: int, message: str, server: FileServer
) -> None:
    server.faults.status[f"/{name}"] = status
    with pytest.raises(UserError, match=message):
        open_source(f"{server.url}/{name}")


def test_a_server_without_ranges_is_told_before_it_sends_whole_files(server: FileServer) -> None:
    server.faults.ranges = False
    for name in ("jpeg.pack", "one-size.pack", "x.tar"):
        with pytest.raises(
            UserError, match=r"the server sends whole files \(0.\d MB\) and no rang"
        ):
            open_source(f"{server.url}/{name}")


@pytest.mark.parametrize("kind", ["tars", "packs"])
def test_a_file_that_vanishes_has_bad_images_and_others_stand_in(
    kind: str, server: FileServer
) -> None:
    source = open_source(f"{server.url}/{kind}")
    lost = "1.tar" if kind == "tars" else "raw.pack"
    half = len(source) // 2
    server.faults.status[f"/{kind}/{lost}"] = 404
    batches = local_batches(
        source, ShuffleSampler(len(source), batch=8, seed=0), ViewsConfig(size=8), 0
    )
    bad: dict[int, str] = {}
    for step in range(len(source) // 8):
        batch = batches[step]
        bad |= batch.bad
        assert batch.labels is not None
        assert source.labels is not None
        seen = batch.positions[batch.labels >= 0]
        assert (seen < half).all()
        assert torch.equal(batch.labels[batch.labels >= 0], source.labels[seen])
    assert set(bad) == set(range(half, len(source)))
    assert set(bad.values()) == {f"{server.url}/{kind}/{lost} is no longer there"}


@pytest.mark.parametrize("kind", ["one-size.pack", "x.tar"])
def test_a_file_that_is_cut_short_meanwhile_has_bad_images_behind_the_cut(
    kind: str, server: FileServer, stored: Path
) -> None:
    source = open_source(f"{server.url}/{kind}")
    server.faults.cut[f"/{kind}"] = size = (stored / kind).stat().st_size // 3
    crops = source.crops(range(IMAGES), CropSpec(CenterBoxes(IMAGES, 1.0), 8, "bilinear"))
    whole, local = (stored / kind).read_bytes(), open_source(str(stored / kind))
    images = [local.stored(i) or local.pixels(i).tobytes() for i in range(IMAGES)]
    behind = [i for i, image in enumerate(images) if whole.index(image) + len(image) > size]
    assert 1 < len(behind) < IMAGES
    assert sorted(crops.bad) == behind
    assert f"has {size} bytes, and" in crops.bad[IMAGES - 1]


@pytest.mark.parametrize("name", ["jpeg.pack", "one-size.pack", "x.tar"])
def test_a_truncated_file_is_told_as_on_the_disk(
    name: str, server: FileServer, stored: Path, tmp_path: Path
) -> None:
    size = (stored / name).stat().st_size // 2 - 100
    server.faults.cut[f"/{name}"] = size
    (tmp_path / name).write_bytes((stored / name).read_bytes()[:size])
    sentences = []
    for place in (str(tmp_path), server.url):
        with pytest.raises(UserError, match=name) as raised:
            open_source(f"{place}/{name}")
        sentences.append(str(raised.value).replace(f"{place}/", ""))
    assert sentences[0] == sentences[1]


def test_a_token_from_the_environment_opens_and_is_in_no_message(
    server: FileServer, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec = pytest.importorskip("fsspec")
    server.faults.password = "Bearer hidden"
    with pytest.raises(UserError, match="may not be read") as raised:
        open_source(f"{server.url}/jpeg.pack")
    assert "hidden" not in str(raised.value)
    told: dict[str, Any] = {}
    value = json.dumps({"client_kwargs": {"headers": {"Authorization": "Bearer hidden"}}})
    fsspec.config.set_conf_env(told, {"FSSPEC_HTTP": value})
    monkeypatch.setattr(fsspec.config, "conf", told)
    monkeypatch.setattr(remote_systems, "_opened", {})
    assert_same(open_source(f"{server.url}/jpeg.pack"), open_source(str(stored / "jpeg.pack")))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://images/a.csv", r"only \.pack, \.tar and folders of them are read, not \.csv"),
        ("https://h/images/1.jpg", r"only \.pack, \.tar and folders of them"),
        ("nosuch://images/a.pack", "Protocol not known: nosuch"),
        ("http://me:hidden@127.0.0.1:9/a.pack", r"\*\*\*@127.0.0.1:9/a.pack has a password"),
        ("http://127.0.0.1:9/a.pack?token=hidden", "has a password or a token in it"),
    ],
)
def test_urls_that_are_not_read_are_told_why(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        open_source(url)
    assert "hidden" not in str(raised.value)


def test_a_missing_package_is_told_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = pytest.importorskip("fsspec.registry")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(registry._registry, "s3", raising=False)
    monkeypatch.setattr(remote_systems, "_opened", {})
    with pytest.raises(UserError, match=r"s3fs.*pip install 'selfsup\[remote\]'"):
        open_source("s3://images/a.pack")


def test_a_folder_without_shards_is_told(server: FileServer, stored: Path) -> None:
    (stored / "empty").mkdir(exist_ok=True)
    (stored / "empty" / "notes.txt").touch()
    with pytest.raises(UserError, match=r"holds no \.tar and no \.pack \(1 other names\)"):
        open_source(f"{server.url}/empty/")


def test_a_tar_is_listed_in_one_pass(server: FileServer, stored: Path) -> None:
    open_source(f"{server.url}/x.tar")
    size = os.path.getsize(stored / "x.tar")
    ranges = [r.split("bytes=")[1] for r in server.faults.requests if "bytes=" in r]
    spans = [tuple(map(int, r.split("-"))) for r in ranges if r != "0-1023"]
    assert sum(end - start + 1 for start, end in spans) <= size
    server.faults.requests.clear()
    open_source(f"{server.url}/x.tar")  # again in this process
    assert [r for r in server.faults.requests if "bytes=" in r] == ["/x.tar bytes=0-1023"]


def test_only_without_a_cache_a_start_says_what_passes_through(
    server: FileServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    open_source(f"{server.url}/tars", cache=CacheConfig(dir=str(tmp_path), gb=0.05))
    assert capsys.readouterr().err == ""
    open_source(f"{server.url}/tars")
    told = " ".join(capsys.readouterr().err.split())
    assert "members of 2 shards 0.00 GB were passed through" in told
    assert "--cache.dir FOLDER keeps the list" in told


def test_of_a_tar_of_large_members_only_what_lies_around_headers_is_read(
    server: FileServer, stored: Path
) -> None:
    with tarfile.open(stored / "large.tar", "w") as out:
        for i in range(6):
            for kind, data in {"png": bytes(3_000_000), "cls": b"cat"}.items():
                info = tarfile.TarInfo(f"{i}.{kind}")
                info.size = len(data)
                out.addfile(info, io.BytesIO(data))
    source = open_source(f"{server.url}/large.tar")
    assert list(source.classes) == ["cat"]
    ranges = [r.split("bytes=")[1] for r in server.faults.requests if "bytes=" in r]
    spans = [tuple(map(int, r.split("-"))) for r in ranges]
    assert len(spans) <= 8  # the probe, and one for each image
    assert sum(end - start + 1 for start, end in spans) < 2_500_000


def test_a_file_that_was_replaced_does_not_come_from_the_cache(
    server: FileServer, stored: Path, tmp_path: Path
) -> None:
    file, cache = stored / "replaced.pack", CacheConfig(dir=str(tmp_path), gb=0.05)
    for level in (10, 200):
        images = np.full((4, 8, 8, 3), level, np.uint8)
        file.unlink(missing_ok=True)
        write_pack(ArraySource(images, None, []), file, Style("raw", None, 90))
        source = open_source(f"{server.url}/replaced.pack", cache=cache)
        assert [int(source.pixels(i).max()) for i in range(4)] == [level] * 4
        assert [int(source.pixels(i).max()) for i in range(4)] == [level] * 4


def test_a_shard_that_was_replaced_has_its_new_members(
    server: FileServer, stored: Path, tmp_path: Path
) -> None:
    cache = CacheConfig(dir=str(tmp_path), gb=0.05)
    for labels in (range(0, 2), range(2, 4)):
        tar(stored / "replaced.tar", labels)
        source = open_source(f"{server.url}/replaced.tar", cache=cache)
        assert_same(source, open_source(str(stored / "replaced.tar")))


@pytest.mark.parametrize("name", ["x.tar", "jpeg.pack"])
def test_a_suffix_may_be_in_capitals(name: str, server: FileServer, stored: Path) -> None:
    shutil.copy(stored / name, stored / name.upper())
    assert_same(open_source(f"{server.url}/{name.upper()}"), open_source(str(stored / name)))
