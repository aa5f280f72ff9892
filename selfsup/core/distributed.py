"""Processes: the only file that knows how many there are.

A process sees a contiguous share of each global batch, in rank order, so that rows gathered from
all processes stand in the order of the global batch.
"""

import ctypes
import os
import sys
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list
from torch import Tensor

from selfsup.core.errors import UserError

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
LARGEST = 32 << 20  # bytes; glibc takes no more


def keep_freed_memory() -> None:
    """Keep what tensors give back for the next ones, instead of handing it to the system.

    glibc otherwise returns blocks of some megabytes at once, and the next step pays for each of
    their pages anew: twice the time of a batch of small crops on a CPU. Elsewhere nothing is done.
    """
    if sys.platform != "linux":
        return
    with suppress(AttributeError, OSError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, LARGEST)
        mallopt(TRIM_THRESHOLD, 1 << 30)


T = TypeVar("T")


def start(*, track: str = "", folder: str = "") -> Accelerator:
    """Join the other processes, with the device and precision of the launcher.

    Raises:
        UserError: accelerate knows no tracker of that name.
    """
    keep_freed_memory()
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=12))  # others wait for a long probe
    cpu = not torch.cuda.is_available()  # Apple's devices have no float64, which distances need
    try:
        return Accelerator(
            cpu=cpu,
            log_with=track or None,
            project_dir=folder or None,
            kwargs_handlers=[patience],
        )
    except ValueError:
        if not track:
            raise
        raise UserError(f"accelerate knows no tracker {track!r}; --track tensorboard") from None


def launch_environment(precision: str, device: str) -> dict[str, str]:
    """Of processes started here, with one thread each, on the CPU or a GPU each."""
    more = {"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": precision}
    if device == "cpu":
        more["CUDA_VISIBLE_DEVICES"] = ""
    return {**os.environ, **more}


def world() -> tuple[int, int]:
    """This process's rank and the number of processes."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def local_slice(total: int, rank: int, size: int) -> slice:
    """The rows of process `rank` of `size`: contiguous, all rows once, sizes one apart at most."""
    return slice(total * rank // size, total * (rank + 1) // size)


def gather_rows(x: Tensor) -> Tensor:
    """Rows of all processes in rank order, without gradient; each has the same number of rows."""
    x = x.detach()
    _, size = world()
    if size == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(size)]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


def gather_uneven(x: Tensor, device: torch.device) -> Tensor:
    """Rows of all processes in rank order, where their numbers differ; the result is on the CPU."""
    counts = gather_objects(len(x))
    padded = torch.zeros(max(counts), *x.shape[1:], dtype=x.dtype)
    padded[: len(x)] = x
    rows = gather_rows(padded.to(device)).cpu().split(max(counts))
    return torch.cat([part[:count] for part, count in zip(rows, counts, strict=True)])


def gather_objects(value: T) -> list[T]:
    """A value of each process, in rank order, on every process."""
    _, size = world()
    if size == 1:
        return [value]
    everyone: list[Any] = [None] * size
    dist.all_gather_object(everyone, value)
    return everyone


def from_main(value: T) -> T:
    """The main process's value, on every process."""
    box = [value]
    broadcast_object_list(box)
    return box[0]


def wait() -> None:
    """Let all processes come to this point."""
    _, size = world()
    if size > 1:
        dist.barrier()


def finish() -> None:
    """Leave together: ending a process group that others still use aborts them."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def is_main() -> bool:
    """Whether this is the main process, also before the processes have joined."""
    return int(os.environ.get("RANK", "0")) == 0
