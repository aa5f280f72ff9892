"""Losses of a similarity matrix without the matrix: a block of rows at a time.

Most losses are a mean over anchors, and the term of an anchor needs one row of the matrix that
compares every embedding with every other. `map_rows` computes a block of rows of that matrix,
reduces each row to the loss's term, and frees the block. Memory is linear in the batch.

The gradient is computed during forward, while a block is still there. Example: three anchors with
one similarity each, s = (2, 3, 4), and the loss mean(s^2) = 29 / 3.

    forward   terms s^2 = (4, 9, 16); saved gradient of their *sum*: 2 s = (4, 6, 8)
    backward  autograd gives each row's weight: (1/3, 1/3, 1/3). All equal: (4, 6, 8) / 3. Done.
    otherwise weights (1, 0, 0), as of `terms[0]`: each block is computed again, with its weights.

Shape letters: n anchors, m rows they are compared with, d width, r anchors of one block.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from selfsup.core.numerics import full_precision
from selfsup.losses.measures import Measure, zeros_where
from selfsup.losses.shares import ALONE, Share, share_of

RowFunction = Callable[[Tensor, slice], Tensor]
"""Reduces a block of comparisons [r, m] and the slice of its anchors to one number a row, [r]; or
to [r, k], where only the first column has a gradient and the others are statistics."""

BLOCK_SIZE = 1 << 17  # comparisons in a block: half a megabyte of float32, which stays in a cache
GPU_BLOCK_SIZE = 1 << 26  # of a GPU, a fifth of a gigabyte: its cost is launches, not its cache
GPU_SHARE = 256  # a block has at most one value for so many bytes of the GPU's memory
MIN_ROWS = 32  # of a block: matrix products of fewer rows are slow


def map_rows(
    x: Tensor,
    y: Tensor,
    measure: Measure,
    function: RowFunction,
    *,
    equal_weights: bool | None = None,
) -> Tensor:
    """Compare x with y, and reduce the rows of that [n, m] matrix, without holding it whole.

    Within `shares.shared_out` each process computes a part of the rows, and all get all of them.

    Args:
        x: [n, d] anchors, as `measure.prepare` returns them.
        y: [m, d] rows they are compared with, likewise; may be x itself.
        measure: compares two rows.
        function: gets a block of rows of the matrix, [r, m], and the slice of x that they belong
            to, and returns [r] or [r, k]. It may read what is around it but must not change it, as
            it may be called again in backward. Tensors that it captures get no gradient.
        equal_weights: whether backward brings the same weight for all rows, as from a mean. True:
            the gradient is computed along with the values, and only scaled in backward. False: each
            block is computed again in backward. None: as True, if a look at the weights agrees,
            which waits for a GPU; else as False. True must be so: nothing checks it.

    Returns:
        [n] or [n, k]. Only the first column has a gradient, to x and y; that of others is zero.
    """
    other = None if y is x else y
    terms: Tensor = _MapRows.apply(x, other, measure, function, equal_weights)
    return terms


def log_sum_exp(values: Tensor) -> Tensor:
    """Log of the sum of exp of each row, where some values are -inf. [r, m] -> [r].

    A row of nothing but -inf has -inf and gradient zero.
    """
    top = values.detach().amax(1, keepdim=True).clamp_min(torch.finfo(values.dtype).min)
    total = (values - top).exp().sum(1)
    return torch.where(total > 0, total, 1).log().where(total > 0, -torch.inf) + top[:, 0]


def log_1_plus_sum_exp(values: Tensor) -> Tensor:
    """Log of 1 plus the sum of exp of each row, where any value may be -inf. [r, m] -> [r]."""
    top = values.detach().amax(1, keepdim=True).clamp_min(0)
    return ((values - top).exp().sum(1) + (-top[:, 0]).exp()).log() + top[:, 0]


def block_size(device: torch.device) -> int:
    """Return how many comparisons a block has: on a GPU as many as 2 % of its memory hold."""
    if device.type == "cpu":
        return BLOCK_SIZE
    if device.type != "cuda":
        return GPU_BLOCK_SIZE // 16
    memory: int = torch.cuda.get_device_properties(device).total_memory
    return min(GPU_BLOCK_SIZE, memory // GPU_SHARE)


def split_rows(n: int, m: int, device: torch.device, *, scale: int = 1) -> list[slice]:
    """Split n rows of m comparisons into blocks of `block_size`, of `MIN_ROWS` or more rows.

    On a CPU `scale` times larger ones are faster where little is held beside a block.
    """
    larger = scale if device.type == "cpu" else 1
    rows = larger * max(MIN_ROWS, block_size(device) // max(1, m))
    return [slice(start, min(n, start + rows)) for start in range(0, n, rows)]


class _MapRows(torch.autograd.Function):
    """t_i = f(row i of M(x, y)); gradient sum over i of w_i df(M_i)/dM_i dM_i/d(x, y).

    w are the weights that autograd hands back. Where all are one number w, the gradient is w times
    that of the sum, which forward has saved.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor | None,
        measure: Measure,
        function: RowFunction,
        equal_weights: bool | None,
    ) -> Tensor:
        rows = [x] if y is None else [x, y]  # y None: y is x, and one tensor takes both gradients
        ctx.has_gradient = equal_weights is not False and any(ctx.needs_input_grad)
        ctx.equal_weights = equal_weights
        ctx.compute = partial(_compute_block, x, rows[-1], measure, function)
        ctx.share = share_of(len(x), len(x) * rows[-1].numel(), x.device)
        gradients = zeros_where(rows, ctx.needs_input_grad) if ctx.has_gradient else []
        terms = None
        for block in _blocks(ctx.share, *rows):
            block_terms = ctx.compute(block, None, gradients)
            if terms is None:
                terms = block_terms.new_empty(len(x), *block_terms.shape[1:])
                if ctx.share is not ALONE:
                    terms.zero_()
            terms[block] = block_terms  # at once: a list of small tensors fragments the memory
        terms = x.new_empty(0) if terms is None else terms
        ctx.share.add_up([terms, *(g for g in gradients if g is not None)])
        ctx.save_for_backward(*rows, *gradients)
        ctx.inputs = len(rows)
        return terms

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        rows, gradients = saved[: ctx.inputs], saved[ctx.inputs :]
        weights = grad_outputs[0] if grad_outputs[0].ndim == 1 else grad_outputs[0][:, 0]
        if ctx.has_gradient and (ctx.equal_weights or bool((weights == weights[:1]).all())):
            gradients = [None if g is None else g * weights[0] for g in gradients]
        else:
            gradients = zeros_where(rows, ctx.needs_input_grad)
            for block in _blocks(ctx.share, *rows):
                ctx.compute(block, weights[block], gradients)
            ctx.share.add_up([g for g in gradients if g is not None])
        return (*gradients, *[None] * (5 - len(gradients)))


