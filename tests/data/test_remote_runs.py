"""Whole runs on images in S3: killed and gone on with, the weights of a run on local files."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from launch import TINY, called, kill_after, recipe_command
from pictures import folder
from servers import KEYS, FileServer, s3_serving, serving

from selfsup.data.encode import Style
from selfsup.data.open import open_source
from selfsup.data.open_remote import named
from selfsup.data.pack_writer import write_pack

STEPS = 12
FLAGS = (*TINY, "--method.hidden", "16", "--method.dim", "8", "--batch", "8", "--steps", str(STEPS))
EVERY = ("--log-every", "1", "--save-every", "3", "--no-report")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pack")
    source = open_source(str(folder(root / "images")))
    write_pack(source, root / "x.pack", Style("raw", None, 90))
    return root / "x.pack"


@pytest.fixture(scope="module")
def local(pack: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The weights of an unbroken run on the local pack."""
    out = tmp_path_factory.mktemp("local") / "run"
    done = called("recipes/pretrain_simclr.py", "--data", pack, "--out", out, *FLAGS, *EVERY)
    assert done.returncode == 0, done.stderr
    return weights(out)


@pytest.fixture
def server(pack: Path) -> Iterator[FileServer]:
    with serving(pack.parent) as started:
        yield started


def weights(out: Path) -> str:
    last = out / "checkpoints" / f"step-{STEPS:08d}"
    files = ("model.safetensors", "optimizer.safetensors")
    return hashlib.sha256(b"".join((last / name).read_bytes() for name in files)).hexdigest()


@pytest.mark.slow
def test_a_run_on_s3_that_is_killed_ends_as_one_on_the_disk_and_writes_no_credentials(
    pack: Path, local: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boto3 = pytest.importorskip("boto3")
    out, cache = tmp_path / "run", tmp_path / "cache"
    with s3_serving() as address:
        for key, value in {**KEYS, "AWS_ENDPOINT_URL": address}.items():
            monkeypatch.setenv(key, value)
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="images")
        client.upload_file(str(pack), "images", "x.pack")
        flags = ("--data", "s3://images/x.pack", "--out", out, "--workers", "2", *FLAGS, *EVERY)
        kept = ("--cache.dir", cache, "--cache.gb", "0.02")
        kill_after(5, recipe_command("recipes/pretrain_simclr.py", *flags, *kept), out)
        done = called("recipes/pretrain_simclr.py", *flags, *kept)
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stdout
    assert weights(out) == local
    assert "dir: " + str(cache) in (out / "config.yaml").read_text()
    written = b"".join(f.read_bytes() for f in out.rglob("*") if f.is_file())
    assert KEYS["AWS_SECRET_ACCESS_KEY"].encode() not in written
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_run_on_a_server_that_drops_connections_ends_as_one_on_the_disk(
    server: FileServer, local: str, tmp_path: Path
) -> None:
    server.faults.dropped = 0.1
    out, url = tmp_path / "run", f"{server.url}/x.pack"
    flags = ("--data", url, "--out", out, "--workers", "0", *FLAGS, *EVERY)
    done = called("recipes/pretrain_simclr.py", *flags)
    assert done.returncode == 0, done.stderr
    assert weights(out) == local


@pytest.mark.slow
def test_a_server_that_goes_away_stops_a_run_in_one_sentence_and_it_goes_on_when_it_is_back(
    server: FileServer, local: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, url = tmp_path / "run", f"{server.url}/x.pack"
    monkeypatch.setattr("selfsup.data.remote.WAITS", (0.001,) * 7)
    flags = ("--data", url, "--out", out, "--workers", "0", *FLAGS, *EVERY)
    server.faults.last = 90
    done = called("recipes/pretrain_simclr.py", *flags)
    assert done.returncode == 3
    assert "x.pack cannot be read after" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    server.faults.last = None
    done = called("recipes/pretrain_simclr.py", *flags)
    assert done.returncode == 0, done.stderr
    assert weights(out) == local


@pytest.mark.slow
def test_a_run_on_other_images_at_the_same_url_is_not_gone_on_with(
    server: FileServer, pack: Path, tmp_path: Path
) -> None:
    out, url = tmp_path / "run", f"{server.url}/y.pack"
    (pack.parent / "y.pack").write_bytes(pack.read_bytes())
    flags = ("--data", url, "--out", out, "--workers", "0", *FLAGS, *EVERY)
    done = called("recipes/pretrain_simclr.py", *flags)
    assert done.returncode == 0, done.stderr
    other = open_source(str(folder(tmp_path / "other", each=7)))
    (pack.parent / "y.pack").unlink()
    write_pack(other, pack.parent / "y.pack", Style("raw", None, 90))
    done = called("recipes/pretrain_simclr.py", *flags)
    assert done.returncode == 3
    assert "used other images before (24 images -> 28)" in " ".join(done.stderr.split())


@pytest.mark.slow
def test_a_report_and_settings_from_elsewhere_fetch_nothing(
    server: FileServer, tmp_path: Path
) -> None:
    out, url = tmp_path / "run", f"{server.url}/x.pack"
    flags = ("--data", url, "--out", out, "--workers", "0", *FLAGS, *EVERY)
    done = called("recipes/pretrain_simclr.py", *flags)
    assert done.returncode == 0, done.stderr
    named.clear()  # as in another process
    server.faults.requests.clear()
    done = called("tools/report.py", out)
    assert done.returncode == 0, done.stderr
    page = (out / "report.html").read_text()
    assert f"images at {url} are not fetched because a file names them" in page
    config = ("--config", out / "config.yaml", "--out", tmp_path / "again")
    done = called("recipes/pretrain_simclr.py", *config)
    assert done.returncode == 2
    sentence = f"config.yaml names {url}, and nothing is fetched because a file names it"
    assert sentence in " ".join(done.stderr.split())
    assert server.faults.requests == []
    done = called("recipes/pretrain_simclr.py", *config, "--data", url, "--steps", "2")
    assert done.returncode == 0, done.stderr
