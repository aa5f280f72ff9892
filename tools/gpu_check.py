"""Prove on a GPU what a CPU cannot: exactness, waits, speed beside peers, CIFAR-10. 30 minutes.

    pip install -e '.[bench]' && python tools/gpu_check.py --out gpu
    python tools/gpu_check.py --out gpu --cifar data/cifar10 --minutes 9

Each piece runs in a process of its own and leaves PIECE.json in the folder; the same command goes
on with the pieces that are missing. Nothing is downloaded. Exit status 1 if a figure misses its
bound. `--small` is the form for a CPU, in which only exactness means anything.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selfsup.core.cli import run as launch
from selfsup.core.errors import UserError, require
from selfsup.core.paths import make_folder

BENCH = Path(__file__).parent / "bench"
PIECES: dict[str, tuple[str, float]] = {
    "versions": ("gpu_exact.py", 1),
    "methods": ("gpu_exact.py", 3),
    "waits": ("gpu_exact.py", 2),
    "losses": ("gpu_speed.py", 3),
    "throughput": ("gpu_train.py", 6),
    "resume": ("gpu_train.py", 3),
    "doctor": ("gpu_exact.py", 5),
    "views": ("gpu_speed.py", 2),
    "extraction": ("gpu_speed.py", 2),
    "modes": ("gpu_train.py", 4),
    "cifar": ("gpu_train.py", 60),
}
"""File and most minutes of each piece, in the order in which they run."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Prove on a GPU what a CPU cannot: exactness, waits, speed beside peers, CIFAR-10."""

    out: str = "gpu"
    """Folder of the results; the same command goes on where it stopped."""
    only: str = ""
    """Only these pieces, with commas: versions,methods,waits,losses,throughput,resume,doctor,views,
    extraction,modes,cifar."""
    cifar: str = ""
    """Folder with train.npz and test.npz of CIFAR-10 (tools/cifar10.py); without it that piece is
    left out."""
    minutes: float = 1000.0
    """Begin no piece that may end later than this, where commands are short."""
    small: bool = False
    """The smallest form of everything, to see that it runs."""


def main(config: Config) -> None:
    """Run what is missing, print the table, exit with 1 where a figure misses its bound."""
    names = chosen(config)
    folder = Path(config.out)
    make_folder(folder)
    began = time.monotonic()
    for name in names:
        file = folder / f"{name}.json"
        left = config.minutes - (time.monotonic() - began) / 60
        if not file.exists() and PIECES[name][1] <= left:
            run_piece(name, config, folder)
    found = {
        name: json.loads(file.read_text())
        for name in names
        if (file := folder / f"{name}.json").exists()
    }
    print(table(found))
    if missing := [name for name in names if name not in found]:
        print(f"not yet run: {', '.join(missing)}; the same command goes on")
    if missing or any(not row["passed"] for rows in found.values() for row in rows):
        sys.exit(1)


def chosen(config: Config) -> list[str]:
    """The pieces to run, in their order.

    Raises:
        UserError: one is unknown.
    """
    names = config.only.split(",") if config.only else list(PIECES)
    for name in names:
        require(name in PIECES, f"there is no piece {name!r}: they are {', '.join(PIECES)}")
    if not config.only and not config.cifar:
        names.remove("cifar")
    if "cifar" in names and not (Path(config.cifar) / "train.npz").exists():
        raise UserError("the piece cifar needs --cifar FOLDER with train.npz and test.npz")
    return [name for name in PIECES if name in names]


def run_piece(name: str, config: Config, folder: Path) -> None:
    """Run one piece in a process of its own; its output goes to PIECE.log."""
    script, minutes = PIECES[name]
    command = [sys.executable, str(BENCH / script), name, str(folder.absolute())]
    command += [str(Path(config.cifar).absolute())] if name == "cifar" else []
    command += ["--small"] if config.small else []
    print(f"{name}...", end=" ", flush=True)
    began = time.monotonic()
    with (folder / f"{name}.log").open("w") as log:
        try:
            status = subprocess.run(
                command, stdout=log, stderr=subprocess.STDOUT, check=False, timeout=minutes * 60
            ).returncode
        except subprocess.TimeoutExpired:
            status = 124
    how = "done" if status == 0 else f"failed with status {status}, see {folder / name}.log"
    print(f"{how} in {time.monotonic() - began:.0f} s", flush=True)


def table(found: dict[str, list[dict[str, Any]]]) -> str:
    """Format every figure in a line of at most 80 columns."""
    lines = []
    for name, rows in found.items():
        lines.append(name)
        for row in rows:
            value = row["value"]
            text = value if isinstance(value, str) else f"{value:.4g}"
            bound = "" if row["bound"] is None else f"  ({row['bound']})"
            end = "" if row["passed"] else "  MISSED"
            lines.append(f"  {row['name'][:40]:<40} {text:>10} {row['unit']}{bound}{end}")
    return "\n".join(lines)


def command() -> None:
    """Run from the command line."""
    launch(main, Config)


if __name__ == "__main__":
    command()
