"""Cross-entropy of two views in half the products: the matrix of similarities is symmetric.

s_ij = s_ji, so only the blocks on and above the diagonal are made, and each serves its rows and its
columns. Rows have length 1, so s / T is at most 1 / T, and exp((s - 1) / T) needs no running
maximum. The gradient at row i is the sum over j of E_ij (1 / L_i + 1 / L_j) z_j less twice its
positive, where E is that exponential and L its sums; it is made with the value.

Shape letters: m rows, twice the images; d width.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from selfsup.numerics import Similarity, full_precision
from selfsup.rows import each_row, log_sum_exp

SIDE = 1024  # of a block, in rows
KEPT = 2048  # up to so many rows, blocks are kept for the gradient: faster, 8 MB of float32
LOWEST = {torch.float32: 2 / 80, torch.float64: 2 / 700}
"""Below this temperature exp((s - 1) / T) can vanish for a whole row, which needs its maximum."""


def cross_entropy_of_views(z: Tensor, temperature: float) -> Tensor:
    """Mean over rows of -log softmax at the row's other view, a row never its own candidate.

    Args:
        z: [m, d] rows of length 1 (or 0); row i and row i + m / 2 are two views.
        temperature: divides similarities.
    """
    if temperature >= LOWEST[z.dtype]:
        loss: Tensor = _CrossEntropy.apply(z, temperature)
        return loss
    m = len(z)

    def value(similar: Tensor, part: slice) -> Tensor:
        other = torch.ones_like(similar, dtype=torch.bool)
        row = torch.arange(len(similar), device=z.device)
        other[row, part.start + row] = False
        positive = similar[row, (part.start + row + m // 2) % m] / temperature
        return log_sum_exp(similar / temperature, other) - positive

    return each_row(z, z, Similarity(normalize=False), value).mean()


class _CrossEntropy(torch.autograd.Function):
    """Value and gradient in one go; backward is one scaling."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, temperature: float) -> Tensor:
        m = len(z)
        with full_precision(z):
            scaled = z / temperature**0.5
            positive = (scaled * scaled.roll(m // 2, 0)).sum(1).mean()
            sums, blocks = _sums(scaled, temperature)
            loss: Tensor = sums.log().mean() + 1 / temperature - positive
            if ctx.needs_input_grad[0]:
                ctx.save_for_backward(_gradient(z, 1 / sums, blocks, temperature))
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * gradients[0], None


Blocks = Callable[[slice, slice], Tensor]


def _sums(scaled: Tensor, temperature: float) -> tuple[Tensor, Blocks]:
    """Each row's sum of exp((s - 1) / T) over the other rows, and a way to any block of these."""
    m = len(scaled)
    kept: dict[tuple[int, int], Tensor] = {}
    space = scaled.new_empty(min(m, SIDE) ** 2)

    def block(rows: slice, columns: slice) -> Tensor:
        if (rows.start, columns.start) in kept:
            return kept.pop((rows.start, columns.start))
        shape = rows.stop - rows.start, columns.stop - columns.start
        out = space[: shape[0] * shape[1]].view(shape)
        torch.mm(scaled[rows], scaled[columns].T, out=out)
        out.sub_(1 / temperature).exp_()
        if rows == columns:
            out.fill_diagonal_(0)
        return out

    sums: Tensor = scaled.new_zeros(m)
    for rows, columns in _upper(m):
        found = block(rows, columns)
        sums[rows] += found.sum(1)
        if rows != columns:
            sums[columns] += found.sum(0)
        if m <= KEPT:
            kept[rows.start, columns.start] = found.clone()
    return sums, block


def _gradient(z: Tensor, inverse: Tensor, block: Blocks, temperature: float) -> Tensor:
    m = len(z)
    gradient: Tensor = -2 * z.roll(m // 2, 0)
    for rows, columns in _upper(m):
        weights = block(rows, columns).mul_(inverse[rows, None] + inverse[columns])
        gradient[rows].addmm_(weights, z[columns])
        if rows != columns:
            gradient[columns].addmm_(weights.T, z[rows])
    gradient /= m * temperature
    return gradient


def _upper(m: int) -> list[tuple[slice, slice]]:
    """Blocks on and above the diagonal."""
    cuts = [slice(start, min(m, start + SIDE)) for start in range(0, m, SIDE)]
    return [(rows, columns) for i, rows in enumerate(cuts) for columns in cuts[i:]]
