"""Disks and shared memory without room: older work stays whole, and the numbers are told."""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from launch import PRETRAIN, ROOT, environment, run
from torch import nn

from selfsup.core import disk
from selfsup.core.disk import write_to
from selfsup.core.errors import NoRoomError, UserError
from selfsup.data import loader
from selfsup.encoders import encoder as encoders
from selfsup.training import checkpoint


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "WAITS", (0.0, 0.0))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_tried_three_times_and_then_told(tmp_path: Path, code: int) -> None:
    tries: list[str] = []

    def work() -> None:
        tries.append("write")
        raise OSError(code, "full")

    with pytest.raises(NoRoomError, match=r"it needs 5\.0 MB, and .* MB are free") as raised:
        write_to(tmp_path / "x", work, needed=5_000_000, clean=lambda: tries.append("clean"))
    assert tries == ["write", "clean"] * 3
    assert raised.value.status == 5


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.ENOSPC])
def test_one_error_of_a_disk_is_tried_again(tmp_path: Path, code: int) -> None:
    errors = [OSError(code, "once")]

    def work() -> str:
        if errors:
            raise errors.pop()
        return "written"

    assert write_to(tmp_path / "x", work) == "written"


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_a_place_that_is_shut_is_told_at_once(tmp_path: Path, code: int) -> None:
    tries: list[int] = []

    def work() -> None:
        tries.append(1)
        raise OSError(code, os.strerror(code))

    with pytest.raises(UserError, match=r"cannot write .*x") as raised:
        write_to(tmp_path / "x", work)
    assert raised.value.status == 2
    assert tries == [1]


@pytest.mark.parametrize("limit", [100, 20_000, 60_000])
def test_a_checkpoint_without_room_leaves_the_older_ones_and_no_half(
    tmp_path: Path, limit: int
) -> None:
    code = (
        "import resource, sys, torch; from pathlib import Path; from torch import nn\n"
        "from selfsup.core import disk, errors; from selfsup.training import checkpoint\n"
        "disk.WAITS = (0.0, 0.0)\n"
        "model = nn.Linear(200, 80); optimizer = torch.optim.SGD(model.parameters(), lr=0.1)\n"
        "folder = Path(sys.argv[1])\n"
        "def save(step):\n"
        "    taken = checkpoint.snapshot(step, model, optimizer, extra=None)\n"
        "    checkpoint.save(folder, taken, keep=1)\n"
        "save(1)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)\n"
        "try: save(2)\n"
        "except errors.NoRoomError as error: print(error)\n"
    )
    done = run(sys.executable, "-c", code, tmp_path / "c", str(limit))
    assert "no room for" in done.stdout, done.stderr
    assert "it needs 0.1 MB" in done.stdout
    assert [p.name for p in (tmp_path / "c").iterdir()] == ["step-00000001"]


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A file system of this size, which only root can make."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if os.getuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def pretrain(data: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    script = ROOT / "recipes" / "pretrain_simclr.py"
    flags = (*PRETRAIN, "--no-report", "--workers", "0", *more)
    return run(sys.executable, script, "--data", data, "--out", out, *flags)


@pytest.mark.slow
def test_a_run_whose_disk_is_full_ends_with_5_and_goes_on_later(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (24, 20, 20, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images)
    more = ("--steps", "9", "--save-every", "1", "--log-every", "1", "--keep", "2")
    with small_disk(tmp_path / "disk", "400k") as place:
        filling = place / "filling"
        filling.write_bytes(bytes(230_000))
        full = pretrain(tmp_path / "data.npz", place / "run", *more)
        assert full.returncode == 5, full.stderr
        assert "MB are free there" in full.stderr
        assert "Traceback" not in full.stderr
        assert not list((place / "run").rglob("*.part"))
        filling.unlink()
        done = pretrain(tmp_path / "data.npz", place / "run", *more)
        assert done.returncode == 0, done.stderr
        assert "going on from step" in done.stdout


@pytest.mark.slow
def test_a_small_shared_memory_has_fewer_readers_and_no_hang(tmp_path: Path) -> None:
    from pictures import folder

    data = folder(tmp_path / "images")
    script = str(ROOT / "recipes" / "pretrain_simclr.py")
    flags = [*PRETRAIN, "--no-report", "--workers", "2", "--data", str(data)]
    inside = 'mount --make-rprivate / && mount -t tmpfs -o size=8k tmpfs /dev/shm || exit 9; "$@"'
    words = [sys.executable, script, *flags, "--out", str(tmp_path / "run")]
    if os.getuid() or shutil.which("unshare") is None:
        pytest.skip("a small /dev/shm needs root")
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", inside, "bash", *words],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode == 9:
        pytest.skip("mounting needs root")
    assert done.returncode == 0, done.stderr
    assert "reading with 0" in done.stderr


@pytest.mark.parametrize(
    ("free", "size", "fitting"), [(1000, 100, 2), (450, 100, 1), (299, 100, 0), (0, 100, 0)]
)
def test_readers_are_as_many_as_fit(
    free: int, size: int, fitting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": free}))
    assert loader._fitting_readers(2, size) == fitting


def test_an_encoder_is_replaced_only_by_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from selfsup.config import EncoderConfig, ViewsConfig

    views = ViewsConfig(size=16)
    model = encoders.build(EncoderConfig(name="test_resnet"), 16)
    encoders.export(model, tmp_path / "encoder", views)
    before = (tmp_path / "encoder" / "model.safetensors").read_bytes()
    (tmp_path / "encoder" / "notes.txt").write_text("mine")
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(encoders, "_replace_folder", full)
        with pytest.raises(NoRoomError):
            encoders.export(model, tmp_path / "encoder", views)
    assert (tmp_path / "encoder" / "model.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["encoder"]
    encoders.export(model, tmp_path / "encoder", views)
    assert (tmp_path / "encoder" / "model.safetensors").read_bytes() != before
    assert (tmp_path / "encoder" / "notes.txt").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["encoder"]


def test_weights_have_the_permissions_of_the_other_files(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = os.umask(0o027)
    try:
        checkpoint.save(tmp_path, checkpoint.snapshot(1, model, optimizer, extra=None), keep=1)
    finally:
        os.umask(before)
    files = (tmp_path / "step-00000001").iterdir()
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o640"}


def test_runs_that_begin_at_once_do_not_take_each_others_folders(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from selfsup.core.disk import require_writable\n"
        "for _ in range(1000): require_writable(Path(sys.argv[1]))\n"
    )
    folders = [tmp_path / "runs" / "deep" / name for name in ("a", "a", "b")]
    begun = [
        subprocess.Popen([sys.executable, "-c", code, str(folder)], env=environment())
        for folder in folders
    ]
    assert [process.wait(60) for process in begun] == [0, 0, 0]
    # a folder may stay empty: each took it for another's
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
