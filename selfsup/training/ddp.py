"""What DistributedDataParallel need not send, since it is equal on all processes."""

import contextlib
from collections.abc import Iterator, Sequence

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from selfsup.methods.memory import Memory
from selfsup.methods.method import Method


def equal_buffers(method: Method) -> list[str]:
    """List the buffers that every process computes from the whole global batch, by name.

    Those of methods themselves and of their memories: queues, centres, a teacher's prototypes.
    Those of networks are not among them: running statistics are of a process's own images.
    """
    return [
        f"{prefix}.{name}".lstrip(".")
        for prefix, module in method.named_modules()
        if isinstance(module, Method | Memory)
        for name, _ in module.named_buffers(recurse=False)
    ]


def leave_equal_buffers_to_processes(method: Method) -> None:
    """Keep DDP from sending equal buffers at each forward pass: 135 MB for a queue of 65,536 x 512.

    Call it before DDP is made. It could not send what lies on the host beside a GPU, either.
    """
    names = [*getattr(method, "_ddp_params_and_buffers_to_ignore", ()), *equal_buffers(method)]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(method, names)


@contextlib.contextmanager
def hidden_from_ddp(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Hide these parameters from DDP, so that it does not all-reduce them.

    Their gradients are equal on all processes. DDP takes the parameters that need a gradient when
    it is made, inside this block.
    """
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
