"""Commands beside training that a signal ends: one line, a status of its own, nothing half."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launch import ROOT, environment
from pictures import folder

pytestmark = pytest.mark.slow

SLOW = (
    "import sys, time, selfsup.data.decode as decode\n"
    "real = decode.decode_shrunk\n"
    "def slowly(*given):\n"
    "    print('reading', flush=True)\n"
    "    time.sleep(0.2)\n"
    "    return real(*given)\n"
    "import selfsup.data.sources as sources\n"
    "decode.decode_shrunk = sources.decode_shrunk = slowly\n"
    "from importlib import import_module\n"
    "name = sys.argv.pop(1)\n"
    "import_module(f'tools.{name}').command()\n"
)


@pytest.mark.parametrize(
    ("name", "number", "status"),
    [
        ("knn", signal.SIGTERM, 75),
        ("pack", signal.SIGTERM, 75),
        ("audit", signal.SIGUSR1, 75),
        ("knn", signal.SIGINT, 130),
    ],
)
def test_a_signal_ends_a_command_with_its_own_status(
    tmp_path: Path, name: str, number: signal.Signals, status: int
) -> None:
    data = folder(tmp_path / "images")
    script, out = tmp_path / "slow.py", tmp_path / "out"
    script.write_text(SLOW)
    options: dict[str, list[str | Path]] = {
        "knn": ["--model", "pixels", "--data", data, "--test", data, "--workers", "0"],
        "pack": ["--data", data, "--out", out.with_suffix(".pack")],
        "audit": ["--data", data, "--out", out.with_suffix(".json")],
    }
    process = subprocess.Popen(
        [sys.executable, script, name, *options[name]],
        env=environment(),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    with process:
        line = process.stdout.readline()
        while line and "reading" not in line:
            line = process.stdout.readline()
        time.sleep(0.3)
        process.send_signal(number)
        text, _ = process.communicate(timeout=30)
    assert process.returncode == status, text
    assert "Traceback" not in text
    assert not list(tmp_path.glob("out.pack")) + list(tmp_path.glob("*.writer.json"))
    assert not out.with_suffix(".json").exists()
