"""Start commands from tests: in separate processes, or in this one where that is enough."""

import contextlib
import importlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import selfsup
from selfsup.core import cli
from selfsup.core.process_state import preserve_process_state

ROOT = Path(__file__).parents[1]
PACKAGE = Path(selfsup.__file__).parent
"""The package that is tested: that of this checkout, or an installed one."""
SMALL = "{stem_type: deep, stem_width: 4, channels: [8, 8, 8, 8], layers: [1, 1, 1, 1]}"
TINY = ("--encoder.args", SMALL, "--views.size", "16", "--log-every", "2")
PRETRAIN = (*TINY, "--method.hidden", "16", "--method.dim", "8", "--batch", "8", "--steps", "4")
FINETUNE = (*TINY, "--classes", "3", "--images", "2", "--steps", "4", "--method.dim", "8")
"""Flags of the smallest runs."""


def environment(**more: str) -> dict[str, str]:
    """One thread for each process, this checkout first, plain output."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "COLUMNS": "80",
        **more,
    }


def unplugged(where: Path) -> str:
    """A PYTHONPATH under which a connection to anywhere but this machine's files is an error."""
    where.mkdir(parents=True, exist_ok=True)
    (where / "sitecustomize.py").write_text(
        "import socket\n"
        "connect = socket.socket.connect\n"
        "def local(self, address):\n"
        "    assert self.family == socket.AF_UNIX, f'connection to {address}'\n"
        "    return connect(self, address)\n"
        "socket.socket.connect = socket.socket.connect_ex = local\n"
    )
    return f"{where}{os.pathsep}{ROOT}"


def torchrun(processes: int) -> list[str]:
    """The start of a command for several processes on this machine."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, "--nproc_per_node", str(processes)]


def run(*command: str | Path, cwd: Path = ROOT, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and keep what it prints."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def kill_after(step: int, command: Sequence[str | Path], out: Path) -> None:
    """Start a run; SIGKILL its processes once it has logged `step` steps and has a checkpoint."""
    process = subprocess.Popen(
        [str(part) for part in command],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        if logged(out) >= step and list(out.glob("checkpoints/step-*")):
            break
        time.sleep(0.01)
    assert process.poll() is None, "the run ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def logged(out: Path) -> int:
    """The number of lines in a run's log."""
    log = out / "log.jsonl"
    return log.read_text().count("\n") if log.exists() else 0


def recipe(name: str, *flags: str | Path, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Run a script of recipes/ or tools/ as a user does."""
    return run(*recipe_command(name, *flags, processes=processes))


def recipe_command(name: str, *flags: str | Path, processes: int = 1) -> list[str | Path]:
    """The command line of a script of recipes/ or tools/."""
    start: list[str | Path] = [sys.executable] if processes == 1 else [*torchrun(processes)]
    return [*start, ROOT / name, *flags]


class _Left(BaseException):
    """Carries an exit status out of a command."""


def _leave(status: int) -> None:
    raise _Left(status)


def called(name: str, *flags: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a script of recipes/ or tools/ in this process: the same words and status, and seconds
    less than a process that has to import torch."""
    module = importlib.import_module(name.removesuffix(".py").replace("/", "."))
    out, err, status = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        patch.object(sys, "argv", [name, *map(str, flags)]),
        patch.object(cli, "leave", _leave),
        patch.object(module, "leave", _leave, create=True),
        patch.dict(os.environ, {"COLUMNS": "80"}),
        preserve_process_state(),
    ):
        try:
            module.command()
        except _Left as left:
            (status,) = left.args
        except SystemExit as left:
            status = int(left.code or 0)
    return subprocess.CompletedProcess([name], status, out.getvalue(), err.getvalue())
