"""Precision and length of rows: what losses, training and search share.

Shape letters: n rows, d embedding width.
"""

import math
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

SMALLEST_NORM = 1e-8  # a shorter row gets no gradient: it would be 1e8 times the loss's
WITHOUT_FLOAT64 = {"mps"}
"""Kinds of device that have no float64: Apple's GPUs."""


def full_precision(like: Tensor) -> AbstractContextManager[None]:
    """Switch autocast off: half precision blurs similarities, and `.float()` alone is undone."""
    return torch.autocast(like.device.type, enabled=False)


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half precision to float32; float32 and float64 stay."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64."""
    return device.type not in WITHOUT_FLOAT64


def with_float64(x: Tensor) -> Tensor:
    """Return the tensor where it can become float64: on the host, if its device has none.

    Few numbers need that, and an Apple GPU shares the memory of its host. Differentiable.
    """
    return x if has_float64(x.device) else x.cpu()


def float64_norm(x: Tensor, *, dim: int, keepdim: bool = False) -> Tensor:
    """Compute Euclidean lengths in float64, of which the square of 1e25 or of 1e-30 is a number."""
    x = with_float64(x)
    length: Tensor = torch.linalg.vector_norm(x, dim=dim, keepdim=keepdim, dtype=torch.float64)
    return length


def normalize(x: Tensor) -> Tensor:
    """Scale rows to length 1. [n, d] -> [n, d]. Rows of zeros stay zeros.

    A row shorter than 1e-8 has gradient zero, where dividing by a tiny norm would send gradients of
    1e11 backward.
    """
    z: Tensor = _Normalize.apply(x)
    return z


class _Normalize(torch.autograd.Function):
    """Normalize rows; backward needs only the result and the lengths."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        z, length = unit_rows(x)
        ctx.save_for_backward(z, length)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return unit_rows_back(gradients[0].clone(), *ctx.saved_tensors)


def unit_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale rows to length 1. Returns the rows [n, d] and the divisors of their gradients [n, 1].

    The divisor is the length, and infinite below 1e-8. Squares of a row of 1e25 or of 1e-30, which
    are infinite or zero in float32, are summed in float64.
    """
    length = float64_norm(x, dim=1, keepdim=True).to(x)
    # the comparisons are false for nan, so that a row with nan stays visible
    divisor = torch.where(length <= SMALLEST_NORM, torch.inf, length)
    return x / torch.where(length == 0, 1, length), divisor


def all_finite(tensors: list[Tensor]) -> Tensor:
    """Whether every number of some tensors is finite: bool, a scalar on their device."""
    if not tensors:
        return torch.tensor(True)
    lengths = torch._foreach_norm(tensors, ord=math.inf)
    return torch.stack([length.isfinite() for length in lengths]).all()


def scale_to_one(x: Tensor) -> Tensor:
    """Divide by a power of two so that the largest entry is from 1/2 to 1. [n, d] -> [n, d].

    Nothing is rounded, and which of two rows is nearer stays as it was. Zeros stay zeros.
    """
    return torch.ldexp(x, -exponent_of(x))


def exponent_of(*rows: Tensor) -> Tensor:
    """The power of two just above the largest entry: 3 for entries up to 5.0. int32, a scalar."""
    largest = torch.stack([x.detach().abs().amax() for x in rows if x.numel()] or [torch.zeros(())])
    return torch.frexp(largest.amax()).exponent.clamp(-126, 126)  # 2 to it is a float32


def singular_values(x: Tensor) -> Tensor:
    """Compute singular values as roots of the smaller Gram matrix's eigenvalues. [n, d] -> [k].

    float64 [min(n, d)], ascending. Values below 1e-8 of the largest are noise of that size: squares
    of float64 have 16 digits, so that their roots have as many as the float32 rows themselves. Of
    2,048 x 2,048 rows that takes under half of the time of a decomposition of the rows.
    """
    x = with_float64(x).double()
    rows = x if x.shape[0] >= x.shape[1] else x.T
    values: Tensor = torch.linalg.eigvalsh(rows.T @ rows)
    return values.clamp(min=0).sqrt()


def unit_rows_back(gradient: Tensor, z: Tensor, length: Tensor) -> Tensor:
    """Propagate a gradient from unit rows z to the rows before scaling, in place. [n, d]."""
    along = (gradient * z).sum(1, keepdim=True)
    return gradient.sub_(z * along).div_(length)
