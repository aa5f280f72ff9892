"""A signal that comes after the last step stops a run before its export, or the run says so."""

import signal
from pathlib import Path

import numpy as np
import pytest
from launch import PRETRAIN, called, run, torchrun

from selfsup.core.cli import attempt
from selfsup.core.stopping import deferred
from selfsup.training import loop, pretrain
from selfsup.training.run import Run


def flags(root: Path) -> list[str | Path]:
    images = np.random.default_rng(0).integers(0, 256, (24, 20, 20, 3), dtype=np.uint8)
    np.savez(root / "data.npz", images=images)
    return ["--data", root / "data.npz", "--out", root / "run", *PRETRAIN, "--no-report"]


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 75), ("SIGUSR1", 75), ("SIGINT", 130)])
def test_a_signal_while_the_last_checkpoint_is_written_stops_before_the_export(
    name: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Run.save

    def save(self: Run, step: int, *given: object) -> None:
        real(self, step, *given)  # type: ignore[arg-type]
        if step == 4:
            signal.raise_signal(getattr(signal, name))

    monkeypatch.setattr(Run, "save", save)
    args = flags(tmp_path)
    done = called("recipes/pretrain_simclr.py", *args)
    assert done.returncode == status, done.stdout + done.stderr
    assert f"{name}: stopped after step 4, whose checkpoint is written" in done.stdout
    assert not (tmp_path / "run" / "encoder").exists()
    monkeypatch.undo()
    done = called("recipes/pretrain_simclr.py", *args)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "encoder" / "model.safetensors").exists()


def test_a_signal_while_a_caller_leaves_the_loop_stops_before_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.train_steps

    def left_early(*given: object, **named: object) -> object:
        steps = real(*given, **named)  # type: ignore[arg-type]
        for step in steps:
            yield step
            if step == 2:  # as a patience does
                signal.raise_signal(signal.SIGTERM)
                return

    monkeypatch.setattr(pretrain, "train_steps", left_early)
    done = called("recipes/pretrain_simclr.py", *flags(tmp_path))
    assert done.returncode == 75, done.stdout + done.stderr
    assert "SIGTERM: stopped before the encoder is written" in done.stdout


def test_a_signal_that_is_too_late_to_stop_anything_is_told(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def work() -> None:
        with deferred():
            signal.raise_signal(signal.SIGTERM)

    assert attempt(work) == 0
    assert "SIGTERM came when the work was done" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("whom", ["1", pytest.param("01", marks=pytest.mark.grid)])
def test_a_late_signal_on_one_of_two_processes_stops_both(tmp_path: Path, whom: str) -> None:
    script = tmp_path / "late.py"
    script.write_text(
        "import os, signal, sys\n"
        "from selfsup.training.run import Run\n"
        "whom, real = sys.argv.pop(1), Run.save\n"
        "def save(self, step, *given):\n"
        "    real(self, step, *given)\n"
        "    if step == 4 and os.environ['RANK'] in whom:\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "Run.save = save\n"
        "from recipes.pretrain_simclr import command\n"
        "command()\n"
    )
    done = run(*torchrun(2), script, whom, *flags(tmp_path))
    assert "SIGTERM: stopped after step 4" in done.stdout, done.stderr
    assert run("selfsup", "status", tmp_path / "run", "--exit-code").returncode == 75
    assert not (tmp_path / "run" / "encoder").exists()
    assert not (tmp_path / "run" / ".writer.json").exists()
