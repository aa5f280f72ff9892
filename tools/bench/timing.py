"""Timing sides of a comparison in one process, in shuffled rounds."""

import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Work = Callable[[], Any]


def paired(
    sides: Mapping[str, Work], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each side in each round, the order shuffled; one round before is not counted.

    A side that gives a float has timed itself.
    """
    spent: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    for turn in range(rounds + 1):
        random.Random(turn).shuffle(order)
        for name in order:
            began = clock()
            own = sides[name]()
            if turn:
                spent[name].append(own if isinstance(own, float) else clock() - began)
    return spent


def peak() -> float:
    """Peak memory of this process, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Elsewhere:
    """A side in a process of its own, whose allocator and threads nobody else has set."""

    def __init__(self, *command: str) -> None:
        """`command` runs `serve`."""
        self.process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self) -> float:
        """Run it once; seconds of CPU time there."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print("go", file=self.process.stdin, flush=True)
        for line in self.process.stdout:  # what libraries print besides is passed over
            if line.startswith("spent "):
                return float(line.split()[1])
        raise RuntimeError("the process of a side has ended")

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def serve(work: Work) -> None:
    """In the other process: run `work` at each line that comes in."""
    for _ in sys.stdin:
        began = time.process_time()
        work()
        print("spent", time.process_time() - began, flush=True)


class Ratio(NamedTuple):
    """How many times one side is faster than another."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        """With the smallest and the largest of the rounds."""
        return f"{self.median:.1f} ({self.low:.1f}-{self.high:.1f})"


def ratio(mine: list[float], peer: list[float], *, per: float = 1.0) -> Ratio:
    """Of the rounds' ratios of seconds; `per` is how much more work the peer's seconds hold."""
    ratios = [b / a / per for a, b in zip(mine, peer, strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def machine() -> str:
    """Processor, system and versions, for the head of a table."""
    import platform
    from pathlib import Path

    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].split(":")[1].strip() if names else cpu
    wide = torch.backends.cpu.get_cpu_capability()
    return f"{cpu}, {wide}, Python {platform.python_version()}, torch {torch.__version__}"
