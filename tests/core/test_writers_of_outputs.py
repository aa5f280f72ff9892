"""One writer an output: audits, bundles and a teacher's features refuse a second one."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from launch import PRETRAIN, called
from pictures import folder
from teachers import teacher

from selfsup.core.writer import born


@pytest.fixture(scope="module")
def live() -> Iterator[int]:
    """The pid of another process that lives."""
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield other.pid
    other.kill()
    other.wait()


def taken(file: Path, pid: int) -> None:
    """Let a process be the writer of what the file stands for."""
    start = {"host": socket.gethostname(), "pid": pid, "born": born(pid), "start": "now"}
    file.write_text(json.dumps(start))


def test_an_audit_has_one_writer(tmp_path: Path, live: int) -> None:
    images, out = folder(tmp_path / "images", 2, 3), tmp_path / "audit.json"
    taken(tmp_path / ".audit.json.writer.json", live)
    done = called("tools/audit.py", "--data", images, "--out", out)
    assert done.returncode == 6, done.stderr
    assert f"in use by process {live}" in done.stderr
    assert not out.exists()
    (tmp_path / ".audit.json.writer.json").unlink()
    done = called("tools/audit.py", "--data", images, "--out", out)
    assert done.returncode == 0, done.stderr
    assert json.loads(out.read_text())["names"]
    assert not list(tmp_path.glob(".*"))


def test_a_bundle_has_one_writer_and_a_dead_one_is_taken_over(tmp_path: Path, live: int) -> None:
    run, out = teacher(tmp_path / "run" / "encoder").parent, tmp_path / "bundle"
    taken(tmp_path / ".bundle.writer.json", live)
    done = called("tools/bundle.py", run, out)
    assert (done.returncode, out.exists()) == (6, False), done.stderr
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    taken(tmp_path / ".bundle.writer.json", ended.pid)
    done = called("tools/bundle.py", run, out)
    assert done.returncode == 0, done.stderr
    assert f"process {ended.pid} on {socket.gethostname()} is gone" in done.stderr
    assert not list(tmp_path.glob(".*"))


def test_features_of_a_teacher_have_one_writer(tmp_path: Path, live: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 20, 20, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels)
    flags: list[str | Path] = ["--data", tmp_path / "data.npz"]
    flags += ["--method.teacher", teacher(tmp_path / "teacher")]
    flags += [*PRETRAIN, "--no-report", "--method.cache", tmp_path / "cache", "--out"]
    done = called("recipes/pretrain_distil.py", *flags, tmp_path / "a")
    assert done.returncode == 0, done.stdout + done.stderr
    (place,) = (tmp_path / "cache").iterdir()
    (place / "mean.npy").unlink()  # so that it has to be computed again
    taken(place.with_name(f".{place.name}.writer.json"), live)
    done = called("recipes/pretrain_distil.py", *flags, tmp_path / "b")
    assert done.returncode == 6, done.stdout + done.stderr
    assert f"in use by process {live}" in done.stderr
    assert os.listdir(place) != []
