"""Cross-entropy of a linear classifier over many rows, and its gradient, block by block.

On a CPU and for few classes a compiled loop is quickest; elsewhere torch's products are. Both sum
the same terms.

Shape letters: n rows, d width, c classes.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from selfsup.core import compiled
from selfsup.core.compiled import kernel
from selfsup.core.threads import job_slices, map_ordered

CHUNK = 2048  # rows at a time, which stay in the cache between the logits and the gradient
HELD = 1 << 28  # bytes of gradients of blocks that wait to be added up
FEW = 32  # classes up to which the compiled loop is quicker than two thin products


class Summed(NamedTuple):
    """Loss and gradients, summed over rows."""

    loss: float
    """In nats."""
    by_weight: Tensor
    """float32 [c, d]."""
    by_bias: Tensor
    """float32 [c]."""


def cross_entropy(x: Tensor, classes: Tensor, weight: Tensor, bias: Tensor) -> Summed:
    """Sum the cross-entropy over rows, and its gradients.

    Args:
        x: float32 [n, d].
        classes: int64 [n] from 0 to c - 1.
        weight: float32 [c, d].
        bias: float32 [c].
    """
    loops = x.device.type == "cpu" and len(bias) <= FEW and compiled.available()
    work = partial(_by_loops if loops else _by_products, weight=weight.contiguous(), bias=bias)
    blocks = list(zip(x.split(CHUNK), classes.split(CHUNK), strict=True))

    def sum_blocks(which: slice) -> list[Summed]:
        return [work(*block) for block in blocks[which]]

    loss, by_weight, by_bias = 0.0, torch.zeros_like(weight), torch.zeros_like(bias)
    # many blocks a job, since a thread that waits for its next one does nothing
    for done in map_ordered(job_slices(len(blocks), room=HELD // weight.nbytes), sum_blocks):
        for block in done:  # added up in their order, so that threads do not matter
            loss += block.loss
            by_weight += block.by_weight
            by_bias += block.by_bias
    return Summed(loss, by_weight, by_bias)


def _by_products(x: Tensor, classes: Tensor, weight: Tensor, bias: Tensor) -> Summed:
    # a class for each row: the other way round these thin products take four times as long
    logits = torch.addmm(bias[:, None], weight, x.T)  # [c, rows]
    logits -= logits.logsumexp(0)
    true = classes[None]
    loss = -float(logits.gather(0, true).double().sum())
    by_logits = logits.exp_()
    by_logits.scatter_add_(0, true, by_logits.new_full((1, len(x)), -1.0))
    return Summed(loss, by_logits @ x, by_logits.sum(1))


def _by_loops(x: Tensor, classes: Tensor, weight: Tensor, bias: Tensor) -> Summed:
    by_weight, by_bias = torch.zeros_like(weight), torch.zeros_like(bias)
    fields = (x, classes, weight, bias, by_weight, by_bias)
    loss = _sum_four_rows(*(field.numpy() for field in fields))
    return Summed(float(loss), by_weight, by_bias)


@kernel
def _sum_four_rows(x, classes, weight, bias, by_weight, by_bias):  # type: ignore[no-untyped-def]
    """Take four rows at a time, which stay in the fastest cache from logits to gradients."""
    n, d = x.shape
    c, total = len(bias), 0.0
    by_logits = np.zeros((4, c), np.float32)
    for i in range(0, n, 4):
        rows = min(4, n - i)
        x0, x1, x2, x3 = x[i], x[min(i + 1, n - 1)], x[min(i + 2, n - 1)], x[min(i + 3, n - 1)]
        for k in range(c):
            w = weight[k]
            z0 = z1 = z2 = z3 = np.float32(0)
            for j in range(d):
                z0 += w[j] * x0[j]
                z1 += w[j] * x1[j]
                z2 += w[j] * x2[j]
                z3 += w[j] * x3[j]
            by_logits[0, k], by_logits[1, k] = z0 + bias[k], z1 + bias[k]
            by_logits[2, k], by_logits[3, k] = z2 + bias[k], z3 + bias[k]
        for r in range(rows):
            p, true = by_logits[r], classes[i + r]
            most, own = p.max(), p[true]
            p[:] = np.exp(p - most)
            summed = p.sum()
            total += np.log(np.float64(summed)) + most - own
            p *= 1 / summed
            p[true] -= 1
            by_bias += p
        by_logits[rows:] = 0
        for k in range(c):
            g = by_weight[k]
            p0, p1, p2, p3 = by_logits[0, k], by_logits[1, k], by_logits[2, k], by_logits[3, k]
            for j in range(d):
                g[j] += p0 * x0[j] + p1 * x1[j] + p2 * x2[j] + p3 * x3[j]
    return total
