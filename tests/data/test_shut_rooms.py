"""Folders that cannot be listed, pipes and devices: named, never fewer images without a word."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launch import environment
from pictures import folder

from selfsup.core.errors import UserError
from selfsup.data.open import is_local, open_source


def opened_as_nobody(data: Path) -> str:
    """What `open_source` says to a user without rights: root can list every folder."""
    code = (
        "import os, sys; from selfsup.data.open import open_source\n"
        "os.getuid() or (os.setgid(65534), os.setuid(65534))\n"
        "try: print(len(open_source(sys.argv[1])))\n"
        "except ValueError as error: print(error)"
    )
    for place in data.parents[:-2]:
        place.chmod(0o755)
    command = [sys.executable, "-c", code, str(data)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    return done.stdout


@pytest.mark.parametrize(
    ("place", "mode"), [("red", 0o000), ("red", 0o111), ("deeper/inside", 0o200), (".", 0o000)]
)
def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, place: str, mode: int) -> None:
    data = folder(tmp_path / "images")
    (data / place).mkdir(parents=True, exist_ok=True)
    (data / place).chmod(mode)
    try:
        text = opened_as_nobody(data)
    finally:
        (data / place).chmod(0o755)
    assert "cannot be listed" in text
    assert "Permission denied" in text


@pytest.mark.parametrize("name", ["x.npz", "x.npy", "x.csv", "x.jsonl", "x.tar", "x.pack", "x"])
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    began = time.monotonic()
    with pytest.raises(UserError, match="is a pipe or a device"):
        open_source(str(tmp_path / name))
    assert time.monotonic() - began < 2


def test_a_device_is_refused() -> None:
    with pytest.raises(UserError, match="is a pipe or a device"):
        open_source("/dev/zero")


@pytest.mark.parametrize(
    "data",
    ["cifar10", "torchvision:CIFAR10:.", "cifar10 * 2 + {0}", "{0} + cifar10", "{0}/pipe", "a\0b"],
)
def test_what_is_fetched_is_not_local(tmp_path: Path, data: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert not is_local(data.format(tmp_path))


@pytest.mark.parametrize("data", ["{0}", "{0} + {0}", "{0} * 2 + {0} * 1", "{0}/x y + z.npz"])
def test_files_and_folders_are_local(tmp_path: Path, data: str) -> None:
    (tmp_path / "x y + z.npz").touch()
    assert is_local(data.format(tmp_path))
