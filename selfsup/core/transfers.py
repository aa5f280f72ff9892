"""Copies between the host and a device that are waited for as little as can be."""

from collections.abc import Mapping

import torch
from torch import Tensor


def send(x: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Copy a tensor of the host to a device, without waiting for what the device does meanwhile.

    A copy waits for all that the device was given before, unless it is asked not to and the memory
    is pinned. On the CPU, and for a tensor that is on the device already, `x.to` is all there is.
    An Apple GPU, which reads the host's memory, is waited for: `x` may be freed or overwritten.
    """
    x = x if dtype is None else x.to(dtype)
    if device.type == "cuda" and x.device.type == "cpu":
        x = x.pin_memory()
    return x.to(device, non_blocking=device.type != "mps")


def wait_for(device: torch.device) -> None:
    """Wait until a device has done all that it was given; a CPU always has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def fetch(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors of any device to memory of their own on the host, in plain layout.

    A GPU copies all into pinned memory, several times faster than into other, and is waited for
    once. torch keeps that memory for the next call.
    """
    copies = {
        name: x.detach().to(
            "cpu",
            memory_format=torch.contiguous_format,
            copy=True,
            non_blocking=x.device.type == "cuda",
        )
        for name, x in tensors.items()
    }
    for device in {x.device for x in tensors.values()}:
        wait_for(device)
    return copies


class Arriving:
    """A tensor on its way from a device to the host, which goes on meanwhile.

    Example:
        >>> Arriving(torch.tensor([1.0, 2.0])).wait().tolist()
        [1.0, 2.0]
    """

    def __init__(self, x: Tensor) -> None:
        """Begin to copy."""
        # a GPU copies into pinned memory; of an Apple GPU nothing says when it has
        self._host = x.to("cpu", non_blocking=x.device.type != "mps")
        self._copied = None
        if x.device.type == "cuda":
            self._copied = torch.cuda.Event()
            self._copied.record()

    def wait(self) -> Tensor:
        """Return it on the host, once it is there."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._host
