"""Processors of this machine: how many there are, and whether others want them too."""

import contextlib
import os
import re
from pathlib import Path

DRIVER = Path("/proc/driver/nvidia/version")


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


def unused_gpu() -> str:
    """Say that NVIDIA's driver is here and torch cannot use it; empty where all is as it should.

    A GPU that was hidden by CUDA_VISIBLE_DEVICES or left out by accelerate is not asked for.
    """
    import torch

    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    unwanted = os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("1", "true", "yes")
    if torch.cuda.is_available() or hidden or unwanted:
        return ""
    try:
        text = DRIVER.read_text()
    except (OSError, ValueError):
        return ""
    version = re.search(r"\d+\.\d+(\.\d+)*", text)
    driver = f"NVIDIA's driver {version[0]}" if version else "NVIDIA's driver"
    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    return (
        f"the GPU of this machine is not used: it has {driver}, and torch {torch.__version__} is "
        f"built {built}; `python -c 'import torch; torch.zeros(1).cuda()'` says why not"
    )
