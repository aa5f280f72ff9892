"""What the pieces of tools/gpu_check.py share: a figure with its bound, timing, and the end."""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from selfsup.core.distributed import local_device
from selfsup.core.transfers import wait_for

EXACT = ("methods", "doctor", "resume")
"""Pieces whose bounds hold in the small form too."""
DEVICE = local_device()


class Figure(NamedTuple):
    """One line of the table."""

    name: str
    value: float | str
    unit: str = ""
    bound: str | None = None
    """What it should be, in words."""
    passed: bool = True


def at_most(name: str, value: float, bound: float, unit: str = "") -> Figure:
    """A figure that should be `bound` or less."""
    return Figure(name, value, unit, f"at most {bound:g}", value <= bound)


def at_least(name: str, value: float, bound: float, unit: str = "") -> Figure:
    """A figure that should be `bound` or more."""
    return Figure(name, value, unit, f"at least {bound:g}", value >= bound)


class Cost(NamedTuple):
    """What a piece of work costs on the device."""

    ms: float
    """Median."""
    megabytes: float
    """Peak above what was there before; 0 on a CPU."""


def cost(work: Callable[[], Any], rounds: int) -> Cost:
    """Median time by the device's own clock, after three rounds that are not counted."""
    for _ in range(3):
        work()
    if DEVICE.type != "cuda":
        seconds = []
        for _ in range(rounds):
            wait_for(DEVICE)
            began = time.perf_counter()
            work()
            wait_for(DEVICE)
            seconds.append(time.perf_counter() - began)
        return Cost(statistics.median(seconds) * 1e3, 0.0)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    spent = []
    for _ in range(rounds):
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        work()
        last.record()
        last.synchronize()
        spent.append(first.elapsed_time(last))
    peak = torch.cuda.max_memory_allocated() - before
    return Cost(statistics.median(spent), peak / 2**20)


class Piece(NamedTuple):
    """What the command line says: which piece, where its result goes, at what size."""

    name: str
    folder: Path
    rest: list[str]
    small: bool


Pieces = dict[str, Callable[[Piece], list[Figure]]]


def run_pieces(pieces: Pieces) -> None:
    """Run the piece that the command line names, and write its figures when all are there."""
    args = [arg for arg in sys.argv[1:] if arg != "--small"]
    piece = Piece(args[0], Path(args[1]), args[2:], "--small" in sys.argv)
    figures = pieces[piece.name](piece)
    if piece.small and piece.name not in EXACT:
        figures = [figure._replace(bound=None, passed=True) for figure in figures]
    text = json.dumps([figure._asdict() for figure in figures], indent=1)
    part = piece.folder / f".{piece.name}.part"
    part.write_text(text)
    part.replace(piece.folder / f"{piece.name}.json")