def _blocks(share: Share, x: Tensor, y: Tensor | None = None) -> Iterator[slice]:
    """The blocks of this process's share of the rows of x."""
    mine = share.rows(len(x))
    for block in split_rows(mine.stop - mine.start, len(x if y is None else y), x.device):
        yield slice(mine.start + block.start, mine.start + block.stop)


def _compute_block(
    x: Tensor,
    y: Tensor,
    measure: Measure,
    function: RowFunction,
    block: slice,
    weights: Tensor | None,
    gradients: Sequence[Tensor | None],
) -> Tensor:
    """The terms of the rows `block` of x. Adds their gradient to `gradients`, unless that is empty.

    The gradient of the sum of terms, or of their sum by `weights` [r]. Rows that need none have
    None among `gradients`.
    """
    with full_precision(x):
        values = measure.values(x[block], y)
        with torch.set_grad_enabled(bool(gradients)):
            terms = function(values.requires_grad_(bool(gradients)), block)
            first = terms if terms.ndim == 1 else terms[:, 0]
        if gradients:
            weights = torch.ones_like(first) if weights is None else weights
            (gradient,) = torch.autograd.grad(first, values, weights)
            to_x = None if gradients[0] is None else gradients[0][block]
            measure.add_gradient(
                gradient, values.detach(), x[block], y, to_x=to_x, to_y=gradients[-1]
            )
    return terms.detach()
