"""NT-Xent in half the products: the matrix of similarities is symmetric.

s_ij = s_ji, so only the blocks on and above the diagonal are computed; each is used for its rows
and for its columns. Rows have length 1, so s / T is at most 1 / T, and exp(s / T) needs no running
maximum. The gradient is computed during forward, while blocks are still there.

Example, three rows at T = 1 with s_01 = 0.5, s_02 = 0 and s_12 = -0.5:

    E = exp(s / T):  E_01 = 1.65, E_02 = 1, E_12 = 0.61: three products for six entries
    row sums L:      L_0 = 1.65 + 1 = 2.65, L_1 = 1.65 + 0.61 = 2.26, L_2 = 1 + 0.61 = 1.61
    gradient at z_0: E_01 (1 / L_0 + 1 / L_1) z_1 + E_02 (1 / L_0 + 1 / L_2) z_2, less its positive

since s_01 stands in the softmax of row 0 and in that of row 1.

Shape letters: n images; m rows, twice the images; d width.
"""

from collections.abc import Callable
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from selfsup.core.numerics import full_precision, unit_rows, unit_rows_back
from selfsup.losses.row_blocks import block_size
from selfsup.losses.shares import Share, share_of

BLOCK_ROWS = 768  # rows and columns of a block on a CPU
CACHED_BLOCKS = 8  # kept for the gradient, 19 MB of float32; the others are computed again
MIN_TEMPERATURE = {torch.float32: 1 / 72, torch.float64: 1 / 690}
"""Below this temperature sums of exp(1 / T) overflow."""

Block = tuple[slice, slice]
"""The rows and the columns of a block of the matrix."""
ExpBlock = Callable[[slice, slice], Tensor]
"""Computes a block of exp(s / T), its diagonal 0, from its rows and columns. Valid until the next
call."""


def cross_entropy_of_views(
    a: Tensor, b: Tensor, temperature: float, products: torch.dtype
) -> Tensor:
    """Mean over both views' rows of -log softmax at the other view; a row is not its own candidate.

    Args:
        a: [n, d] first views, in any scale.
        b: [n, d] second views.
        temperature: divides cosines; not below `MIN_TEMPERATURE`.
        products: in which matrices are multiplied; all else is in the type of a and b.
    """
    loss: Tensor = _CrossEntropy.apply(a, b, temperature, products)
    return loss


class _CrossEntropy(torch.autograd.Function):
    """Loss = 1/m sum over i of (log L_i - s_ip / T), L_i = sum over j != i of E_ij = exp(s_ij / T).

    Gradient at row i: 1 / (m T) (sum over j of E_ij (1 / L_i + 1 / L_j) z_j - 2 z_p), brought back
    through the normalisation. It is computed with the value; backward multiplies it by a number.
    """

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, temperature: float, products: torch.dtype
    ) -> Tensor:
        with full_precision(a):
            z, length = unit_rows(torch.cat([a, b]))
            n, m = len(a), 2 * len(a)
            positive = (z[:n] * z[n:]).sum(1).mean() / temperature
            factors = z.to(products)
            share = share_of(m, z.numel() * n, z.device)
            blocks = _upper_blocks(m, z.device, share)
            sums, exp_block = _row_sums(z, factors, temperature, blocks)
            share.add_up([sums])
            loss: Tensor = sums.log().mean() - positive
            if any(ctx.needs_input_grad):
                gradient = _softmax_gradient(factors, 1 / sums, exp_block, blocks)
                share.add_up([gradient])
                gradient[:n].sub_(z[n:], alpha=2)
                gradient[n:].sub_(z[:n], alpha=2)
                unit_rows_back(gradient, z, length)
                ctx.save_for_backward(gradient.div_(m * temperature))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        first, second = gradient.chunk(2)
        return first * grad_outputs[0], second * grad_outputs[0], None, None


def _row_sums(
    z: Tensor, factors: Tensor, temperature: float, blocks: list[Block]
) -> tuple[Tensor, ExpBlock]:
    """L_i = sum over j != i in the blocks of exp(s_ij / T), [m], and a function that computes one.

    The blocks of all processes are all of the matrix.
    """
    cache: dict[tuple[int, int], Tensor] = {}
    largest = max((rows.stop - rows.start for rows, _ in blocks), default=0)
    buffer = z.new_empty(largest**2)

    def exp_block(rows: slice, columns: slice) -> Tensor:
        if (rows.start, columns.start) in cache:
            return cache.pop((rows.start, columns.start))
        shape = rows.stop - rows.start, columns.stop - columns.start
        out = buffer[: shape[0] * shape[1]].view(shape)
        scaled = (z[rows] / temperature).to(factors.dtype)
        if factors.dtype == z.dtype:
            torch.mm(scaled, factors[columns].T, out=out)
        else:
            out.copy_(scaled @ factors[columns].T)
        out.exp_()
        if rows == columns:
            out.fill_diagonal_(0)
        return out

    sums: Tensor = buffer.new_zeros(len(z))
    for rows, columns in blocks:
        exponentials = exp_block(rows, columns)
        sums[rows] += exponentials.sum(1)
        if rows != columns:
            sums[columns] += exponentials.sum(0)
        if len(cache) < CACHED_BLOCKS:
            cache[rows.start, columns.start] = exponentials.clone()
    return sums, exp_block


def _softmax_gradient(
    factors: Tensor, inverse_sums: Tensor, exp_block: ExpBlock, blocks: list[Block]
) -> Tensor:
    """Sum over j in the blocks of E_ij (1 / L_i + 1 / L_j) z_j. [m, d]."""
    gradient = torch.zeros_like(factors, dtype=inverse_sums.dtype)
    for rows, columns in blocks:
        weights = exp_block(rows, columns).mul_(inverse_sums[rows, None] + inverse_sums[columns])
        weights = weights.to(factors.dtype)
        _add_product(gradient[rows], weights, factors[columns])
        if rows != columns:
            _add_product(gradient[columns], weights.T, factors[rows])
    return gradient


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a @ b to `total`, in place."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total.add_(a @ b)


def block_rows(device: torch.device) -> int:
    """Return how many rows and columns a block has."""
    return BLOCK_ROWS if device.type == "cpu" else isqrt(block_size(device))


def _upper_blocks(m: int, device: torch.device, share: Share) -> list[Block]:
    """The rows and columns of this process's blocks, of those on and above the diagonal."""
    most = max(1, -(-m // share.processes))  # rows, so that there are blocks for every process
    size = min(block_rows(device), most)
    strips = [slice(start, min(m, start + size)) for start in range(0, m, size)]
    blocks = [(rows, columns) for i, rows in enumerate(strips) for columns in strips[i:]]
    return blocks[share.rank :: share.processes]
