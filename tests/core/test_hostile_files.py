"""Files from elsewhere: bounded before they are parsed, not waited for, told in a sentence."""

import json
import os
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from teachers import SMALL, teacher

from selfsup.config import EncoderConfig, InitConfig, PretrainConfig, ProbeConfig
from selfsup.core import run_status
from selfsup.core.cli import attempt, parse
from selfsup.core.errors import UserError
from selfsup.core.json_files import read_json
from selfsup.core.secrets import without_passwords
from selfsup.core.tensor_files import LARGEST_HEADER
from selfsup.data.audit import read_audit
from selfsup.data.open import is_local, open_source
from selfsup.encoders.bundle import load_bundle
from selfsup.encoders.weights import read_file
from selfsup.encoders.weights_file import open_file
from selfsup.report.search import GalleryPictures
from selfsup.search import index as store
from selfsup.training.run import Run
from selfsup.training.status import command

DEEP = "[" * 100_000


def encoder_with(name: str, text: str, root: Path) -> Path:
    """An exported encoder, one file of which has another text."""
    teacher(root / "encoder")
    (root / name).write_text(text)
    return root


def index_with(text: str, root: Path) -> Path:
    (root / "index.json").write_text(text)
    return root


def file_with(name: str, text: str, root: Path) -> Path:
    (root / name).write_text(text)
    return root / name


JSON_FILES: dict[str, Callable[[Path], Any]] = {
    "bundle.json": lambda p: load_bundle(encoder_with("bundle.json", DEEP, p)),
    "config.json": lambda p: load_bundle(encoder_with("encoder/config.json", DEEP, p)),
    "index.json": lambda p: store.read(index_with(DEEP, p)),
    "audit.json": lambda p: read_audit(file_with("audit.json", DEEP, p)),
    "status.json": lambda p: run_status.read(file_with("status.json", DEEP, p).parent),
    "rows": lambda p: open_source(str(file_with("rows.jsonl", DEEP, p))),
}


@pytest.mark.parametrize("name", JSON_FILES)
def test_json_that_is_nested_without_end_is_refused_in_a_second(name: str, tmp_path: Path) -> None:
    began = time.process_time()
    with pytest.raises(UserError):
        JSON_FILES[name](tmp_path)
    assert time.process_time() - began < 1


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX")
@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "audit.json"])
def test_a_pipe_is_refused_and_not_waited_for(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError):
        (read_audit if name == "audit.json" else read_file)(tmp_path / name)
    with pytest.raises(OSError, match="not a file"):
        read_json(tmp_path / name)


def header_of(size: int, file: Path) -> Path:
    """A file whose header is so long; of what is behind it nothing is on the disk."""
    with file.open("wb") as out:
        out.write(struct.pack("<Q", size) + b'{"a')
        out.truncate(size + 8)
    return file


@pytest.mark.parametrize("size", [LARGEST_HEADER + 1, 90 << 20, 4 << 30])
def test_millions_of_names_of_tensors_are_refused_in_a_second(size: int, tmp_path: Path) -> None:
    began = time.process_time()
    with pytest.raises(UserError, match="more tensors than a network has"):
        read_file(header_of(size, tmp_path / "w.safetensors"))
    teacher(tmp_path / "encoder")
    header_of(size, tmp_path / "encoder" / "model.safetensors")
    with pytest.raises(UserError, match="more tensors than a network has"):
        load_bundle(tmp_path)
    assert time.process_time() - began < 2  # the teacher is built and written, too


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_named(value: float, tmp_path: Path) -> None:
    file = teacher(tmp_path / "encoder") / "model.safetensors"
    tensors = load_file(file)
    tensors["layer4.0.conv1.weight"][0, 0, 0] = value
    save_file(tensors, file)
    sentence = r"model.safetensors: 3 of \d+ numbers of layer4.0.conv1.weight are not finite"
    with pytest.raises(UserError, match=sentence.replace("model.safetensors", "encoder")):
        load_bundle(tmp_path)
    with pytest.raises(UserError, match=sentence):
        open_file(InitConfig(init=str(file)), EncoderConfig(name="resnet18", args=SMALL), 24, 3)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:secret@host:1/x#y", "http://***@host:1/x#y"),
        ("s3://secret@bucket/a", "s3://***@bucket/a"),
        ("at https://h/p?a=1&api_key=secret&b=2.", "at https://h/p?a=1&api_key=***&b=2."),
        ("https://h/?X-Amz-Signature=secret", "https://h/?X-Amz-Signature=***"),
        ("--token=secret --x", "--token=*** --x"),
        ("mail me@host, see http://host/a@b", "mail me@host, see http://host/a@b"),
        ("path/with@sign and a:b@c", "path/with@sign and a:b@c"),
    ],
)
def test_passwords_of_addresses_are_hidden(text: str, shown: str) -> None:
    assert without_passwords(text) == shown
    assert str(UserError(text)) == shown


