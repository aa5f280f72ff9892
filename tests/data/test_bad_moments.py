"""A server with a bad moment, and a process that may open no more files."""

import errno
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launch import PRETRAIN, ROOT, run
from pictures import folder, picture

from selfsup.core.errors import NoRoomError
from selfsup.data import decode
from selfsup.data.decode import BadImage, read_bytes


def fails(code: int, times: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    real: Callable[..., Any] = Path.read_bytes
    tries: list[int] = []

    def read(self: Path) -> Any:
        tries.append(code)
        if len(tries) <= times:
            raise OSError(code, "a bad moment")
        return real(self)

    monkeypatch.setattr(Path, "read_bytes", read)
    monkeypatch.setattr(decode, "READ_WAITS", (0.0, 0.0))
    return tries


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EAGAIN])
def test_a_file_that_cannot_be_read_for_a_moment_is_tried_again(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(0, 0).save(tmp_path / "a.png")
    expected = read_bytes(tmp_path / "a.png")
    tries = fails(code, 2, monkeypatch)
    assert read_bytes(tmp_path / "a.png") == expected
    assert len(tries) == 3
    fails(code, 9, monkeypatch)
    with pytest.raises(BadImage, match="a bad moment"):
        read_bytes(tmp_path / "a.png")


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
def test_a_process_that_may_open_no_more_files_does_not_call_images_bad(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture(0, 0).save(tmp_path / "a.png")
    fails(code, 9, monkeypatch)
    with pytest.raises(NoRoomError, match="ulimit -n"):
        read_bytes(tmp_path / "a.png")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="handles are counted in /proc")
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_with_few_file_handles_ends_with_a_sentence_or_does_without(
    workers: str, tmp_path: Path
) -> None:
    script, images = tmp_path / "few.py", folder(tmp_path / "images")
    script.write_text(
        "import os, resource, sys\n"
        "import selfsup.data.loader as loader\n"
        "real = loader.Batches.__getitem__\n"
        "def few(self, step):\n"
        "    here = len(os.listdir('/proc/self/fd'))\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (here - 1, here - 1))\n"
        "    return real(self, step)\n"
        "loader.Batches.__getitem__ = few\n"
        "from recipes.pretrain_simclr import command\n"
        "command()\n"
    )
    flags = ("--data", images, "--out", tmp_path / "run", *PRETRAIN, "--no-report")
    done = run(sys.executable, script, *flags, "--workers", workers, cwd=ROOT)
    assert done.returncode == 5, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert not (tmp_path / "run" / "bad_images.csv").exists()
