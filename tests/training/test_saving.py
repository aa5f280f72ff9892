"""Checkpoints that a thread writes: what is promised is there, and errors come to the run."""

import errno
import signal
import threading
from functools import partial
from pathlib import Path

import pytest
import torch
from launch import PRETRAIN, called
from pictures import folder
from torch import nn

from selfsup.core import disk
from selfsup.training import checkpoint
from selfsup.training.checkpoint import save, snapshot
from selfsup.training.saving import Saving

STEPS = 14
FLAGS = (*PRETRAIN[:-1], str(STEPS), "--save-every", "3", "--log-every", "1", "--workers", "0")


def test_a_snapshot_stays_as_it_was_while_training_goes_on(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.5)

    def step() -> None:
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()

    step()
    before = snapshot(1, model, optimizer, extra=None)
    save(tmp_path / "at once", before, keep=1)
    taken = snapshot(1, model, optimizer, extra=None)
    step()
    optimizer.param_groups[0]["lr"] = 0.1
    save(tmp_path / "later", taken, keep=1)
    for name in (*checkpoint.FILES, "manifest.json"):
        files = [tmp_path / kind / "step-00000001" / name for kind in ("at once", "later")]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_an_error_of_the_thread_is_raised_once_by_who_asks() -> None:
    saving = Saving()
    failing = threading.Event()

    def write() -> None:
        failing.wait(10)
        raise OSError(errno.EIO, "gone")

    saving.begin(write)
    saving.check()  # nothing has failed yet
    failing.set()
    saving.close()
    with pytest.raises(OSError, match="gone"):
        saving.check()
    saving.wait()


def test_a_wait_lasts_until_the_write_is_done() -> None:
    saving, go, done = Saving(), threading.Event(), threading.Event()

    def write() -> None:
        go.wait(10)
        done.set()

    saving.begin(write)
    threading.Timer(0.1, go.set).start()
    saving.wait()
    assert done.is_set()


@pytest.mark.slow
@pytest.mark.parametrize("number", [3, 12, STEPS])
def test_a_disk_that_fills_up_beside_training_ends_the_run_with_5(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    data, out = folder(tmp_path / "images"), tmp_path / "run"
    real = checkpoint._write

    def full(final: Path, taken: checkpoint.Snapshot) -> None:
        if taken.step == number:
            raise OSError(errno.ENOSPC, "full")
        real(final, taken)

    monkeypatch.setattr(disk, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(checkpoint, "_write", full)
    args = ("--data", data, "--out", out, *FLAGS)
    done = called("recipes/pretrain_simclr.py", *args)
    assert done.returncode == 5, done.stdout + done.stderr
    assert f"no room for {out}/checkpoints/step-{number:08d}: it needs" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (out / "encoder").exists()
    assert '"failed"' in (out / "status.json").read_text()
    assert max(checkpoint.steps_of(out), default=0) < number
    monkeypatch.undo()
    assert called("recipes/pretrain_simclr.py", *args).returncode == 0


@pytest.mark.slow
def test_a_run_that_stops_says_so_when_its_checkpoint_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = folder(tmp_path / "images"), tmp_path / "run"
    real = checkpoint.save
    late = threading.Event()

    def slow(place: Path, taken: checkpoint.Snapshot, *, keep: int) -> None:
        if taken.step == 3:
            signal.raise_signal(signal.SIGTERM)
        late.wait(0.5)
        real(place, taken, keep=keep)

    monkeypatch.setattr(checkpoint, "save", slow)
    done = called("recipes/pretrain_simclr.py", "--data", data, "--out", out, *FLAGS)
    assert done.returncode == 75, done.stdout + done.stderr
    last = checkpoint.steps_of(out)[-1]
    assert f"SIGTERM: stopped after step {last}, whose checkpoint is written" in done.stdout
    assert last < STEPS


def test_a_write_begins_only_when_the_one_before_is_over() -> None:
    saving = Saving()
    saving.begin(partial(threading.Event().wait, 0.2))
    with pytest.raises(AssertionError):
        saving.begin(lambda: None)
    saving.close()


@pytest.mark.parametrize(
    ("steps", "flags", "saved"),
    [(45, (), [20, 40, 45]), (12, (), [12]), (12, ("--save-every", "5"), [5, 10, 12])],
)
def test_a_short_run_has_checkpoints_before_its_end_too(
    tmp_path: Path, steps: int, flags: tuple[str, ...], saved: list[int]
) -> None:
    words = (*PRETRAIN[:-1], str(steps), "--workers", "0", "--keep", "9", "--no-report", *flags)
    images = folder(tmp_path / "images")
    command = "recipes/pretrain_simclr.py", "--data", str(images), "--out", str(tmp_path / "run")
    assert called(*command, *words).returncode == 0
    assert checkpoint.steps_of(tmp_path / "run") == saved
