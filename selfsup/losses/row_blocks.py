"""Values of rows: what a loss needs of a matrix that is too large to keep.

Most losses are a mean over anchors, and each anchor's term needs one row of the matrix that
compares every embedding with every other. `each_row` makes that matrix a block of rows at a time,
takes from each row what the loss needs, and forgets it; the backward pass makes each block again.
So memory is linear in the batch, and a loss is written as the function of a row that it is.

Shape letters: n anchors, m rows they are compared with, d width, r anchors of one block.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from selfsup.core.numerics import full_precision
from selfsup.losses.measures import Measure

Value = Callable[[Tensor, slice], Tensor]
"""Of a block of comparisons [r, m] and where its anchors stand: [r], row by row; or [r, k], whose
first column has a gradient and whose others are figures beside it."""

BLOCK = 1 << 17  # comparisons at a time: half a megabyte of float32, which stays in a cache
LEAST = 32  # rows at a time: of fewer, products are slow


def each_row(x: Tensor, y: Tensor, measure: Measure, value: Value, *, ahead: bool = True) -> Tensor:
    """`value` of every row of the comparisons of x with y, never held as a whole.

    Args:
        x: [n, d] prepared anchors.
        y: [m, d] prepared rows.
        measure: how two rows compare, the one that prepared them.
        value: of each row of a block; it may read any state but may not change it, since it may be
            called a second time for the gradient.
        ahead: make the gradient along with the value, as if all rows weigh the same, which they do
            in a mean. Where they do not, blocks are made again.

    Returns:
        [n] or [n, k], differentiable with respect to x and y in its first column.
    """
    result: Tensor = _EachRow.apply(x, None if y is x else y, measure, value, ahead)
    return result


def log_sum_exp(values: Tensor) -> Tensor:
    """Log of the sum of exp of each row, some of it -inf. [r, m] -> [r].

    A row of nothing but -inf has -inf and gradient zero.
    """
    top = values.detach().amax(1, keepdim=True).clamp_min(torch.finfo(values.dtype).min)
    total = (values - top).exp().sum(1)
    return torch.where(total > 0, total, 1).log().where(total > 0, -torch.inf) + top[:, 0]


def log_1_plus_sum_exp(values: Tensor) -> Tensor:
    """Log of 1 plus the sum of exp of each row, some or all of it -inf. [r, m] -> [r]."""
    top = values.detach().amax(1, keepdim=True).clamp_min(0)
    return ((values - top).exp().sum(1) + (-top[:, 0]).exp()).log() + top[:, 0]


class _EachRow(torch.autograd.Function):
    """Blocks of rows forward and, where their weights differ, once more backward."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, other: Tensor | None, measure: Measure, value: Value, ahead: bool
    ) -> Tensor:
        rows = [x] if other is None else [x, other]  # one place for gradients where they are one
        ctx.ahead = ahead and any(ctx.needs_input_grad)
        ctx.block = partial(_block, x, rows[-1], measure, value)
        ends = [torch.zeros_like(end) for end in rows] if ctx.ahead else []
        whole = x.new_empty(0)
        for part in parts(len(x), len(rows[-1])):
            found = ctx.block(part, None, ends)
            if part.start == 0:
                whole = found.new_empty(len(x), *found.shape[1:])
            whole[part] = found  # at once: small pieces kept for later would fragment the memory
        ctx.save_for_backward(*rows, *ends)
        ctx.rows = len(rows)
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        rows, ends = saved[: ctx.rows], saved[ctx.rows :]
        weight = gradients[0] if gradients[0].ndim == 1 else gradients[0][:, 0]
        if ctx.ahead and bool((weight == weight[:1]).all()):
            ends = [end * weight[0] for end in ends]
        else:
            ends = [torch.zeros_like(end) for end in rows]
            for part in parts(len(rows[0]), len(rows[-1])):
                ctx.block(part, weight[part], ends)
        return (*ends, *[None] * (5 - len(ends)))


def _block(
    x: Tensor,
    y: Tensor,
    measure: Measure,
    value: Value,
    part: slice,
    weight: Tensor | None,
    ends: Sequence[Tensor],
) -> Tensor:
    """The values of the rows `part` of x; adds their gradient to the ends if there are any.

    The gradient of the rows' sum, or of their sum by `weight` [r].
    """
    with full_precision(x):
        block = measure.values(x[part], y)
        with torch.set_grad_enabled(bool(ends)):
            found = value(block.requires_grad_(bool(ends)), part)
            first = found if found.ndim == 1 else found[:, 0]
        if ends:
            weight = torch.ones_like(first) if weight is None else weight
            (gradient,) = torch.autograd.grad(first, block, weight)
            block = block.detach()
            measure.pull(gradient, block, x[part], y, to_x=ends[0][part], to_y=ends[-1])
    return found.detach()


def parts(n: int, m: int, *, times: int = 1) -> list[slice]:
    """Blocks of n rows of m comparisons each: about `BLOCK` of these, `LEAST` rows or more.

    Of work that holds little beside a block, larger ones are faster: `times` as many rows.
    """
    rows = times * max(LEAST, BLOCK // max(1, m))
    return [slice(start, min(n, start + rows)) for start in range(0, n, rows)]
