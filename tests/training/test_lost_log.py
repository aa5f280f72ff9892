"""A log that cannot be written is told and ends nothing; a checkpoint ends a run with 5."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launch import PRETRAIN, called
from pictures import folder

from selfsup.core import disk, notices

FLAGS = (*PRETRAIN, "--log-every", "1", "--no-report", "--workers", "0")


def breaks_opening(
    names: set[str], code: int, monkeypatch: pytest.MonkeyPatch, *, until: int = 10**9
) -> list[str]:
    """Let files of these names refuse what is written, the first `until` times."""
    real: Callable[..., Any] = Path.open
    refused: list[str] = []

    def opened(self: Path, mode: str = "r", *given: Any, **named: Any) -> Any:
        if self.name in names and mode[0] in "wax" and len(refused) < until:
            refused.append(self.name)
            raise OSError(code, "broken on purpose")
        return real(self, mode, *given, **named)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(notices, "_printed", set())
    monkeypatch.setattr(disk, "WAITS", (0.0, 0.0))
    return refused


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_log_that_cannot_be_written_is_told_once_and_training_goes_on(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = folder(tmp_path / "images")
    refused = breaks_opening({"log.jsonl"}, code, monkeypatch)
    out = tmp_path / "run"
    done = called("recipes/pretrain_simclr.py", "--data", images, "--out", out, *FLAGS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(refused) == 4
    assert done.stderr.count("log.jsonl") == 1
    assert "figures are lost, and training goes on" in done.stderr
    assert (out / "encoder" / "model.safetensors").exists()


def test_figures_are_logged_again_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = folder(tmp_path / "images")
    breaks_opening({"log.jsonl"}, errno.ENOSPC, monkeypatch, until=2)
    out = tmp_path / "run"
    done = called("recipes/pretrain_simclr.py", "--data", images, "--out", out, *FLAGS)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in (out / "log.jsonl").read_text().splitlines() if line]
    assert [json.loads(line)["step"] for line in lines] == [3, 4]


def test_a_log_that_cannot_be_cut_does_not_keep_a_run_from_going_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, out = folder(tmp_path / "images"), tmp_path / "run"
    flags: list[str | Path] = ["--data", images, "--out", out, *FLAGS, "--save-every", "1"]
    done = called("recipes/pretrain_simclr.py", *flags)
    assert done.returncode == 0, done.stderr
    breaks_opening({".log.jsonl.part", "log.jsonl"}, errno.ENOSPC, monkeypatch)
    done = called("recipes/pretrain_simclr.py", *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "log.jsonl" in done.stderr


def test_a_checkpoint_that_cannot_be_written_ends_with_5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, out = folder(tmp_path / "images"), tmp_path / "run"
    breaks_opening({"manifest.json"}, errno.ENOSPC, monkeypatch)
    done = called("recipes/pretrain_simclr.py", "--data", images, "--out", out, *FLAGS)
    assert done.returncode == 5, done.stdout + done.stderr
    assert "no room for" in done.stderr
    assert not list((out / "checkpoints").iterdir())
