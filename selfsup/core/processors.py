"""Processors of this machine: how many there are, and whether others want them too."""

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from selfsup.core.errors import require

if TYPE_CHECKING:
    import torch

DRIVER = Path("/proc/driver/nvidia/version")
DEVICE = "ACCELERATE_TORCH_DEVICE"
"""accelerate's variable for a device."""
APPLE_FALLBACK = "PYTORCH_ENABLE_MPS_FALLBACK"
"""torch's: what an Apple GPU lacks is computed on the CPU. It is read when torch is imported."""


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


def asked_device() -> str:
    """Kind of device that the launcher asks for by name: cpu, cuda, mps; empty for none.

    torch is not imported.
    """
    if os.environ.get("ACCELERATE_USE_CPU", "false").lower() in ("1", "true", "yes"):
        return "cpu"
    return os.environ.get(DEVICE, "").partition(":")[0]


def kind_of_device() -> str:
    """Kind of device that this process computes on: cuda, mps or cpu.

    A GPU of NVIDIA's is taken wherever there is one, an Apple GPU only where it is asked for.

    Raises:
        UserError: a device is asked for that is not here, or that no command can use.
    """
    import torch

    asked = asked_device()
    here = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if not asked:
        return "cuda" if here["cuda"] else "cpu"
    require(asked in here, f"{DEVICE} is {asked}: it may be {', '.join(here)}")
    require(
        here[asked],
        f"{DEVICE}={asked} asks for a device that torch {torch.__version__} does not find here: "
        "leave the variable out",
    )
    require(
        asked != "mps" or "LOCAL_RANK" not in os.environ,
        "an Apple GPU takes one process: give the command without torchrun or --num_processes",
    )
    return asked


def unused_apple_gpu() -> str:
    """How to use an Apple GPU that nobody has asked for; empty where there is none."""
    import torch

    if asked_device() or not torch.backends.mps.is_available():
        return ""
    return f"{DEVICE}=mps before the command computes on this computer's Apple GPU"


def device_name(device: "torch.device") -> str:
    """What a device is, for people: "this CPU", or the name of a GPU."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "this Apple GPU" if device.type == "mps" else "this CPU"


def unused_gpu() -> str:
    """Say that NVIDIA's driver is here and torch cannot use it; empty where all is as it should.

    A GPU that was hidden by CUDA_VISIBLE_DEVICES or left out by accelerate is not asked for.
    """
    import torch

    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    if torch.cuda.is_available() or hidden or asked_device() == "cpu":
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