def test_no_password_reaches_an_error_a_status_or_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    address = "http://me:secret@127.0.0.1:9/"

    def opened() -> None:
        open_source(address)

    assert attempt(opened) == 2
    monkeypatch.setattr("sys.argv", ["selfsup pretrain", "--data", address])
    assert "secret" not in command() + "".join(capfd.readouterr())
    rows = {name: ["a"] for name in store.COLUMNS}
    index = store.add(store.empty(tmp_path, "m", "w", 8), torch.ones(1, 1).numpy(), rows)
    store.write(replace(index, engine="qdrant", where=f"{address}#x"), lambda _: None)
    assert json.loads((tmp_path / "index.json").read_text())["where"] == "http://***@127.0.0.1:9/#x"


ELSEWHERE = "http://127.0.0.1:9/x.pack"


@pytest.mark.parametrize("data", [ELSEWHERE, f"{ELSEWHERE} + .", f". * 1 + {ELSEWHERE} * 2"])
def test_an_index_from_elsewhere_opens_no_url(
    data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "http:" / "127.0.0.1:9").mkdir(parents=True)
    (tmp_path / "http:" / "127.0.0.1:9" / "x.pack").touch()  # a file of that name changes nothing
    rows = {name: [""] for name in store.COLUMNS} | {"name": ["a"], "data": [data]}
    index = store.add(store.empty(tmp_path, "m", "w", 8), torch.ones(1, 1).numpy(), rows)
    opened: list[str] = []
    monkeypatch.setattr("selfsup.data.open.open_remote", lambda url, **_: opened.append(url))
    assert GalleryPictures(index, 3).pixels(0) is None
    assert not is_local(data)
    assert opened == []


@pytest.mark.parametrize(
    ("text", "flags", "refused"),
    [
        (f"data: {ELSEWHERE}", (), "--data"),
        (f"data: images + {ELSEWHERE}", (), "--data"),
        (f"data: images\nprobe:\n  data: {ELSEWHERE}", (), "--probe.data"),
        (f"data: {ELSEWHERE}", ("--data", ELSEWHERE), ""),
        (f"data: {ELSEWHERE}", ("--data", "images"), ""),
        ("data: images", ("--probe.data", ELSEWHERE), ""),
    ],
)
def test_a_url_in_settings_from_elsewhere_has_to_be_named_as_a_flag(
    text: str, flags: tuple[str, ...], refused: str, tmp_path: Path
) -> None:
    file = file_with("config.yaml", text, tmp_path)
    args = ["--config", str(file), "--out", "x", *flags]
    if not refused:
        parse(PretrainConfig, args)
        return
    with pytest.raises(UserError, match=f"nothing is fetched .* give {refused} "):
        parse(PretrainConfig, args)


@pytest.mark.parametrize("flag", ["data", "probe.data"])
@pytest.mark.parametrize("url", ["s3://me:hidden@bucket/x.pack", "https://h/x.tar?sig=hidden"])
def test_a_run_with_a_password_in_a_url_writes_nothing(flag: str, url: str, tmp_path: Path) -> None:
    images = {"data": "images", "probe.data": ""} | {flag: url}
    probe = ProbeConfig(data=images["probe.data"])
    config = PretrainConfig(data=images["data"], out=str(tmp_path / "run"), probe=probe)
    with pytest.raises(UserError, match="has a password or a token in it") as raised:
        Run(config)
    assert "hidden" not in str(raised.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "secret",
    ["http://me:p@ss@host/x", "http://me:p/ss@host/x", "--api-key ss1", "s3://ss@bucket/x"],
)
def test_no_part_of_a_password_is_shown(secret: str) -> None:
    assert "ss" not in without_passwords(f"no answer of {secret} today")


@pytest.mark.parametrize("text", ["a.a.a." * 10_000, "a.b-" * 10_000, "http://a:" * 5_000])
def test_a_long_text_is_searched_for_passwords_at_once(text: str) -> None:
    began = time.process_time()
    assert without_passwords(text) == text
    assert time.process_time() - began < 2
