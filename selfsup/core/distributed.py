"""Processes: the only file that depends on their number.

A process has a contiguous slice of each global batch, in rank order, so that rows gathered from
all processes are in the order of the global batch.
"""

import ctypes
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list
from torch import Tensor

from selfsup.core.errors import UserError, require
from selfsup.core.notices import notice
from selfsup.core.processors import APPLE_FALLBACK, DEVICE, kind_of_device, unused_gpu

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
LARGEST = 32 << 20  # bytes; glibc takes no more


def keep_freed_memory() -> None:
    """Keep the memory of freed tensors for new ones, instead of returning it to the system.

    By default glibc returns large blocks at once, and the next step has to map their pages again:
    a batch of small crops takes twice the time on a CPU. Without glibc this does nothing.
    """
    if sys.platform != "linux":
        return
    with suppress(AttributeError, OSError):  # not glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, LARGEST)
        mallopt(TRIM_THRESHOLD, 1 << 30)


T = TypeVar("T")
PLACE = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", DEVICE}
"""Variables that say which of several processes this one is, and on which device."""


def start(*, track: str = "", folder: str = "") -> Accelerator:
    """Join the other processes, with the device and precision of the launcher.

    Args:
        track: name of a tracker of accelerate; empty for none.
        folder: where the tracker writes.

    Raises:
        UserError: accelerate has no tracker of that name, or the launcher asks for what a run
            cannot do.
    """
    _refuse_of_launcher()
    keep_freed_memory()
    # other processes wait while the main one evaluates, which may take hours
    patience = InitProcessGroupKwargs(timeout=timedelta(hours=12))
    if warning := unused_gpu():
        notice(warning)
    cpu = kind_of_device() == "cpu"
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
        raise UserError(
            f"accelerate has no tracker {track!r}. Use one such as --track tensorboard"
        ) from None


def _refuse_of_launcher() -> None:
    """Refuse what `accelerate launch` may ask for and a run would do wrongly.

    Raises:
        UserError: it asks for sharded weights, another accumulation of gradients, or fp8.
    """
    for plugin, name in (
        ("DEEPSPEED", "DeepSpeed"),
        ("FSDP", "FSDP"),
        ("MEGATRON_LM", "Megatron-LM"),
        ("PARALLELISM_CONFIG", "a parallelism config"),
    ):
        require(
            os.environ.get(f"ACCELERATE_USE_{plugin}", "false").lower() != "true",
            f"accelerate was configured with {name}, which splits weights, and every process needs "
            "them whole: choose multi-GPU in `accelerate config`, and --micro-batch to save memory",
        )
    steps = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    require(
        steps == "1",
        f"accelerate was configured to accumulate gradients over {steps} steps, which would divide "
        "them: leave it at 1. --micro-batch saves the same memory and changes nothing",
    )
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    require(
        precision in ("", "no", "fp16", "bf16"),
        f"accelerate was configured with {precision} precision: choose no, fp16 or bf16",
    )


def launch_environment(precision: str, device: str) -> dict[str, str]:
    """Return environment variables for new processes: one thread, on a CPU or a kind of GPU.

    What tells this process its place among others is left out.
    """
    more = {"OMP_NUM_THREADS": "1", "ACCELERATE_MIXED_PRECISION": precision}
    if device == "cpu":
        more["CUDA_VISIBLE_DEVICES"] = ""
    if device == "mps":
        more |= {DEVICE: device, APPLE_FALLBACK: "1"}
    inherited = {name: value for name, value in os.environ.items() if name not in PLACE}
    return inherited | more


def world() -> tuple[int, int]:
    """Return this process's rank and the number of processes."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def launched() -> tuple[int, int]:
    """Return this process's number and how many the launcher started, without joining them."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def local_device() -> torch.device:
    """Return this process's device without joining the others: a GPU of the machine, or the CPU.

    Raises:
        UserError: see `kind_of_device`.
    """
    kind = kind_of_device()
    if kind != "cuda":
        return torch.device(kind)
    place = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
    return torch.device("cuda", place)


