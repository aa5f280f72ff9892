"""Processors of this machine: how many there are, and whether others want them too."""

import contextlib
import os
from pathlib import Path


def cores() -> int:
    """Number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def waited_for_cores() -> tuple[float, float] | None:
    """Seconds that the threads of this process have computed, and waited for a free core.

    Only Linux counts them: None elsewhere. Threads that have ended are not counted.
    """
    computed = waited = 0.0
    try:
        threads = list(Path("/proc/self/task").iterdir())
        for thread in threads:
            with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
                spent, delayed, _ = (thread / "schedstat").read_text().split()
                computed, waited = computed + int(spent) / 1e9, waited + int(delayed) / 1e9
    except (OSError, ValueError):
        return None
    return (computed, waited) if computed else None
