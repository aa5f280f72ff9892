"""What POSIX has and others lack is done without: each is taken away, and a small run works."""

import json
import mmap
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launch import PRETRAIN, called
from pictures import folder

from selfsup.core import stopping, writer
from selfsup.core.writer import Writer
from selfsup.data import loader
from selfsup.data.encode import Style
from selfsup.data.open import open_source
from selfsup.data.pack_writer import write_pack


def flags(root: Path) -> list[str | Path]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 20, 3), dtype=np.uint8)
    np.savez(root / "data.npz", images=pixels)
    return ["--data", root / "data.npz", "--out", root / "run", *PRETRAIN, "--no-report"]


def refuses(*given: object, **named: object) -> None:
    raise OSError(95, "Operation not supported")


def no_folders(real: Callable[..., int]) -> Callable[..., int]:
    """os.open of a system that has no handles of folders, as Windows."""

    def opened(path: Any, *given: Any, **named: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *given, **named)

    return opened


def taken_away(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    match name:
        case "handles of folders":
            monkeypatch.setattr(os, "open", no_folders(os.open))
        case "fsync":
            monkeypatch.setattr(os, "fsync", refuses)
        case "hard links":
            monkeypatch.setattr(os, "link", refuses)
        case "no hard links at all":
            monkeypatch.delattr(os, "link")
        case "symbolic links":
            monkeypatch.setattr(os, "symlink", refuses)
        case "permissions":
            monkeypatch.setattr(os, "chmod", refuses)
        case "signals":
            for signal_name in ("SIGUSR1", "SIGHUP"):
                monkeypatch.delattr(signal, signal_name)
        case "/proc":
            monkeypatch.setattr(writer, "born", lambda pid: None)
        case "load and affinity":
            monkeypatch.delattr(os, "getloadavg")
            monkeypatch.delattr(os, "sched_getaffinity")
        case "/dev/shm":
            monkeypatch.setattr(loader, "SHARED", "/nowhere")
        case "fork":
            monkeypatch.delattr(os, "register_at_fork")
            monkeypatch.delattr(os, "fork")
        case "times of files":
            monkeypatch.setattr(os, "utime", refuses)


AWAY = (
    *("handles of folders", "fsync", "hard links", "no hard links at all", "symbolic links"),
    *("permissions", "signals", "/proc", "load and affinity", "/dev/shm", "fork", "times of files"),
)


@pytest.mark.parametrize("name", AWAY)
def test_a_run_does_without(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken_away(name, monkeypatch)
    args = [*flags(tmp_path), "--steps", "2", "--save-every", "1"]
    done = called("recipes/pretrain_simclr.py", *args)
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "run"
    assert json.loads((out / "status.json").read_text())["state"] == "done"
    assert (out / "encoder" / "model.safetensors").exists()
    assert [p.name for p in sorted((out / "checkpoints").iterdir())][-1] == "step-00000002"
    assert not list(out.glob(".writer*"))


@pytest.mark.parametrize("name", ["hard links", "no hard links at all", "/proc"])
def test_there_is_one_writer_without(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_away(name, monkeypatch)
    first = Writer(tmp_path)
    first.acquire(lambda line: None)
    assert json.loads(first.file.read_text())["pid"] == os.getpid()
    first.release()
    dead = {"host": socket.gethostname(), "pid": 2**22 + 1, "born": None, "start": "then"}
    first.file.write_text(json.dumps(dead))
    lines: list[str] = []
    second = Writer(tmp_path)
    second.acquire(lines.append)
    assert "is gone" in lines[0]
    second.release()
    assert not list(tmp_path.iterdir())


def test_a_pack_is_written_and_read_without_what_maps_have_in_posix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PROT_READ", "PROT_WRITE", "MAP_SHARED", "MAP_PRIVATE"):
        monkeypatch.delattr(mmap, name)
    taken_away("handles of folders", monkeypatch)
    images = folder(tmp_path / "images", 2, 3)
    assert write_pack(open_source(str(images)), tmp_path / "a.pack", Style("raw", None, 90)) == 0
    source = open_source(str(tmp_path / "a.pack"))
    assert np.array_equal(source.pixels(5), open_source(str(images)).pixels(5))


@pytest.mark.slow
def test_readers_start_where_there_is_no_fork(tmp_path: Path) -> None:
    """Classes and functions that readers need can be pickled."""
    images = folder(tmp_path / "images", 2, 8)
    before = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    try:
        args = ("--data", images, "--out", tmp_path / "run", *PRETRAIN, "--no-report")
        done = called("recipes/pretrain_simclr.py", *args, "--workers", "1")
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_command_stops_where_only_two_signals_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    taken_away("signals", monkeypatch)

    def work() -> None:
        signal.raise_signal(signal.SIGTERM)

    from selfsup.core.cli import attempt

    assert attempt(work) == stopping.STOPPED