def local_slice(total: int, rank: int, size: int) -> slice:
    """Return the rows of process `rank` of `size`: contiguous, with sizes that differ by 1 at most.

    7 rows on 2 processes are 0 to 2 and 3 to 6.
    """
    return slice(total * rank // size, total * (rank + 1) // size)


def group_of_hosts() -> Any:
    """Make a process group that sends tensors of the CPU; None where the usual one does."""
    if world()[1] == 1 or dist.get_backend() == "gloo":
        return None
    return dist.new_group(backend="gloo")


def gather_rows(x: Tensor, *, group: Any = None) -> Tensor:
    """Gather rows of all processes in rank order, without gradient; each has as many rows."""
    (rows,) = gather_fields([x], group=group)
    return rows


def gather_fields(fields: Sequence[Tensor], *, group: Any = None) -> list[Tensor]:
    """Gather the rows of several tensors as `gather_rows` does; those of one type in one message.

    Every field has the same number of rows, on every process. Tensors of the CPU need a `group`
    from `group_of_hosts`.
    """
    gathered = [field.detach() for field in fields]
    _, size = world()
    if size == 1:
        return gathered
    widths = [math.prod(field.shape[1:]) for field in gathered]
    for dtype in dict.fromkeys(field.dtype for field in gathered):
        chosen = [i for i, field in enumerate(gathered) if field.dtype == dtype]
        local = [gathered[i].reshape(len(gathered[i]), widths[i]) for i in chosen]
        rows = torch.cat(local, 1)
        every = rows.new_empty(size * rows.shape[0], rows.shape[1])
        dist.all_gather(list(every.chunk(size)), rows, group=group)
        columns = every.split([widths[i] for i in chosen], 1)
        for i, values in zip(chosen, columns, strict=True):
            gathered[i] = values.reshape(len(every), *gathered[i].shape[1:])
    return gathered


def add_up(tensors: Sequence[Tensor]) -> None:
    """Replace each tensor by its sum over all processes, in place."""
    for tensor in tensors:
        dist.all_reduce(tensor)


def gather_uneven(x: Tensor) -> Tensor:
    """Gather rows of the CPU of all processes in rank order, where their numbers differ.

    They pass from host to host, and into their place: a GPU need not hold them all.
    """
    counts = gather_objects(len(x))
    rows = x.new_empty(sum(counts), *x.shape[1:])
    group = group_of_hosts()
    for rank, part in enumerate(rows.split(counts)):
        if rank == world()[0]:
            part.copy_(x)
        dist.broadcast(part, src=rank, group=group)
    if group is not None:
        dist.destroy_process_group(group)
    return rows


def share_from_main(tensors: Sequence[Tensor]) -> None:
    """Overwrite tensors by those of the main process, in place."""
    if world()[1] > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0)


def gather_objects(value: T) -> list[T]:
    """Gather a value of each process, in rank order, on every process."""
    _, size = world()
    if size == 1:
        return [value]
    values: list[Any] = [None] * size
    dist.all_gather_object(values, value)
    return values


def from_main(value: T) -> T:
    """Broadcast the main process's value to every process."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


def on_main(work: Callable[[], T]) -> T:
    """Call `work` on the main process alone, and return its result on every process.

    Raises:
        UserError: `work` raised it; so that all processes end for the same reason.
    """
    outcome: T | UserError | None = None
    if world()[0] == 0:
        try:
            outcome = work()
        except UserError as error:
            outcome = error
    outcome = from_main(outcome)
    if isinstance(outcome, UserError):
        raise outcome
    return outcome  # type: ignore[return-value]


class Vote:
    """Agree after each step whether any process asks to stop, without waiting for an answer.

    A vote is counted while the next step runs, so that all stop one step after the request. It has
    a process group of its own: gradients are summed in the order of the other one's calls.
    """

    def __init__(self) -> None:
        """Join the other processes; all have to."""
        _, size = world()
        self.group = dist.new_group(backend="gloo") if size > 1 else None
        self.pending: tuple[Any, Tensor] | None = None

    def __call__(self, request: int) -> int:
        """Ask with a number above 0; return the largest that any process has asked with before."""
        if self.group is None:
            return request
        assert self.group != dist.GroupMember.NON_GROUP_MEMBER
        answer = self.close()
        ballot = torch.tensor(request)
        work = dist.all_reduce(ballot, op=dist.ReduceOp.MAX, group=self.group, async_op=True)
        self.pending = work, ballot
        return answer

    def close(self) -> int:
        """Count the last vote; return its result."""
        if self.pending is None:
            return 0
        work, ballot = self.pending
        work.wait()
        self.pending = None
        return int(ballot)


def wait() -> None:
    """Wait until all processes reach this point."""
    _, size = world()
    if size > 1:
        dist.barrier()


@contextmanager
def main_process_first() -> Iterator[None]:
    """Let one process of each machine do something, such as filling a cache, before the others."""
    first = int(os.environ.get("LOCAL_RANK", "0")) == 0
    if not first:
        wait()
    try:
        yield
    finally:
        if first:
            wait()


def finish() -> None:
    """Close the process group once all processes are done: closing it earlier aborts the others."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def is_main() -> bool:
    """Return whether this is the main process; this works before the processes have joined."""
    return int(os.environ.get("RANK", "0")) == 0
