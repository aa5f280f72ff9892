"""The GPU check in its smallest form, on the CPU."""

import json
import sys
from pathlib import Path

import pytest
from launch import ROOT, run

from selfsup.core.errors import UserError
from tools.gpu_check import BENCH, PIECES, Config, chosen, table

SCRIPT = ROOT / "tools" / "gpu_check.py"


def test_every_piece_is_known_to_its_file() -> None:
    for name, (file, minutes) in PIECES.items():
        assert f'"{name}": {name}' in (BENCH / file).read_text()
        assert minutes > 0


def test_pieces_run_in_their_order_and_cifar_only_with_its_images(tmp_path: Path) -> None:
    assert chosen(Config(only="waits,versions")) == ["versions", "waits"]
    assert "cifar" not in chosen(Config())
    with pytest.raises(UserError, match="--cifar FOLDER"):
        chosen(Config(only="cifar", cifar=str(tmp_path)))
    (tmp_path / "train.npz").touch()
    assert chosen(Config(cifar=str(tmp_path)))[-1] == "cifar"
    with pytest.raises(UserError, match="no piece 'wait'"):
        chosen(Config(only="versions,wait"))


def test_the_table_marks_what_misses_its_bound() -> None:
    row = {"name": "x", "value": 2.0, "unit": "ms", "bound": "at most 1", "passed": False}
    text = table({"waits": [row, row | {"passed": True, "value": "H100"}]})
    missed, right = text.splitlines()[1:]
    assert missed.endswith("2 ms  (at most 1)  MISSED")
    assert "H100" in right
    assert "MISSED" not in right


@pytest.mark.slow
def test_the_smallest_form_runs_goes_on_and_is_exact(tmp_path: Path) -> None:
    command: list[str | Path] = [sys.executable, SCRIPT, "--small", "--out", tmp_path, "--only"]
    first = run(*command, "versions,waits", PYTHONPATH=str(ROOT))
    assert first.returncode == 0, first.stdout + first.stderr
    assert "waits... done" in first.stdout
    again = run(*command, "versions,waits,methods", PYTHONPATH=str(ROOT))
    assert again.returncode == 0, again.stdout + again.stderr
    assert "waits..." not in again.stdout
    assert {row["value"] for row in json.loads((tmp_path / "methods.json").read_text())} == {0.0}


@pytest.mark.slow
def test_a_piece_that_fails_is_named_and_the_others_run(tmp_path: Path) -> None:
    (tmp_path / "resume-whole").write_text("no folder")
    command: list[str | Path] = [
        sys.executable,
        SCRIPT,
        "--small",
        "--out",
        tmp_path,
        "--only",
        "resume,versions",
    ]
    done = run(*command, PYTHONPATH=str(ROOT))
    assert done.returncode == 1
    assert "resume... failed with status 1" in done.stdout
    assert "not yet run: resume" in done.stdout
    assert "versions... done" in done.stdout
