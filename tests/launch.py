"""Starting real processes from tests."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


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


def recipe(name: str, *flags: str | Path, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Run a script of recipes/ or tools/ as a user does."""
    return run(*recipe_command(name, *flags, processes=processes))


def recipe_command(name: str, *flags: str | Path, processes: int = 1) -> list[str | Path]:
    """The command line of a script of recipes/ or tools/."""
    start: list[str | Path] = [sys.executable] if processes == 1 else [*torchrun(processes)]
    return [*start, ROOT / name, *flags]
