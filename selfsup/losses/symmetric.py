"""Cross-entropy of two views in half the products: the matrix of similarities is symmetric.

s_ij = s_ji, so only the blocks on and above the diagonal are made, and each serves its rows and its
columns. Rows have length 1, so s / T is at most 1 / T, and exp(s / T) needs no running maximum. The
gradient at row i is the sum over j of E_ij (1 / L_i + 1 / L_j) z_j less twice its positive, where E
is that exponential and L its sums. It is made with the value, and beside it only the rows are held.

Shape letters: n images; m rows, twice the images; d width.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from selfsup.core.numerics import full_precision, unit_rows, unit_rows_back

SIDE = 768  # of a block, in rows
KEPT = 8  # so many blocks are kept for the gradient, 19 MB of float32; the others are made again
LOWEST = {torch.float32: 1 / 72, torch.float64: 1 / 690}
"""Below this temperature sums of exp(s / T) overflow, and rows need maxima of their own."""


def cross_entropy_of_views(
    a: Tensor, b: Tensor, temperature: float, products: torch.dtype
) -> Tensor:
    """Mean over both views' rows of -log softmax at the other view, a row never its own candidate.

    Args:
        a: [n, d] first views, in any scale.
        b: [n, d] second views.
        temperature: divides cosines; not below `LOWEST`.
        products: in which matrices are multiplied; all else is in the type of a and b.
    """
    loss: Tensor = _CrossEntropy.apply(a, b, temperature, products)
    return loss


class _CrossEntropy(torch.autograd.Function):
    """Value and gradient in one go; backward is one scaling."""

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, b: Tensor, temperature: float, products: torch.dtype
    ) -> Tensor:
        with full_precision(a):
            z, length = unit_rows(torch.cat([a, b]))
            n, m = len(a), 2 * len(a)
            positive = (z[:n] * z[n:]).sum(1).mean() / temperature
            factors = z.to(products)
            sums, block = _sums(z, factors, temperature)
            loss: Tensor = sums.log().mean() - positive
            if any(ctx.needs_input_grad):
                gradient = _gradient(factors, 1 / sums, block)
                gradient[:n].sub_(z[n:], alpha=2)
                gradient[n:].sub_(z[:n], alpha=2)
                unit_rows_back(gradient, z, length)
                ctx.save_for_backward(gradient.div_(m * temperature))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        first, second = gradient.chunk(2)
        return first * gradients[0], second * gradients[0], None, None


Blocks = Callable[[slice, slice], Tensor]


def _sums(z: Tensor, factors: Tensor, temperature: float) -> tuple[Tensor, Blocks]:
    """Each row's sum of exp(s / T) over the other rows, and a way to any block of these."""
    m = len(z)
    kept: dict[tuple[int, int], Tensor] = {}
    space = z.new_empty(min(m, SIDE) ** 2)

    def block(rows: slice, columns: slice) -> Tensor:
        if (rows.start, columns.start) in kept:
            return kept.pop((rows.start, columns.start))
        shape = rows.stop - rows.start, columns.stop - columns.start
        out = space[: shape[0] * shape[1]].view(shape)
        scaled = (z[rows] / temperature).to(factors.dtype)
        if factors.dtype == z.dtype:
            torch.mm(scaled, factors[columns].T, out=out)
        else:
            out.copy_(scaled @ factors[columns].T)
        out.exp_()
        if rows == columns:
            out.fill_diagonal_(0)
        return out

    sums: Tensor = space.new_zeros(m)
    for rows, columns in _upper(m):
        found = block(rows, columns)
        sums[rows] += found.sum(1)
        if rows != columns:
            sums[columns] += found.sum(0)
        if len(kept) < KEPT:
            kept[rows.start, columns.start] = found.clone()
    return sums, block


def _gradient(factors: Tensor, inverse: Tensor, block: Blocks) -> Tensor:
    """The sum over j of E_ij (1 / L_i + 1 / L_j) z_j. [m, d]."""
    gradient = torch.zeros_like(factors, dtype=inverse.dtype)
    for rows, columns in _upper(len(factors)):
        weights = block(rows, columns).mul_(inverse[rows, None] + inverse[columns])
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


def _upper(m: int) -> Iterator[tuple[slice, slice]]:
    """Blocks on and above the diagonal."""
    cuts = [slice(start, min(m, start + SIDE)) for start in range(0, m, SIDE)]
    for i, rows in enumerate(cuts):
        for columns in cuts[i:]:
            yield rows, columns
