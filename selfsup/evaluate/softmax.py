"""Cross-entropy of a linear classifier over many rows, and its gradient, in parts.

Shape letters: n rows, d width, c classes.
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from selfsup import compiled
from selfsup.threads import in_turn, shares

CHUNK = 2048  # rows at a time, which stay in the cache between the logits and the gradient
HELD = 1 << 28  # bytes of gradients of parts that wait to be added up
FEW = 32  # classes up to which the compiled loop is quicker than two thin products


class Summed(NamedTuple):
    """Over all rows."""

    loss: float
    """In nats."""
    by_weight: Tensor
    """float32 [c, d]."""
    by_bias: Tensor
    """float32 [c]."""


def cross_entropy(x: Tensor, classes: Tensor, weight: Tensor, bias: Tensor) -> Summed:
    """The sum over rows, and its derivatives.

    Args:
        x: float32 [n, d].
        classes: int64 [n] from 0 to c - 1.
        weight: float32 [c, d].
        bias: float32 [c].
    """
    few = len(bias) <= FEW and compiled.available()
    work = partial(_compiled if few else _of_part, weight=weight.contiguous(), bias=bias)
    parts = list(zip(x.split(CHUNK), classes.split(CHUNK), strict=True))

    def share(which: slice) -> list[Summed]:
        return [work(*part) for part in parts[which]]

    loss, by_weight, by_bias = 0.0, torch.zeros_like(weight), torch.zeros_like(bias)
    # many parts a job, since a thread that waits for its next one does nothing
    for done in in_turn(shares(len(parts), room=HELD // weight.nbytes), share):
        for part in done:  # added up in their order, so that threads do not matter
            loss += part.loss
            by_weight += part.by_weight
            by_bias += part.by_bias
    return Summed(loss, by_weight, by_bias)


def _of_part(x: Tensor, classes: Tensor, weight: Tensor, bias: Tensor) -> Summed:
    # a class for each row: the other way round these thin products take four times as long
    logits = torch.addmm(bias[:, None], weight, x.T)  # [c, rows]
    logits -= logits.logsumexp(0)
    true = classes[None]
    loss = -float(logits.gather(0, true).double().sum())
    share = logits.exp_()
    share.scatter_add_(0, true, torch.full((1, len(x)), -1.0))
    return Summed(loss, share @ x, share.sum(1))


def _compiled(x: Tensor, classes: Tensor, weight: Tensor, bias: Tensor) -> Summed:
    from selfsup.evaluate.softmax_loop import four_rows

    by_weight, by_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    fields = (x, classes, weight, bias, by_weight, by_bias)
    loss = four_rows(*(field.numpy() for field in fields))
    return Summed(float(loss), by_weight, by_bias)
